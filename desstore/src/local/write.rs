//! How objects come, change and go: written aside, made durable, then given their name in one step.

use std::path::Path;

use desfmt::ObjectKey;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::failure::Failure;
use super::root::{Root, split_parent};
use super::spool::TempFile;
use super::trail::Step;
use super::version::{self, FileVersion};
use crate::error::StoreErrorKind;
use crate::store::{ETag, Payload};

/// What must hold for a replacement. The caller holds the lock of the store.
pub(super) enum Condition {
    /// There is an object of this version.
    Match(ETag),
    /// Nothing.
    Always,
}

/// Where a key's file is or is going to be.
struct Place<'a> {
    directory: OwnedFd,
    directory_path: &'a str,
    name: &'a str,
    key: &'a str,
}

impl<'a> Place<'a> {
    fn make(root: &Root, key: &'a ObjectKey) -> Result<Self, Failure> {
        let key = key.as_str();
        let (directory_path, name) = split_parent(key).unwrap_or(("", key));
        Ok(Self { directory: root.make_directory(directory_path)?, directory_path, name, key })
    }

    fn is_taken(&self, root: &Root) -> Result<bool, Failure> {
        match rustix::fs::statat(&self.directory, self.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(root.failure(errno, self.key)),
        }
    }

    fn sync(&self, root: &Root) -> Result<(), Failure> {
        root.sync(&self.directory, Step::SyncDirectory(self.directory_path)).map_err(Failure::after_the_change)
    }

    /// Says that the object exists, after making sure that it also does after a power cut: whoever created it may have died
    /// before doing so, and the caller is going to rely on it.
    fn taken(&self, root: &Root) -> Failure {
        match self.sync(root) {
            Ok(()) => root.failure(Errno::EXIST, self.key),
            Err(failure) => failure,
        }
    }
}

/// Creates an object where there is none.
pub(super) fn create(root: &Root, key: &ObjectKey, payload: Payload, time_nanos: i128) -> Result<FileVersion, Failure> {
    let place = Place::make(root, key)?;
    if place.is_taken(root)? {
        return Err(place.taken(root));
    }
    if let Payload::File(source) = &payload
        && let Some(version) = link_source(root, source, &place, time_nanos)?
    {
        return Ok(version);
    }
    let temp = TempFile::write(root, payload, time_nanos)?;
    match rustix::fs::linkat(temp.directory(), temp.name(), &place.directory, place.name, AtFlags::empty()) {
        Ok(()) => root.trail.record(Step::Link(place.key)),
        Err(Errno::EXIST) => return Err(place.taken(root)),
        Err(errno) => return Err(root.failure(errno, place.key)),
    }
    place.sync(root)?;
    Ok(temp.version)
}

/// Gives a finished file a second name instead of copying it. `None` where that cannot be done: on another file system, or
/// where the file already has another name, whose time must not be touched.
fn link_source(
    root: &Root,
    source: &Path,
    place: &Place<'_>,
    time_nanos: i128,
) -> Result<Option<FileVersion>, Failure> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let Ok(file) = rustix::fs::open(source, flags, Mode::empty()) else { return Ok(None) };
    let (Ok(ours), Ok(theirs)) = (rustix::fs::fstat(&place.directory), rustix::fs::fstat(&file)) else {
        return Ok(None);
    };
    let is_plain = FileType::from_raw_mode(theirs.st_mode) == FileType::RegularFile && theirs.st_nlink == 1;
    if !is_plain || ours.st_dev != theirs.st_dev {
        return Ok(None);
    }
    let Ok(version) = prepare(root, &file, time_nanos) else { return Ok(None) };
    root.sync(&file, Step::SyncFile(place.key))?;
    match rustix::fs::linkat(CWD, source, &place.directory, place.name, AtFlags::empty()) {
        Ok(()) => root.trail.record(Step::Link(place.key)),
        Err(Errno::EXIST) => return Err(place.taken(root)),
        Err(_) => return Ok(None),
    }
    place.sync(root)?;
    Ok(Some(version))
}

fn prepare(root: &Root, file: &OwnedFd, time_nanos: i128) -> Result<FileVersion, Errno> {
    rustix::fs::fchmod(file, root.file_mode()?)?;
    let version = version::set_time(file, time_nanos, None)?;
    root.give(file)?;
    Ok(version)
}

/// Puts a written file in the place of what is there. The caller holds the lock of the store.
pub(super) fn replace(
    root: &Root,
    key: &ObjectKey,
    temp: &TempFile,
    condition: &Condition,
    time_nanos: i128,
) -> Result<FileVersion, Failure> {
    let current = match root.open_existing(key.as_str(), OFlags::empty()) {
        Ok(file) => Some(current_version(root, key, file.as_fd())?),
        Err(failure) if failure.kind == StoreErrorKind::NotFound => None,
        Err(failure) => return Err(failure),
    };
    if let Condition::Match(etag) = condition
        && current.is_none_or(|current| current.etag() != *etag)
    {
        return Err(root.rule(StoreErrorKind::PreconditionFailed, key.as_str(), "the file is another version"));
    }
    let version = match current {
        Some(current) if !temp.version.is_later_than(current) => temp.settle(root, time_nanos, Some(current))?,
        Some(_) | None => temp.version,
    };
    let place = Place::make(root, key)?;
    rustix::fs::renameat(temp.directory(), temp.name(), &place.directory, place.name)
        .map_err(|errno| root.failure(errno, place.key))?;
    root.trail.record(Step::Rename(place.key));
    place.sync(root)?;
    Ok(version)
}

fn current_version(root: &Root, key: &ObjectKey, file: impl AsFd) -> Result<FileVersion, Failure> {
    version::stat_file(file)
        .map_err(|_| root.rule(StoreErrorKind::Unsupported, key.as_str(), "something other than a file stands there"))
}

/// Removes an object; what is no object stays. The caller holds the lock of the store.
pub(super) fn remove(root: &Root, key: &ObjectKey) -> Result<(), Failure> {
    let (directory_path, name) = split_parent(key.as_str()).unwrap_or(("", key.as_str()));
    let directory = match root.open_directory(directory_path) {
        Ok(directory) => directory,
        Err(failure) if failure.kind == StoreErrorKind::NotFound => return Ok(()),
        Err(failure) => return Err(failure),
    };
    let failure = |errno| root.failure(errno, key.as_str());
    match rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => match rustix::fs::unlinkat(&directory, name, AtFlags::empty()) {
                Ok(()) => root.trail.record(Step::Unlink(key.as_str())),
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(failure(errno)),
            },
            FileType::Symlink => return Err(failure(Errno::LOOP)),
            FileType::Directory
            | FileType::Fifo
            | FileType::Socket
            | FileType::CharacterDevice
            | FileType::BlockDevice
            | FileType::Unknown => return Ok(()),
        },
        Err(Errno::NOENT) => {}
        Err(errno) => return Err(failure(errno)),
    }
    // Also where the name was gone already: whoever removed it may have died before it was durable.
    root.sync(&directory, Step::SyncDirectory(directory_path)).map_err(Failure::after_the_change)
}
