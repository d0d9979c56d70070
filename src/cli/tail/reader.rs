//! Whether anybody still reads what is printed.

use std::{future::pending, io, os::fd::AsFd};

use tokio::{io::Interest, net::unix::pipe::Sender};

/// Is done once standard output is a pipe whose other end was closed. A feed may be silent for hours,
/// and only writing would tell.
pub(super) async fn gone() {
    let stdout = io::stdout().as_fd().try_clone_to_owned();
    // Only watched, so it may stay in blocking mode. A file cannot be watched, and has no other end.
    if let Ok(stdout) = stdout.and_then(Sender::from_owned_fd_unchecked)
        && stdout.ready(Interest::ERROR).await.is_ok()
    {
        return;
    }
    pending().await
}
