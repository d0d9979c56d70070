//! Connection timeouts: until the first request, and while the client does not read.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep},
};

use crate::limits::{OPENING_BYTES, OPENING_TIMEOUT, STALL_TIMEOUT};

/// A connection that fails at its timeouts.
#[derive(Debug)]
pub(super) struct TimeoutStream<S> {
    stream: S,
    /// The opening timeout. None once enough bytes have arrived for the timeouts of the protocol.
    opening: Option<Pin<Box<Sleep>>>,
    read: usize,
    /// The write timeout, which runs while `is_stalled`.
    stall: Option<Pin<Box<Sleep>>>,
    is_stalled: bool,
}

impl<S> TimeoutStream<S> {
    pub(super) fn new(stream: S) -> Self {
        let opening = Some(Box::pin(sleep(OPENING_TIMEOUT)));
        Self { stream, opening, read: 0, stall: None, is_stalled: false }
    }

    /// Maps the result of a write: fails if writes have made no progress for too long.
    fn check_write<T>(
        &mut self,
        sent: Poll<io::Result<T>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if sent.is_ready() {
            self.is_stalled = false;
            return sent;
        }
        let stall = self.stall.get_or_insert_with(|| Box::pin(sleep(Duration::ZERO)));
        if !std::mem::replace(&mut self.is_stalled, true) {
            stall.as_mut().reset(Instant::now() + STALL_TIMEOUT);
        }
        ready!(stall.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for TimeoutStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Some(opening) = &mut self.opening else {
            return Pin::new(&mut self.stream).poll_read(context, buffer);
        };
        if opening.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.read += buffer.filled().len() - before;
        if self.read >= OPENING_BYTES {
            self.opening = None;
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for TimeoutStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let sent = Pin::new(&mut self.stream).poll_write(context, data);
        self.check_write(sent, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let sent = Pin::new(&mut self.stream).poll_write_vectored(context, data);
        self.check_write(sent, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let sent = Pin::new(&mut self.stream).poll_flush(context);
        self.check_write(sent, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let sent = Pin::new(&mut self.stream).poll_shutdown(context);
        self.check_write(sent, context)
    }
}
