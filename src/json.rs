//! JSON payloads: validation, and equality of two texts.
//!
//! Text is stored as it was received, so nothing here builds or prints a document.

use std::{fmt, ops::RangeInclusive};

use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};

use self::decimal::Decimal;
use crate::limits::{MAX_NUMBER_BYTES, MAX_NUMBER_EXPONENT, MAX_PAYLOAD_BYTES, MAX_PAYLOAD_DEPTH};

pub(crate) use document::Document;

mod decimal;
mod document;
mod skip;
mod tokens;
mod tree;

/// Checks that `text` is a JSON object within the limits of [`crate::limits`], which both stores
/// and all common JSON parsers support. The error is meant for the producer.
pub(crate) fn check_object(text: &str) -> Result<(), String> {
    if text.len() > MAX_PAYLOAD_BYTES {
        let bytes = text.len();
        return Err(format!("is {bytes} bytes long; the limit is {MAX_PAYLOAD_BYTES}"));
    }
    let mut reader = serde_json::Deserializer::from_str(text);
    let numbers = Value { depth: 0 }
        .deserialize(&mut reader)
        .and_then(|numbers| reader.end().map(|()| numbers))
        .map_err(|error| format!("is not accepted as JSON: {error}"))?;
    if !text.trim_start().starts_with('{') {
        return Err("must be a JSON object".to_owned());
    }
    match numbers {
        Numbers::Integers => Ok(()),
        Numbers::Floats => check_numbers(text),
    }
}

/// Kinds of numbers in a value.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Numbers {
    /// Only integers that fit in 64 bits, which are short.
    Integers,
    /// Also other numbers, whose text must be checked.
    Floats,
}

/// Visits a value without building it.
struct Value {
    depth: usize,
}

impl Value {
    fn nested<E: serde::de::Error>(&self) -> Result<Self, E> {
        if self.depth == MAX_PAYLOAD_DEPTH {
            return Err(E::custom(format!("nested more than {MAX_PAYLOAD_DEPTH} levels deep")));
        }
        Ok(Self { depth: self.depth + 1 })
    }
}

impl<'de> DeserializeSeed<'de> for Value {
    type Value = Numbers;

    fn deserialize<D: serde::Deserializer<'de>>(self, reader: D) -> Result<Numbers, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Value {
    type Value = Numbers;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Numbers, E> {
        Ok(Numbers::Integers)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Numbers, E> {
        Ok(Numbers::Integers)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Numbers, E> {
        Ok(Numbers::Integers)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Numbers, E> {
        Ok(Numbers::Integers)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Numbers, E> {
        Ok(Numbers::Floats)
    }

    // Reading strings as a whole makes serde_json reject lone surrogates.
    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Numbers, E> {
        if text.contains('\0') {
            return Err(E::custom("the character \\u0000 is not supported"));
        }
        Ok(Numbers::Integers)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Numbers, A::Error> {
        let depth = self.nested::<A::Error>()?.depth;
        let mut numbers = Numbers::Integers;
        while let Some(item) = items.next_element_seed(Value { depth })? {
            numbers = numbers.max(item);
        }
        Ok(numbers)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Numbers, A::Error> {
        let depth = self.nested::<A::Error>()?.depth;
        let mut numbers = Numbers::Integers;
        while entries.next_key_seed(Value { depth })?.is_some() {
            numbers = numbers.max(entries.next_value_seed(Value { depth })?);
        }
        Ok(numbers)
    }
}

const EXPONENTS: RangeInclusive<i64> = -MAX_NUMBER_EXPONENT..=MAX_NUMBER_EXPONENT;

/// Checks the numbers of a valid JSON text. Numbers that overflow a float were rejected by the
/// parser, but not those that underflow to zero.
fn check_numbers(text: &str) -> Result<(), String> {
    for number in numbers(text) {
        if number.len() > MAX_NUMBER_BYTES {
            let bytes = number.len();
            return Err(format!(
                "has a number of {bytes} characters; the limit is {MAX_NUMBER_BYTES}"
            ));
        }
        let whole = number.bytes().all(|byte| byte == b'-' || byte.is_ascii_digit());
        if !whole && !Decimal::of(number.as_bytes()).is_zero() && number.parse() == Ok(0.0) {
            return Err("has a number too small for a 64-bit float".to_owned());
        }
        let exponent = number.split_once(['e', 'E']).map_or(Ok(0), |(_, text)| text.parse::<i64>());
        if !exponent.is_ok_and(|exponent| EXPONENTS.contains(&exponent)) {
            return Err(format!("has a number with an exponent beyond {MAX_NUMBER_EXPONENT}"));
        }
    }
    Ok(())
}

/// The numbers in a valid JSON text.
fn numbers(text: &str) -> impl Iterator<Item = &str> {
    let bytes = text.as_bytes();
    let mut at = 0;
    std::iter::from_fn(move || {
        while let Some(&byte) = bytes.get(at) {
            match byte {
                b'"' => at = end_of_string(bytes, at),
                b'-' | b'0'..=b'9' => {
                    let start = at;
                    while bytes.get(at).is_some_and(|byte| b"+-.eE0123456789".contains(byte)) {
                        at += 1;
                    }
                    return Some(&text[start..at]);
                }
                _ => at += 1,
            }
        }
        None
    })
}

/// The index after the string that starts at `at`.
fn end_of_string(bytes: &[u8], mut at: usize) -> usize {
    at += 1;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_portable_json() {
        for text in [
            "{}",
            " {\"a\" : [1, -2.5e3, true, null, \"\\u00e9\\ud83d\\ude00\"]} ",
            "{\"a\":1,\"a\":2}",
            "{\"n\":9007199254740993,\"m\":1e308,\"z\":0e400,\"t\":5e-324}",
            "{\"text\":\"1e999 is only text, \\\" too\"}",
        ] {
            assert_eq!(check_object(text), Ok(()), "{text}");
        }
    }

    #[test]
    fn rejects_other_json_with_a_reason() {
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(24), "]".repeat(24));
        let long = format!("{{\"a\":0.{}1}}", "0".repeat(MAX_NUMBER_BYTES));
        let large = format!("{{\"a\":\"{}\"}}", "x".repeat(MAX_PAYLOAD_BYTES));
        for (text, reason) in [
            ("", "EOF"),
            ("[1]", "must be a JSON object"),
            ("\"a\"", "must be a JSON object"),
            ("{\"a\":1} x", "trailing"),
            ("{\"a\":1,}", "trailing comma"),
            ("{\"a\":NaN}", "expected value"),
            ("{\"a\":1e400}", "out of range"),
            ("{\"a\":-1e-400}", "too small"),
            ("{\"a\":1e-99999999999999999999}", "too small"),
            ("{\"a\":0e9999999999}", "exponent"),
            ("{\"a\":0e-401}", "exponent"),
            ("{\"a\":0e99999999999999999999}", "exponent"),
            ("{\"a\":0e-9223372036854775808}", "exponent"),
            ("{\"a\":0e9223372036854775807}", "exponent"),
            ("{\"a\":1e-9223372036854775808}", "too small"),
            ("{\"a\":\"\\u0000\"}", "u0000"),
            ("{\"\\u0000\":1}", "u0000"),
            ("{\"a\":\"\\ud800\"}", "hex escape"),
            (deep.as_str(), "deep"),
            (long.as_str(), "characters"),
            (large.as_str(), "bytes long"),
        ] {
            let error = check_object(text).expect_err(&text[..text.len().min(40)]);
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn deepest_payload_is_accepted() {
        let text = format!("{{\"a\":{}{}}}", "[".repeat(23), "]".repeat(23));
        assert_eq!(check_object(&text), Ok(()));
    }
}
