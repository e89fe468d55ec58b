//! Processes under a memory limit: a control group of its own, by version 1 or 2, whichever this machine has.

use std::fs;
use std::path::{Path, PathBuf};

/// A control group with a memory limit, removed when dropped.
#[derive(Debug)]
pub struct MemoryLimit {
    group: PathBuf,
    is_unified: bool,
}

impl MemoryLimit {
    /// A group of a name that nobody else uses, which may use so many bytes, page cache included.
    pub fn new(name: &str, bytes: u64) -> Self {
        let root = Path::new("/sys/fs/cgroup");
        let controllers = fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
        let is_unified = controllers.split_whitespace().any(|controller| controller == "memory");
        let parent = if is_unified { root.to_path_buf() } else { root.join("memory") };
        if is_unified {
            // It may be on already, and where it is not the limit cannot be set, which is told below.
            drop(fs::write(parent.join("cgroup.subtree_control"), "+memory"));
        }
        let group = parent.join(name);
        fs::create_dir(&group).expect("a control group; the tests must run as root, with a memory controller");
        let limit = Self { group, is_unified };
        limit.write(if is_unified { "memory.max" } else { "memory.limit_in_bytes" }, &bytes.to_string());
        limit
    }

    /// The file to which a process writes its number to come in.
    pub fn door(&self) -> PathBuf {
        self.group.join("cgroup.procs")
    }

    /// What the group uses now, in bytes.
    pub fn used_bytes(&self) -> u64 {
        let name = if self.is_unified { "memory.current" } else { "memory.usage_in_bytes" };
        fs::read_to_string(self.group.join(name)).expect("memory in use").trim().parse().expect("a number")
    }

    /// How many processes were killed for want of memory.
    pub fn kills(&self) -> u64 {
        let name = if self.is_unified { "memory.events" } else { "memory.oom_control" };
        let text = fs::read_to_string(self.group.join(name)).expect("events of the group");
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        count.expect("a count of kills").trim().parse().expect("a number")
    }

    fn write(&self, name: &str, value: &str) {
        fs::write(self.group.join(name), value).unwrap_or_else(|error| panic!("{name} of a control group: {error}"));
    }
}

impl Drop for MemoryLimit {
    fn drop(&mut self) {
        // A process that is being killed may still be in it; an empty group costs nothing.
        drop(fs::remove_dir(&self.group));
    }
}
