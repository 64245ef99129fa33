//! What a process takes.

use std::fs;

/// The resident memory of this process in bytes, by `proc(5)`; whoever asks should have a process,
/// that is a test binary, to itself.
#[must_use]
pub fn resident_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
    let kilobytes: u64 = kilobytes
        .and_then(|text| text.parse().ok())
        .expect("a size");
    kilobytes * 1024
}
