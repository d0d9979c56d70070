//! Payload text, compared with serde_json as the reference.

use event_aggregator::event::Payload;
use serde_json::Value;

/// Key of objects that serde_json treats specially.
pub const PRIVATE: &str = "$serde_json::private";

/// Validates the text, and compares its two parts if there are two. The separator is not valid
/// JSON.
pub fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match text.split_once('\u{1}') {
        None => check(text),
        Some((a, b)) => {
            check(a);
            check(b);
            compare(a, b);
        }
    }
}

fn check(text: &str) {
    let payload = Payload::new("payload", text.to_owned());
    if text.contains(PRIVATE) {
        return;
    }
    let document: Result<Value, _> = serde_json::from_str(text);
    let Ok(payload) = payload else {
        assert!(!is_fine(text, document.ok()), "refused: {text}");
        return;
    };
    assert_eq!(payload.as_str(), text, "kept as it was written");
    let document = document.expect("accepted text is valid JSON");
    assert!(document.is_object() && text.len() <= 1 << 20);
    assert!(depth(text) <= 24, "{text}");
    assert!(!has_nul(&document), "{text}");
    assert!(payload.is_same_value(text));
    // Serialized again it is equal, unless it has numbers that a float changes.
    let again = document.to_string();
    if !text.contains(['.', 'e', 'E']) && !again.contains(['.', 'e', 'E']) {
        assert!(payload.is_same_value(&again), "{text} {again}");
    }
}

fn compare(a: &str, b: &str) {
    let new = |text: &str| Payload::new("payload", text.to_owned());
    let (Ok(one), Ok(other)) = (new(a), new(b)) else { return };
    let same = one.is_same_value(b);
    assert_eq!(same, other.is_same_value(a), "{a} {b}");
    let (a, b) = (a.trim(), b.trim());
    // The last of repeated keys counts, and the order of keys does not matter.
    let nested = format!("{{\"n\":[{a}],\"m\":{b}}}");
    let shuffled = format!("{{ \"\\u006d\":[0,{a}], \"m\" : {b},\"n\":{b},\"\\u006e\":[{a} ]}}");
    if let (Ok(nested), Ok(_)) = (new(&nested), new(&shuffled)) {
        assert!(nested.is_same_value(&shuffled), "{shuffled}");
        let other = format!("{{\"m\":{b},\"n\":[{b}]}}");
        assert_eq!(nested.is_same_value(&other), same, "{other}");
    }
    if a.contains(PRIVATE) || b.contains(PRIVATE) {
        return;
    }
    let read = |text: &str| serde_json::from_str::<Value>(text).expect("JSON");
    let same_rounded = same_floats(&read(a), &read(b));
    assert!(!same || same_rounded, "said to be the same: {a} {b}");
    if !(a.to_owned() + b).contains(['.', 'e', 'E']) && a.len() < 300 && b.len() < 300 {
        // Integers of up to 64 bits are exact in serde_json, too.
        let is_exact = read(a) == read(b) && !has_float(&read(a));
        assert!(same || !is_exact, "said to differ: {a} {b}");
    }
}

/// Whether two documents are equal with numbers as floats.
pub fn same_floats(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same_floats(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            let is_same = |(key, a)| b.get(key).is_some_and(|b| same_floats(a, b));
            a.len() == b.len() && a.iter().all(is_same)
        }
        _ => a == b,
    }
}

/// Whether a text has nothing that could be a reason to reject it.
fn is_fine(text: &str, document: Option<Value>) -> bool {
    let has_exponents = bare(text).replace("true", "").replace("false", "").contains(['e', 'E']);
    let has_plain_numbers = !has_exponents && text.len() < 300;
    let has_no_escapes = !text.contains('\\');
    document.is_some_and(|document| document.is_object())
        && has_plain_numbers
        && has_no_escapes
        && depth(text) <= 24
}

/// The part of a text outside of strings.
fn bare(text: &str) -> String {
    let (mut in_string, mut escaped) = (false, false);
    let is_bare = |c: &char| {
        let was_in_string = in_string;
        match c {
            _ if escaped => escaped = false,
            '\\' if in_string => escaped = true,
            '"' => in_string = !in_string,
            _ => (),
        }
        !was_in_string && !in_string
    };
    text.chars().filter(is_bare).collect()
}

/// The nesting of brackets outside of strings.
fn depth(text: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    for c in bare(text).chars() {
        match c {
            '[' | '{' => depth += 1,
            ']' | '}' => depth = depth.saturating_sub(1),
            _ => (),
        }
        deepest = deepest.max(depth);
    }
    deepest
}

fn has_nul(document: &Value) -> bool {
    match document {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(has_nul),
        Value::Object(entries) => {
            entries.iter().any(|(key, value)| key.contains('\0') || has_nul(value))
        }
        _ => false,
    }
}

fn has_float(document: &Value) -> bool {
    match document {
        Value::Number(number) => number.is_f64(),
        Value::Array(items) => items.iter().any(has_float),
        Value::Object(entries) => entries.values().any(has_float),
        _ => false,
    }
}
