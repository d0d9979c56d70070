//! Resource usage of a process.

use std::{fs, io};

/// Number of open files and connections of a process.
pub fn open_files(pid: u32) -> io::Result<usize> {
    Ok(fs::read_dir(format!("/proc/{pid}/fd"))?.count())
}

/// Peak memory of a process in KiB.
pub fn peak_memory(pid: u32) -> io::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:")?.split(' ').rev().nth(1)?.parse().ok());
    peak.ok_or_else(|| io::ErrorKind::InvalidData.into())
}
