//! Attaching the file system to the tree, as mount(8) wants it: type `fuse.desfs`, the source as typed, a mount left dead
//! by a crash replaced, nothing mounted twice.
//!
//! The mount is made by mount(2) and not by fuser, which would show the type as `fuse`; for ordinary users by fusermount3(1).

mod helper;
mod place;
mod probe;
mod table;

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
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
    let device = match attach_directly(source, target, options) {
        // It may be allowed without being root, by a capability; so that is tried first.
        Err(Refused::Permission) if !rustix::process::geteuid().is_root() => helper::mount(source, target, options)?,
        outcome => outcome.map_err(|refused| refused.failure(target))?,
    };
    Ok(Attached { device, mount_point: MountPoint(target.to_owned()) })
}

/// Why the kernel does not mount.
#[derive(Debug, Clone, Copy)]
enum Refused {
    /// Who asks may not.
    Permission,
    Device(Errno),
    Mount(Errno),
}

fn attach_directly(source: &str, target: &Path, options: &MountOptions) -> Result<OwnedFd, Refused> {
    let device =
        rustix::fs::open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map_err(|error| match error {
            Errno::ACCESS | Errno::PERM => Refused::Permission,
            error => Refused::Device(error),
        })?;
    let data = CString::new(kernel_options(device.as_raw_fd(), options)).map_err(|_| Refused::Mount(Errno::INVAL))?;
    match rustix::mount::mount(source, target, FILE_SYSTEM_TYPE, mount_flags(options), data.as_c_str()) {
        Ok(()) => Ok(device),
        Err(Errno::PERM) => Err(Refused::Permission),
        Err(error) => Err(Refused::Mount(error)),
    }
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

impl Refused {
    fn failure(self, target: &Path) -> Failure {
        let target = target.display();
        match self {
            Self::Permission => Failure::usage(
                "root may not mount here either: the capability CAP_SYS_ADMIN is missing, or access to /dev/fuse",
            ),
            Self::Device(Errno::NOENT) | Self::Mount(Errno::NODEV) => {
                Failure::mount("the kernel has no FUSE (try: modprobe fuse)")
            }
            Self::Device(error) => Failure::mount(format!("/dev/fuse: {error}")),
            Self::Mount(Errno::NOENT) => Failure::mount(format!("mount point {target} does not exist")),
            Self::Mount(Errno::NOTDIR) => Failure::mount(format!("mount point {target} is not a directory")),
            Self::Mount(error) => Failure::mount(format!("mount on {target}: {error}")),
        }
    }
}

/// Unmounts. An ordinary user needs the help that mounted.
fn unmount(target: &Path, flags: UnmountFlags) -> io::Result<()> {
    match rustix::mount::unmount(target, UnmountFlags::NOFOLLOW | flags) {
        Err(Errno::PERM) if !rustix::process::geteuid().is_root() => {
            helper::unmount(target, flags.contains(UnmountFlags::DETACH))
        }
        outcome => Ok(outcome?),
    }
}

impl MountPoint {
    /// A mount that another process made.
    pub fn served(target: &Path) -> Self {
        Self(target.to_owned())
    }

    /// Unmounts. Fails with EBUSY while somebody uses it.
    pub fn unmount(&self) -> io::Result<()> {
        unmount(&self.0, UnmountFlags::empty())
    }

    /// Takes the mount out of the tree; it ends when the last who uses it lets go.
    pub fn detach(&self) -> io::Result<()> {
        unmount(&self.0, UnmountFlags::DETACH)
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
