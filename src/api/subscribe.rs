//! Subscriptions: the feed of a caller, while its access permits.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::{Api, Error};
use crate::{
    access::{Caller, Verb},
    cursor::Cursor,
    event::Violation,
    feed::{Frame, Start, Subscription},
    limits::MAX_SUBSCRIBED_TOPICS,
};

/// A subscription of a caller to some topics, or to all of them.
pub struct Subscriber {
    subscription: Subscription,
    caller: Caller,
    topics: Arc<[String]>,
    stopping: CancellationToken,
}

impl Api {
    /// Subscribes to topics; to all topics if there are none. `cursor` is an encoded cursor,
    /// `beginning` or `end`.
    pub async fn subscribe(
        &self,
        caller: Caller,
        topics: Vec<String>,
        cursor: &str,
    ) -> Result<Subscriber, Error> {
        if topics.len() > MAX_SUBSCRIBED_TOPICS {
            let fault = format!("has {} names; the limit is {MAX_SUBSCRIBED_TOPICS}", topics.len());
            return Err(Error::invalid(vec![Violation::new("topics", fault)]));
        }
        caller.identity.demand_filtered(Verb::Read, &topics)?;
        let start = match cursor {
            "beginning" => Start::Beginning,
            "end" => Start::End,
            cursor => Start::Cursor(
                Cursor::decode(cursor, self.store.id(), self.store.lanes())
                    .map_err(Error::cursor)?,
            ),
        };
        let topics: Arc<[String]> = topics.into();
        let subscription = self.feed.subscribe(&caller.key, start, Arc::clone(&topics)).await?;
        Ok(Subscriber { subscription, caller, topics, stopping: self.stopping.clone() })
    }
}

impl Subscriber {
    /// Waits for the next frame. Fails if the caller loses its access, the server shuts down, or
    /// the store fails. Cancel safe.
    pub async fn next(&mut self) -> Result<Frame, Error> {
        loop {
            let frame = tokio::select! {
                frame = self.subscription.next() => Some(frame?),
                changed = self.caller.identity.changed() => changed.map(|()| None)?,
                () = self.stopping.cancelled() => return Err(Error::subscription_ended()),
            };
            self.authorize()?;
            if let Some(frame) = frame {
                return Ok(frame);
            }
        }
    }

    /// Waits until the caller loses its access, or the server shuts down. Cancel safe.
    pub async fn ended(&mut self) -> Error {
        loop {
            let changed = tokio::select! {
                changed = self.caller.identity.changed() => changed,
                () = self.stopping.cancelled() => return Error::subscription_ended(),
            };
            if let Err(error) = changed.map_err(Error::from).and_then(|()| self.authorize()) {
                return error;
            }
        }
    }

    /// Whether memory for subscriptions is short. If so, the next frame should be read only after
    /// the connection has sent the previous one.
    pub fn is_short(&self) -> bool {
        self.subscription.is_short()
    }

    /// Fails if the current access file does not permit the caller to read the topics.
    fn authorize(&mut self) -> Result<(), Error> {
        self.caller.identity.refresh()?;
        Ok(self.caller.identity.demand_filtered(Verb::Read, &*self.topics)?)
    }
}
