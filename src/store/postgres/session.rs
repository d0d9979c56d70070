//! Sessions: opening and closing them, and why one could not be opened.

use std::{fmt, future::poll_fn, ops::Deref};

use tokio::time::{error::Elapsed, timeout};
use tokio_postgres::{
    AsyncMessage, Client, Connection, Socket,
    error::{DbError, SqlState},
    tls::MakeTlsConnect,
};
use tokio_postgres_rustls::MakeRustlsConnect;
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, warn};

use super::{
    Error,
    advice::advice,
    reply::{Redacted, redacted},
    target::Target,
    tls,
};
use crate::limits::SESSION_TIMEOUT;

type TlsStream = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream;

/// A session. Dropping it closes the connection at once, even if a statement is running: the server
/// notices, and abandons what it has not started to commit.
pub(super) struct Session {
    client: Client,
    tls: MakeRustlsConnect,
    _attending: AbortOnDropHandle<()>,
}

impl Session {
    /// Opens a session.
    pub(super) async fn open(target: &Target) -> Result<Self, ConnectError> {
        let connecting = target.config.connect(target.tls.clone());
        let (client, connection) = timeout(SESSION_TIMEOUT, connecting).await??;
        let attending = AbortOnDropHandle::new(tokio::spawn(attend(connection)));
        Ok(Self { client, tls: target.tls.clone(), _attending: attending })
    }

    /// Cancels the running statement. Returns whether the request was sent.
    pub(super) async fn cancel(&self) -> bool {
        self.client.cancel_token().cancel_query(self.tls.clone()).await.is_ok()
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("client", &self.client).finish_non_exhaustive()
    }
}

impl Deref for Session {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl AsMut<Client> for Session {
    fn as_mut(&mut self) -> &mut Client {
        &mut self.client
    }
}

/// Drives the connection of a session until it ends.
async fn attend(mut connection: Connection<Socket, TlsStream>) {
    while let Some(message) = poll_fn(|context| connection.poll_message(context)).await {
        match message {
            Ok(AsyncMessage::Notice(notice)) if is_doubt(&notice) => {
                warn!(
                    "synchronous replication wait was cancelled; the commit may not be on the \
                     standby"
                );
                return;
            }
            Ok(_) => (),
            // The user of the session gets an error too.
            Err(error) => {
                debug!(error = redacted(&error), "database connection ended");
                return;
            }
        }
    }
}

/// Whether the server is about to confirm a commit that its synchronous standby may not have,
/// because the wait was cancelled. The session is closed before, so that the commit is checked
/// again.
fn is_doubt(notice: &DbError) -> bool {
    notice.routine() == Some("SyncRepWaitForLSN")
}

/// Why a session cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    /// The server refused it, or cannot be reached.
    #[error("{}", redacted(.0))]
    Failed(tokio_postgres::Error),
    /// The server accepted the connection and then did not respond.
    #[error("it accepted the connection but did not respond within {} s", SESSION_TIMEOUT.as_secs())]
    Silent(#[from] Elapsed),
}

impl From<tokio_postgres::Error> for ConnectError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Failed(error)
    }
}

impl From<ConnectError> for Error {
    /// Nothing was written without a session.
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Failed(error) => Self::Unavailable(Redacted::from(error).into()),
            silent @ ConnectError::Silent(_) => Self::Unavailable(silent.into()),
        }
    }
}

impl ConnectError {
    /// Whether a retry may succeed.
    pub(super) fn may_pass(&self) -> bool {
        let Self::Failed(error) = self else { return true };
        match error.code() {
            Some(code) => {
                [SqlState::CANNOT_CONNECT_NOW, SqlState::TOO_MANY_CONNECTIONS].contains(code)
            }
            None => tls::refusal(error).is_none(),
        }
    }

    /// The reason, with the cure for common ones.
    pub(super) fn advice(&self) -> String {
        match self {
            Self::Failed(error) => advice(error),
            Self::Silent(_) => self.to_string(),
        }
    }
}
