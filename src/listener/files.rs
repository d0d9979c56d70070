//! The limit on open files of this process. Each connection uses one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::{info, warn};

use crate::limits::{MAX_CONNECTIONS, RESERVED_FILES};

/// Raises the limit to what the service can use, or as far as the system permits. The default of
/// many systems is 1,024.
pub(crate) fn raise_limit() {
    const WANTED: u64 = (MAX_CONNECTIONS + RESERVED_FILES) as u64;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_some_and(|current| current < WANTED) {
        let current = Some(maximum.map_or(WANTED, |maximum| maximum.min(WANTED)));
        if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current, maximum }) {
            warn!(%error, "cannot raise the limit on open files");
        }
    }
}

/// The connection limit. Logs if the limit on open files lowers it.
pub(super) fn max_connections() -> usize {
    let files = getrlimit(Resource::Nofile).current;
    let files = files.map_or(usize::MAX, |files| usize::try_from(files).unwrap_or(usize::MAX));
    let connections = connections(files);
    if connections < MAX_CONNECTIONS {
        info!(
            open_files = files,
            connections, "the limit on open files lowers the connection limit"
        );
    }
    connections
}

/// The number of connections for a limit on open files.
fn connections(files: usize) -> usize {
    files.saturating_sub(RESERVED_FILES).max(files / 2).min(MAX_CONNECTIONS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_reserved_for_other_uses() {
        assert_eq!(connections(usize::MAX), MAX_CONNECTIONS);
        assert_eq!(connections(MAX_CONNECTIONS + RESERVED_FILES - 1), MAX_CONNECTIONS - 1);
        assert_eq!(connections(1_024), 1_024 - RESERVED_FILES);
        assert_eq!(connections(100), 50, "a low limit is shared");
    }
}
