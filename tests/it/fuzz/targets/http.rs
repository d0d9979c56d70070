//! A body of `POST /publish`: events in every form that is taken, or an answer that says what is wrong.

use super::service::call;

const MEDIA_TYPES: [&str; 4] = [
    "application/json",
    "application/x-ndjson",
    "application/cloudevents+json",
    "application/cloudevents-batch+json",
];

/// The first byte chooses the form.
pub fn run(bytes: &[u8]) {
    let Some((&form, body)) = bytes.split_first() else { return };
    let media_type = MEDIA_TYPES[usize::from(form) % MEDIA_TYPES.len()];
    let (status, stored) = call(async |subject| subject.post(media_type, body.to_vec()).await);
    if status != 200 {
        return;
    }
    // What is taken is JSON, and every payload stands in it as it is kept.
    let body = std::str::from_utf8(body).expect("UTF-8");
    for event in &stored {
        let payload = event.payload.as_str();
        assert!(payload == "{}" || body.contains(payload), "{body}");
        super::json::run(payload.as_bytes());
    }
}
