//! Random input for every parser of untrusted bytes: the same functions as in `fuzz/`, without
//! coverage guidance, on every change.

use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{Config, RngSeed, TestRunner},
};
use prost::Message;

mod made_up;
mod running;
pub mod targets;

/// Runs this many cases, or as many as PROPTEST_CASES says. PROPTEST_RNG_SEED repeats the cases of
/// another run.
pub fn check<S: Strategy>(cases: u32, input: S, test: impl Fn(S::Value)) {
    let mut config = Config { failure_persistence: None, ..Config::default() };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = cases;
    }
    let seed = match config.rng_seed {
        RngSeed::Fixed(seed) => seed,
        RngSeed::Random => fastrand::u64(..),
    };
    config.rng_seed = RngSeed::Fixed(seed);
    println!("PROPTEST_RNG_SEED={seed}");
    let result = TestRunner::new(config).run(&input, |input| {
        test(input);
        Ok(())
    });
    result.unwrap_or_else(|failure| panic!("PROPTEST_RNG_SEED={seed}: {failure}"));
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..200)
}

#[test]
fn messages_with_events() {
    let input = prop_oneof![1 => bytes(), 6 => made_up::damaged(made_up::message())];
    check(500, input, |bytes| targets::event::run(&bytes));
}

#[test]
fn structures() {
    let encoded = made_up::structure().prop_map(|structure| structure.encode_to_vec());
    let input = prop_oneof![1 => bytes(), 4 => made_up::damaged(encoded)];
    check(300, input, |bytes| targets::structure::run(&bytes));
    check(200, made_up::structure(), targets::structure::tree);
}

#[test]
fn payload_texts() {
    let text = || made_up::payload().prop_map(String::into_bytes);
    let pair = (text(), text()).prop_map(|(a, b)| [a, vec![1], b].concat());
    let input = prop_oneof![1 => bytes(), 4 => made_up::damaged(text()), 4 => pair];
    check(2_000, input, |bytes| targets::json::run(&bytes));
}

#[test]
fn cursors_and_page_tokens() {
    let few_lanes = vec(any::<u8>(), 0..60).prop_map(|mut bytes| {
        bytes.iter_mut().take(2).for_each(|byte| *byte %= 4);
        bytes
    });
    check(4_000, prop_oneof![bytes(), few_lanes], |bytes| targets::token::run(&bytes));
}

#[test]
fn bodies_of_http() {
    let body = || {
        let field = |text: String| serde_json::to_string(&text).expect("text");
        let event = (made_up::name(), made_up::name(), made_up::payload(), 0..4_u8).prop_map(
            move |(topic, id, payload, form)| {
                let (topic, id) = (field(topic), field(id));
                match form {
                    0 | 1 => format!(
                        r#"{{"topic":{topic},"event_id":{id},"source":"s","payload":{payload}}}"#
                    ),
                    _ => format!(
                        r#"{{"specversion":"1.0","type":{topic},"id":{id},"source":"s","data":{payload}}}"#
                    ),
                }
            },
        );
        (0..4_u8, vec(event, 0..4), any::<bool>()).prop_map(|(form, events, is_array)| {
            let text = match is_array {
                true => format!("[{}]", events.join(",")),
                false => events.join("\n"),
            };
            [&[form], text.as_bytes()].concat()
        })
    };
    let input = prop_oneof![1 => bytes(), 3 => body(), 3 => made_up::damaged(body())];
    check(600, input, |bytes| targets::http::run(&bytes));
}
