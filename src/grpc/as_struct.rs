//! JSON text of payloads read as `google.protobuf.Struct`, for whoever asks for that form.

use std::{collections::BTreeMap, fmt};

use prost_types::{ListValue, Struct, Value, value::Kind};
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use crate::limits::MAX_SAFE_INTEGER;

/// A payload as a structure, if that changes no whole number.
pub(super) fn structure(text: &str) -> Option<Struct> {
    // Not by way of `serde_json::Value`, which takes an object with a certain key for something else.
    let value = Reader.deserialize(&mut serde_json::Deserializer::from_str(text)).ok()?;
    match value.kind {
        Some(Kind::StructValue(structure)) => Some(structure),
        _ => None,
    }
}

/// Reads one value.
#[derive(Clone, Copy)]
struct Reader;

fn unsafe_integer<E: Error>() -> E {
    E::custom("a number that a 64-bit float may have changed")
}

fn value(kind: Kind) -> Value {
    Value { kind: Some(kind) }
}

impl<'de> DeserializeSeed<'de> for Reader {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reader {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(value(Kind::NullValue(0)))
    }

    fn visit_bool<E>(self, bool: bool) -> Result<Value, E> {
        Ok(value(Kind::BoolValue(bool)))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Value, E> {
        match number <= MAX_SAFE_INTEGER {
            true => Ok(value(Kind::NumberValue(number as f64))),
            false => Err(unsafe_integer()),
        }
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Value, E> {
        match number.unsigned_abs() <= MAX_SAFE_INTEGER {
            true => Ok(value(Kind::NumberValue(number as f64))),
            false => Err(unsafe_integer()),
        }
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Value, E> {
        // What was written may have been a whole number that was rounded to the bound.
        match number.abs() < MAX_SAFE_INTEGER as f64 {
            true => Ok(value(Kind::NumberValue(number))),
            false => Err(unsafe_integer()),
        }
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(value(Kind::StringValue(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(item) = items.next_element_seed(self)? {
            values.push(item);
        }
        Ok(value(Kind::ListValue(ListValue { values })))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut fields = BTreeMap::new();
        while let Some(key) = entries.next_key::<String>()? {
            fields.insert(key, entries.next_value_seed(self)?);
        }
        Ok(value(Kind::StructValue(Struct { fields })))
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::grpc::structure::payload;

    #[test]
    fn structures_survive_the_way_there_and_back() {
        for text in [
            r#"{"a":[1,-2.5,true,null,{"ü\"\n":"x"}],"big":9007199254740992}"#,
            r#"{"$serde_json::private::RawValue":"{\"a\":1}"}"#,
        ] {
            let structure = structure(text).expect("no unsafe integers");
            let again = payload(&structure.encode_to_vec()).expect("valid");
            assert_eq!(again.as_str(), text);
        }
    }

    #[test]
    fn numbers_that_floats_may_change_are_left_to_the_text() {
        for number in
            ["9007199254740993", "-9007199254740993", "1e300", "1.5e17", "9007199254740993.0"]
        {
            assert_eq!(structure(&format!(r#"{{"a":[{number}]}}"#)), None, "{number}");
        }
        for number in ["9007199254740992", "-9007199254740992", "0.12345678901234567", "9e15"] {
            assert!(structure(&format!(r#"{{"a":[{number}]}}"#)).is_some(), "{number}");
        }
    }
}
