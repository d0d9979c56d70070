//! What a process takes of its machine.

use std::{fs, io};

/// How many files and connections a process has open.
pub fn open_files(pid: u32) -> io::Result<usize> {
    Ok(fs::read_dir(format!("/proc/{pid}/fd"))?.count())
}

/// How much memory a process has had at most, in KiB.
pub fn peak_memory(pid: u32) -> io::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:")?.split(' ').rev().nth(1)?.parse().ok());
    peak.ok_or_else(|| io::ErrorKind::InvalidData.into())
}
