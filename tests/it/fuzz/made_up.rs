//! Generators of nearly valid input, which reaches further than random bytes.

use event_aggregator::proto::v1::{Event, PublishRequest, event::Content};
use proptest::{
    collection::{btree_map, vec},
    prelude::*,
    sample::{Index, select},
};
use prost::Message;
use prost_types::{ListValue, Struct, Timestamp, Value, value::Kind};

/// The text of a JSON object, sometimes invalid.
pub fn payload() -> impl Strategy<Value = String> {
    prop_oneof![
        12 => object(),
        1 => (object(), 20..28_usize).prop_map(|(inner, depth)| {
            let (open, close) = (r#"{"a":["#.repeat(depth / 2), "]}".repeat(depth / 2));
            format!("{open}{inner}{close}")
        }),
        1 => value(),
        1 => (object(), 0..3_usize).prop_map(|(text, cut)| {
            text.chars().take(text.chars().count() - cut).collect()
        }),
        1 => any::<String>(),
    ]
}

fn object() -> impl Strategy<Value = String> {
    vec((string(), value()), 0..4).prop_map(|fields| in_braces(&fields))
}

fn in_braces(fields: &[(String, String)]) -> String {
    let fields: Vec<_> = fields.iter().map(|(key, value)| format!("{key}:{value}")).collect();
    format!("{{{}}}", fields.join(","))
}

fn value() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        select(vec!["null", "true", "false", " 1 ", "\t-0\n", "{ }", "[]"]).prop_map(str::to_owned),
        number(),
        string(),
    ];
    leaf.prop_recursive(6, 24, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(" , "))),
            vec((string(), inner), 0..4).prop_map(|fields| in_braces(&fields)),
        ]
    })
}

fn number() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<i64>().prop_map(|number| number.to_string()),
        any::<f64>().prop_map(|number| format!("{number:e}")),
        "-?(0|[1-9][0-9]{0,24})(\\.[0-9]{1,24})?([eE][+-]?[0-9]{1,3})?",
        "-?[01](\\.0)?[eE][+-]?[0-9]{1,25}",
        select(vec![
            "9007199254740992",
            "9007199254740993",
            "9007199254740993.0",
            "18446744073709551616",
            "1e308",
            "1e309",
            "5e-324",
            "1e-400",
            "0e400",
            "0e401",
            "0e-9223372036854775808",
            "0e9223372036854775808",
            "-0.0",
            "1E+2",
        ])
        .prop_map(str::to_owned),
    ]
}

fn string() -> impl Strategy<Value = String> {
    let character = prop_oneof![
        4 => "[a-c]",
        2 => any::<char>()
            .prop_filter("bare in JSON", |&c| c >= ' ' && c != '"' && c != '\\')
            .prop_map(String::from),
        1 => select(vec!["\\n", "\\/", "\\\"", "\\\\", "\\u00e9", "\\ud83d\\ude00", "\u{10ffff}"])
            .prop_map(str::to_owned),
        1 => select(vec!["\\u0001", "\\u007f", "\u{feff}", "e\u{301}", "\u{202e}", "\\uffff"])
            .prop_map(str::to_owned),
    ];
    let odd = select(vec!["\\u0000", "\\ud800", "\\x", "\u{1}", "\\udc00\\ud800"]);
    prop_oneof![
        40 => vec(character, 0..5).prop_map(|text| format!("\"{}\"", text.concat())),
        1 => odd.prop_map(|text| format!("\"{text}\"")),
        // Keys with a special meaning in serde_json.
        1 => Just(r#""$serde_json::private::RawValue""#.to_owned()),
    ]
}

/// A name, usually valid.
pub fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => "[a-z'\"%$;-]{1,6}",
        4 => any::<String>(),
        1 => "\\PC{1,80}",
        1 => (250..258_usize).prop_map(|length| "x".repeat(length)),
        1 => select(vec!["", " ", "a\0b", "a\n", "\u{85}", "\u{a0}x", "'; DROP TABLE lanes; --"])
            .prop_map(str::to_owned),
    ]
}

fn timestamp() -> impl Strategy<Value = Option<Timestamp>> {
    prop_oneof![
        4 => Just(None),
        4 => (-62_135_596_800..253_402_300_800_i64, 0..1_000_000_000)
            .prop_map(|(seconds, nanos)| Some(Timestamp { seconds, nanos })),
        1 => (any::<i64>(), any::<i32>())
            .prop_map(|(seconds, nanos)| Some(Timestamp { seconds, nanos })),
    ]
}

/// A `Struct`, sometimes with invalid kinds and numbers.
pub fn structure() -> impl Strategy<Value = Struct> {
    let text = || prop_oneof![6 => "[a-c\"\\\\ü]{0,3}", 1 => any::<String>()];
    let number = prop_oneof![
        4 => any::<i32>().prop_map(f64::from),
        2 => any::<f64>(),
        1 => select(vec![f64::NAN, f64::INFINITY, -0.0, 5e-324, 9_007_199_254_740_994.0, 1e15]),
    ];
    let leaf = prop_oneof![
        10 => text().prop_map(|text| Some(Kind::StringValue(text))),
        10 => number.prop_map(|number| Some(Kind::NumberValue(number))),
        4 => any::<bool>().prop_map(|value| Some(Kind::BoolValue(value))),
        4 => Just(Some(Kind::NullValue(0))),
        1 => Just(None),
    ]
    .prop_map(|kind| Value { kind });
    let value = leaf.prop_recursive(26, 40, 3, move |inner| {
        prop_oneof![
            vec(inner.clone(), 0..3).prop_map(|values| Kind::ListValue(ListValue { values })),
            btree_map(text(), inner, 0..3).prop_map(|fields| Kind::StructValue(Struct { fields })),
        ]
        .prop_map(|kind| Value { kind: Some(kind) })
    });
    btree_map("[a-c]{0,2}", value, 0..4).prop_map(|fields| Struct { fields })
}

/// An event, usually valid, and often a duplicate.
pub fn event() -> impl Strategy<Value = Event> {
    let content = prop_oneof![
        1 => Just(None),
        6 => payload().prop_map(|text| Some(Content::PayloadJson(text))),
        3 => structure().prop_map(|structure| Some(Content::Payload(structure))),
    ];
    (name(), name(), name(), timestamp(), content).prop_map(
        |(topic, event_id, source, timestamp, content)| Event {
            topic,
            event_id,
            source,
            timestamp,
            content,
            ..Event::default()
        },
    )
}

/// A Publish message.
pub fn message() -> impl Strategy<Value = Vec<u8>> {
    let events = vec(event(), 1..4);
    let request = (events, any::<bool>())
        .prop_map(|(events, allow_partial)| PublishRequest { events, allow_partial });
    request.prop_map(|request| request.encode_to_vec())
}

/// The same with a few bytes changed or missing.
pub fn damaged(bytes: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let damage = vec((any::<Index>(), any::<u8>(), any::<bool>()), 0..4);
    (bytes, damage).prop_map(|(mut bytes, damage)| {
        for (at, byte, is_cut) in damage {
            if bytes.is_empty() {
                break;
            }
            let at = at.index(bytes.len());
            match is_cut {
                true => drop(bytes.remove(at)),
                false => bytes[at] = byte,
            }
        }
        bytes
    })
}
