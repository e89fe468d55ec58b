//! When each shard was last found sound, in a file between runs: so that each run goes on with those that were not looked
//! at for the longest time, and the age of the oldest is known.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use desfmt::{ArchiveId, ShardId, Timestamp};
use serde::{Deserialize, Serialize};

/// The largest file that is read, in bytes: some ten million shards.
const FILE_LEN_MAX: u64 = 1 << 30;

/// A file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BookError {
    /// It cannot be read or written.
    #[error("{}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// It is something else.
    #[error("{}: {reason}", path.display())]
    Foreign {
        /// Which one.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// What is known of one shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Line {
    /// When it was first seen.
    seen: Timestamp,
    /// When its contents were last found sound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sound: Option<Timestamp>,
}

/// The book of an archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Book {
    des_verify_state: u32,
    archive: ArchiveId,
    shards: BTreeMap<ShardId, Line>,
    #[serde(skip)]
    listed: BTreeSet<ShardId>,
}

const VERSION: u32 = 1;

impl Book {
    /// A book in which nothing is written.
    pub const fn new(archive: ArchiveId) -> Self {
        Self { des_verify_state: VERSION, archive, shards: BTreeMap::new(), listed: BTreeSet::new() }
    }

    /// Reads the book of an archive; an empty one where there is no file yet.
    pub fn open(path: &Path, archive: ArchiveId) -> Result<Self, BookError> {
        let failed = |source| BookError::File { path: path.to_owned(), source };
        let foreign = |reason: String| BookError::Foreign { path: path.to_owned(), reason };
        match std::fs::metadata(path) {
            Ok(meta) if meta.len() > FILE_LEN_MAX => return Err(foreign("it is too large".to_owned())),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::new(archive)),
            Err(error) => return Err(failed(error)),
        }
        let bytes = std::fs::read(path).map_err(failed)?;
        let book: Self = serde_json::from_slice(&bytes)
            .map_err(|error| foreign(format!("it is no state of des-verify ({error}); remove it to begin anew")))?;
        if book.des_verify_state != VERSION {
            return Err(foreign(format!("version {}, this is for {VERSION}", book.des_verify_state)));
        }
        if book.archive != archive {
            return Err(foreign(format!("it is of archive {}; each archive needs a file of its own", book.archive)));
        }
        Ok(book)
    }

    /// Writes the book, whole or not at all.
    pub fn save(&self, path: &Path) -> Result<(), BookError> {
        let failed = |source| BookError::File { path: path.to_owned(), source };
        let bytes = serde_json::to_vec(self).map_err(|error| failed(error.into()))?;
        replace_file(path, &bytes).map_err(failed)
    }

    /// Notes that a shard is there.
    pub fn list(&mut self, shard: ShardId, now: Timestamp) {
        self.listed.insert(shard);
        self.shards.entry(shard).or_insert(Line { seen: now, sound: None });
    }

    /// Notes what a look at the contents of a shard has shown.
    pub fn note(&mut self, shard: ShardId, is_sound: bool, now: Timestamp) {
        let line = self.shards.entry(shard).or_insert(Line { seen: now, sound: None });
        line.sound = is_sound.then_some(now);
    }

    /// Forgets the shards that were not listed. Only after a run that has seen all of them.
    pub fn forget_others(&mut self) {
        let listed = std::mem::take(&mut self.listed);
        self.shards.retain(|shard, _| listed.contains(shard));
    }

    /// When shards were last found sound.
    pub fn sound(&self) -> HashMap<ShardId, Timestamp> {
        self.shards.iter().filter_map(|(shard, line)| Some((*shard, line.sound?))).collect()
    }

    /// How long ago the shard was found sound for which that is longest; one that never was counts from when it was seen.
    pub fn oldest(&self, now: Timestamp) -> Duration {
        let last = self.shards.values().map(|line| line.sound.unwrap_or(line.seen)).min();
        last.map_or(Duration::ZERO, |last| now.since(last))
    }
}

/// Replaces a file, so that a reader sees the old or the new one.
pub(super) fn replace_file(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let fresh = PathBuf::from(name);
    let mut file = std::fs::File::create(&fresh)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&fresh, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    fn shard(number: u8) -> ShardId {
        ShardId::from_bytes([number; 16])
    }

    #[test]
    fn a_book_remembers_between_runs_what_was_sound_and_when() {
        let directory = tempfile::tempdir().unwrap();
        let (path, archive) = (directory.path().join("state"), ArchiveId::from_bytes([1; 16]));
        let mut book = Book::open(&path, archive).unwrap();
        assert_eq!(book.oldest(at(9)), Duration::ZERO);
        for number in 0..4 {
            book.list(shard(number), at(10));
        }
        book.note(shard(0), true, at(20));
        book.note(shard(1), true, at(20));
        book.note(shard(1), false, at(30));
        book.save(&path).unwrap();

        let mut book = Book::open(&path, archive).unwrap();

        assert_eq!(book.sound(), HashMap::from([(shard(0), at(20))]));
        assert_eq!(book.oldest(at(100)), Duration::from_secs(90), "what was never sound counts from when it was seen");
        book.list(shard(0), at(200));
        book.forget_others();
        assert_eq!(book.oldest(at(100)), Duration::from_secs(80));
    }

    #[test]
    fn a_file_of_something_else_is_refused_and_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        std::fs::write(&path, "{\"a\":1}").unwrap();
        let refused = Book::open(&path, ArchiveId::from_bytes([1; 16])).unwrap_err().to_string();
        assert!(refused.contains("no state of des-verify"), "{refused}");

        std::fs::remove_file(&path).unwrap();
        Book::new(ArchiveId::from_bytes([2; 16])).save(&path).unwrap();
        let refused = Book::open(&path, ArchiveId::from_bytes([1; 16])).unwrap_err().to_string();
        assert!(refused.contains("a file of its own"), "{refused}");
    }
}
