//! The access file: read at startup and reloaded when it changes. An invalid file never replaces a
//! valid policy.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::{
    fs::File,
    io::AsyncReadExt,
    signal::unix::{SignalKind, signal},
    sync::watch,
    time::sleep,
};
use tracing::{info, warn};

use super::{Access, Rule, policy::Policy};
use crate::limits::{ACCESS_POLL_INTERVAL, MAX_ACCESS_FILE_BYTES};

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

/// An access file that is watched for changes.
#[derive(Debug)]
pub struct AccessFile {
    path: PathBuf,
    /// Contents of the last valid file.
    bytes: Vec<u8>,
    policies: watch::Sender<Arc<Policy>>,
}

impl AccessFile {
    /// Loads the file.
    pub async fn open(path: &Path) -> Result<Self, Error> {
        let failed = |reason| Error { path: path.to_owned(), reason };
        let bytes = read(path).await.map_err(failed)?;
        let policy = policy(&bytes, None).map_err(failed)?;
        let (policies, _) = watch::channel(Arc::new(policy));
        Ok(Self { path: path.to_owned(), bytes, policies })
    }

    /// The access control of the current and of later contents.
    pub fn access(&self) -> Access {
        Access(Rule::Named(self.policies.subscribe()))
    }

    /// Whether any identity has a certificate.
    pub fn names_certificates(&self) -> bool {
        self.policies.borrow().names_certificates()
    }

    /// Reloads the file every few seconds if it changed, and immediately on SIGHUP.
    pub async fn follow(mut self) {
        let mut hangup = signal(SignalKind::hangup());
        if let Err(error) = &hangup {
            warn!(%error, "cannot handle SIGHUP; still polling the access file");
        }
        // Each error is logged once.
        let mut said = None;
        loop {
            tokio::select! {
                () = sleep(ACCESS_POLL_INTERVAL) => (),
                Some(()) = async { hangup.as_mut().ok()?.recv().await } => (),
            }
            let fault = self.renew().await.err().map(|reason| reason.to_string());
            if let Some(fault) = fault.as_ref().filter(|_| fault != said) {
                let path = self.path.display();
                warn!("failed to reload access file {path}; keeping the previous policy: {fault}");
            }
            said = fault;
        }
    }

    async fn renew(&mut self) -> Result<(), Reason> {
        let bytes = read(&self.path).await?;
        if bytes == self.bytes {
            return Ok(());
        }
        let policy = policy(&bytes, Some(&self.policies.borrow()))?;
        self.bytes = bytes;
        self.policies.send_replace(Arc::new(policy));
        info!("access file reloaded");
        Ok(())
    }
}

async fn read(path: &Path) -> Result<Vec<u8>, Reason> {
    let mut bytes = Vec::new();
    let file = File::open(path).await?;
    file.take(MAX_ACCESS_FILE_BYTES as u64 + 1).read_to_end(&mut bytes).await?;
    match bytes.len() > MAX_ACCESS_FILE_BYTES {
        true => Err(Reason::TooLarge),
        false => Ok(bytes),
    }
}

fn policy(bytes: &[u8], before: Option<&Policy>) -> Result<Policy, Reason> {
    let text = std::str::from_utf8(bytes).map_err(|_| Reason::NotText)?;
    Ok(Policy::new(entry::read(text).map_err(Reason::Faults)?, before))
}
