//! The database file: its identity, its lock, and whether its path still leads to it.

use std::{
    fs::{File, Metadata, OpenOptions, TryLockError},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::fstatfs;
use tracing::warn;

/// An open and locked database file. It is opened before and closed after all connections: closing
/// any descriptor of a file releases the locks that SQLite has on it in this process.
#[derive(Debug)]
pub(super) struct DatabaseFile {
    path: PathBuf,
    file: File,
    id: FileId,
}

/// Identity of a file, independent of its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileId {
    device: u64,
    inode: u64,
}

impl From<&Metadata> for FileId {
    fn from(metadata: &Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino() }
    }
}

impl FileId {
    fn at(path: &Path) -> io::Result<Self> {
        std::fs::metadata(path).map(|metadata| Self::from(&metadata))
    }
}

impl DatabaseFile {
    /// Opens the file, creates it if missing, and locks it. The error describes the problem.
    pub(super) fn open(path: &Path) -> Result<Self, String> {
        // An absolute path is not a URI for SQLite, and does not depend on the working directory.
        let path = std::path::absolute(path).map_err(|error| error.to_string())?;
        let cannot_open = |error: io::Error| format!("cannot open the file for writing: {error}");
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).mode(0o644).open(&path);
        let file = file.map_err(cannot_open)?;
        match file.try_lock() {
            Ok(()) => (),
            Err(TryLockError::WouldBlock) => {
                // Closing it could release the locks of another connection in this process.
                std::mem::forget(file);
                return Err(
                    "another event-aggregator is using it; stop that process, or choose another \
                     file with --database-url sqlite:PATH"
                        .to_owned(),
                );
            }
            Err(TryLockError::Error(error)) => {
                return Err(format!("cannot lock the file: {error}"));
            }
        }
        let metadata = file.metadata().map_err(cannot_open)?;
        if metadata.nlink() > 1 {
            return Err(format!(
                "it has {} hard links, and SQLite keeps a separate log for each name, so that \
                 events stored under one are not visible under another; keep one name and remove \
                 the others",
                metadata.nlink()
            ));
        }
        warn_of_memory(&file, &path);
        let file = Self { id: FileId::from(&metadata), path, file };
        file.check()?;
        Ok(file)
    }

    /// The path at which it was opened.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Fails if the path no longer leads to the file. The error says what is there instead.
    pub(super) fn check(&self) -> Result<(), String> {
        match FileId::at(&self.path) {
            Ok(id) if id == self.id => Ok(()),
            Ok(_) => Err("the database file was replaced".to_owned()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err("the database file was moved or removed".to_owned())
            }
            Err(error) => Err(format!("cannot access the database file: {error}")),
        }
    }

    /// Releases the lock, even if a child process that is being started still has the descriptor.
    pub(super) fn unlock(&self) {
        if let Err(error) = self.file.unlock() {
            warn!(%error, "failed to unlock the SQLite file");
        }
    }
}

/// File system types of tmpfs and ramfs, as returned by `statfs`.
const IN_MEMORY: [u64; 2] = [0x0102_1994, 0x8584_58f6];

fn warn_of_memory(file: &File, path: &Path) {
    if let Ok(found) = fstatfs(file)
        && IN_MEMORY.contains(&(found.f_type as u64))
    {
        warn!(
            path = %path.display(),
            "the SQLite file is on an in-memory file system (tmpfs): a reboot loses all events; \
             choose a file on a disk with --database-url or --data-dir"
        );
    }
}

/// The WAL and its index, which SQLite keeps next to an open database. Without their names, a crash
/// loses the latest commits, and other processes create new files.
#[derive(Debug, Clone)]
pub(super) struct LogFiles([(PathBuf, FileId); 2]);

impl LogFiles {
    /// The files of a connection that has read something.
    pub(super) fn of(connection: &rusqlite::Connection) -> io::Result<Self> {
        let database = connection.path().ok_or(io::ErrorKind::NotFound)?;
        let beside = |suffix: &str| {
            let path = PathBuf::from(format!("{database}{suffix}"));
            FileId::at(&path).map(|id| (path, id))
        };
        Ok(Self([beside("-wal")?, beside("-shm")?]))
    }

    /// Whether both paths still lead to these files.
    pub(super) fn are_there(&self) -> bool {
        self.0.iter().all(|(path, id)| FileId::at(path).is_ok_and(|found| found == *id))
    }
}
