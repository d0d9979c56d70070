//! Configuration of the service: command line flags and environment variables.

use std::{
    fmt,
    net::{SocketAddr, ToSocketAddrs},
    path::{Path, PathBuf},
    str::FromStr,
};

use clap::{Args, builder::FalseyValueParser};

use crate::access::exposure::{self, Exposed};

pub use tls::TlsArgs;

mod tls;

/// Settings of `serve`.
#[derive(Debug, Clone, Args)]
pub struct Config {
    /// Address and port to listen on
    #[arg(
        long,
        env = "EVENT_AGGREGATOR_LISTEN",
        default_value = "127.0.0.1:50051",
        value_parser = address,
        value_name = "ADDRESS"
    )]
    pub listen: SocketAddr,

    /// Database that stores the events
    #[command(flatten)]
    pub database: DatabaseArgs,

    /// Certificates
    #[command(flatten)]
    pub tls: TlsArgs,

    /// Access file: identities, their tokens or certificates, and their grants; create entries with
    /// `token`. Reloaded when it changes [default: no authentication]
    #[arg(long, env = "EVENT_AGGREGATOR_ACCESS", value_name = "FILE")]
    pub access: Option<PathBuf>,

    /// Allow a non-loopback address without TLS and authentication. Disables the Host check
    #[arg(long, env = "EVENT_AGGREGATOR_INSECURE", value_parser = FalseyValueParser::new())]
    pub insecure: bool,

    /// Accept a database that can lose acknowledged events in a crash, with a warning
    #[arg(
        long,
        env = "EVENT_AGGREGATOR_ALLOW_DATA_LOSS",
        value_parser = FalseyValueParser::new()
    )]
    pub allow_data_loss: bool,
}

impl Config {
    /// A service on a free loopback port, with defaults for everything else.
    pub fn local(database: Database) -> Self {
        let (listen, database) = (([127, 0, 0, 1], 0).into(), database.into());
        Self {
            listen,
            database,
            tls: TlsArgs::default(),
            access: None,
            insecure: false,
            allow_data_loss: false,
        }
    }

    /// Fails if the service is exposed without `--insecure`.
    pub fn check_exposure(&self) -> Result<(), Exposed> {
        if self.is_exposed() && !self.insecure { Err(Exposed) } else { Ok(()) }
    }

    /// Whether the service listens on a non-loopback address without both TLS and authentication.
    pub fn is_exposed(&self) -> bool {
        let is_authenticated = self.access.is_some() || self.tls.tls_client_ca.is_some();
        exposure::is_exposed(self.listen.ip(), self.has_tls(), is_authenticated)
    }

    /// Whether calls must name a local host: on a loopback address without authentication, TLS or
    /// `--insecure`. This prevents DNS rebinding; with TLS, the browser verifies the name itself.
    pub fn is_of_this_machine(&self) -> bool {
        let is_open = self.access.is_none() && !self.has_tls() && !self.insecure;
        exposure::is_loopback(self.listen.ip()) && is_open
    }

    fn has_tls(&self) -> bool {
        self.tls.tls_cert.is_some()
    }
}

/// Parses an address to listen on.
pub(crate) fn address(text: &str) -> Result<SocketAddr, String> {
    let resolved = text.to_socket_addrs().ok().and_then(|mut addresses| addresses.next());
    resolved.ok_or_else(|| "must be host:port, such as 127.0.0.1:50051".to_owned())
}

/// Options of commands that open a database.
#[derive(Debug, Clone, Args)]
pub struct DatabaseArgs {
    /// Database: postgres://user:password@host/name or sqlite:PATH [default: a SQLite file in the
    /// data directory]
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    pub database_url: Option<Database>,

    /// Directory of the SQLite file when no database URL is given; `serve` creates it if missing
    #[arg(long, env = "EVENT_AGGREGATOR_DATA_DIR", default_value = "data", value_name = "DIR")]
    pub data_dir: PathBuf,
}

impl DatabaseArgs {
    /// The database to use.
    pub fn chosen(&self) -> Database {
        match &self.database_url {
            // An empty environment variable counts as unset.
            Some(Database::Postgres(url)) if url.is_empty() => Database::in_folder(&self.data_dir),
            Some(named) => named.clone(),
            None => Database::in_folder(&self.data_dir),
        }
    }
}

/// Location of the database.
#[derive(Clone, PartialEq, Eq)]
pub enum Database {
    /// A SQLite file.
    Sqlite(PathBuf),
    /// A PostgreSQL database, by URL. The URL may contain a password and is never printed.
    Postgres(String),
}

impl Database {
    /// The SQLite file in a data directory.
    pub fn in_folder(folder: &Path) -> Self {
        Self::Sqlite(folder.join("events.db"))
    }
}

impl From<Database> for DatabaseArgs {
    fn from(database: Database) -> Self {
        Self { database_url: Some(database), data_dir: PathBuf::new() }
    }
}

impl FromStr for Database {
    type Err = String;

    fn from_str(url: &str) -> Result<Self, String> {
        // The store reports other invalid URLs: clap would print them with their password.
        let Some(path) = url.strip_prefix("sqlite:") else {
            return Ok(Self::Postgres(url.to_owned()));
        };
        match path.strip_prefix("//").unwrap_or(path) {
            "" => Err("missing path; expected sqlite:PATH".to_owned()),
            path if path.contains(":memory:") => {
                Err("in-memory databases are not supported; expected sqlite:PATH".to_owned())
            }
            path if path.starts_with("file:") => {
                Err("file: URIs are not supported; expected sqlite:PATH".to_owned())
            }
            path if path.contains('?') => {
                Err("parameters are not supported; expected sqlite:PATH".to_owned())
            }
            path => Ok(Self::Sqlite(PathBuf::from(path))),
        }
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            Self::Postgres(_) => f.write_str("postgres"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn url_scheme_selects_the_store() {
        let sqlite = |path: &str| Ok(Database::Sqlite(PathBuf::from(path)));
        assert_eq!("sqlite:a/b.db".parse(), sqlite("a/b.db"));
        assert_eq!("sqlite://a/b.db".parse(), sqlite("a/b.db"));
        assert_eq!("sqlite:///a/b.db".parse(), sqlite("/a/b.db"));
        assert!(matches!("postgresql://h/d".parse(), Ok(Database::Postgres(_))));
        for url in ["sqlite:", "sqlite::memory:", "sqlite:a.db?mode=ro", "sqlite:file:a.db"] {
            assert!(url.parse::<Database>().is_err(), "{url}");
        }
    }

    #[test]
    fn debug_output_hides_the_url() {
        let database: Database = "postgres://u:s3cret@h:1/d".parse().expect("valid");
        assert_eq!(format!("{database:?}"), "postgres");
    }
}
