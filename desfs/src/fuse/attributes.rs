//! Attributes as fuser wants them.

use std::time::{Duration, SystemTime};

use fuser::{FileAttr, FileType, Generation, INodeNo};

use crate::core::{Attributes, Kind};

/// No inode number is ever used for another file, so that there is one generation only.
pub(super) const GENERATION: Generation = Generation(0);

/// What stat(2) shows as the size of a good read.
const BLOCK_BYTES: u32 = 64 << 10;

/// The answer that a name does not exist.
pub(super) const NO_ENTRY: FileAttr = FileAttr {
    ino: INodeNo(0),
    size: 0,
    blocks: 0,
    atime: SystemTime::UNIX_EPOCH,
    mtime: SystemTime::UNIX_EPOCH,
    ctime: SystemTime::UNIX_EPOCH,
    crtime: SystemTime::UNIX_EPOCH,
    kind: FileType::RegularFile,
    perm: 0,
    nlink: 0,
    uid: 0,
    gid: 0,
    rdev: 0,
    blksize: 0,
    flags: 0,
};

pub(super) fn file_attr(attributes: &Attributes) -> FileAttr {
    let time = system_time(attributes.mtime.seconds, attributes.mtime.nanos);
    FileAttr {
        ino: INodeNo(attributes.inode),
        size: attributes.len,
        blocks: attributes.len.div_ceil(512),
        atime: time,
        mtime: time,
        ctime: time,
        crtime: time,
        kind: file_type(attributes.kind),
        perm: attributes.mode,
        nlink: attributes.links,
        uid: attributes.owner,
        gid: attributes.group,
        rdev: 0,
        blksize: BLOCK_BYTES,
        flags: 0,
    }
}

pub(super) const fn file_type(kind: Kind) -> FileType {
    match kind {
        Kind::Directory => FileType::Directory,
        Kind::File => FileType::RegularFile,
    }
}

/// A time that the machine cannot express is shown as the epoch.
fn system_time(seconds: i64, nanos: u32) -> SystemTime {
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let epoch = SystemTime::UNIX_EPOCH;
    let time = if seconds < 0 { epoch.checked_sub(whole) } else { epoch.checked_add(whole) };
    time.and_then(|time| time.checked_add(Duration::from_nanos(u64::from(nanos)))).unwrap_or(epoch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_the_epoch_and_beyond_any_clock_are_shown() {
        let epoch = SystemTime::UNIX_EPOCH;
        assert_eq!(system_time(-5, 250), epoch - Duration::from_secs(5) + Duration::from_nanos(250));
        assert_eq!(system_time(5, 250), epoch + Duration::new(5, 250));
        assert_eq!(system_time(i64::MAX, u32::MAX), epoch);
        assert!(system_time(i64::MIN, 0) <= epoch);
    }
}
