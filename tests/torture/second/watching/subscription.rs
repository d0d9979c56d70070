//! One subscription from the beginning, over many connections.

use std::time::{Duration, Instant};

use event_aggregator::proto::v1::{self as proto, subscribe_response::Frame};
use tokio::time::timeout;

use super::Reader;
use crate::second::{clients, judge::history::Feed, recorder::Phase};

const BY: &str = "Subscribe";

/// Maximum time to catch up after the last restart.
const LAST: Duration = Duration::from_secs(60);

pub(super) async fn run(mut reader: Reader) {
    let mut feed = Feed::default();
    let mut place = Place { cursor: String::new(), seen: vec![false; reader.recorder.keys.len()] };
    let mut phases = reader.recorder.phase.subscribe();
    let mut restarted_at = None;
    while !feed.caught_up {
        let is_last = *phases.borrow_and_update() == Phase::Restarted;
        if is_last && restarted_at.get_or_insert_with(Instant::now).elapsed() > LAST {
            break;
        }
        let reading = connection(&mut reader, &mut feed, &mut place, is_last);
        tokio::select! {
            done = timeout(LAST, reading) => {
                if done.is_err() {
                    reader.recorder.fault("a subscription got nothing for a long time");
                }
            }
            // End the previous connection; the last one has to begin after the restart.
            Ok(()) = phases.changed() => (),
        }
        feed.resumed += 1;
        reader.pause(30).await;
    }
    reader.recorder.history().feeds.push(feed);
}

/// The progress of a subscriber.
struct Place {
    cursor: String,
    /// The keys that it received.
    seen: Vec<bool>,
}

/// Reads over one connection until it fails, for a while, or until it has caught up if it is the
/// last one.
async fn connection(reader: &mut Reader, feed: &mut Feed, place: &mut Place, is_last: bool) {
    let address = reader.some_service().address;
    let Some(mut client) = clients::connect(address).await else { return };
    let request = proto::SubscribeRequest {
        cursor: place.cursor.clone(),
        payload_format: proto::PayloadFormat::Json.into(),
        ..Default::default()
    };
    let begin = reader.recorder.now();
    let mut frames = match client.subscribe(request).await {
        Ok(response) => response.into_inner(),
        Err(status) => return refused(reader, &status),
    };
    let mut left = reader.rng.usize(1..8);
    let mut is_caught_up = false;
    while left > 0 || is_last {
        left = left.saturating_sub(1);
        let frame = match frames.message().await {
            Ok(Some(response)) => response.frame,
            Ok(None) => return,
            Err(status) => return refused(reader, &status),
        };
        let at = (begin, reader.recorder.now());
        match frame {
            Some(Frame::Events(batch)) => {
                // Sometimes resume from an event in the middle of a batch.
                let kept = match !is_last && reader.rng.u8(..4) == 0 {
                    true => reader.rng.usize(1..=batch.events.len().max(1)),
                    false => usize::MAX,
                };
                for event in batch.events.iter().take(kept) {
                    let Some(key) = reader.note(BY, at, event) else { continue };
                    feed.deliveries.push(key);
                    place.seen[key] = true;
                    place.cursor.clone_from(&event.cursor);
                }
                if kept < batch.events.len() {
                    return;
                }
                place.cursor = batch.cursor;
            }
            Some(Frame::Checkpoint(checkpoint)) => place.cursor = checkpoint.cursor,
            Some(Frame::CaughtUp(caught_up)) => {
                place.cursor = caught_up.cursor;
                if !is_caught_up {
                    // It has received everything that was stored when the connection began.
                    let missing = (0..place.seen.len()).filter(|key| !place.seen[*key]);
                    missing.for_each(|key| reader.recorder.sight(BY, key, at, None));
                }
                is_caught_up = true;
                feed.caught_up = is_last;
                if is_last {
                    return;
                }
            }
            None => reader.recorder.fault("an empty frame"),
        }
    }
}

/// Checks that the service does not reject its own cursors.
fn refused(reader: &Reader, status: &tonic::Status) {
    if status.code() == tonic::Code::InvalidArgument {
        reader.recorder.fault(format!("a cursor was refused: {}", status.message()));
    }
}
