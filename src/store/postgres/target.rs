//! Where sessions are opened: the database URL, and the options that sessions get.

use std::{fmt, time::Duration};

use tokio_postgres::{
    Config,
    config::{Host, TargetSessionAttrs},
};
use tokio_postgres_rustls::MakeRustlsConnect;
use uuid::Uuid;

use super::{OpenError, settings, tls};
use crate::limits::CONNECT_TIMEOUT;

/// TCP keepalive: idle time before the first probe, the interval of probes, and how many fail until
/// the connection is lost. A dead server is noticed within 30 s, while producers wait.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(15);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_PROBES: u32 = 3;

/// How long sent data may be unacknowledged until TCP gives up the connection. Less than
/// [`crate::limits::COMMIT_TIMEOUT`], so that a commit learns why it failed.
const UNACKNOWLEDGED_TIMEOUT: Duration = Duration::from_secs(10);

/// Where sessions are opened, and with which settings.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) config: Config,
    pub(super) tls: MakeRustlsConnect,
    /// Value of [`settings::MARK`] in the sessions.
    pub(super) mark: String,
}

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
            .keepalives_idle(KEEPALIVE_IDLE)
            .keepalives_interval(KEEPALIVE_INTERVAL)
            .keepalives_retries(KEEPALIVE_PROBES)
            .tcp_user_timeout(UNACKNOWLEDGED_TIMEOUT);
        let tls = tls::connector(mode, trusted.as_deref())
            .map_err(|reason| OpenError::Unreachable { database: describe(&config), reason })?;
        let mark = Uuid::new_v4().simple().to_string();
        let options = settings::options(&mark);
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
