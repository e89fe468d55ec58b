//! Whether a path is free to be mounted on, and what to do where it is not.
//!
//! Everything here runs before the daemon leaves the session of the program that started it: below an automount the kernel
//! lets only that group of processes look at the path.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use rustix::io::Errno;
use rustix::mount::UnmountFlags;

use crate::exit::Failure;
use crate::limits::{DEAD_MOUNTS_MAX, PROBE_MAX};
use crate::mount::FILE_SYSTEM_TYPE;
use crate::mount::table::{self, Mount};

/// What was found at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// It can be mounted on.
    Free,
    /// The same source is mounted there and answers.
    MountedAlready,
}

/// How a mount behaves when asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Health {
    Answers,
    /// Its daemon is gone.
    Dead,
    /// Its daemon does not answer.
    Stuck,
}

/// Finds out whether a path can be mounted on. A mount of ours whose daemon died is taken away.
pub fn claim(source: &str, target: &Path) -> Result<Claim, Failure> {
    for _ in 0..DEAD_MOUNTS_MAX {
        let mounts = table::read().map_err(|error| Failure::system(format!("/proc/self/mountinfo: {error}")))?;
        let occupant = table::top_at(&mounts, target);
        let health = match occupant {
            Some(mount) if mount.file_system == FILE_SYSTEM_TYPE => health(target),
            Some(_) | None => Health::Answers,
        };
        match decide(occupant, health, source, target)? {
            Decision::Settled(claim) => return Ok(claim),
            Decision::Replace => {
                tracing::warn!(target = %target.display(), "replacing a mount whose daemon died");
                super::unmount(target, UnmountFlags::DETACH).map_err(|error| {
                    Failure::mount(format!(
                        "{} holds a dead mount that cannot be taken away: {error}",
                        target.display()
                    ))
                })?;
            }
        }
    }
    Err(Failure::mount(format!("too many dead mounts on {}; take them away with umount -l", target.display())))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Decision {
    Settled(Claim),
    Replace,
}

fn decide(occupant: Option<&Mount>, health: Health, source: &str, target: &Path) -> Result<Decision, Failure> {
    let Some(mount) = occupant else { return Ok(Decision::Settled(Claim::Free)) };
    let (target, mounted) = (target.display(), mount.source.display());
    match (mount.file_system.as_str(), health) {
        ("autofs", _) => Ok(Decision::Settled(Claim::Free)),
        (FILE_SYSTEM_TYPE, Health::Dead) => Ok(Decision::Replace),
        (FILE_SYSTEM_TYPE, Health::Stuck) => Err(Failure::mount(format!(
            "{target} is mounted from {mounted}, but its daemon does not answer; umount -f it first, and -l if that is not enough"
        ))),
        (FILE_SYSTEM_TYPE, Health::Answers) if mount.source.as_bytes() == source.as_bytes() => {
            Ok(Decision::Settled(Claim::MountedAlready))
        }
        (other, _) => Err(Failure::mount(format!("{target} is mounted already: {other} from {mounted}"))),
    }
}

/// Asks a mount that another process serves.
fn health(target: &Path) -> Health {
    match answers(target) {
        Ok(()) => Health::Answers,
        Err(error) => match Errno::from_io_error(&error) {
            Some(Errno::NOTCONN | Errno::CONNABORTED) => Health::Dead,
            Some(Errno::TIMEDOUT) => Health::Stuck,
            // It answered, though with an error.
            Some(_) | None => Health::Answers,
        },
    }
}

/// Waits for an answer of the file system at a path, within limits. Never to be called by the process that serves it.
pub fn answers(target: &Path) -> io::Result<()> {
    let (sender, receiver) = mpsc::channel();
    let asked = target.to_owned();
    // A thread that never comes back is killed with the process.
    drop(std::thread::Builder::new().name("probe".to_owned()).spawn(move || {
        drop(sender.send(ask(&asked)));
    })?);
    match receiver.recv_timeout(PROBE_MAX) {
        Ok(answer) => answer,
        Err(_) => Err(Errno::TIMEDOUT.into()),
    }
}

/// Waits for an answer of the file system at a path, for ever if need be.
pub fn ask(target: &Path) -> io::Result<()> {
    // A name that no day can have and nobody has asked for before: the daemon answers it without looking anything up,
    // and the kernel cannot answer it from its caches.
    let name = target.join(format!(".desfs-{}-{:?}", std::process::id(), std::thread::current().id()));
    match rustix::fs::lstat(&name) {
        Ok(_) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The path of a mount point as the mount table shows it. What is mounted there already is not asked.
pub fn resolve(target: &Path) -> Result<PathBuf, Failure> {
    match std::fs::canonicalize(target) {
        Ok(path) => Ok(path),
        // A dead mount cannot be looked at, but the directory that it lies in can.
        Err(error) if Errno::from_io_error(&error) == Some(Errno::NOTCONN) => {
            let absolute = std::path::absolute(target).map_err(|error| Failure::mount(error.to_string()))?;
            match (absolute.parent().map(std::fs::canonicalize), absolute.file_name()) {
                (Some(Ok(parent)), Some(name)) => Ok(parent.join(name)),
                _ => Ok(absolute),
            }
        }
        Err(error) => Err(Failure::mount(format!("mount point {}: {error}", target.display()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(file_system: &str, source: &str) -> Mount {
        Mount {
            device: "0:1".to_owned(),
            path: PathBuf::from("/mnt"),
            file_system: file_system.to_owned(),
            source: source.into(),
        }
    }

    fn decide_on(occupant: Option<&Mount>, health: Health) -> Result<Decision, String> {
        decide(occupant, health, "/srv/archive", Path::new("/mnt")).map_err(|failure| failure.to_string())
    }

    #[test]
    fn an_empty_place_and_an_automount_are_free() {
        assert_eq!(decide_on(None, Health::Answers), Ok(Decision::Settled(Claim::Free)));
        assert_eq!(decide_on(Some(&mount("autofs", "systemd-1")), Health::Answers), Ok(Decision::Settled(Claim::Free)));
    }

    #[test]
    fn the_same_source_is_not_mounted_twice() {
        let same = mount("fuse.desfs", "/srv/archive");
        assert_eq!(decide_on(Some(&same), Health::Answers), Ok(Decision::Settled(Claim::MountedAlready)));
    }

    #[test]
    fn a_dead_mount_of_ours_is_replaced() {
        assert_eq!(decide_on(Some(&mount("fuse.desfs", "/srv/archive")), Health::Dead), Ok(Decision::Replace));
        assert_eq!(decide_on(Some(&mount("fuse.desfs", "/srv/other")), Health::Dead), Ok(Decision::Replace));
    }

    #[test]
    fn anything_else_is_left_alone_and_named() {
        assert_eq!(
            decide_on(Some(&mount("ext4", "/dev/sda1")), Health::Answers),
            Err("/mnt is mounted already: ext4 from /dev/sda1".to_owned())
        );
        assert_eq!(
            decide_on(Some(&mount("fuse.desfs", "/srv/other")), Health::Answers),
            Err("/mnt is mounted already: fuse.desfs from /srv/other".to_owned())
        );
        assert!(
            decide_on(Some(&mount("fuse.desfs", "/srv/archive")), Health::Stuck).unwrap_err().contains("umount -f")
        );
    }
}
