//! What a process costs, by `/proc`.

use std::fs;
use std::time::Duration;

use rustix::process::Pid;

/// Resident memory of a process now and at most so far, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resident {
    /// Now.
    pub bytes: u64,
    /// The most so far.
    pub bytes_max: u64,
}

/// The resident memory of a process.
#[track_caller]
pub fn resident(process: Pid) -> Resident {
    let status =
        fs::read_to_string(format!("/proc/{}/status", process.as_raw_nonzero())).expect("a process that lives");
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a field of its status");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
    };
    Resident { bytes: field("VmRSS:"), bytes_max: field("VmHWM:") }
}

/// The processor time that a process has used, to a hundredth of a second.
#[track_caller]
pub fn processor_time(process: Pid) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.as_raw_nonzero())).expect("a process that lives");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("fields").split_whitespace().collect();
    let ticks: u64 = fields[11..13].iter().map(|field| field.parse::<u64>().expect("a number")).sum();
    Duration::from_millis(ticks * 10)
}
