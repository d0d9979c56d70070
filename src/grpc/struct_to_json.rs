//! Decodes payloads that are sent as `google.protobuf.Struct`. Writes JSON text directly from the
//! bytes of the message: building a tree would cost more than the rest of the ingest path.
//!
//! The text is valid by construction and is not validated again.

use prost::{
    DecodeError,
    bytes::Buf,
    encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field},
};

use crate::{
    event::Payload,
    limits::{MAX_PAYLOAD_BYTES, MAX_PAYLOAD_DEPTH, MAX_SAFE_INTEGER},
};

/// Decodes a `Struct` as a payload. The error is the description of a violation.
pub(super) fn payload(structure: &[u8]) -> Result<Payload, String> {
    let mut text = Vec::with_capacity(structure.len() + structure.len() / 4);
    write_struct(structure, 0, &mut text)?;
    if text.len() > MAX_PAYLOAD_BYTES {
        return Err(too_long());
    }
    let text = String::from_utf8(text).map_err(|error| error.to_string())?;
    Ok(Payload::trusted(text))
}

fn too_long() -> String {
    format!("is longer than the limit of {MAX_PAYLOAD_BYTES} bytes as JSON")
}

fn malformed(error: DecodeError) -> String {
    format!("cannot be decoded: {error}")
}

/// The content of a field, by wire type.
enum Content<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Other,
}

/// Reads the next field of a message: its number and content.
fn next_field<'a>(message: &mut &'a [u8]) -> Result<Option<(u32, Content<'a>)>, String> {
    if message.is_empty() {
        return Ok(None);
    }
    let (tag, wire_type) = decode_key(message).map_err(malformed)?;
    let content = match wire_type {
        WireType::Varint => Content::Varint(decode_varint(message).map_err(malformed)?),
        WireType::SixtyFourBit if message.len() >= 8 => Content::Fixed64(message.get_u64_le()),
        WireType::LengthDelimited => {
            let length = decode_varint(message).map_err(malformed)?;
            let parts =
                usize::try_from(length).ok().and_then(|length| message.split_at_checked(length));
            let (bytes, rest) = parts.ok_or("cannot be decoded: unexpected end")?;
            *message = rest;
            Content::Bytes(bytes)
        }
        other => {
            skip_field(other, tag, message, DecodeContext::default()).map_err(malformed)?;
            Content::Other
        }
    };
    Ok(Some((tag, content)))
}

const MISTYPED: &str = "cannot be decoded: a field has another type than in google.protobuf.Struct";

/// The next item of a `Struct` or `ListValue`, whose only field is 1.
fn next_item<'a>(message: &mut &'a [u8]) -> Result<Option<&'a [u8]>, String> {
    while let Some((tag, content)) = next_field(message)? {
        match (tag, content) {
            (1, Content::Bytes(bytes)) => return Ok(Some(bytes)),
            (1, _) => return Err(MISTYPED.to_owned()),
            _ => (),
        }
    }
    Ok(None)
}

/// Protobuf merges a repeated occurrence of a nested message with the earlier ones. No known client
/// sends that, and using the last one would change the payload, so it is rejected.
const IN_PARTS: &str = "has a value in several parts, which are not merged; send it in one part";

/// Increments the nesting depth.
fn deeper(depth: usize) -> Result<usize, String> {
    match depth < MAX_PAYLOAD_DEPTH {
        true => Ok(depth + 1),
        false => Err(format!("is nested more than {MAX_PAYLOAD_DEPTH} levels deep")),
    }
}

fn write_struct(mut message: &[u8], depth: usize, text: &mut Vec<u8>) -> Result<(), String> {
    let depth = deeper(depth)?;
    text.push(b'{');
    let begin = text.len();
    while let Some(bytes) = next_item(&mut message)? {
        if text.len() > begin {
            text.push(b',');
        }
        write_entry(bytes, depth, text)?;
    }
    text.push(b'}');
    Ok(())
}

fn write_entry(mut message: &[u8], depth: usize, text: &mut Vec<u8>) -> Result<(), String> {
    let mut key = "";
    let mut value = None;
    while let Some(field) = next_field(&mut message)? {
        match field {
            // The last of several keys counts, as in Protobuf, and all must be valid UTF-8.
            (1, Content::Bytes(bytes)) => key = utf8(bytes)?,
            (2, Content::Bytes(_)) if value.is_some() => return Err(IN_PARTS.to_owned()),
            (2, Content::Bytes(bytes)) => value = Some(bytes),
            (1 | 2, _) => return Err(MISTYPED.to_owned()),
            _ => (),
        }
    }
    write_string(key, text)?;
    text.push(b':');
    write_value(value.unwrap_or_default(), depth, text)
}

fn write_list(mut message: &[u8], depth: usize, text: &mut Vec<u8>) -> Result<(), String> {
    let depth = deeper(depth)?;
    text.push(b'[');
    let begin = text.len();
    while let Some(bytes) = next_item(&mut message)? {
        if text.len() > begin {
            text.push(b',');
        }
        write_value(bytes, depth, text)?;
    }
    text.push(b']');
    Ok(())
}

fn write_value(mut message: &[u8], depth: usize, text: &mut Vec<u8>) -> Result<(), String> {
    if text.len() > MAX_PAYLOAD_BYTES {
        return Err(too_long());
    }
    let begin = text.len();
    let mut kind = None;
    while let Some((tag, content)) = next_field(&mut message)? {
        // The last of several kinds counts, as in Protobuf, and all must be valid.
        let earlier = match tag {
            1..=6 => kind.replace(tag),
            _ => continue,
        };
        text.truncate(begin);
        match (tag, content) {
            (5 | 6, _) if earlier == Some(tag) => return Err(IN_PARTS.to_owned()),
            (1, Content::Varint(_)) => text.extend_from_slice(b"null"),
            (2, Content::Fixed64(bits)) => write_number(f64::from_bits(bits), text)?,
            (3, Content::Bytes(string)) => write_string(utf8(string)?, text)?,
            (4, Content::Varint(0)) => text.extend_from_slice(b"false"),
            (4, Content::Varint(_)) => text.extend_from_slice(b"true"),
            (5, Content::Bytes(structure)) => write_struct(structure, depth, text)?,
            (6, Content::Bytes(list)) => write_list(list, depth, text)?,
            _ => return Err(MISTYPED.to_owned()),
        }
    }
    match kind {
        Some(_) => Ok(()),
        None => Err("has a value without a kind".to_owned()),
    }
}

fn utf8(string: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(string).map_err(|_| "has a string that is not UTF-8".to_owned())
}

fn write_string(string: &str, text: &mut Vec<u8>) -> Result<(), String> {
    if string.contains('\0') {
        return Err("has the character \\u0000, which is not supported".to_owned());
    }
    serde_json::to_writer(text, string).map_err(|error| error.to_string())
}

fn write_number(number: f64, text: &mut Vec<u8>) -> Result<(), String> {
    let written = if !number.is_finite() {
        return Err("has a number that is not finite".to_owned());
    } else if number.fract() != 0.0 {
        serde_json::to_writer(text, &number)
    } else if number.abs() <= MAX_SAFE_INTEGER as f64 {
        serde_json::to_writer(text, &(number as i64))
    } else {
        return Err("has an integer beyond 2^53, which a Struct cannot represent exactly; send \
                    the payload as payload_json, or the number as a string"
            .to_owned());
    };
    written.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use prost_types::{ListValue, Struct, Value, value::Kind};

    use super::*;

    fn text(structure: &Struct) -> Result<String, String> {
        payload(&structure.encode_to_vec()).map(|payload| payload.as_str().to_owned())
    }

    fn with(kind: Kind) -> Struct {
        Struct { fields: [("a".to_owned(), Value { kind: Some(kind) })].into() }
    }

    fn nested(depth: usize) -> Kind {
        (0..depth).fold(Kind::NullValue(0), |kind, _| {
            Kind::ListValue(ListValue { values: vec![Value { kind: Some(kind) }] })
        })
    }

    #[test]
    fn all_kinds_are_written_as_json() {
        assert_eq!(text(&Struct::default()).as_deref(), Ok("{}"));
        for (kind, expected) in [
            (Kind::NullValue(0), "null"),
            (Kind::BoolValue(true), "true"),
            (Kind::BoolValue(false), "false"),
            (Kind::NumberValue(-0.0), "0"),
            (Kind::NumberValue(-2.5e-7), "-2.5e-7"),
            (Kind::NumberValue(5e-324), "5e-324"),
            (Kind::NumberValue(9007199254740992.0), "9007199254740992"),
            (Kind::StringValue("\u{1}\"ü\n".into()), "\"\\u0001\\\"ü\\n\""),
            (Kind::StructValue(with(Kind::NullValue(0))), "{\"a\":null}"),
            (nested(23), &format!("{}null{}", "[".repeat(23), "]".repeat(23))),
        ] {
            assert_eq!(text(&with(kind)), Ok(format!("{{\"a\":{expected}}}")));
        }
    }

    #[test]
    fn unsupported_values_are_rejected() {
        for (kind, fault) in [
            (Kind::NumberValue(f64::NAN), "not finite"),
            (Kind::NumberValue(f64::INFINITY), "not finite"),
            (Kind::NumberValue(9007199254740994.0), "2^53"),
            (Kind::NumberValue(-1e300), "2^53"),
            (Kind::StringValue("\0".into()), "u0000"),
            (Kind::StringValue("x".repeat(MAX_PAYLOAD_BYTES)), "longer"),
            (nested(24), "deep"),
        ] {
            let error = text(&with(kind)).expect_err(fault);
            assert!(error.contains(fault), "{error}");
        }
        let no_kind = Struct { fields: [("a".to_owned(), Value { kind: None })].into() };
        assert!(text(&no_kind).is_err());
    }

    #[test]
    fn malformed_and_merged_messages_are_rejected() {
        for (bytes, fault) in [
            (&b"\x08\x01"[..], "another type"),        // a number for an entry
            (b"\x0d\x01\x02\x03\x04", "another type"), // a fixed number for an entry
            (b"\x0a\x06\x08\x07\x12\x02\x20\x01", "another type"), // a number for a key
            (b"\x0a\x05\x0a\x01a\x10\x01", "another type"), // a number for a value
            (b"\x0a\x07\x0a\x01a\x12\x02\x1d\x01", "decoded"), // a fixed number for text
            (b"\x0a\x07\x0a\x01a\x12\x02\x18\x01", "another type"), // a number for text
            (b"\x0a\x09\x0a\x01a\x12\x04\x32\x02\x08\x01", "another type"), // one for an item
            (b"\x0a\x0a\x0a\x01a\x12\x05\x1a\x01\xfc\x20\x01", "UTF-8"), // replaced, and no text
            (b"\x0a\x08\x0a\x01\xfc\x0a\x01a\x12\x00", "UTF-8"), // the same for a key
            (b"\x0a\x09\x0a\x01a\x12\x04\x2a\x00\x2a\x00", "parts"), // a structure twice
            (b"\x0a\x09\x0a\x01a\x12\x04\x32\x00\x32\x00", "parts"), // a list twice
            (b"\x0a\x0b\x0a\x01a\x12\x02\x20\x01\x12\x02\x20\x01", "parts"), // a value twice
        ] {
            let error = payload(bytes).expect_err(fault);
            assert!(error.contains(fault), "{error}: {bytes:?}");
        }
        // A structure, a text, then `true`: the last kind counts.
        let kinds = payload(b"\x0a\x0c\x0a\x01a\x12\x07\x2a\x00\x1a\x01x\x20\x01");
        assert_eq!(kinds.map(Payload::into_string).as_deref(), Ok(r#"{"a":true}"#));
    }

    #[test]
    fn damaged_messages_do_not_panic() {
        let whole = with(Kind::StringValue("text".into())).encode_to_vec();
        for length in 0..whole.len() {
            let _ = payload(&whole[..length]);
        }
        for at in 0..whole.len() {
            for byte in 0..=u8::MAX {
                let mut damaged = whole.clone();
                damaged[at] = byte;
                if let Ok(payload) = payload(&damaged) {
                    assert!(Payload::new("payload", payload.as_str().to_owned()).is_ok());
                }
            }
        }
    }
}
