//! Faults of processes: kills, pauses and limits on open files.

use std::{process::Command, time::Duration};

use tokio::time::sleep;

use crate::{cluster::signal, footprint};

pub(super) fn kill(pid: u32) -> Result<(), String> {
    sent(signal("KILL", pid))
}

/// Pauses a process, like a machine that swaps.
pub(super) async fn pause(pid: u32, lasting: Duration) -> Result<(), String> {
    sent(signal("STOP", pid))?;
    let _stopped = Stopped(pid);
    sleep(lasting).await;
    Ok(())
}

/// A process that is paused until this is dropped.
struct Stopped(u32);

impl Drop for Stopped {
    fn drop(&mut self) {
        // It may have been killed meanwhile.
        signal("CONT", self.0);
    }
}

/// Limits a process to two more files or connections than it has open.
pub(super) async fn few_files(pid: u32, lasting: Duration) -> Result<(), String> {
    let open = footprint::open_files(pid).map_err(|error| error.to_string())?;
    let before = limit(pid, "nofile")?;
    set_limit(pid, &format!("--nofile={}:", open + 2))?;
    sleep(lasting).await;
    // It may have been killed meanwhile.
    let _ = set_limit(pid, &format!("--nofile={before}:"));
    Ok(())
}

/// Prevents the files of a process from growing.
pub(super) async fn file_limit(pid: u32, lasting: Duration) -> Result<(), String> {
    set_limit(pid, "--fsize=4096:")?;
    sleep(lasting).await;
    // It may have been killed meanwhile.
    let _ = set_limit(pid, "--fsize=unlimited:");
    Ok(())
}

/// Whether this machine can change the limits of a running process.
pub(super) fn can_be_limited() -> bool {
    limit(std::process::id(), "nofile").is_ok()
}

fn sent(sent: bool) -> Result<(), String> {
    sent.then_some(()).ok_or_else(|| "the process is gone".to_owned())
}

/// The current limit of a process.
fn limit(pid: u32, name: &str) -> Result<String, String> {
    let mut prlimit = Command::new("prlimit");
    prlimit.args(["--pid", &pid.to_string(), &format!("--{name}"), "--noheadings"]);
    let output = prlimit.args(["-o", "SOFT"]).output().map_err(|error| error.to_string())?;
    sent(output.status.success())?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Changes a limit of a running process.
fn set_limit(pid: u32, limit: &str) -> Result<(), String> {
    let mut prlimit = Command::new("prlimit");
    prlimit.args(["--pid", &pid.to_string(), limit]);
    let output = prlimit.output().map_err(|error| error.to_string())?;
    sent(output.status.success())
}
