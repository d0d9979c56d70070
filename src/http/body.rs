//! What goes out for an HTTP call: a large answer in portions. As long as it goes out, the call has its
//! room.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use axum::body::{Body, Bytes, to_bytes};
use http_body::{Body as _, Frame, SizeHint};

use super::error::Error;
use crate::{
    access::CallerKey,
    limits::{SMALL_ANSWER_BYTES, SUBSCRIPTION_PORTION_BYTES},
    load::{Expired, LargeAnswer, Load, Permit, Reserved, Unsent},
};

/// The body of a response.
pub(super) enum ResponseBody {
    Small {
        body: Body,
        _permit: Permit,
    },
    Large(LargeAnswer<Permit>),
    /// That of a subscription, which has no end. Its events are dropped if the connection does not take them.
    Feed {
        body: Body,
        unsent: Unsent,
        _permit: Permit,
    },
}

impl ResponseBody {
    /// A small answer to a call that has this permit.
    pub(super) fn small(body: Body, permit: Permit) -> Self {
        Self::Small { body, _permit: permit }
    }

    /// The answer to a subscription, which has a place where events wait.
    pub(super) fn feed(body: Body, permit: Permit, unsent: Unsent) -> Self {
        Self::Feed { body, unsent, _permit: permit }
    }

    /// An answer to a call that has this permit. Fails if too many large ones wait already, and nothing was
    /// reserved for it.
    pub(super) async fn answer(
        body: Body,
        permit: Permit,
        load: &Load,
        caller: &CallerKey,
        reserved: Option<Reserved>,
    ) -> Result<Self, Error> {
        let is_large = |size| size > SMALL_ANSWER_BYTES as u64;
        if !body.size_hint().exact().is_some_and(is_large) {
            return Ok(Self::small(body, permit));
        }
        // It is in memory as a whole.
        let answer = to_bytes(body, usize::MAX).await.map_err(|_| Error::internal())?;
        let of_answer =
            load.answer(caller, answer.len(), reserved).map_err(Error::too_many_answers)?;
        Ok(Self::Large(LargeAnswer::new(answer, permit, of_answer)))
    }
}

impl http_body::Body for ResponseBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        match &mut *self {
            Self::Small { body, .. } => Pin::new(body).poll_frame(context),
            Self::Feed { body, unsent, .. } => poll_feed(body, unsent, context),
            Self::Large(answer) => Poll::Ready(match answer.next() {
                Ok(portion) => portion.map(|portion| Ok(Frame::data(portion))),
                Err(expired) => Some(Err(axum::Error::new(io::Error::other(expired)))),
            }),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Small { body, .. } => body.is_end_stream(),
            Self::Large(_) | Self::Feed { .. } => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Small { body, .. } => body.size_hint(),
            Self::Feed { .. } => SizeHint::default(),
            Self::Large(answer) => SizeHint::with_exact(answer.left() as u64),
        }
    }
}

/// The next portion of a feed. It ends early if the connection did not take an event in time: who reads it
/// throws half an event away, connects again and gets it as a whole.
fn poll_feed(
    body: &mut Body,
    unsent: &Unsent,
    context: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
    let next = || match unsent.next() {
        Ok(portion) => portion.map(|portion| Some(Ok(Frame::data(portion)))),
        Err(Expired) => Some(None),
    };
    if let Some(portion) = next() {
        return Poll::Ready(portion);
    }
    let frame = match ready!(Pin::new(body).poll_frame(context)) {
        Some(Ok(frame)) => frame,
        end => return Poll::Ready(end),
    };
    Poll::Ready(match frame.into_data() {
        Ok(data) if data.len() > SUBSCRIPTION_PORTION_BYTES => {
            unsent.put(data);
            next().unwrap_or(None)
        }
        Ok(data) => Some(Ok(Frame::data(data))),
        Err(trailers) => Some(Ok(trailers)),
    })
}
