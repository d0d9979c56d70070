//! The items of a JSON array as unparsed text.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::limits::MAX_REQUEST_EVENTS;

/// The items of an array. At most [`MAX_REQUEST_EVENTS`] plus one are stored, because a body can
/// have millions.
#[derive(Debug)]
pub(super) struct Items<'a>(pub(super) Vec<&'a RawValue>);

impl<'de: 'a, 'a> Deserialize<'de> for Items<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ItemsVisitor;

        impl<'de> Visitor<'de> for ItemsVisitor {
            type Value = Vec<&'de RawValue>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array")
            }

            fn visit_seq<S: SeqAccess<'de>>(self, mut items: S) -> Result<Self::Value, S::Error> {
                let mut stored = Vec::new();
                while stored.len() <= MAX_REQUEST_EVENTS {
                    match items.next_element()? {
                        Some(item) => stored.push(item),
                        None => return Ok(stored),
                    }
                }
                while items.next_element::<IgnoredAny>()?.is_some() {}
                Ok(stored)
            }
        }

        deserializer.deserialize_seq(ItemsVisitor).map(Items)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_most_one_item_beyond_the_limit_is_stored() {
        let read = |items: usize| {
            let text = format!("[{}]", vec!["1"; items].join(","));
            serde_json::from_str::<Items<'_>>(&text).expect("an array").0.len()
        };
        assert_eq!(read(0), 0);
        assert_eq!(read(MAX_REQUEST_EVENTS), MAX_REQUEST_EVENTS);
        assert_eq!(read(MAX_REQUEST_EVENTS * 9), MAX_REQUEST_EVENTS + 1);
        serde_json::from_str::<Items<'_>>(&format!("[{}", "1,".repeat(9_000)))
            .expect_err("unterminated");
    }
}
