//! What must be true of a store after every operation, whoever made it and whatever died: the invariants of
//! `docs/protocol.md`, decided by nothing but what the store holds and has held.

mod manifest;
mod shards;
mod tombstones;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use bytes::Bytes;
use desfmt::document::{FoldedTombstones, Manifest};
use desfmt::{ArchiveId, Birth, BucketBits, Date, Digest, ObjectKey, Timestamp, UidHash, UidHasher, layout};

pub(super) use shards::{Contents, Held};

/// Whose operation it is, and since when that one has been at work.
#[derive(Debug, Clone, Copy)]
pub(super) struct By {
    /// The operation with which the job began.
    pub(super) job_began: u64,
    /// How many of its calls went wrong so far.
    pub(super) troubles: u64,
}

/// A file as it was when it was first live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) digest: Digest,
    pub(super) birth: Birth,
    /// When it became live, by the store's clock.
    pub(super) since: Timestamp,
}

/// What became of a key that is no longer to be live.
#[derive(Debug, Clone, Copy)]
struct Spent {
    /// The operation that spent it.
    operation: u64,
    at: Timestamp,
    was_live: bool,
}

/// The state of a store as the invariants see it.
#[derive(Debug)]
pub(super) struct Oracle {
    pub(super) bits: BucketBits,
    date: Date,
    hasher: UidHasher,
    grace: Duration,
    /// Counts the operations.
    pub(super) operation: u64,
    /// The objects below `shards/`.
    pub(super) shards: BTreeMap<ObjectKey, Held>,
    /// What was under a key while it was live: it is still listed when it is lost.
    contents: HashMap<ObjectKey, Contents>,
    pub(super) manifest: Option<Manifest>,
    /// The key of the shard that holds each uid.
    pub(super) live: BTreeMap<String, ObjectKey>,
    pub(super) files: BTreeMap<String, Seen>,
    spent: BTreeMap<ObjectKey, Spent>,
    /// What each record and each batch deletes.
    records: BTreeMap<ObjectKey, Vec<UidHash>>,
    pub(super) folded: Option<FoldedTombstones>,
    /// Since when a folded set has held a uid.
    folded_since: HashMap<UidHash, Timestamp>,
    /// All that was ever deleted.
    deleted: HashSet<UidHash>,
    /// Live objects that were taken away by nobody of ours.
    pub(super) lost: BTreeSet<ObjectKey>,
    pub(super) reached: Reached,
}

/// How often what is interesting came about: a simulation that never gets there proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Reached {
    pub(super) commits: u64,
    pub(super) swaps: u64,
    pub(super) merges: u64,
    pub(super) condemned: u64,
    pub(super) purged_retired: u64,
    pub(super) purged_condemned: u64,
    pub(super) recreated: u64,
    pub(super) deletions: u64,
    pub(super) folds: u64,
    pub(super) records_removed: u64,
    pub(super) erased: u64,
    pub(super) lost: u64,
}

impl Reached {
    pub(super) fn each(&self) -> [(&'static str, u64); 12] {
        [
            ("commits", self.commits),
            ("swaps", self.swaps),
            ("merges", self.merges),
            ("condemned", self.condemned),
            ("retired objects purged", self.purged_retired),
            ("condemned objects purged", self.purged_condemned),
            ("used-up keys written late", self.recreated),
            ("deletions", self.deletions),
            ("folds", self.folds),
            ("records removed", self.records_removed),
            ("records shrunk", self.erased),
            ("live objects lost", self.lost),
        ]
    }
}

impl Oracle {
    pub(super) fn new(archive: ArchiveId, bits: BucketBits, date: Date, grace: Duration) -> Self {
        Self {
            bits,
            date,
            hasher: UidHasher::new(archive),
            grace,
            operation: 0,
            shards: BTreeMap::new(),
            contents: HashMap::new(),
            manifest: None,
            live: BTreeMap::new(),
            files: BTreeMap::new(),
            spent: BTreeMap::new(),
            records: BTreeMap::new(),
            folded: None,
            folded_since: HashMap::new(),
            deleted: HashSet::new(),
            lost: BTreeSet::new(),
            reached: Reached::default(),
        }
    }

    /// An object was written, whether it was there before or not.
    pub(super) fn wrote(&mut self, key: &ObjectKey, bytes: &Bytes, at: Timestamp, by: By) -> Result<(), String> {
        if layout::parse_manifest(key.as_str()) == Some(self.date) {
            self.manifest_written(bytes, at)
        } else if layout::parse_shard(key.as_str(), self.bits).is_some() {
            self.shard_written(key, bytes)
        } else if let Some(tombstone) = layout::parse_tombstone(key.as_str(), self.bits) {
            self.tombstone_written(key, &tombstone, bytes, at, by)
        } else {
            Ok(())
        }
    }

    /// An object was removed, if it was there.
    pub(super) fn removed(&mut self, key: &ObjectKey, at: Timestamp, by: By) -> Result<(), String> {
        if layout::parse_manifest(key.as_str()).is_some() {
            Err(format!("G8: the manifest {key} was deleted"))
        } else if layout::parse_shard(key.as_str(), self.bits).is_some() {
            self.shard_removed(key, at, by)
        } else if layout::parse_tombstone(key.as_str(), self.bits).is_some() {
            self.tombstone_removed(key, at)
        } else {
            Ok(())
        }
    }

    pub(super) fn hash(&self, uid: &str) -> UidHash {
        self.hasher.hash(uid)
    }

    /// True when a record or a folded set names the uid, or ever has.
    pub(super) fn is_deleted(&self, uid: &str) -> bool {
        self.deleted.contains(&self.hash(uid))
    }

    /// The visible files.
    pub(super) fn visible(&self) -> impl Iterator<Item = (&String, &Seen)> {
        let is_visible = |uid: &&String| !self.is_deleted(uid);
        self.live.keys().filter(is_visible).filter_map(|uid| Some((uid, self.files.get(uid)?)))
    }

    /// A live object is gone, and nobody of ours did it.
    pub(super) fn lose(&mut self, key: &ObjectKey) {
        self.shards.remove(key);
        self.lost.insert(key.clone());
        self.reached.lost += 1;
    }

    /// Why a file that was reported as published is not what it must be.
    pub(super) fn check_published(&self, uid: &str) -> Result<(), String> {
        if self.live.contains_key(uid) || self.is_deleted(uid) {
            return Ok(());
        }
        Err(format!("A3: {uid} was reported as published, and no live shard holds it"))
    }

    /// Why a file that was reported as deleted is not.
    pub(super) fn check_deleted(&self, uid: &str) -> Result<(), String> {
        if self.is_deleted(uid) {
            return Ok(());
        }
        Err(format!("T-1: {uid} was reported as deleted, and nothing in the store says so"))
    }
}
