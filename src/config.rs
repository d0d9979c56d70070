//! What a service is told when it starts: flags that are also environment variables.

use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    str::FromStr,
};

use clap::Args;

/// Settings of `serve`.
#[derive(Debug, Clone, Args)]
pub struct Config {
    /// Address and port to listen on
    #[arg(long, env = "EVENT_AGGREGATOR_LISTEN", default_value = "127.0.0.1:50051")]
    pub listen: SocketAddr,

    /// Database: postgres://user:password@host/name or sqlite:PATH [default: a SQLite file in the
    /// data folder]
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    pub database_url: Option<Database>,

    /// Folder for the SQLite file when no database is named; it is made if it is not there
    #[arg(long, env = "EVENT_AGGREGATOR_DATA_DIR", default_value = "data", value_name = "FOLDER")]
    pub data_dir: PathBuf,
}

impl Config {
    /// The database to use.
    pub fn database(&self) -> Database {
        self.database_url.clone().unwrap_or_else(|| Database::in_folder(&self.data_dir))
    }
}

/// Where events are kept.
#[derive(Clone, PartialEq, Eq)]
pub enum Database {
    /// A SQLite file.
    Sqlite(PathBuf),
    /// A PostgreSQL database, by its URL. May hold a password, which is never printed.
    Postgres(String),
}

impl Database {
    /// The SQLite file of a data folder.
    pub fn in_folder(folder: &Path) -> Self {
        Self::Sqlite(folder.join("events.db"))
    }
}

impl FromStr for Database {
    type Err = String;

    fn from_str(url: &str) -> Result<Self, String> {
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            return Ok(Self::Postgres(url.to_owned()));
        }
        let Some(path) = url.strip_prefix("sqlite:") else {
            return Err("it must begin with postgres:// or sqlite:".to_owned());
        };
        match path.strip_prefix("//").unwrap_or(path) {
            "" => Err("it names no file; write sqlite:PATH".to_owned()),
            path if path.contains(":memory:") => {
                Err("events are kept on disk only; write sqlite:PATH".to_owned())
            }
            path => Ok(Self::Sqlite(PathBuf::from(path))),
        }
    }
}

impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            Self::Postgres(url) => {
                // Everything but the password and the parameters, which may hold one, too.
                let (_, rest) = url.split_once("://").unwrap_or_default();
                let rest = rest.split('?').next().unwrap_or_default();
                let place = rest.rsplit_once('@').map_or(rest, |(_, place)| place);
                write!(f, "postgres://{place}")
            }
        }
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scheme_chooses_the_store() {
        let sqlite = |path: &str| Ok(Database::Sqlite(PathBuf::from(path)));
        assert_eq!("sqlite:a/b.db".parse(), sqlite("a/b.db"));
        assert_eq!("sqlite://a/b.db".parse(), sqlite("a/b.db"));
        assert_eq!("sqlite:///a/b.db".parse(), sqlite("/a/b.db"));
        assert!(matches!("postgresql://h/d".parse(), Ok(Database::Postgres(_))));
        for url in ["", "mysql://h", "sqlite:", "sqlite::memory:", "h/d"] {
            assert!(url.parse::<Database>().is_err(), "{url}");
        }
    }

    #[test]
    fn secrets_are_never_printed() {
        for url in ["postgres://u:s3cret@h:1/d", "postgres://u:a@s3cret@h:1/d?password=s3cret"] {
            let database: Database = url.parse().expect("valid");
            assert_eq!(database.to_string(), "postgres://h:1/d");
            assert_eq!(format!("{database:?}"), "postgres://h:1/d");
        }
    }
}
