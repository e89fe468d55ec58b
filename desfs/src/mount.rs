//! Attaching the file system to the tree, as mount(8) wants it: type `fuse.desfs`, the source as typed, a mount left dead
//! by a crash replaced, nothing mounted twice.
//!
//! The mount is made by mount(2) and not by fuser, which would show the type as `fuse`.

mod place;
mod probe;
mod table;

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};

pub use place::{Claim, answers, ask, claim, resolve};
pub use probe::Probe;

use crate::exit::Failure;
use crate::limits::READ_AHEAD_KIB;
use crate::options::MountOptions;

/// The type that the mount table shows.
pub const FILE_SYSTEM_TYPE: &str = "fuse.desfs";

/// A mount that is there and waits for its session.
#[derive(Debug)]
pub struct Attached {
    /// What the session talks through.
    pub device: OwnedFd,
    /// Where it is mounted.
    pub mount_point: MountPoint,
}

/// Where the file system is mounted.
#[derive(Debug, Clone)]
pub struct MountPoint(PathBuf);

/// Mounts on a path that [`claim`] found free.
pub fn attach(source: &str, target: &Path, options: &MountOptions) -> Result<Attached, Failure> {
    let device = open_device()?;
    let data = CString::new(kernel_options(device.as_raw_fd(), options))
        .map_err(|_| Failure::internal("the options for the kernel hold a NUL"))?;
    rustix::mount::mount(source, target, FILE_SYSTEM_TYPE, mount_flags(options), data.as_c_str())
        .map_err(|error| explain(error, target))?;
    Ok(Attached { device: device.into(), mount_point: MountPoint(target.to_owned()) })
}

fn open_device() -> Result<File, Failure> {
    OpenOptions::new().read(true).write(true).open("/dev/fuse").map_err(|error| {
        if error.kind() == io::ErrorKind::PermissionDenied {
            return explain(Errno::PERM, Path::new("/dev/fuse"));
        }
        let remedy =
            if error.kind() == io::ErrorKind::NotFound { "; the kernel has no FUSE (try: modprobe fuse)" } else { "" };
        Failure::mount(format!("/dev/fuse: {error}{remedy}"))
    })
}

/// `default_permissions` always: the kernel checks modes, so that deletion is decided by the directory's.
fn kernel_options(device: i32, options: &MountOptions) -> String {
    let mut data = format!(
        "fd={device},rootmode=40000,user_id={},group_id={},default_permissions",
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    );
    if options.allow_other {
        data.push_str(",allow_other");
    }
    data
}

/// An archive holds neither devices nor set-user-id programs, and reading it changes no times.
fn mount_flags(options: &MountOptions) -> MountFlags {
    let mut flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOATIME;
    flags.set(MountFlags::NOEXEC, !options.exec);
    flags.set(MountFlags::RDONLY, options.read_only);
    flags
}

fn explain(error: Errno, target: &Path) -> Failure {
    let target = target.display();
    match error {
        Errno::PERM => Failure::usage(
            "only root can mount, whatever `user` says in fstab; let systemd do it (x-systemd.automount)",
        ),
        Errno::NOENT => Failure::mount(format!("mount point {target} does not exist")),
        Errno::NOTDIR => Failure::mount(format!("mount point {target} is not a directory")),
        Errno::NODEV => Failure::mount("the kernel has no FUSE (try: modprobe fuse)"),
        error => Failure::mount(format!("mount on {target}: {error}")),
    }
}

impl MountPoint {
    /// A mount that another process made.
    pub fn served(target: &Path) -> Self {
        Self(target.to_owned())
    }

    /// Unmounts. Fails with EBUSY while somebody uses it.
    pub fn unmount(&self) -> io::Result<()> {
        Ok(rustix::mount::unmount(&self.0, UnmountFlags::NOFOLLOW)?)
    }

    /// Takes the mount out of the tree; it ends when the last who uses it lets go.
    pub fn detach(&self) -> io::Result<()> {
        Ok(rustix::mount::unmount(&self.0, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH)?)
    }

    /// Lets the kernel read ahead as much as one request can carry; it offers 128 KiB by itself. Only costs speed when it
    /// cannot be done.
    pub fn widen_read_ahead(&self) {
        // By the mount table, not by stat(2): a daemon must not ask itself.
        let device = match table::read() {
            Ok(mounts) => table::top_at(&mounts, &self.0).map(|mount| mount.device.clone()),
            Err(_) => None,
        };
        let Some(device) = device else { return };
        let setting = format!("/sys/class/bdi/{device}/read_ahead_kb");
        if let Err(error) = std::fs::write(&setting, READ_AHEAD_KIB.to_string()) {
            tracing::info!(setting, %error, "read-ahead stays as it is");
        }
    }
}
