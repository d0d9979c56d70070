//! Encodes payloads, which are JSON text, as `google.protobuf.Struct`. Writes the bytes of the
//! message without building a tree, which could take a hundred times the memory of the text.

use std::fmt;

use bytes::{BufMut, Bytes};
use prost::encoding::encode_varint;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use crate::limits::MAX_SAFE_INTEGER;

/// Encoded field keys: the field number with the wire type.
mod key {
    /// `Struct.fields`, `ListValue.values`, and the key of a map entry.
    pub(super) const FIRST: u8 = 1 << 3 | 2;
    /// The value of a map entry.
    pub(super) const ENTRY_VALUE: u8 = 2 << 3 | 2;
    pub(super) const NULL: u8 = 1 << 3;
    pub(super) const NUMBER: u8 = 2 << 3 | 1;
    pub(super) const STRING: u8 = 3 << 3 | 2;
    pub(super) const BOOL: u8 = 4 << 3;
    pub(super) const STRUCT: u8 = 5 << 3 | 2;
    pub(super) const LIST: u8 = 6 << 3 | 2;
}

/// Encodes a payload as a `Struct`. None if a 64-bit float cannot represent its integers.
pub(super) fn structure(text: &str) -> Option<Bytes> {
    let mut wire = Vec::with_capacity(text.len() + text.len() / 2);
    // Not through `serde_json::Value`, which gives an object with a certain key a special meaning.
    serde_json::Deserializer::from_str(text).deserialize_map(Fields(&mut wire)).ok()?;
    Some(wire.into())
}

/// Writes a nested message with its length prefix.
fn nested<T, E>(
    key: u8,
    wire: &mut Vec<u8>,
    write: impl FnOnce(&mut Vec<u8>) -> Result<T, E>,
) -> Result<T, E> {
    wire.push(key);
    let begin = wire.len();
    // Most lengths take one byte.
    wire.push(0);
    let written = write(wire)?;
    let length = wire.len() - begin - 1;
    match u8::try_from(length) {
        Ok(length) if length < 0x80 => wire[begin] = length,
        _ => {
            let mut varint = Vec::with_capacity(5);
            encode_varint(length as u64, &mut varint);
            drop(wire.splice(begin..=begin, varint));
        }
    }
    Ok(written)
}

fn write_string(key: u8, text: &str, wire: &mut Vec<u8>) {
    wire.push(key);
    encode_varint(text.len() as u64, wire);
    wire.extend_from_slice(text.as_bytes());
}

/// Writes the fields of a `Struct`.
struct Fields<'a>(&'a mut Vec<u8>);

impl<'de> Visitor<'de> for Fields<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        loop {
            let begin = self.0.len();
            let entry =
                nested(key::FIRST, self.0, |wire| match entries.next_key_seed(Key(wire))? {
                    Some(()) => {
                        nested(key::ENTRY_VALUE, wire, |wire| entries.next_value_seed(Value(wire)))
                            .map(Some)
                    }
                    None => Ok(None),
                })?;
            if entry.is_none() {
                self.0.truncate(begin);
                return Ok(());
            }
        }
    }
}

/// Writes the key of a map entry.
struct Key<'a>(&'a mut Vec<u8>);

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        write_string(key::FIRST, text, self.0);
        Ok(())
    }
}

/// Writes one value.
struct Value<'a>(&'a mut Vec<u8>);

impl Value<'_> {
    fn number(self, number: f64) {
        self.0.push(key::NUMBER);
        self.0.put_f64_le(number);
    }
}

fn unsafe_integer<E: Error>() -> E {
    E::custom("a number that a 64-bit float may not represent exactly")
}

impl<'de> DeserializeSeed<'de> for Value<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Value<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.0.extend_from_slice(&[key::NULL, 0]);
        Ok(())
    }

    fn visit_bool<E>(self, bool: bool) -> Result<(), E> {
        self.0.extend_from_slice(&[key::BOOL, bool.into()]);
        Ok(())
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<(), E> {
        match number <= MAX_SAFE_INTEGER {
            true => self.number(number as f64),
            false => return Err(unsafe_integer()),
        }
        Ok(())
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<(), E> {
        match number.unsigned_abs() <= MAX_SAFE_INTEGER {
            true => self.number(number as f64),
            false => return Err(unsafe_integer()),
        }
        Ok(())
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<(), E> {
        // At the limit, the text may have been an integer that was rounded.
        match number.abs() < MAX_SAFE_INTEGER as f64 {
            true => self.number(number),
            false => return Err(unsafe_integer()),
        }
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        write_string(key::STRING, text, self.0);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        nested(key::LIST, self.0, |wire| {
            loop {
                let begin = wire.len();
                let item = nested(key::FIRST, wire, |wire| items.next_element_seed(Value(wire)))?;
                if item.is_none() {
                    wire.truncate(begin);
                    return Ok(());
                }
            }
        })
    }

    fn visit_map<A: MapAccess<'de>>(self, entries: A) -> Result<(), A::Error> {
        nested(key::STRUCT, self.0, |wire| Fields(wire).visit_map(entries))
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use prost_types::Struct;

    use super::*;
    use crate::grpc::struct_to_json::payload;

    #[test]
    fn structs_round_trip() {
        for text in [
            r#"{"a":[1,-2.5,true,null,{"ü\"\n":"x"}],"big":9007199254740992}"#,
            r#"{"$serde_json::private::RawValue":"{\"a\":1}"}"#,
        ] {
            let structure = structure(text).expect("no unsafe integers");
            let again = payload(&structure).expect("valid");
            assert_eq!(again.as_str(), text);
        }
    }

    #[test]
    fn encoding_matches_prost() {
        let long = "x".repeat(300);
        for text in [
            "{}",
            r#"{"":{},"a":[],"b":[[]],"c":[{}]}"#,
            r#"{"a":null,"b":true,"c":false,"d":1,"e":-0.5,"f":"","g":[1,[2,{"h":"ü"}],"x"]}"#,
            &format!(r#"{{"a":"{long}","b":{{"{long}":[["{long}"],{{"c":"{long}"}}]}}}}"#),
            &format!(r#"{{"a":{}1{}}}"#, "[".repeat(23), "]".repeat(23)),
        ] {
            let bytes = structure(text).expect("no unsafe integers");
            let message = Struct::decode(bytes.clone()).expect("a Struct");
            // prost may order the keys differently and omits default values.
            assert_eq!(payload(&bytes).expect("valid").as_str(), text);
            assert_eq!(Struct::decode(&*message.encode_to_vec()), Ok(message));
        }
    }

    #[test]
    fn numbers_beyond_float_precision_are_not_encoded() {
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
