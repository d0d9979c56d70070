//! Detects that the reader of standard output has exited.

use std::{future::pending, io, os::fd::AsFd};

use tokio::{io::Interest, net::unix::pipe::Sender};

/// Completes when standard output is a pipe whose reader has closed it. Without this, a quiet feed
/// would not notice, because only writes fail.
pub(super) async fn gone() {
    let stdout = io::stdout().as_fd().try_clone_to_owned();
    // The pipe is only polled, so it may stay in blocking mode. Regular files cannot be polled.
    if let Ok(stdout) = stdout.and_then(Sender::from_owned_fd_unchecked)
        && stdout.ready(Interest::ERROR).await.is_ok()
    {
        return;
    }
    pending().await
}
