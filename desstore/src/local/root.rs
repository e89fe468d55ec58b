//! The directory of a store, and how files below it are reached: never through a symbolic link, never outside of it.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::failure::{Failure, shown};
use super::trail::{Step, Trail};
use crate::error::StoreErrorKind;

/// An open directory that all paths are resolved against.
#[derive(Debug)]
pub(super) struct Root {
    directory: OwnedFd,
    path: PathBuf,
    resolver: Resolver,
    /// Directories whose own names this process has seen made durable.
    durable: Mutex<HashSet<String>>,
    pub(super) trail: Trail,
}

/// Who keeps symbolic links out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resolver {
    /// openat2(2), Linux 5.6.
    Kernel,
    /// One openat(2) a segment, where openat2 is missing or a sandbox forbids it.
    Walk,
}

/// Directories remembered as durable; beyond that they are forgotten and synced once more.
const DURABLE_MAX: usize = 65_536;

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

impl Root {
    pub(super) fn open(path: PathBuf) -> Result<Self, Failure> {
        let directory =
            rustix::fs::open(&path, DIRECTORY, Mode::empty()).map_err(|errno| Failure::of(errno, path.display()))?;
        let probe = rustix::fs::openat2(&directory, ".", DIRECTORY, Mode::empty(), beneath());
        let resolver = if probe.is_ok() { Resolver::Kernel } else { Resolver::Walk };
        Ok(Self { directory, path, resolver, durable: Mutex::default(), trail: Trail::default() })
    }

    /// The same with another way to keep symbolic links out.
    #[cfg(test)]
    pub(super) fn with_resolver(mut self, resolver: Resolver) -> Self {
        self.resolver = resolver;
        self
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    pub(super) fn failure(&self, errno: Errno, relative: &str) -> Failure {
        Failure::of(errno, shown(&self.path, relative))
    }

    pub(super) fn rule(&self, kind: StoreErrorKind, relative: &str, rule: &'static str) -> Failure {
        Failure::rule(kind, shown(&self.path, relative), rule)
    }

    /// Opens an existing file or directory for reading. A named pipe does not block.
    pub(super) fn open_existing(&self, relative: &str, extra: OFlags) -> Result<OwnedFd, Failure> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY | extra;
        let opened = match self.resolver {
            Resolver::Kernel => self.open_by_kernel(relative, flags),
            Resolver::Walk => self.open_by_walk(relative, flags),
        };
        match opened {
            Err(Errno::NOENT) => {
                self.check_present(relative)?;
                Err(self.failure(Errno::NOENT, relative))
            }
            opened => opened.map_err(|errno| self.failure(errno, relative)),
        }
    }

    /// Fails where the root itself has been removed: nothing can then be said to be missing.
    pub(super) fn check_present(&self, relative: &str) -> Result<(), Failure> {
        let stat = rustix::fs::fstat(&self.directory).map_err(|errno| self.failure(errno, relative))?;
        if stat.st_nlink == 0 {
            return Err(self.rule(StoreErrorKind::Unavailable, relative, "the root of the store has been removed"));
        }
        Ok(())
    }

    fn open_by_kernel(&self, relative: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        let relative = if relative.is_empty() { "." } else { relative };
        let mut tries = 0_u32;
        loop {
            match rustix::fs::openat2(&self.directory, relative, flags, Mode::empty(), beneath()) {
                // The kernel could not rule out a race with a rename.
                Err(Errno::AGAIN | Errno::INTR) if tries < 100 => tries = tries.saturating_add(1),
                opened => return opened,
            }
        }
    }

    fn open_by_walk(&self, relative: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        let mut current = rustix::fs::openat(&self.directory, ".", DIRECTORY, Mode::empty())?;
        let Some((parents, name)) = split_parent(relative) else {
            return rustix::fs::openat(&current, ".", flags, Mode::empty());
        };
        for segment in parents.split('/').filter(|segment| !segment.is_empty()) {
            current = open_segment(&current, segment, DIRECTORY)?;
        }
        open_segment(&current, name, flags)
    }

    /// Opens a directory below the root, `""` being the root.
    pub(super) fn open_directory(&self, relative: &str) -> Result<OwnedFd, Failure> {
        self.open_existing(relative, OFlags::DIRECTORY)
    }

    /// Opens a directory, creating it and its parents; their names are durable on return.
    pub(super) fn make_directory(&self, relative: &str) -> Result<OwnedFd, Failure> {
        if relative.is_empty() || self.is_durable(relative) {
            match self.open_directory(relative) {
                Err(failure) if failure.kind == StoreErrorKind::NotFound && !relative.is_empty() => {}
                opened => return opened,
            }
        }
        let mut parent = self.open_directory("")?;
        let mut end = 0;
        for segment in relative.split('/') {
            let known = relative.get(..end).unwrap_or_default();
            end = end.saturating_add(segment.len()).saturating_add(usize::from(end > 0));
            let path = relative.get(..end).unwrap_or(relative);
            let opened = match open_segment(&parent, segment, DIRECTORY) {
                Err(Errno::NOENT) => self.create_segment(&parent, segment),
                opened => opened,
            };
            let directory = opened.map_err(|errno| match errno {
                Errno::NOTDIR => self.rule(StoreErrorKind::Unsupported, path, "a file stands where a directory must"),
                errno => self.failure(errno, path),
            })?;
            if !self.is_durable(path) {
                self.sync(&parent, Step::SyncDirectory(known))?;
                self.remember_durable(path);
            }
            parent = directory;
        }
        Ok(parent)
    }

    /// Whoever may use the root may use what is created below it, whatever the process's umask.
    fn create_segment(&self, parent: &OwnedFd, name: &str) -> Result<OwnedFd, Errno> {
        match rustix::fs::mkdirat(parent, name, Mode::RWXU | Mode::RWXG | Mode::RWXO) {
            Ok(()) => {
                let directory = open_segment(parent, name, DIRECTORY)?;
                let mode = Mode::from_raw_mode(rustix::fs::fstat(&self.directory)?.st_mode);
                rustix::fs::fchmod(&directory, mode)?;
                self.give(&directory)?;
                Ok(directory)
            }
            Err(Errno::EXIST) => open_segment(parent, name, DIRECTORY),
            Err(errno) => Err(errno),
        }
    }

    /// The permissions of a new file: those of the root, without execution.
    pub(super) fn file_mode(&self) -> Result<Mode, Errno> {
        let mode = Mode::from_raw_mode(rustix::fs::fstat(&self.directory)?.st_mode);
        let both = Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::WGRP | Mode::ROTH | Mode::WOTH;
        Ok(mode & both)
    }

    /// Gives what root has created to the owner of the root: a mount deletes as root, and who repacks afterwards does not run as
    /// root. The last thing that is done to it, since who gives something away may not change it any more.
    pub(super) fn give(&self, created: impl AsFd) -> Result<(), Errno> {
        if !rustix::process::geteuid().is_root() {
            return Ok(());
        }
        let root = rustix::fs::fstat(&self.directory)?;
        let (owner, group) = (rustix::fs::Uid::from_raw(root.st_uid), rustix::fs::Gid::from_raw(root.st_gid));
        match rustix::fs::fchown(created, Some(owner), Some(group)) {
            // A root that may not, in a sandbox or on a network file system, leaves it as it is.
            Err(Errno::PERM) => Ok(()),
            other => other,
        }
    }

    /// Makes a file or directory durable.
    pub(super) fn sync(&self, file: impl AsFd, step: Step<'_>) -> Result<(), Failure> {
        let path = step.path();
        rustix::fs::fsync(file).map_err(|errno| self.failure(errno, path))?;
        self.trail.record(step);
        Ok(())
    }

    fn is_durable(&self, path: &str) -> bool {
        self.durable.lock().unwrap_or_else(PoisonError::into_inner).contains(path)
    }

    fn remember_durable(&self, path: &str) {
        let mut durable = self.durable.lock().unwrap_or_else(PoisonError::into_inner);
        if durable.len() >= DURABLE_MAX {
            durable.clear();
        }
        durable.insert(path.to_owned());
    }
}

const fn beneath() -> ResolveFlags {
    ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS)
}

/// Opens one name; a symbolic link is `ELOOP`, as openat2 says it.
fn open_segment(parent: &OwnedFd, name: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    match rustix::fs::openat(parent, name, flags | OFlags::NOFOLLOW, Mode::empty()) {
        Err(Errno::NOTDIR) if is_link(parent, name) => Err(Errno::LOOP),
        opened => opened,
    }
}

fn is_link(parent: &OwnedFd, name: &str) -> bool {
    rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink)
}

/// Splits a path into the directory and the last name; `None` for the root.
pub(super) fn split_parent(relative: &str) -> Option<(&str, &str)> {
    match relative.rsplit_once('/') {
        Some(parts) => Some(parts),
        None if relative.is_empty() => None,
        None => Some(("", relative)),
    }
}
