//! The items of a JSON array, of which at most one more than the limit is kept: a body can have millions.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::limits::MAX_REQUEST_EVENTS;

/// The items of an array. Of too many, one more than [`MAX_REQUEST_EVENTS`] is kept.
#[derive(Debug)]
pub(super) struct Items<'a>(pub(super) Vec<&'a RawValue>);

impl<'de: 'a, 'a> Deserialize<'de> for Items<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;

        impl<'de> Visitor<'de> for All {
            type Value = Vec<&'de RawValue>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array")
            }

            fn visit_seq<S: SeqAccess<'de>>(self, mut items: S) -> Result<Self::Value, S::Error> {
                let mut kept = Vec::new();
                while kept.len() <= MAX_REQUEST_EVENTS {
                    match items.next_element()? {
                        Some(item) => kept.push(item),
                        None => return Ok(kept),
                    }
                }
                while items.next_element::<IgnoredAny>()?.is_some() {}
                Ok(kept)
            }
        }

        deserializer.deserialize_seq(All).map(Items)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_item_beyond_the_limit_is_kept() {
        let read = |items: usize| {
            let text = format!("[{}]", vec!["1"; items].join(","));
            serde_json::from_str::<Items<'_>>(&text).expect("an array").0.len()
        };
        assert_eq!(read(0), 0);
        assert_eq!(read(MAX_REQUEST_EVENTS), MAX_REQUEST_EVENTS);
        assert_eq!(read(MAX_REQUEST_EVENTS * 9), MAX_REQUEST_EVENTS + 1);
        serde_json::from_str::<Items<'_>>(&format!("[{}", "1,".repeat(9_000))).expect_err("no end");
    }
}
