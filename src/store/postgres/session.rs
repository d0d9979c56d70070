//! Sessions: the database URL, the settings that the service adds, and how a session is opened.
//! Queries are in other modules.

use std::{fmt, future::poll_fn, ops::Deref, time::Duration};

use tokio::time::{error::Elapsed, timeout};
use tokio_postgres::{
    AsyncMessage, Client, Config, Connection, Socket,
    config::{Host, TargetSessionAttrs},
    error::{DbError, SqlState},
    tls::MakeTlsConnect,
};
use tokio_postgres_rustls::MakeRustlsConnect;
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, warn};
use uuid::Uuid;

use super::{OpenError, chain, tls};
use crate::limits::{
    CLIENT_CHECK_INTERVAL, CONNECT_TIMEOUT, IDLE_TRANSACTION_TIMEOUT, LOCK_TIMEOUT,
    SESSION_TIMEOUT, STATEMENT_TIMEOUT,
};

type TlsStream = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream;

/// Settings that the service relies on, as the database reports them. They are set per session, so
/// that defaults of a role or database cannot weaken durability or isolation.
pub(super) fn settings() -> [(&'static str, String); 7] {
    let millis = |time: Duration| time.as_millis().to_string();
    [
        ("synchronous_commit", "on".to_owned()),
        ("default_transaction_isolation", "read committed".to_owned()),
        ("statement_timeout", millis(STATEMENT_TIMEOUT)),
        ("lock_timeout", millis(LOCK_TIMEOUT)),
        ("idle_in_transaction_session_timeout", millis(IDLE_TRANSACTION_TIMEOUT)),
        ("client_connection_check_interval", millis(CLIENT_CHECK_INTERVAL)),
        ("TimeZone", "UTC".to_owned()),
    ]
}

/// Where sessions are opened, and with which settings.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) config: Config,
    pub(super) tls: MakeRustlsConnect,
    /// Value of [`MARK`] in the sessions.
    pub(super) mark: String,
}

/// A setting with a random value, which a pooler that drops settings cannot have.
pub(super) const MARK: &str = "event_aggregator.session";

impl Target {
    /// Parses a database URL and adds the settings of the service.
    pub(super) fn of(url: &str) -> Result<Self, OpenError> {
        let (known, trusted) = tls::split(url);
        // The error does not quote the URL, which may contain a password anywhere.
        let mut config: Config = Some(known)
            .filter(|url| url.starts_with("postgres://") || url.starts_with("postgresql://"))
            // A second @ is part of an unencoded password, which would be printed as a host.
            .filter(|url| url.split('?').next().is_some_and(|url| url.matches('@').count() <= 1))
            .and_then(|url| url.parse().ok())
            .filter(|config: &Config| {
                !config.get_hosts().is_empty() && config.get_dbname().is_some()
            })
            .ok_or_else(|| OpenError::Unreachable {
                database: "in the URL".to_owned(),
                reason: "invalid URL: expected postgres://user:password@host:5432/database, with \
                         characters other than letters and digits percent-encoded, or sqlite:PATH"
                    .to_owned(),
            })?;
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_TIMEOUT);
        }
        if config.get_application_name().is_none() {
            config.application_name("event-aggregator");
        }
        let mode = tls::mode(&config);
        config
            .ssl_mode(mode)
            // Of several servers, the primary.
            .target_session_attrs(TargetSessionAttrs::ReadWrite)
            // A dead server must be noticed while producers wait.
            .keepalives_idle(Duration::from_secs(15))
            .keepalives_interval(Duration::from_secs(5))
            .keepalives_retries(3)
            .tcp_user_timeout(Duration::from_secs(10));
        let tls = tls::connector(mode, trusted.as_deref())
            .map_err(|reason| OpenError::Unreachable { database: describe(&config), reason })?;
        let settings =
            settings().map(|(name, value)| format!("-c {name}={}", value.replace(' ', "\\ ")));
        let mark = Uuid::new_v4().simple().to_string();
        let options = format!("{} -c {MARK}={mark}", settings.join(" "));
        Ok(Self { config, tls, mark }.with_options(&options))
    }

    /// Adds session options, which override earlier ones.
    pub(super) fn with_options(&self, options: &str) -> Self {
        let mut target = self.clone();
        target.config.options(match self.config.get_options() {
            Some(given) => format!("{given} {options}"),
            None => options.to_owned(),
        });
        target
    }

    /// For read-only use, also on a standby.
    pub(super) fn for_reading(mut self) -> Self {
        self.config.target_session_attrs(TargetSessionAttrs::Any);
        self
    }

    /// Location for people, without secrets.
    pub(super) fn describe(&self) -> String {
        describe(&self.config)
    }

    /// Opens a session.
    pub(super) async fn connect(&self) -> Result<Session, ConnectError> {
        let connecting = self.config.connect(self.tls.clone());
        let (client, connection) = timeout(SESSION_TIMEOUT, connecting).await??;
        let attending = AbortOnDropHandle::new(tokio::spawn(attend(connection)));
        Ok(Session { client, tls: self.tls.clone(), _attending: attending })
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.describe())
    }
}

fn describe(config: &Config) -> String {
    let hosts = config.get_hosts().iter().enumerate().map(|(number, host)| {
        let host = match host {
            Host::Tcp(host) => host.clone(),
            Host::Unix(folder) => folder.display().to_string(),
        };
        let ports = config.get_ports();
        let port = ports.get(number).or(ports.first()).copied().unwrap_or(5432);
        format!("{host}:{port}")
    });
    let hosts: Vec<String> = hosts.collect();
    let name = config.get_dbname().or(config.get_user()).unwrap_or_default();
    format!("postgres://{}/{name}", hosts.join(","))
}

/// A session. Dropping it closes the connection at once, even if a statement is running: the server
/// notices, and abandons what it has not started to commit.
pub(super) struct Session {
    client: Client,
    tls: MakeRustlsConnect,
    _attending: AbortOnDropHandle<()>,
}

impl Session {
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
                debug!(error = chain(&error), "database connection ended");
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
    #[error(transparent)]
    Failed(#[from] tokio_postgres::Error),
    /// The server accepted the connection and then did not respond.
    #[error("it accepted the connection but did not respond within {} s", SESSION_TIMEOUT.as_secs())]
    Silent(#[from] Elapsed),
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

/// The reason of an error at startup, with the cure for common ones.
pub(super) fn advice(error: &tokio_postgres::Error) -> String {
    if let Some(refusal) = tls::refusal(error) {
        return refusal;
    }
    let Some(reply) = error.as_db_error() else {
        let text = chain(error);
        return match text.contains("database does not allow writes") {
            true => format!("{text}: it is a standby or read-only; connect to the primary"),
            false => text,
        };
    };
    let text = reply.message();
    match *reply.code() {
        SqlState::INVALID_CATALOG_NAME => format!("{text}; create it with: createdb"),
        SqlState::PROTOCOL_VIOLATION if text.contains("startup parameter") => {
            format!("{text}: {}", super::durability::NO_POOLER)
        }
        _ => text.to_owned(),
    }
}
