//! Equality of JSON texts.

use std::cell::{Cell, OnceCell};

use super::tree::Tree;

/// A valid JSON text that others are compared with. It is read at most twice: once next to a
/// shorter text, where a difference ends the comparison early, and once to prepare it for all
/// others.
pub(crate) struct Document<'a> {
    text: &'a str,
    was_compared: Cell<bool>,
    tree: OnceCell<Option<Tree<'a>>>,
}

impl<'a> Document<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, was_compared: Cell::new(false), tree: OnceCell::new() }
    }

    /// Whether another valid JSON text is the same value. Whitespace, the order of keys and the
    /// format of numbers are ignored; the last of repeated keys counts. Numbers are compared
    /// exactly, not as floats, as PostgreSQL compares `jsonb`. Invalid texts are never equal.
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

    /// Reference implementation: the value of a text, built with serde_json level by level.
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

    /// A value in one of many formats, from few parts, so that many are equal.
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
        fn comparison_matches_the_reference(a in json(3), b in json(3), again in json(2)) {
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
        fn invalid_text_is_never_equal(text in json(3), cut in any::<prop::sample::Index>()) {
            let whole = format!("{{\"a\":{text}}}");
            let at = whole.floor_char_boundary(cut.index(whole.len()));
            prop_assert!(!Document::new(&whole[..at]).is_same_value(&whole));
            prop_assert!(!Document::new(&whole).is_same_value(&whole[..at]));
        }
    }
}
