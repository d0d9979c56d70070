//! Faults of the disk: failed flushes and a full disk.

use std::{
    io,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use tokio::{task::spawn_blocking, time::sleep};

use crate::{cluster::signal, database::Database};

/// Makes the next flush of each process fail, as with a defective disk.
pub(super) async fn fail(pids: &[u32], lasting: Duration) -> Result<(), String> {
    let log = tempfile::NamedTempFile::new().map_err(|error| error.to_string())?;
    let mut strace = attach(pids, log.path()).map_err(|error| error.to_string())?;
    sleep(lasting).await;
    // Stop strace with SIGINT, so that it detaches: if it were killed, some processes would remain
    // stopped.
    signal("INT", strace.id());
    let waiting = spawn_blocking(move || strace.wait()).await.expect("no panic");
    waiting.map_err(|error| error.to_string())?;
    let log = std::fs::read_to_string(log.path()).map_err(|error| error.to_string())?;
    log.contains("(INJECTED)").then_some(()).ok_or_else(|| "nothing was flushed".to_owned())
}

fn attach(pids: &[u32], log: &Path) -> std::io::Result<Child> {
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-e", "trace=fsync,fdatasync", "-o"]).arg(log);
    strace.args(["-e", "inject=fsync,fdatasync:error=EIO:when=1"]);
    pids.iter().for_each(|pid| _ = strace.args(["-p", &pid.to_string()]));
    strace.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()
}

/// Whether this machine supports failing flushes.
pub(super) fn can_fail() -> bool {
    let Ok(mut sleeper) = Command::new("sleep").arg("10").spawn() else { return false };
    let mut strace = Command::new("timeout");
    strace.args(["1", "strace", "-e", "inject=fsync:error=EIO:when=1", "-p"]);
    let output = strace.arg(sleeper.id().to_string()).output();
    let _ = sleeper.kill();
    let _ = sleeper.wait();
    output.is_ok_and(|output| String::from_utf8_lossy(&output.stderr).contains("attached"))
}

/// A separate in-memory file system, small enough to be filled.
pub struct SmallDisk {
    folder: PathBuf,
}

/// Much more than a round stores.
const SIZE: &str = "size=256m";

impl SmallDisk {
    /// Whether this machine permits mounting one.
    pub fn can_be_made() -> bool {
        let folder = tempfile::tempdir().expect("temporary folder");
        Self::mount(folder.path()).is_ok()
    }

    pub fn mount(folder: &Path) -> Result<Self, String> {
        std::fs::create_dir_all(folder).map_err(|error| error.to_string())?;
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", SIZE, "tmpfs"]).arg(folder);
        let output = mount.output().map_err(|error| error.to_string())?;
        match output.status.success() {
            true => Ok(Self { folder: folder.to_owned() }),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazy unmount: also works while files are open.
        let _ = Command::new("umount").arg("-l").arg(&self.folder).status();
    }
}

/// Fills the disk of a file.
pub(super) async fn fill(database: &Database, lasting: Duration) -> Result<(), String> {
    let filler = database.folder().ok_or("it has no disk of its own")?.join("filler");
    let filling = filler.clone();
    let filled = spawn_blocking(move || {
        let mut file = std::fs::File::create(filling)?;
        io::copy(&mut io::repeat(0), &mut file)
    });
    // The write ends when the disk is full.
    let full = filled.await.expect("no panic").is_err();
    sleep(lasting).await;
    std::fs::remove_file(filler).map_err(|error| error.to_string())?;
    full.then_some(()).ok_or_else(|| "the disk has no end".to_owned())
}
