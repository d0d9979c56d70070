//! JSON text of payloads: what is accepted, and when two texts mean the same.
//!
//! Text is kept as it was written, so nothing here builds or prints a document.

use std::{
    cell::{Cell, OnceCell},
    fmt,
    ops::RangeInclusive,
};

use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};

use self::{decimal::Decimal, tree::Tree};
use crate::limits::{MAX_NUMBER_BYTES, MAX_NUMBER_EXPONENT, MAX_PAYLOAD_BYTES, MAX_PAYLOAD_DEPTH};

mod decimal;
mod skip;
mod tokens;
mod tree;

/// Checks that `text` is a JSON object within the bounds of [`crate::limits`] that both stores and
/// every common JSON reader can hold. The error says what is wrong, for the person who sent it.
pub(crate) fn check_object(text: &str) -> Result<(), String> {
    if text.len() > MAX_PAYLOAD_BYTES {
        let bytes = text.len();
        return Err(format!("is {bytes} bytes long; at most {MAX_PAYLOAD_BYTES} are taken"));
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

/// Which numbers there are in a value.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Numbers {
    /// At most whole ones that fit 64 bits, and are short for that reason.
    Integers,
    /// Also others, whose form must be looked at.
    Floats,
}

/// Walks one value without keeping anything of it.
struct Value {
    depth: usize,
}

impl Value {
    fn nested<E: serde::de::Error>(&self) -> Result<Self, E> {
        if self.depth == MAX_PAYLOAD_DEPTH {
            return Err(E::custom(format!("nested more than {MAX_PAYLOAD_DEPTH} deep")));
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

    // Reading a string whole is what makes serde_json refuse lone surrogates.
    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Numbers, E> {
        if text.contains('\0') {
            return Err(E::custom("the character \\u0000 cannot be stored"));
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

/// Checks the numbers of a valid JSON text. The reader above has refused those that are too large
/// for a float already, but not those that a float would round to zero.
fn check_numbers(text: &str) -> Result<(), String> {
    for number in numbers(text) {
        if number.len() > MAX_NUMBER_BYTES {
            let bytes = number.len();
            return Err(format!(
                "has a number of {bytes} characters; at most {MAX_NUMBER_BYTES} are taken"
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

/// The index behind the string that begins at `at`.
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

/// A valid JSON text that others are compared with. However many they are, it is read twice at most: once
/// beside a shorter text, which a difference may end early, and once to prepare it for all others.
pub(crate) struct Document<'a> {
    text: &'a str,
    was_compared: Cell<bool>,
    tree: OnceCell<Option<Tree<'a>>>,
}

impl<'a> Document<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, was_compared: Cell::new(false), tree: OnceCell::new() }
    }

    /// Whether another valid JSON text is the same value: white space, the order of keys and the way
    /// numbers are written do not matter; of repeated keys the last one counts. Numbers are compared
    /// exactly, not as floats. This is how PostgreSQL compares `jsonb`. Texts that are not valid are not
    /// the same.
    pub(crate) fn is_same_value(&self, text: &str) -> bool {
        if self.text == text {
            return true;
        }
        if !self.was_compared.replace(true) && text.len() < self.text.len() {
            return Tree::of(text).is_some_and(|tree| tree.is(self.text));
        }
        let tree = self.tree.get_or_init(|| Tree::of(self.text));
        tree.as_ref().is_some_and(|tree| tree.is(text))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::{collection::vec, prelude::*, sample::select};
    use serde_json::value::RawValue;

    use super::*;

    #[test]
    fn accepts_what_every_reader_can_hold() {
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
    fn refuses_the_rest_with_a_reason() {
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
    fn the_deepest_payload_is_accepted() {
        let text = format!("{{\"a\":{}{}}}", "[".repeat(23), "]".repeat(23));
        assert_eq!(check_object(&text), Ok(()));
    }

    #[test]
    fn compares_values_not_text() {
        for (a, b) in [
            ("{\"a\":1,\"b\":[true,null]}", "{ \"b\" : [ true , null ], \"a\":1.0 }"),
            ("{\"a\":100}", "{\"a\":1E+2}"),
            ("{\"a\":-0.0}", "{\"a\":0}"),
            ("{\"a\":0.10}", "{\"a\":1e-1}"),
            ("{\"a\":\"\\u00e9\"}", "{\"a\":\"é\"}"),
            ("{\"a\":1,\"a\":2}", "{\"a\":2}"),
        ] {
            assert!(Document::new(a).is_same_value(b), "{a} {b}");
        }
        for (a, b) in [
            ("{\"a\":9007199254740993}", "{\"a\":9007199254740992}"),
            ("{\"a\":18446744073709551617}", "{\"a\":18446744073709551618}"),
            ("{\"a\":1}", "{\"a\":-1}"),
            ("{\"a\":1}", "{\"a\":\"1\"}"),
            ("{\"a\":10}", "{\"a\":1}"),
            ("{\"a\":[1,2]}", "{\"a\":[2,1]}"),
            ("{\"a\":[1,2]}", "{\"a\":[1]}"),
            ("{\"a\":1,\"b\":2}", "{\"a\":1}"),
            ("{\"a\":{}}", "{\"a\":[]}"),
            ("{\"a\":true}", "{\"a\":\"true\"}"),
            ("{\"a\":null}", "{}"),
            ("{\"e\":\"é\"}", "{\"e\":\"e\u{301}\"}"),
        ] {
            assert!(!Document::new(a).is_same_value(b), "{a} {b}");
        }
    }

    /// What a text means, built as a whole, with each level read by serde_json.
    #[derive(Debug, PartialEq)]
    enum Meaning {
        Object(BTreeMap<String, Meaning>),
        List(Vec<Meaning>),
        Text(String),
        Number(bool, Vec<u8>, i64),
        Word(String),
    }

    fn meaning(text: &str) -> Meaning {
        let text = text.trim_ascii();
        match text.as_bytes()[0] {
            b'{' => {
                let members: BTreeMap<String, &RawValue> = serde_json::from_str(text).expect(text);
                let members = members.into_iter().map(|(key, value)| (key, meaning(value.get())));
                Meaning::Object(members.collect())
            }
            b'[' => {
                let items: Vec<&RawValue> = serde_json::from_str(text).expect(text);
                Meaning::List(items.iter().map(|item| meaning(item.get())).collect())
            }
            b'"' => Meaning::Text(serde_json::from_str(text).expect(text)),
            b'-' | b'0'..=b'9' => number(text),
            _ => Meaning::Word(text.to_owned()),
        }
    }

    fn number(text: &str) -> Meaning {
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits: String = whole.trim_start_matches('-').to_owned() + fraction;
        let significant = digits.trim_start_matches('0');
        let exponent = exponent.parse::<i64>().expect("small") - fraction.len() as i64
            + significant.len() as i64;
        match significant.trim_end_matches('0') {
            "" => Meaning::Number(false, Vec::new(), 0),
            digits => Meaning::Number(text.starts_with('-'), digits.into(), exponent),
        }
    }

    /// A value, written in one of many ways, from few pieces, so that many are the same.
    fn json(depth: u32) -> BoxedStrategy<String> {
        const SCALARS: &[&str] = &[
            "0",
            "-0",
            "0.0e9",
            "1",
            "1.0",
            "10e-1",
            "0.01E+2",
            "-1",
            "100",
            "1e2",
            "12.5",
            "1.25e1",
            "9007199254740993",
            "9007199254740992",
            "true",
            "false",
            "null",
            "\"\"",
            "\"]\"",
            "\"a\\\"}\"",
            "\"\\u00fc\"",
            "\"ü\"",
            "\"\\ud83d\\ude00\"",
            "\"😀\"",
            "\"\\\\\"",
            "\"\\/\"",
            "\"/\"",
        ];
        let scalar = select(SCALARS).prop_map(str::to_owned);
        scalar
            .prop_recursive(depth, 40, 4, |inner| {
                const KEYS: &[&str] =
                    &["\"a\"", "\"b\" ", "\"\\u0061\"", "\"c\"", "\"\\u0062\"", "\"\""];
                let member = (select(KEYS), inner.clone());
                let members = vec(member.prop_map(|(key, value)| format!("{key}:{value}")), 0..5);
                let items = vec(inner, 0..4);
                let space = select(&["", "", " ", "\n\t"][..]);
                prop_oneof![
                    (members, space.clone()).prop_map(|(it, space)| format!(
                        "{{{space}{}{space}}}",
                        it.join(&format!("{space},"))
                    )),
                    (items, space).prop_map(|(it, space)| format!("[{}{space}]", it.join(","))),
                ]
            })
            .boxed()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn compares_as_the_slow_way_does(a in json(3), b in json(3), again in json(2)) {
            let texts = [
                format!("{{\"a\":{a},\"b\":{b}}}"),
                format!("{{\"b\":{b},\"a\":{again}, \"\\u0061\":{a}}}"),
                format!("{{\"b\":{b},\"a\":{again}}}"),
                format!("{{\"a\":{a},\"b\":{a}}}"),
            ];
            for one in &texts {
                let document = Document::new(one);
                for other in texts.iter().chain(&texts) {
                    let expected = meaning(one) == meaning(other);
                    prop_assert_eq!(document.is_same_value(other), expected, "{} {}", one, other);
                }
            }
        }

        #[test]
        fn a_damaged_text_is_another_one(text in json(3), cut in any::<prop::sample::Index>()) {
            let whole = format!("{{\"a\":{text}}}");
            let at = whole.floor_char_boundary(cut.index(whole.len()));
            prop_assert!(!Document::new(&whole[..at]).is_same_value(&whole));
            prop_assert!(!Document::new(&whole).is_same_value(&whole[..at]));
        }
    }
}
