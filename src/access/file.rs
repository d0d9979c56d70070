//! The access file: read at startup and reloaded when it changes. An invalid file never replaces a
//! valid policy.

use std::{
    fmt,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::sync::watch;

use super::{Access, Rule, policy::Policy};
use crate::{
    limits::{ACCESS_POLL_INTERVAL, MAX_ACCESS_FILE_BYTES},
    reload,
};

mod entry;

/// Why an access file cannot be loaded.
#[derive(Debug, thiserror::Error)]
#[error("cannot load access file {}: {reason}", .path.display())]
pub struct Error {
    path: PathBuf,
    reason: Reason,
}

#[derive(Debug, thiserror::Error)]
enum Reason {
    #[error("{0}")]
    Unreadable(#[from] io::Error),
    #[error("larger than {MAX_ACCESS_FILE_BYTES} bytes")]
    TooLarge,
    #[error("not valid UTF-8")]
    NotText,
    #[error("{}", .0.iter().map(Fault::to_string).collect::<Vec<_>>().join("; "))]
    Faults(Vec<Fault>),
}

/// An error in one line. Never contains a value, which may be a token.
#[derive(Debug, PartialEq, Eq)]
struct Fault {
    line: usize,
    description: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.description)
    }
}

/// An access file, which is reloaded when it changes.
#[derive(Debug)]
pub struct AccessFile(watch::Receiver<Arc<Policy>>);

impl AccessFile {
    /// Loads the file, and reloads it until this and all access control from it is dropped.
    pub async fn open(path: &Path) -> Result<Self, Error> {
        Ok(Self(reload::watch(PolicyFile(path.to_owned())).await?))
    }

    /// The access control of the current and of later contents.
    pub fn access(&self) -> Access {
        Access(Rule::Named(self.0.clone()))
    }

    /// Whether any identity has a certificate.
    pub fn names_certificates(&self) -> bool {
        self.0.borrow().names_certificates()
    }
}

struct PolicyFile(PathBuf);

impl reload::Files for PolicyFile {
    type Contents = Vec<u8>;
    type Value = Arc<Policy>;
    type Error = Error;

    const NAME: &'static str = "access file";
    const INTERVAL: Duration = ACCESS_POLL_INTERVAL;

    fn read(&self) -> Result<Vec<u8>, Error> {
        read(&self.0).map_err(|reason| self.error(reason))
    }

    fn load(&self, bytes: &Vec<u8>, previous: Option<&Arc<Policy>>) -> Result<Arc<Policy>, Error> {
        let policy = policy(bytes, previous.map(|policy| &**policy));
        policy.map(Arc::new).map_err(|reason| self.error(reason))
    }
}

impl PolicyFile {
    fn error(&self, reason: Reason) -> Error {
        Error { path: self.0.clone(), reason }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Reason> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_ACCESS_FILE_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    match bytes.len() > MAX_ACCESS_FILE_BYTES {
        true => Err(Reason::TooLarge),
        false => Ok(bytes),
    }
}

fn policy(bytes: &[u8], previous: Option<&Policy>) -> Result<Policy, Reason> {
    let text = std::str::from_utf8(bytes).map_err(|_| Reason::NotText)?;
    Ok(Policy::new(entry::read(text).map_err(Reason::Faults)?, previous))
}
