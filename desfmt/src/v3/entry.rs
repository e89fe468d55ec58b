//! One file in a shard.

use crate::ids::Digest;
use crate::time::Timestamp;
use crate::uid::Uid;

/// When the source was last changed: seconds since the Unix epoch, and nanoseconds, below a thousand million.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Mtime {
    /// Whole seconds since 1970-01-01T00:00:00Z, rounded down.
    pub seconds: i64,
    /// Nanoseconds within the second.
    pub nanos: u32,
}

/// A file as an index page knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its place in the shard, from 0, in the order of uids.
    pub position: u32,
    /// Its name within the day.
    pub uid: Uid,
    /// The creation time that decided its day.
    pub created_at: Timestamp,
    /// The source's modification time.
    pub mtime: Mtime,
    /// The address of its first byte; without meaning where it has none.
    pub offset: u64,
    /// Plain bytes.
    pub len: u64,
    /// Which of the shard's origins it was born in: an index into [`crate::v3::Lineage::serials`], or 0 in a shard
    /// that was never repacked.
    pub origin: u16,
    /// Its place in that origin.
    pub ordinal: u32,
}

/// A file to be written.
#[derive(Debug, Clone, Copy)]
pub struct NewEntry<'a> {
    /// Its name within the day.
    pub uid: &'a Uid,
    /// The creation time that decides its day.
    pub created_at: Timestamp,
    /// The source's modification time.
    pub mtime: Mtime,
    /// Where [`crate::v3::FrameCutter`] put its content, or the equal content of another file.
    pub offset: u64,
    /// Plain bytes.
    pub len: u64,
    /// BLAKE3 of its plain content.
    pub digest: Digest,
    /// A JSON object, if there is anything to keep.
    pub metadata: Option<&'a str>,
    /// Origin and ordinal, in a shard with lineage; `None` in a fresh one.
    pub birth: Option<(u16, u32)>,
}
