//! The items of a subscription on their way out. One waits until the body of the response asks for it;
//! then its bytes wait until the connection has taken them. If that takes longer than
//! [`SUBSCRIBER_STALL_TIMEOUT`], all of it is dropped and the subscription ends: a connection does not ask
//! for more while its other end takes nothing, so the body cannot watch the time.

use std::{
    future::pending,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use futures_util::Stream;
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use super::Expired;
use crate::limits::{SUBSCRIBER_STALL_TIMEOUT, SUBSCRIPTION_PORTION_BYTES};

/// Where a subscription puts its items. Dropped, no more will come.
#[derive(Debug)]
pub struct Outbox<T, H>(Arc<Shared<T, H>>);

/// The items, as the body of a response asks for them. Asking for the next one says that the connection
/// has taken the last one.
#[derive(Debug)]
pub struct Outgoing<T, H>(Arc<Shared<T, H>>);

/// Bytes of the item that the body has taken last and the connection has not. Clones are handles to the
/// same ones.
#[derive(Debug, Clone, Default)]
pub struct Unsent(Arc<Mutex<Rest>>);

/// Why no more items are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Closed {
    /// The response was dropped.
    #[error("the subscriber is gone")]
    Gone,
    /// An item was not taken within [`SUBSCRIBER_STALL_TIMEOUT`].
    #[error("the subscriber did not take an event in time")]
    Stalled,
}

#[derive(Debug)]
struct Shared<T, H> {
    state: Mutex<State<T, H>>,
    unsent: Unsent,
    /// Notified when the body takes an item, or is dropped. Only the task with the [`Outbox`] waits.
    changed: Notify,
}

#[derive(Debug)]
struct State<T, H> {
    /// The item that waits for the body, and what is held until the connection has taken it.
    next: Option<(T, H)>,
    /// What is held for the item that the body has.
    held: Option<H>,
    /// Since when the connection has not taken the item that is the first to go.
    since: Option<Instant>,
    body: Option<Waker>,
    closed: Option<Closed>,
    is_complete: bool,
}

#[derive(Debug, Default)]
struct Rest {
    bytes: Bytes,
    is_expired: bool,
    /// Whether the connection has asked for more since the body took its last item.
    is_asked: bool,
}

/// An empty outbox.
pub fn outbox<T, H>() -> (Outbox<T, H>, Outgoing<T, H>) {
    let state =
        State { next: None, held: None, since: None, body: None, closed: None, is_complete: false };
    let (unsent, changed) = (Unsent::default(), Notify::new());
    let shared = Arc::new(Shared { state: Mutex::new(state), unsent, changed });
    (Outbox(Arc::clone(&shared)), Outgoing(shared))
}

impl<T, H> Outbox<T, H> {
    /// Waits until the next item can be put in. May be dropped while waiting.
    pub async fn ready(&self) -> Result<(), Closed> {
        self.wait(|state| state.next.is_none()).await
    }

    /// Waits until the connection has taken all that was put in. May be dropped while waiting.
    pub async fn drained(&self) -> Result<(), Closed> {
        self.wait(|state| state.since.is_none()).await
    }

    /// Waits until no more items are wanted. May be dropped while waiting.
    pub async fn closed(&self) -> Closed {
        match self.wait(|_| false).await {
            Err(closed) => closed,
            Ok(()) => pending().await,
        }
    }

    /// Puts an item in, which takes the place of one that still waits. `held` is dropped once the
    /// connection has taken the item.
    pub fn put(&self, item: T, held: H) {
        let mut state = self.0.state();
        if state.closed.is_some() {
            return;
        }
        state.next = Some((item, held));
        state.since.get_or_insert_with(Instant::now);
        wake(state);
    }

    async fn wait(&self, is_so: impl Fn(&State<T, H>) -> bool) -> Result<(), Closed> {
        loop {
            let since = {
                let state = self.0.state();
                if let Some(closed) = state.closed {
                    return Err(closed);
                }
                if is_so(&state) {
                    return Ok(());
                }
                state.since
            };
            let stalled = async {
                match since {
                    Some(since) => sleep_until(since + SUBSCRIBER_STALL_TIMEOUT).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                () = self.0.changed.notified() => (),
                () = stalled => self.0.end_if_stalled(),
            }
        }
    }
}

impl<T, H> Drop for Outbox<T, H> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.is_complete = true;
        wake(state);
    }
}

impl<T, H> Outgoing<T, H> {
    /// Where the body of the response keeps what the connection has not taken.
    pub fn unsent(&self) -> Unsent {
        self.0.unsent.clone()
    }
}

impl<T, H> Stream for Outgoing<T, H> {
    type Item = T;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        let mut state = self.0.state();
        // An encoder asks for more at once if an item is small.
        let is_taken = self.0.unsent.rest().is_asked;
        let Some((item, held)) = state.next.take() else {
            if is_taken {
                state.held = None;
                state.since = None;
            }
            if state.is_complete || state.closed.is_some() {
                return Poll::Ready(None);
            }
            state.body = Some(context.waker().clone());
            drop(state);
            self.0.changed.notify_one();
            return Poll::Pending;
        };
        state.held = Some(held);
        state.since = Some(Instant::now());
        self.0.unsent.rest().is_asked = false;
        drop(state);
        self.0.changed.notify_one();
        Poll::Ready(Some(item))
    }
}

impl<T, H> Drop for Outgoing<T, H> {
    fn drop(&mut self) {
        self.0.close(self.0.state(), Closed::Gone);
        self.0.changed.notify_one();
    }
}

impl<T, H> Shared<T, H> {
    fn state(&self) -> MutexGuard<'_, State<T, H>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end_if_stalled(&self) {
        let state = self.state();
        if state.since.is_some_and(|since| since.elapsed() >= SUBSCRIBER_STALL_TIMEOUT) {
            self.unsent.expire();
            self.close(state, Closed::Stalled);
        }
    }

    /// Drops what waits.
    fn close(&self, mut state: MutexGuard<'_, State<T, H>>, why: Closed) {
        let waiting = (state.next.take(), state.held.take());
        state.closed.get_or_insert(why);
        wake(state);
        drop(waiting);
    }
}

fn wake<T, H>(mut state: MutexGuard<'_, State<T, H>>) {
    let body = state.body.take();
    drop(state);
    if let Some(body) = body {
        body.wake();
    }
}

impl Unsent {
    /// Keeps the bytes of an item.
    pub fn put(&self, bytes: Bytes) {
        let mut rest = self.rest();
        if !rest.is_expired {
            rest.bytes = bytes;
        }
    }

    /// The next portion for the connection, if there is one. It is a copy, because a part of a large
    /// allocation keeps all of it.
    pub fn next(&self) -> Result<Option<Bytes>, Expired> {
        let Rest { bytes, is_expired, is_asked } = &mut *self.rest();
        if *is_expired {
            return Err(Expired);
        }
        *is_asked = bytes.is_empty();
        let size = bytes.len().min(SUBSCRIPTION_PORTION_BYTES);
        let portion = bytes.split_to(size);
        if bytes.is_empty() {
            *bytes = Bytes::new();
        }
        Ok((size > 0).then(|| Bytes::copy_from_slice(&portion)))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        let rest = self.rest();
        rest.bytes.is_empty() && !rest.is_expired
    }

    fn expire(&self) {
        *self.rest() = Rest { is_expired: true, ..Rest::default() };
    }

    fn rest(&self) -> MutexGuard<'_, Rest> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;
    use tokio::time::{Duration, advance, timeout};

    use super::*;

    /// Less than the time after which a subscriber counts as stalled.
    const WHILE: Duration =
        SUBSCRIBER_STALL_TIMEOUT.checked_sub(Duration::from_secs(1)).expect("more");

    /// What a body does when its connection asks for more.
    async fn ask<T, H>(outgoing: &mut Outgoing<T, H>) -> Option<T> {
        let _ = outgoing.unsent().next();
        outgoing.next().await
    }

    /// Whether something was dropped.
    fn is_free(held: &Arc<()>) -> bool {
        Arc::strong_count(held) == 1
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_held_is_dropped_once_the_next_item_is_asked_for() {
        let (outbox, mut outgoing) = outbox();
        let held = Arc::new(());
        outbox.ready().await.expect("empty");
        outbox.put(1, Arc::clone(&held));
        assert!(timeout(WHILE, outbox.ready()).await.is_err(), "one item waits at most");
        assert_eq!(ask(&mut outgoing).await, Some(1));
        outbox.ready().await.expect("it was taken");
        assert!(timeout(WHILE, outgoing.next()).await.is_err(), "an encoder looks for more");
        assert!(!is_free(&held), "the connection may not have taken it");
        assert!(timeout(WHILE, ask(&mut outgoing)).await.is_err());
        assert!(is_free(&held));
        drop(outbox);
        assert_eq!(ask(&mut outgoing).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_subscriber_that_takes_nothing_is_ended_and_what_waited_is_dropped() {
        for taken in [false, true] {
            let (outbox, mut outgoing) = outbox();
            let unsent = outgoing.unsent();
            let held = Arc::new(());
            outbox.put(1, Arc::clone(&held));
            if taken {
                assert_eq!(ask(&mut outgoing).await, Some(1));
                unsent.put(Bytes::from_static(&[0; SUBSCRIPTION_PORTION_BYTES * 2]));
                assert!(unsent.next().is_ok_and(|portion| portion.is_some()));
                // The next one waits as well.
                outbox.put(2, Arc::clone(&held));
            }
            assert_eq!(outbox.closed().await, Closed::Stalled);
            assert_eq!(outbox.ready().await, Err(Closed::Stalled));
            assert!(is_free(&held));
            assert_eq!(unsent.next(), Err(Expired));
            assert_eq!(ask(&mut outgoing).await, None);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn neither_an_idle_subscriber_nor_a_slow_one_is_ended() {
        let (outbox, mut outgoing) = outbox();
        assert!(timeout(SUBSCRIBER_STALL_TIMEOUT * 10, outbox.closed()).await.is_err());
        for item in 0..10 {
            outbox.ready().await.expect("taken");
            outbox.put(item, ());
            assert!(timeout(WHILE, outbox.closed()).await.is_err());
            assert_eq!(ask(&mut outgoing).await, Some(item));
        }
        assert!(timeout(WHILE, outbox.drained()).await.is_err(), "the last one may be on its way");
        assert!(timeout(Duration::from_millis(1), ask(&mut outgoing)).await.is_err());
        outbox.drained().await.expect("it has taken everything");
        advance(SUBSCRIBER_STALL_TIMEOUT * 2).await;
        outbox.ready().await.expect("it has taken everything");
        drop(outgoing);
        assert_eq!(outbox.closed().await, Closed::Gone);
    }
}
