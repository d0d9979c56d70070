//! How many files the system lets this process have open. Each connection is one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::{info, warn};

use crate::limits::{CONNECTIONS, OTHER_FILES};

/// Asks the system for as many as the service has use for, or as many as it gives. Many systems give a
/// process 1,024 unless it asks.
pub fn raise_limit() {
    const WANTED: u64 = (CONNECTIONS + OTHER_FILES) as u64;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_some_and(|current| current < WANTED) {
        let current = Some(maximum.map_or(WANTED, |maximum| maximum.min(WANTED)));
        if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current, maximum }) {
            warn!(%error, "cannot raise the limit of open files");
        }
    }
}

/// How many connections there is room for. If it is less than there could be, the log says so.
pub(super) fn room() -> usize {
    let files = getrlimit(Resource::Nofile).current;
    let files = files.map_or(usize::MAX, |files| usize::try_from(files).unwrap_or(usize::MAX));
    let room = connections(files);
    if room < CONNECTIONS {
        info!("the limit of open files, {files}, leaves room for {room} connections");
    }
    room
}

/// So many files, as connections.
fn connections(files: usize) -> usize {
    files.saturating_sub(OTHER_FILES).max(files / 2).min(CONNECTIONS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_left_for_the_rest() {
        assert_eq!(connections(usize::MAX), CONNECTIONS);
        assert_eq!(connections(CONNECTIONS + OTHER_FILES - 1), CONNECTIONS - 1);
        assert_eq!(connections(1_024), 1_024 - OTHER_FILES);
        assert_eq!(connections(100), 50, "few are better than none");
    }
}
