//! A body of `POST /publish` in every media type: accepted, or rejected with a reason.

use super::service::call;

const MEDIA_TYPES: [&str; 4] = [
    "application/json",
    "application/x-ndjson",
    "application/cloudevents+json",
    "application/cloudevents-batch+json",
];

/// The first byte selects the media type.
pub fn run(bytes: &[u8]) {
    let Some((&form, body)) = bytes.split_first() else { return };
    let media_type = MEDIA_TYPES[usize::from(form) % MEDIA_TYPES.len()];
    let (status, stored) = call(async |subject| subject.post(media_type, body.to_vec()).await);
    if status != 200 {
        return;
    }
    // Accepted input is JSON and contains every stored payload.
    let body = std::str::from_utf8(body).expect("UTF-8");
    for event in &stored {
        let payload = event.payload.as_str();
        assert!(payload == "{}" || body.contains(payload), "{body}");
        super::json::run(payload.as_bytes());
    }
}
