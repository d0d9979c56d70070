//! A payload as `google.protobuf.Struct`, compared with prost as the reference.

use event_aggregator::{
    event::Payload,
    proto::v1::{Event, PublishRequest, event::Content},
};
use prost::Message;
use prost_types::{Struct, Value, value::Kind};

use super::service::{Raw, call};

/// An event message with these bytes as its struct.
pub fn event_with(structure: &[u8]) -> Vec<u8> {
    let event = Event {
        topic: "t".to_owned(),
        event_id: "1".to_owned(),
        source: "s".to_owned(),
        ..Event::default()
    };
    let mut event = event.encode_to_vec();
    prost::encoding::bytes::encode(5, &structure.to_vec(), &mut event);
    event
}

/// Sends the bytes as a struct, and compares the stored payload with that of prost.
pub fn run(bytes: &[u8]) {
    let mut request = Vec::new();
    prost::encoding::bytes::encode(1, &event_with(bytes), &mut request);
    let answer = call(async |subject| subject.publish(Raw(request)).await);
    let decoded = Struct::decode(bytes);
    if let Ok((_, stored)) = answer {
        let text = stored[0].payload.as_str();
        super::json::run(text.as_bytes());
        agrees(decoded.as_ref().expect("accepted structs can be decoded"), text);
    }
    if let Ok(structure) = decoded {
        tree(structure);
    }
}

/// Sends a valid struct, and compares the stored payload with it.
pub fn tree(structure: Struct) {
    let valid = is_valid(&structure, 1);
    let event = Event {
        topic: "t".to_owned(),
        event_id: "1".to_owned(),
        source: "s".to_owned(),
        content: Some(Content::Payload(structure.clone())),
        ..Event::default()
    };
    let request = PublishRequest { events: vec![event], allow_partial: false };
    match call(async |subject| subject.publish(Raw(request.encode_to_vec())).await) {
        Ok((_, stored)) => {
            assert!(valid, "{structure:?}");
            agrees(&structure, stored[0].payload.as_str());
        }
        Err(status) => {
            let is_large = status.message().contains("longer than");
            assert!(!valid || is_large, "{structure:?}: {status:?}");
        }
    }
}

/// Checks that a struct and a text are equal.
pub fn agrees(structure: &Struct, text: &str) {
    let object = object(structure);
    let json = object.to_string();
    let is_other = json.contains(super::json::PRIVATE);
    let payload = Payload::new("structure", json).expect("valid");
    let numbers_are_exact = !text.contains(['.', 'e', 'E']);
    // All parsers round fractions with many digits.
    if numbers_are_exact {
        assert!(payload.is_same_value(text), "{structure:?}: {text}");
    } else if !is_other {
        let read: serde_json::Value = serde_json::from_str(text).expect("JSON");
        assert!(super::json::same_floats(&read, &object), "{text}");
    }
}

fn object(structure: &Struct) -> serde_json::Value {
    structure.fields.iter().map(|(key, value)| (key.clone(), json(value))).collect()
}

fn json(value: &Value) -> serde_json::Value {
    match value.kind.as_ref().expect("a kind") {
        Kind::NullValue(_) => serde_json::Value::Null,
        Kind::BoolValue(value) => (*value).into(),
        Kind::NumberValue(number) if number.fract() == 0.0 => (*number as i64).into(),
        Kind::NumberValue(number) => (*number).into(),
        Kind::StringValue(text) => text.as_str().into(),
        Kind::ListValue(list) => list.values.iter().map(json).collect(),
        Kind::StructValue(structure) => object(structure),
    }
}

fn is_valid(structure: &Struct, depth: usize) -> bool {
    let is_text = |text: &str| !text.contains('\0');
    let is_value = |value: &Value| is_valid_value(value, depth);
    depth <= 24 && structure.fields.iter().all(|(key, value)| is_text(key) && is_value(value))
}

fn is_valid_value(value: &Value, depth: usize) -> bool {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match &value.kind {
        None => false,
        Some(Kind::NullValue(_) | Kind::BoolValue(_)) => true,
        Some(Kind::NumberValue(number)) => {
            number.is_finite() && (number.fract() != 0.0 || number.abs() <= EXACT)
        }
        Some(Kind::StringValue(text)) => !text.contains('\0'),
        Some(Kind::ListValue(list)) => {
            depth < 24 && list.values.iter().all(|value| is_valid_value(value, depth + 1))
        }
        Some(Kind::StructValue(structure)) => is_valid(structure, depth + 1),
    }
}
