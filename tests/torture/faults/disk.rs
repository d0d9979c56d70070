//! Faults of the disk: a flush fails, or there is no more room.

use std::{
    process::{Child, Command, Stdio},
    time::Duration,
};

use tokio::{task::spawn_blocking, time::sleep};

use super::process::set_limit;
use crate::cluster::signal;

/// Lets the next flush of each process fail, as a broken disk would.
pub(super) async fn fail(pids: &[u32], lasting: Duration) -> Result<(), String> {
    let mut strace = attach(pids).map_err(|error| error.to_string())?;
    sleep(lasting).await;
    // Asked politely it lets the processes go; killed, it would leave some of them stopped.
    signal("INT", strace.id());
    let waiting = spawn_blocking(move || strace.wait()).await.expect("no panic");
    waiting.map(|_| ()).map_err(|error| error.to_string())
}

fn attach(pids: &[u32]) -> std::io::Result<Child> {
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-e", "trace=fsync,fdatasync"]);
    strace.args(["-e", "inject=fsync,fdatasync:error=EIO:when=1"]);
    pids.iter().for_each(|pid| _ = strace.args(["-p", &pid.to_string()]));
    strace.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()
}

/// Whether this machine lets a flush fail.
pub fn can_fail() -> bool {
    let Ok(mut sleeper) = Command::new("sleep").arg("10").spawn() else { return false };
    let mut strace = Command::new("timeout");
    strace.args(["1", "strace", "-e", "inject=fsync:error=EIO:when=1", "-p"]);
    let output = strace.arg(sleeper.id().to_string()).output();
    let _ = sleeper.kill();
    let _ = sleeper.wait();
    output.is_ok_and(|output| String::from_utf8_lossy(&output.stderr).contains("attached"))
}

/// Lets no file of a process grow, as a full disk would.
pub(super) async fn fill(pid: u32, lasting: Duration) -> Result<(), String> {
    set_limit(pid, "--fsize=4096:")?;
    sleep(lasting).await;
    // It may have been killed meanwhile.
    let _ = set_limit(pid, "--fsize=unlimited:");
    Ok(())
}
