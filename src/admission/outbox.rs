//! Queue between a subscription and the body of its response. One item waits until the body is
//! polled; then its bytes wait until the connection has sent them. If that takes longer than
//! [`SUBSCRIBER_STALL_TIMEOUT`], everything is dropped and the subscription ends. The body cannot
//! run this timeout itself, because a connection does not poll it while the client does not read.

use std::{
    future::pending,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use futures_util::Stream;
use parking_lot::{Mutex, MutexGuard};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use super::Expired;
use crate::limits::{SUBSCRIBER_STALL_TIMEOUT, SUBSCRIPTION_CHUNK_BYTES};

/// The sending half. When it is dropped, the stream of items ends.
#[derive(Debug)]
pub(crate) struct Outbox<T, H>(Arc<Shared<T, H>>);

/// The receiving half: the stream of items for the body of a response. A connection polls for the
/// next item once it has sent the previous one.
#[derive(Debug)]
pub(crate) struct Outgoing<T, H>(Arc<Shared<T, H>>);

/// Bytes of the item that the body received last and the connection has not sent yet. Clones are
/// handles to the same bytes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Unsent(Arc<Mutex<Buffer>>);

/// Why an outbox is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Closed {
    /// The response was dropped.
    #[error("the subscriber disconnected")]
    Gone,
    /// An item was not sent within [`SUBSCRIBER_STALL_TIMEOUT`].
    #[error("the subscriber did not read an event in time")]
    Stalled,
}

#[derive(Debug)]
struct Shared<T, H> {
    state: Mutex<State<T, H>>,
    unsent: Unsent,
    /// Notified when the body receives an item or is dropped. Only the task with the [`Outbox`]
    /// waits for it.
    changed: Notify,
}

#[derive(Debug)]
struct State<T, H> {
    /// The item that waits for the body, with the resources to hold until it has been sent.
    next: Option<(T, H)>,
    /// The resources of the item that the body received last.
    held: Option<H>,
    /// Since when the oldest unsent item has been waiting.
    waiting_since: Option<Instant>,
    body_waker: Option<Waker>,
    closed: Option<Closed>,
    is_complete: bool,
}

#[derive(Debug, Default)]
struct Buffer {
    bytes: Bytes,
    is_expired: bool,
    /// Whether the connection has sent everything: it polled for more while there were no bytes.
    is_drained: bool,
}

/// Creates an outbox without items.
pub(crate) fn outbox<T, H>() -> (Outbox<T, H>, Outgoing<T, H>) {
    let state = State {
        next: None,
        held: None,
        waiting_since: None,
        body_waker: None,
        closed: None,
        is_complete: false,
    };
    let (unsent, changed) = (Unsent::default(), Notify::new());
    let shared = Arc::new(Shared { state: Mutex::new(state), unsent, changed });
    (Outbox(Arc::clone(&shared)), Outgoing(shared))
}

impl<T, H> Outbox<T, H> {
    /// Waits until there is a free slot. Cancel safe.
    pub(crate) async fn ready(&self) -> Result<(), Closed> {
        self.wait(|state| state.next.is_none()).await
    }

    /// Waits until the connection has sent all items. Cancel safe.
    pub(crate) async fn drained(&self) -> Result<(), Closed> {
        self.wait(|state| state.waiting_since.is_none()).await
    }

    /// Waits until the outbox is closed. Cancel safe.
    pub(crate) async fn closed(&self) -> Closed {
        match self.wait(|_| false).await {
            Err(closed) => closed,
            Ok(()) => pending().await,
        }
    }

    /// Sets the next item, and replaces one that is still waiting. `held` is dropped once the
    /// connection has sent the item.
    pub(crate) fn put(&self, item: T, held: H) {
        let mut state = self.0.state.lock();
        if state.closed.is_some() {
            return;
        }
        state.next = Some((item, held));
        state.waiting_since.get_or_insert_with(Instant::now);
        wake(state);
    }

    async fn wait(&self, condition: impl Fn(&State<T, H>) -> bool) -> Result<(), Closed> {
        loop {
            let waiting_since = {
                let state = self.0.state.lock();
                if let Some(closed) = state.closed {
                    return Err(closed);
                }
                if condition(&state) {
                    return Ok(());
                }
                state.waiting_since
            };
            let stalled = async {
                match waiting_since {
                    Some(since) => sleep_until(since + SUBSCRIBER_STALL_TIMEOUT).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                () = self.0.changed.notified() => (),
                () = stalled => self.0.close_if_stalled(),
            }
        }
    }
}

impl<T, H> Drop for Outbox<T, H> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.is_complete = true;
        wake(state);
    }
}

impl<T, H> Outgoing<T, H> {
    /// The buffer for bytes that the connection has not sent yet.
    pub(crate) fn unsent(&self) -> Unsent {
        self.0.unsent.clone()
    }
}

impl<T, H> Stream for Outgoing<T, H> {
    type Item = T;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        let mut state = self.0.state.lock();
        // A poll is not enough: an encoder also polls to fill up a small frame.
        let is_sent = self.0.unsent.buffer().is_drained;
        let Some((item, held)) = state.next.take() else {
            if is_sent {
                state.held = None;
                state.waiting_since = None;
            }
            if state.is_complete || state.closed.is_some() {
                return Poll::Ready(None);
            }
            state.body_waker = Some(context.waker().clone());
            drop(state);
            self.0.changed.notify_one();
            return Poll::Pending;
        };
        state.held = Some(held);
        state.waiting_since = Some(Instant::now());
        self.0.unsent.buffer().is_drained = false;
        drop(state);
        self.0.changed.notify_one();
        Poll::Ready(Some(item))
    }
}

impl<T, H> Drop for Outgoing<T, H> {
    fn drop(&mut self) {
        self.0.close(self.0.state.lock(), Closed::Gone);
        self.0.changed.notify_one();
    }
}

impl<T, H> Shared<T, H> {
    fn close_if_stalled(&self) {
        let state = self.state.lock();
        if state.waiting_since.is_some_and(|since| since.elapsed() >= SUBSCRIBER_STALL_TIMEOUT) {
            self.unsent.expire();
            self.close(state, Closed::Stalled);
        }
    }

    /// Closes the outbox and drops the waiting item.
    fn close(&self, mut state: MutexGuard<'_, State<T, H>>, reason: Closed) {
        let dropped = (state.next.take(), state.held.take());
        state.closed.get_or_insert(reason);
        wake(state);
        drop(dropped);
    }
}

fn wake<T, H>(mut state: MutexGuard<'_, State<T, H>>) {
    let waker = state.body_waker.take();
    drop(state);
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl Unsent {
    /// Stores the bytes of an item.
    pub(crate) fn put(&self, bytes: Bytes) {
        let mut buffer = self.buffer();
        if !buffer.is_expired {
            buffer.bytes = bytes;
        }
    }

    /// The next chunk for the connection, if there is one. It is a copy, because a slice would keep
    /// the whole allocation.
    pub(crate) fn next(&self) -> Result<Option<Bytes>, Expired> {
        let Buffer { bytes, is_expired, is_drained } = &mut *self.buffer();
        if *is_expired {
            return Err(Expired);
        }
        *is_drained = bytes.is_empty();
        let size = bytes.len().min(SUBSCRIPTION_CHUNK_BYTES);
        let chunk = bytes.split_to(size);
        if bytes.is_empty() {
            *bytes = Bytes::new();
        }
        Ok((size > 0).then(|| Bytes::copy_from_slice(&chunk)))
    }

    /// Whether all bytes have been sent.
    pub(crate) fn is_empty(&self) -> bool {
        let buffer = self.buffer();
        buffer.bytes.is_empty() && !buffer.is_expired
    }

    fn expire(&self) {
        *self.buffer() = Buffer { is_expired: true, ..Buffer::default() };
    }

    fn buffer(&self) -> MutexGuard<'_, Buffer> {
        self.0.lock()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;
    use tokio::time::{Duration, advance, timeout};

    use super::*;

    /// A wait just below the stall timeout.
    const BELOW_TIMEOUT: Duration =
        SUBSCRIBER_STALL_TIMEOUT.checked_sub(Duration::from_secs(1)).expect("positive");

    /// Polls like a connection that has sent the previous item.
    async fn receive<T, H>(outgoing: &mut Outgoing<T, H>) -> Option<T> {
        let _ = outgoing.unsent().next();
        outgoing.next().await
    }

    /// Whether the resources of all items were dropped.
    fn is_dropped(held: &Arc<()>) -> bool {
        Arc::strong_count(held) == 1
    }

    #[tokio::test(start_paused = true)]
    async fn resources_are_held_until_the_item_is_sent() {
        let (outbox, mut outgoing) = outbox();
        let held = Arc::new(());
        outbox.ready().await.expect("empty");
        outbox.put(1, Arc::clone(&held));
        assert!(timeout(BELOW_TIMEOUT, outbox.ready()).await.is_err(), "at most one item waits");
        assert_eq!(receive(&mut outgoing).await, Some(1));
        outbox.ready().await.expect("received");
        assert!(
            timeout(BELOW_TIMEOUT, outgoing.next()).await.is_err(),
            "an encoder polls for more"
        );
        assert!(!is_dropped(&held), "the connection may not have sent it");
        assert!(timeout(BELOW_TIMEOUT, receive(&mut outgoing)).await.is_err());
        assert!(is_dropped(&held));
        drop(outbox);
        assert_eq!(receive(&mut outgoing).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn stalled_subscription_is_closed_and_its_items_are_dropped() {
        for received in [false, true] {
            let (outbox, mut outgoing) = outbox();
            let unsent = outgoing.unsent();
            let held = Arc::new(());
            outbox.put(1, Arc::clone(&held));
            if received {
                assert_eq!(receive(&mut outgoing).await, Some(1));
                unsent.put(Bytes::from_static(&[0; SUBSCRIPTION_CHUNK_BYTES * 2]));
                assert!(unsent.next().is_ok_and(|chunk| chunk.is_some()));
                // The next item waits, too.
                outbox.put(2, Arc::clone(&held));
            }
            assert_eq!(outbox.closed().await, Closed::Stalled);
            assert_eq!(outbox.ready().await, Err(Closed::Stalled));
            assert!(is_dropped(&held));
            assert_eq!(unsent.next(), Err(Expired));
            assert_eq!(receive(&mut outgoing).await, None);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn idle_and_slow_subscriptions_are_not_closed() {
        let (outbox, mut outgoing) = outbox();
        assert!(timeout(SUBSCRIBER_STALL_TIMEOUT * 10, outbox.closed()).await.is_err());
        for item in 0..10 {
            outbox.ready().await.expect("received");
            outbox.put(item, ());
            assert!(timeout(BELOW_TIMEOUT, outbox.closed()).await.is_err());
            assert_eq!(receive(&mut outgoing).await, Some(item));
        }
        assert!(
            timeout(BELOW_TIMEOUT, outbox.drained()).await.is_err(),
            "the last one may be in transit"
        );
        assert!(timeout(Duration::from_millis(1), receive(&mut outgoing)).await.is_err());
        outbox.drained().await.expect("everything was sent");
        advance(SUBSCRIBER_STALL_TIMEOUT * 2).await;
        outbox.ready().await.expect("everything was sent");
        drop(outgoing);
        assert_eq!(outbox.closed().await, Closed::Gone);
    }
}
