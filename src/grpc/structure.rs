//! Payloads that come as `google.protobuf.Struct`, written as JSON text straight from the message's
//! bytes: building the tree first costs more than all else that an event needs.
//!
//! The text is valid by construction, so it is not checked again as text that came in would be.

use bytes::Bytes;
use bytestring::ByteString;
use prost::{
    DecodeError,
    bytes::Buf,
    encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field},
};

use crate::{
    event::Payload,
    limits::{MAX_PAYLOAD_BYTES, MAX_PAYLOAD_DEPTH, MAX_SAFE_INTEGER},
};

/// A structure as a payload. The error says what is wrong with it, for the person who sent it.
pub(super) fn payload(structure: &[u8]) -> Result<Payload, String> {
    let mut text = Vec::with_capacity(structure.len() + structure.len() / 4);
    write_struct(structure, 0, &mut text)?;
    if text.len() > MAX_PAYLOAD_BYTES {
        return Err(too_long());
    }
    let text = ByteString::try_from(Bytes::from(text)).map_err(|_| NOT_UTF8.to_owned())?;
    Ok(Payload::trusted(text))
}

const NOT_UTF8: &str = "has text that is not UTF-8";

fn too_long() -> String {
    format!("is longer than {MAX_PAYLOAD_BYTES} bytes as JSON; at most so many are taken")
}

fn unreadable(error: DecodeError) -> String {
    format!("cannot be read: {error}")
}

/// What a field of a message holds.
enum Content<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Other,
}

/// Takes the next field off a message: its tag and what it holds.
fn next_field<'a>(message: &mut &'a [u8]) -> Result<Option<(u32, Content<'a>)>, String> {
    if message.is_empty() {
        return Ok(None);
    }
    let (tag, wire_type) = decode_key(message).map_err(unreadable)?;
    let content = match wire_type {
        WireType::Varint => Content::Varint(decode_varint(message).map_err(unreadable)?),
        WireType::SixtyFourBit if message.len() >= 8 => Content::Fixed64(message.get_u64_le()),
        WireType::LengthDelimited => {
            let length = decode_varint(message).map_err(unreadable)?;
            let parts = usize::try_from(length).ok().and_then(|at| message.split_at_checked(at));
            let (bytes, rest) = parts.ok_or("cannot be read: it ends too early")?;
            *message = rest;
            Content::Bytes(bytes)
        }
        other => {
            skip_field(other, tag, message, DecodeContext::default()).map_err(unreadable)?;
            Content::Other
        }
    };
    Ok(Some((tag, content)))
}

/// The depth of what is nested in something at `depth`.
fn deeper(depth: usize) -> Result<usize, String> {
    match depth < MAX_PAYLOAD_DEPTH {
        true => Ok(depth + 1),
        false => Err(format!("is nested more than {MAX_PAYLOAD_DEPTH} deep")),
    }
}

fn write_struct(mut message: &[u8], depth: usize, text: &mut Vec<u8>) -> Result<(), String> {
    let depth = deeper(depth)?;
    text.push(b'{');
    let begin = text.len();
    while let Some(field) = next_field(&mut message)? {
        let (1, Content::Bytes(bytes)) = field else { continue };
        if text.len() > begin {
            text.push(b',');
        }
        write_entry(bytes, depth, text)?;
    }
    text.push(b'}');
    Ok(())
}

fn write_entry(mut message: &[u8], depth: usize, text: &mut Vec<u8>) -> Result<(), String> {
    let (mut key, mut value): (&[u8], &[u8]) = (&[], &[]);
    while let Some(field) = next_field(&mut message)? {
        match field {
            (1, Content::Bytes(bytes)) => key = bytes,
            (2, Content::Bytes(bytes)) => value = bytes,
            _ => (),
        }
    }
    write_string(key, text)?;
    text.push(b':');
    write_value(value, depth, text)
}

fn write_list(mut message: &[u8], depth: usize, text: &mut Vec<u8>) -> Result<(), String> {
    let depth = deeper(depth)?;
    text.push(b'[');
    let begin = text.len();
    while let Some(field) = next_field(&mut message)? {
        let (1, Content::Bytes(bytes)) = field else { continue };
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
    // Of several kinds the last one counts, as everywhere in Protobuf.
    let mut kind = None;
    while let Some(field) = next_field(&mut message)? {
        if (1..=6).contains(&field.0) {
            kind = Some(field);
        }
    }
    match kind.ok_or("has a value of no kind")? {
        (1, Content::Varint(_)) => text.extend_from_slice(b"null"),
        (2, Content::Fixed64(bits)) => write_number(f64::from_bits(bits), text)?,
        (3, Content::Bytes(string)) => write_string(string, text)?,
        (4, Content::Varint(0)) => text.extend_from_slice(b"false"),
        (4, Content::Varint(_)) => text.extend_from_slice(b"true"),
        (5, Content::Bytes(structure)) => write_struct(structure, depth, text)?,
        (6, Content::Bytes(list)) => write_list(list, depth, text)?,
        _ => return Err("cannot be read: a value is of another type than its field".to_owned()),
    }
    Ok(())
}

fn write_string(string: &[u8], text: &mut Vec<u8>) -> Result<(), String> {
    let string = std::str::from_utf8(string).map_err(|_| NOT_UTF8.to_owned())?;
    if string.contains('\0') {
        return Err("has the character \\u0000, which cannot be stored".to_owned());
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
        return Err("has a whole number beyond 2^53, which the structure may already have \
                    changed; send it as payload_json, or as a string"
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
    fn every_kind_has_its_text() {
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
    fn what_json_or_the_bounds_do_not_hold_is_refused() {
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
    fn whatever_the_bytes_are_nothing_panics() {
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
