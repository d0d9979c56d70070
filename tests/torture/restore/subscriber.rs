//! Subscribers in rounds with a restore.

use event_aggregator::proto::v1::{
    PayloadFormat, SubscribeRequest, SubscribeResponse, subscribe_response::Frame,
};
use tonic::{Code, Status, Streaming, transport::Channel};
use tonic_types::StatusExt;

use crate::{cluster::Client, database::key, history::Key};

/// The events that a subscriber received until it caught up, and its last cursor.
pub struct Read {
    pub keys: Vec<Key>,
    pub cursor: String,
}

/// How a subscription that must be rejected ended.
pub enum Ended {
    /// With the error that the store was restored.
    Restored,
    /// With another error.
    Otherwise(String),
}

/// Whether an error reports that the store was restored.
pub fn is_restored(status: &Status) -> bool {
    status.get_details_error_info().is_some_and(|info| info.reason == "STORE_RESTORED")
}

/// Reads from a cursor until the subscription has caught up.
pub async fn read(channel: Channel, cursor: &str) -> Result<Read, Status> {
    let mut frames = subscribe(channel, cursor).await?;
    let mut read = Read { keys: Vec::new(), cursor: cursor.to_owned() };
    loop {
        match next(&mut frames).await? {
            Frame::Events(batch) => {
                let keys = batch.events.iter().map(|event| key(&event.topic, &event.event_id));
                read.keys.extend(keys);
                read.cursor = batch.cursor;
            }
            Frame::Checkpoint(checkpoint) => read.cursor = checkpoint.cursor,
            Frame::CaughtUp(end) => {
                read.cursor = end.cursor;
                return Ok(read);
            }
        }
    }
}

/// Reads from the beginning, and resumes from the last cursor after each disconnect, until an error
/// reports that the store was restored.
pub async fn follow(channel: Channel) -> Ended {
    let mut cursor = "beginning".to_owned();
    loop {
        match follow_once(channel.clone(), &mut cursor).await {
            status if is_restored(&status) => return Ended::Restored,
            // The service is unavailable, or was stopped.
            status if status.code() == Code::Unavailable || status.code() == Code::Unknown => {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
            status => return Ended::Otherwise(status.to_string()),
        }
    }
}

async fn follow_once(channel: Channel, cursor: &mut String) -> Status {
    let mut frames = match subscribe(channel, cursor).await {
        Ok(frames) => frames,
        Err(status) => return status,
    };
    loop {
        *cursor = match next(&mut frames).await {
            Ok(Frame::Events(batch)) => batch.cursor,
            Ok(Frame::Checkpoint(checkpoint)) => checkpoint.cursor,
            Ok(Frame::CaughtUp(end)) => end.cursor,
            Err(status) => return status,
        };
    }
}

async fn subscribe(channel: Channel, cursor: &str) -> Result<Streaming<SubscribeResponse>, Status> {
    let request = SubscribeRequest {
        topics: Vec::new(),
        cursor: cursor.to_owned(),
        payload_format: PayloadFormat::Json.into(),
    };
    Ok(Client::new(channel).subscribe(request).await?.into_inner())
}

async fn next(frames: &mut Streaming<SubscribeResponse>) -> Result<Frame, Status> {
    let frame = frames.message().await?.and_then(|response| response.frame);
    frame.ok_or_else(|| Status::unknown("the subscription ended"))
}
