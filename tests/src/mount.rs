//! Mounts by mount(8), the way people do it, taken down again whatever happens to the test.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::{Outcome, command, eventually, mount_point, run_within};

/// How long mounting and unmounting may take.
const LIMIT: Duration = Duration::from_secs(30);

/// A test beside this one that starts a program holds copies of all files that are open, until the program runs.
const COPIES_GONE: Duration = Duration::from_secs(5);

/// An archive that is mounted.
#[derive(Debug)]
pub struct Mount {
    path: PathBuf,
    _point: Option<TempDir>,
}

impl Mount {
    /// Mounts an archive, which must succeed.
    #[track_caller]
    pub fn new(source: &Path, options: &str) -> Self {
        let point = mount_point();
        let path = point.path().to_path_buf();
        Self { path, _point: Some(point) }.mounted(source, options)
    }

    /// Mounts an archive on a given directory, which must succeed.
    #[track_caller]
    pub fn at(source: &Path, point: &Path, options: &str) -> Self {
        Self { path: point.to_path_buf(), _point: None }.mounted(source, options)
    }

    /// Takes care of a mount that the test makes by itself.
    pub fn guard(point: &Path) -> Self {
        Self { path: point.to_path_buf(), _point: None }
    }

    #[track_caller]
    fn mounted(self, source: &Path, options: &str) -> Self {
        run_within(LIMIT, &mut Self::command(source, &self.path, options)).success();
        self
    }

    /// The command that mounts.
    pub fn command(source: &Path, point: &Path, options: &str) -> Command {
        let mut mount = command("mount");
        mount.args(["-t", "fuse.desfs"]).arg(source).arg(point);
        if !options.is_empty() {
            mount.args(["-o", options]);
        }
        mount
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of a file in it.
    pub fn file(&self, day: &str, uid: &str) -> PathBuf {
        self.path.join(day).join(crate::shown_name(uid))
    }

    /// The one process that serves it.
    #[track_caller]
    pub fn daemon(&self) -> Pid {
        let daemons = daemons_on(&self.path);
        assert_eq!(daemons.len(), 1, "daemons on {}: {daemons:?}", self.path.display());
        daemons[0]
    }

    /// Unmounts and waits for the process to end, both of which must succeed.
    #[track_caller]
    pub fn unmount(self) {
        let path = self.path.clone();
        let began = Instant::now();
        let mut outcome = self.try_unmount();
        while outcome.stderr.contains("target is busy") && began.elapsed() < COPIES_GONE {
            thread::sleep(Duration::from_millis(10));
            outcome = self.try_unmount();
        }
        outcome.success();
        eventually(LIMIT, "the daemon ends after umount", || daemons_on(&path).is_empty());
    }

    /// Runs umount(8) and says what came of it.
    pub fn try_unmount(&self) -> Outcome {
        run_within(LIMIT, command("umount").arg(&self.path))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        while !mounts_on(&self.path).is_empty() {
            if unmount(&self.path, UnmountFlags::DETACH).is_err() {
                break;
            }
        }
        for daemon in daemons_on(&self.path) {
            // It may have ended by itself meanwhile.
            let _gone = kill_process(daemon, Signal::KILL);
        }
    }
}

/// The processes of `desfs` with this mount point in their arguments. Dead ones that nobody has waited for do not count.
pub fn daemons_on(point: &Path) -> Vec<Pid> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").expect("/proc") {
        let entry = entry.expect("/proc");
        let number = entry.file_name().to_string_lossy().parse::<i32>().ok();
        let Some(pid) = number.and_then(Pid::from_raw) else { continue };
        // A process may end while we look; a dead one has no arguments.
        let arguments = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let mut words = arguments.split(|byte| *byte == 0);
        let is_desfs = words.next().is_some_and(|program| program.ends_with(b"desfs"));
        if is_desfs && words.any(|word| word == point.as_os_str().as_bytes()) {
            found.push(pid);
        }
    }
    found
}

/// The lines of the mount table for a mount point: type and source of each.
pub fn mounts_on(point: &Path) -> Vec<(String, String)> {
    let table = fs::read_to_string("/proc/self/mountinfo").expect("mount table");
    let point = point.to_str().expect("mount points of tests are plain text");
    let mut found = Vec::new();
    for line in table.lines() {
        let (before, after) = line.split_once(" - ").expect("line of the mount table");
        if before.split(' ').nth(4) == Some(point) {
            let mut words = after.split(' ');
            let (kind, source) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            found.push((kind.to_owned(), source.to_owned()));
        }
    }
    found
}
