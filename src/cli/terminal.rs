//! Escapes untrusted text (names, payloads, service messages, input lines) for terminals, so that
//! no character can move the cursor, hide text or change its order.

use std::{
    borrow::Cow,
    fmt::{self, Write},
    io::{self, IsTerminal},
};

/// How unsafe characters are escaped.
#[derive(Debug, Clone, Copy)]
pub(super) enum Escape {
    /// `\u{202e}`, for people.
    Plain,
    /// `\u202e`, which leaves JSON text equivalent.
    Json,
}

/// Escapes text if `output` is a terminal. Line feeds and tabs are kept.
pub(super) fn shown<'a>(text: &'a str, escape: Escape, output: &impl IsTerminal) -> Cow<'a, str> {
    match output.is_terminal() {
        true => escaped(text, is_unsafe, escape),
        false => Cow::Borrowed(text),
    }
}

/// Escapes text so that it stays on one line, for any output.
pub(super) fn one_line(text: &str) -> Cow<'_, str> {
    escaped(text, |character| matches!(character, '\n' | '\r'), Escape::Plain)
}

/// Escapes text for a table cell on standard output.
pub(super) fn cell(text: &str) -> String {
    shown(&one_line(text), Escape::Plain, &io::stdout()).into_owned()
}

/// Prints a message to standard error, or drops it if that is closed.
pub(super) fn tell(message: impl fmt::Display) {
    let message = format!("{message}\n");
    let shown = shown(&message, Escape::Plain, &io::stderr());
    let _ = io::Write::write_all(&mut io::stderr(), shown.as_bytes());
}

fn escaped(text: &str, is_escaped: impl Fn(char) -> bool, escape: Escape) -> Cow<'_, str> {
    if !text.contains(&is_escaped) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        match escape {
            _ if !is_escaped(character) => safe.push(character),
            Escape::Plain => safe.extend(character.escape_unicode()),
            Escape::Json => {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    // Writing to a string cannot fail.
                    let _ = write!(safe, "\\u{unit:04x}");
                }
            }
        }
    }
    Cow::Owned(safe)
}

/// Whether a terminal would interpret a character instead of showing it.
fn is_unsafe(character: char) -> bool {
    match character {
        '\n' | '\t' => false,
        // C0, DEL and C1.
        _ if character.is_control() => true,
        // Bidirectional controls, zero-width characters and line separators.
        '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' => true,
        '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' => true,
        // Tag characters, which are invisible.
        '\u{e0000}'..='\u{e007f}' => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminal_control_characters_are_escaped() {
        let all = "a\u{9b}\u{7f}\u{85}\r\u{1b}\u{202e}\u{2028}\u{feff}\u{e0041}b";
        assert_eq!(
            escaped(all, is_unsafe, Escape::Plain),
            r"a\u{9b}\u{7f}\u{85}\u{d}\u{1b}\u{202e}\u{2028}\u{feff}\u{e0041}b"
        );
        let json = format!("\"{}\"", all.replace(['\r', '\u{1b}'], ""));
        let safe = escaped(&json, is_unsafe, Escape::Json);
        assert!(!safe.contains(is_unsafe) && safe.contains(r"\udb40\udc41"), "{safe}");
        let read = |text| serde_json::from_str::<String>(text).expect("JSON");
        assert_eq!(read(&safe), read(&json));
        let harmless = "ü 漢字 👩 a\tb\nc \\u{202e}";
        assert!(matches!(escaped(harmless, is_unsafe, Escape::Plain), Cow::Borrowed(_)));
        assert_eq!(one_line("a\r\nb\u{202e}"), "a\\u{d}\\u{a}b\u{202e}");
    }
}
