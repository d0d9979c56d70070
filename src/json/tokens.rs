//! The tokens of a valid JSON text. Invalid text is not detected, but yields fewer tokens.

use std::borrow::Cow;

use super::skip::end_of_container;

/// A position in a text.
#[derive(Debug, Clone)]
pub(super) struct Tokens<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// The content of a string as written, without its quotes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Raw<'a> {
    bytes: &'a [u8],
    has_escapes: bool,
}

impl<'a> Tokens<'a> {
    pub(super) fn of(text: &'a str) -> Self {
        Self { bytes: text.as_bytes(), at: 0 }
    }

    /// Skips whitespace and returns the next byte without consuming it.
    #[inline]
    pub(super) fn peek(&mut self) -> Option<u8> {
        loop {
            match self.bytes.get(self.at)? {
                b' ' | b'\t' | b'\n' | b'\r' => self.at += 1,
                &byte => return Some(byte),
            }
        }
    }

    /// Consumes the next byte if it is this one, and returns whether it was.
    #[inline]
    pub(super) fn pass(&mut self, byte: u8) -> bool {
        let is_there = self.peek() == Some(byte);
        self.at += usize::from(is_there);
        is_there
    }

    /// Consumes a string.
    #[inline]
    pub(super) fn string(&mut self) -> Option<Raw<'a>> {
        if !self.pass(b'"') {
            return None;
        }
        let start = self.at;
        let mut has_escapes = false;
        loop {
            let rest = self.bytes.get(self.at..)?;
            self.at += rest.iter().position(|&byte| byte == b'"' || byte == b'\\')?;
            if self.bytes[self.at] == b'"' {
                break;
            }
            has_escapes = true;
            self.at += 2;
        }
        let bytes = &self.bytes[start..self.at];
        self.at += 1;
        Some(Raw { bytes, has_escapes })
    }

    /// Consumes the key of a member and the colon.
    pub(super) fn key(&mut self) -> Option<Raw<'a>> {
        let key = self.string()?;
        self.pass(b':').then_some(key)
    }

    /// Consumes a number, `true`, `false` or `null`.
    #[inline]
    pub(super) fn scalar(&mut self) -> Option<&'a [u8]> {
        self.peek()?;
        let rest = &self.bytes[self.at..];
        let is_part =
            |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'z' | b'+' | b'-' | b'.' | b'E');
        let length = rest.iter().position(|byte| !is_part(byte)).unwrap_or(rest.len());
        self.at += length;
        (length > 0).then(|| &rest[..length])
    }

    /// Consumes the next value.
    pub(super) fn skip(&mut self) -> Option<()> {
        match self.peek()? {
            b'{' | b'[' => {
                self.at += 1;
                self.leave()
            }
            b'"' => self.string().map(drop),
            _ => self.scalar().map(drop),
        }
    }

    /// Consumes everything up to the end of the current object or array.
    pub(super) fn leave(&mut self) -> Option<()> {
        self.at = end_of_container(self.bytes, self.at)?;
        Some(())
    }
}

impl<'a> Raw<'a> {
    /// The string with its escapes decoded.
    #[inline]
    pub(super) fn decoded(self) -> Option<Cow<'a, [u8]>> {
        match self.has_escapes {
            true => self.unescaped().map(Cow::Owned),
            false => Some(Cow::Borrowed(self.bytes)),
        }
    }

    fn unescaped(self) -> Option<Vec<u8>> {
        let mut decoded = Vec::with_capacity(self.bytes.len());
        let mut rest = self.bytes;
        while let Some(backslash) = rest.iter().position(|&byte| byte == b'\\') {
            decoded.extend_from_slice(&rest[..backslash]);
            let escape = *rest.get(backslash + 1)?;
            rest = &rest[backslash + 2..];
            let byte = match escape {
                b'b' => 0x08,
                b'f' => 0x0c,
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'u' => {
                    let mut utf8 = [0; 4];
                    let character = character(&mut rest)?.encode_utf8(&mut utf8);
                    decoded.extend_from_slice(character.as_bytes());
                    continue;
                }
                itself => itself,
            };
            decoded.push(byte);
        }
        decoded.extend_from_slice(rest);
        Some(decoded)
    }

    /// Whether this is the same as another, decoded string.
    pub(super) fn is(self, decoded: &[u8]) -> bool {
        match self.has_escapes {
            false => self.bytes == decoded,
            true => self.decoded().is_some_and(|own| *own == *decoded),
        }
    }
}

/// Decodes the part after `\u`: four digits, or a surrogate pair.
fn character(rest: &mut &[u8]) -> Option<char> {
    let first = hex(rest)?;
    if !(0xd800..0xdc00).contains(&first) {
        return char::from_u32(first);
    }
    *rest = rest.strip_prefix(b"\\u")?;
    let second = hex(rest)?.checked_sub(0xdc00).filter(|second| *second < 0x400)?;
    char::from_u32(0x1_0000 + ((first - 0xd800) << 10) + second)
}

fn hex(rest: &mut &[u8]) -> Option<u32> {
    let (digits, behind) = rest.split_at_checked(4)?;
    *rest = behind;
    digits.iter().try_fold(0, |number, &digit| Some(number << 4 | char::from(digit).to_digit(16)?))
}
