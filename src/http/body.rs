//! What goes out for an HTTP call: a large answer in portions. As long as it goes out, the call has its
//! room.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use axum::body::{Body, Bytes, to_bytes};
use http_body::{Body as _, Frame, SizeHint};

use super::error::Error;
use crate::{
    limits::SMALL_ANSWER_BYTES,
    load::{CallerKey, LargeAnswer, Load, Permit},
};

/// The body of a response.
pub(super) enum ResponseBody {
    /// A small one, or one that never ends: how much of that waits is bounded where it is made.
    Small {
        body: Body,
        _permit: Permit,
    },
    Large(LargeAnswer<Permit>),
}

impl ResponseBody {
    /// A small answer to a call that has this permit.
    pub(super) fn small(body: Body, permit: Permit) -> Self {
        Self::Small { body, _permit: permit }
    }

    /// An answer to a call that has this permit. Fails if too many large ones wait already.
    pub(super) async fn new(
        body: Body,
        permit: Permit,
        load: &Load,
        caller: &CallerKey,
    ) -> Result<Self, Error> {
        let is_large = |size| size > SMALL_ANSWER_BYTES as u64;
        if !body.size_hint().exact().is_some_and(is_large) {
            return Ok(Self::small(body, permit));
        }
        // It is in memory as a whole.
        let answer = to_bytes(body, usize::MAX).await.map_err(|_| Error::internal())?;
        let of_answer = load.answer(caller, answer.len()).map_err(Error::too_many_answers)?;
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
            Self::Large(answer) => Poll::Ready(match answer.next() {
                Ok(portion) => portion.map(|portion| Ok(Frame::data(portion))),
                Err(expired) => Some(Err(axum::Error::new(io::Error::other(expired)))),
            }),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Small { body, .. } => body.is_end_stream(),
            Self::Large(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Small { body, .. } => body.size_hint(),
            Self::Large(answer) => SizeHint::with_exact(answer.left() as u64),
        }
    }
}
