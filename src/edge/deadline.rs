//! Deadlines of response bodies.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use axum::body::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

use super::chunked::BodyError;
use crate::api::Error;

/// A body that fails at a deadline, if there is one.
pub(super) struct Deadline<B> {
    body: B,
    deadline: Option<Instant>,
    /// Created when the body is pending for the first time.
    timer: Option<Pin<Box<Sleep>>>,
}

impl<B> Deadline<B> {
    pub(super) fn new(body: B, deadline: Option<Instant>) -> Self {
        Self { body, deadline, timer: None }
    }
}

impl<B: Body<Data = Bytes, Error = BodyError> + Unpin> Body for Deadline<B> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let Some(deadline) = this.deadline else {
            return Pin::new(&mut this.body).poll_frame(context);
        };
        let exceeded = || Poll::Ready(Some(Err(BodyError::Call(Error::deadline_exceeded()))));
        // The timer is polled only if the body is pending.
        if deadline <= Instant::now() {
            return exceeded();
        }
        let frame = Pin::new(&mut this.body).poll_frame(context);
        if frame.is_pending() {
            let timer = this.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
            if timer.as_mut().poll(context).is_ready() {
                return exceeded();
            }
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
