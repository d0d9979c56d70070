//! A Publish message of arbitrary bytes: parsed, validated and stored, or rejected with a reason.

use super::service::{Raw, call};

pub fn run(bytes: &[u8]) {
    let answer = call(async |subject| subject.publish(Raw(bytes.to_vec())).await);
    let Ok((response, stored)) = answer else { return };
    assert_eq!(response.results.len(), stored.len() + response.rejected as usize);
    assert_eq!(response.received, stored.len() as i64);
    for event in &stored {
        super::json::run(event.payload.as_str().as_bytes());
        for name in [&event.key.topic, &event.key.event_id, &event.source] {
            assert!((1..=255).contains(&name.len()));
            assert!(name.trim().len() == name.len() && !name.chars().any(char::is_control));
        }
    }
}
