//! `manifests/YYYYMMDD.json`: the live shards of a day, and the only commit point.

use std::collections::{BTreeMap, HashSet};

use serde::{Deserialize, Serialize};

use super::Document;
use crate::{Birth, Bucket, BucketBits, Date, FormatError, Group, ObjectKey, ShardId, ShardName, Timestamp, Uuid};

/// How many transactions a document remembers.
pub const TRANSACTIONS_KEPT: usize = 64;

/// A uid longer than this is not kept as a bound; the bound is open then.
const BOUND_LEN_MAX: usize = 255;

/// The manifest of a day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The day.
    pub date: Date,
    /// Counts the versions of this document.
    pub generation: u64,
    /// The newest transactions, so that a lost acknowledgement can be told from a lost race.
    #[serde(default)]
    pub transactions: Vec<Uuid>,
    /// The birth serial that the next fresh shard gets; at least 1.
    pub next_serial: u32,
    /// The highest split and repack numbers ever used, by bucket number: numbers are never used again.
    #[serde(default)]
    pub numbers: BTreeMap<u16, GroupNumbers>,
    /// The live shards, by key.
    pub shards: Vec<ManifestShard>,
    /// Objects that were current and no longer are.
    #[serde(default)]
    pub retired: Vec<RetiredObject>,
    /// Objects that must never become current.
    #[serde(default)]
    pub condemned: Vec<CondemnedObject>,
}

/// The numbers that a group has used up.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupNumbers {
    /// The highest split.
    pub split_max: u32,
    /// The highest repack number of each split that was repacked.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub repack_max: BTreeMap<u32, u32>,
}

/// A live shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestShard {
    /// The bucket of its group.
    pub bucket: u16,
    /// Which split of the group.
    pub split: u32,
    /// Which repacked version.
    pub repack: u32,
    /// Where it lies.
    pub key: ObjectKey,
    /// The identity of its content.
    pub shard: ShardId,
    /// Its length in bytes.
    pub len: u64,
    /// How many bytes at its end open it.
    pub tail_len: u64,
    /// BLAKE3 of the whole object, 64 hexadecimal digits.
    pub blake3: String,
    /// How many files it holds.
    pub entries: u32,
    /// The plain size of all its files, in bytes; shared contents count each time.
    pub plain_len: u64,
    /// No uid in it is smaller; none means unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid_min: Option<String>,
    /// No uid in it is greater; none means unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid_max: Option<String>,
    /// The birth serials of its entries: its own for a fresh shard, those of its origins after a merge.
    pub serials: Vec<u32>,
}

impl ManifestShard {
    /// A uid as a bound, if it is short enough to be kept.
    pub fn bound(uid: &str) -> Option<String> {
        (uid.len() <= BOUND_LEN_MAX).then(|| uid.to_owned())
    }

    /// True unless the bounds prove that it does not hold the uid.
    pub fn may_hold(&self, uid: &str) -> bool {
        self.uid_min.as_deref().is_none_or(|min| min <= uid) && self.uid_max.as_deref().is_none_or(|max| uid <= max)
    }

    /// Its name.
    pub fn name(&self, date: Date, bits: BucketBits) -> Option<ShardName> {
        let group = Group { date, bucket: Bucket::new(u32::from(self.bucket), bits)?, bits };
        Some(ShardName { group, split: self.split, repack: self.repack })
    }
}

/// An object that a commit has taken out; deleted after the grace period, with proof.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetiredObject {
    /// Where it lies.
    pub key: ObjectKey,
    /// The identity of its content.
    pub shard: ShardId,
    /// The generation that took it out.
    pub generation: u64,
    /// When, by the store's clock.
    pub at: Timestamp,
    /// What the manifest said of it while it was live: what is left of it can be proven and brought back by that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry: Option<Box<ManifestShard>>,
}

/// An object that was uploaded and never became current, and never will.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CondemnedObject {
    /// Where it lies.
    pub key: ObjectKey,
    /// Why.
    pub reason: String,
    /// When, by the store's clock.
    pub at: Timestamp,
}

impl Manifest {
    /// The manifest of a day that nothing was packed into yet.
    pub const fn empty(date: Date) -> Self {
        Self {
            date,
            generation: 1,
            transactions: Vec::new(),
            next_serial: 1,
            numbers: BTreeMap::new(),
            shards: Vec::new(),
            retired: Vec::new(),
            condemned: Vec::new(),
        }
    }

    /// Notes a transaction and forgets the oldest above [`TRANSACTIONS_KEPT`].
    pub fn note_transaction(&mut self, transaction: Uuid) {
        self.transactions.push(transaction);
        let surplus = self.transactions.len().saturating_sub(TRANSACTIONS_KEPT);
        self.transactions.drain(..surplus);
    }

    /// True when a key was retired or condemned; such a key never becomes current again.
    pub fn is_terminal(&self, key: &ObjectKey) -> bool {
        self.retired.iter().any(|object| object.key == *key) || self.condemned.iter().any(|object| object.key == *key)
    }

    /// True when the numbers of a shard may have been used before and forgotten, so that its key is used up.
    pub fn is_used_up(&self, bucket: u16, split: u32, repack: u32) -> bool {
        let numbers = self.numbers.get(&bucket);
        numbers.and_then(|numbers| numbers.repack_max.get(&split)).is_some_and(|used| repack <= *used)
    }

    /// Uses up the numbers of a shard and all lower repack numbers of its split.
    pub fn use_up(&mut self, bucket: u16, split: u32, repack: u32) {
        let numbers = self.numbers.entry(bucket).or_default();
        numbers.split_max = numbers.split_max.max(split);
        let used = numbers.repack_max.entry(split).or_insert(repack);
        *used = repack.max(*used);
    }

    /// Corrects when the objects were retired that this very version took out: not before the store wrote it. Whoever
    /// wrote it had asked for the time before, and may have slept for hours in between.
    pub fn settle_times(&mut self, written: Timestamp) {
        let generation = self.generation;
        for object in self.retired.iter_mut().filter(|object| object.generation == generation) {
            object.at = object.at.max(written);
        }
    }
}

impl Document for Manifest {
    const KIND: &'static str = "manifest";
    const VERSION: u32 = 1;

    fn check(&self) -> Result<(), FormatError> {
        let damaged = |detail: String| FormatError::damaged(Self::KIND, detail);
        if self.next_serial == 0 || self.next_serial > Birth::SERIAL_MAX.saturating_add(1) {
            return Err(damaged(format!("next serial {}", self.next_serial)));
        }
        let mut keys = HashSet::new();
        let mut serials = HashSet::new();
        for shard in &self.shards {
            if !keys.insert(&shard.key) {
                return Err(damaged(format!("{} is listed twice", shard.key)));
            }
            if shard.tail_len > shard.len || shard.serials.is_empty() {
                return Err(damaged(format!(
                    "{} has a tail of {} bytes and no place for it",
                    shard.key, shard.tail_len
                )));
            }
            if shard.entries > Birth::ORDINAL_MAX.saturating_add(1) {
                return Err(damaged(format!("{} has {} entries", shard.key, shard.entries)));
            }
            for serial in &shard.serials {
                if *serial == 0 || *serial >= self.next_serial || !serials.insert(*serial) {
                    return Err(damaged(format!("{} has serial {serial}, unknown or used twice", shard.key)));
                }
            }
        }
        if let Some(shard) = self.shards.iter().find(|shard| self.is_terminal(&shard.key)) {
            return Err(damaged(format!("{} is both current and retired", shard.key)));
        }
        Ok(())
    }
}
