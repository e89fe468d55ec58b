//! Files under construction. They live in one hidden directory of the store, so that they can be linked to their keys, and
//! are locked while their process lives, so that what a dead one left behind can be told apart.

use std::fs::File;
use std::io::Write;

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, Dir, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::failure::Failure;
use super::root::Root;
use super::trail::Step;
use super::version::{self, FileVersion};
use crate::clock::{Randomness, SystemRandom};
use crate::error::StoreErrorKind;
use crate::store::Payload;

/// The hidden directory. Names with a leading dot are no keys of a local store.
pub(super) const DIRECTORY: &str = ".spool";

/// What the names of a store's own temporary files begin with; anything else in the spool belongs to others.
const PREFIX: &str = "put-";

const TRIES: usize = 100;

/// A locked file in the spool; goes away when dropped.
#[derive(Debug)]
pub(super) struct TempFile {
    file: OwnedFd,
    directory: OwnedFd,
    name: String,
    /// Length and version, once written.
    pub(super) version: FileVersion,
}

impl TempFile {
    /// Writes a payload into a new file and makes its content durable.
    pub(super) fn write(root: &Root, payload: Payload, time_nanos: i128) -> Result<Self, Failure> {
        let mut temp = Self::create(root)?;
        let path = temp.path();
        let mut file = File::from(temp.file.try_clone().map_err(|error| Failure::of_io(&error, &path))?);
        match payload {
            Payload::Bytes(bytes) => file.write_all(&bytes).map_err(|error| Failure::of_io(&error, &path))?,
            Payload::File(source) => {
                let read = |error| source_failure(&error, &source);
                let mut source = File::open(&source).map_err(read)?;
                std::io::copy(&mut source, &mut file).map_err(|error| Failure::of_io(&error, &path))?;
            }
        }
        temp.version = temp.settle(root, time_nanos, None)?;
        Ok(temp)
    }

    fn create(root: &Root) -> Result<Self, Failure> {
        let directory = root.make_directory(DIRECTORY)?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        for _ in 0..TRIES {
            let name = format!("{PREFIX}{}-{:016x}", std::process::id(), SystemRandom.next());
            let failure = |errno| root.failure(errno, &format!("{DIRECTORY}/{name}"));
            let file = match rustix::fs::openat(&directory, &name, flags, Mode::RUSR | Mode::WUSR) {
                Ok(file) => file,
                Err(Errno::EXIST) => continue,
                Err(errno) => return Err(failure(errno)),
            };
            // A cleaner that came between has locked or even removed it: take another.
            let locked = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok();
            if locked && rustix::fs::fstat(&file).is_ok_and(|stat| stat.st_nlink > 0) {
                let mode = root.file_mode().map_err(failure)?;
                rustix::fs::fchmod(&file, mode).map_err(failure)?;
                let version = version::stat_file(&file).map_err(failure)?;
                return Ok(Self { file, directory, name, version });
            }
        }
        Err(root.rule(StoreErrorKind::Unavailable, DIRECTORY, "no temporary file could be kept"))
    }

    /// Sets the time, later than that of the version to be replaced, and makes content and time durable.
    pub(super) fn settle(
        &self,
        root: &Root,
        time_nanos: i128,
        replaced: Option<FileVersion>,
    ) -> Result<FileVersion, Failure> {
        let path = self.path();
        let version =
            version::set_time(&self.file, time_nanos, replaced).map_err(|errno| root.failure(errno, &path))?;
        root.give(&self.file).map_err(|errno| root.failure(errno, &path))?;
        root.sync(&self.file, Step::SyncFile(&path))?;
        Ok(version)
    }

    pub(super) fn directory(&self) -> &OwnedFd {
        &self.directory
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    fn path(&self) -> String {
        format!("{DIRECTORY}/{}", self.name)
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        // Fails with ENOENT after a rename; anything else leaves debris that `clean_debris` finds.
        rustix::fs::unlinkat(&self.directory, &self.name, AtFlags::empty()).ok();
    }
}

/// A source that cannot be read is the caller's trouble, never a missing object.
fn source_failure(error: &std::io::Error, source: &std::path::Path) -> Failure {
    let mut failure = Failure::of_io(error, source.display());
    if failure.kind == StoreErrorKind::NotFound {
        failure.kind = StoreErrorKind::Unavailable;
    }
    failure
}

/// Removes the files of dead processes and says how many there were.
pub(super) fn clean_debris(root: &Root) -> Result<usize, Failure> {
    let directory = match root.open_directory(DIRECTORY) {
        Ok(directory) => directory,
        Err(failure) if failure.kind == StoreErrorKind::NotFound => return Ok(0),
        Err(failure) => return Err(failure),
    };
    let failure = |errno| root.failure(errno, DIRECTORY);
    let mut removed: usize = 0;
    for entry in Dir::read_from(&directory).map_err(failure)? {
        let entry = entry.map_err(failure)?;
        let Ok(name) = entry.file_name().to_str() else { continue };
        if name.starts_with(PREFIX) && remove_if_dead(directory.as_fd(), name).map_err(failure)? {
            removed = removed.saturating_add(1);
        }
    }
    Ok(removed)
}

fn remove_if_dead(directory: rustix::fd::BorrowedFd<'_>, name: &str) -> Result<bool, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(directory, name, flags, Mode::empty()) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Ok(false),
        Err(errno) => return Err(errno),
    };
    let is_regular = FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) == FileType::RegularFile;
    if !is_regular || rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Ok(false);
    }
    match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(errno),
    }
}
