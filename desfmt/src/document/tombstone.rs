//! Tombstones: records that a uid is deleted. They only ever grow, and they are the only authority for deletion.

use serde::{Deserialize, Serialize};

use super::Document;
use crate::{Date, FormatError, ShardId, Timestamp, Uid, UidHash, Uuid};

/// How many tombstones a batch may hold.
pub const TOMBSTONES_PER_BATCH_MAX: usize = 10_000;

/// One deletion: who asked for what, when and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tombstone {
    /// The day of the file.
    pub date: Date,
    /// The deleted uid.
    pub uid: Uid,
    /// Its hash in this archive, which outlives the uid.
    pub uid_hash: UidHash,
    /// Identifies the request; a `UUIDv7`.
    pub operation: Uuid,
    /// Who asked.
    pub actor: String,
    /// Why.
    pub reason: String,
    /// The ticket that ordered it, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ticket: Option<String>,
    /// When, by the clock of the host that wrote it; for the record only.
    pub at: Timestamp,
}

impl Document for Tombstone {
    const KIND: &'static str = "tombstone";
    const VERSION: u32 = 1;

    fn check(&self) -> Result<(), FormatError> {
        Ok(())
    }
}

/// Many deletions of one group, written once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TombstoneBatch {
    /// The day.
    pub date: Date,
    /// The deletions.
    pub tombstones: Vec<Tombstone>,
    /// Shards that are deleted whole.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shards: Vec<WholeShard>,
}

/// The deletion of everything in one shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WholeShard {
    /// The shard.
    pub shard: ShardId,
    /// Identifies the request; a `UUIDv7`.
    pub operation: Uuid,
    /// Who asked.
    pub actor: String,
    /// Why.
    pub reason: String,
    /// When, by the clock of the host that wrote it.
    pub at: Timestamp,
}

impl Document for TombstoneBatch {
    const KIND: &'static str = "tombstone batch";
    const VERSION: u32 = 1;

    fn check(&self) -> Result<(), FormatError> {
        let count = self.tombstones.len().saturating_add(self.shards.len());
        if count > TOMBSTONES_PER_BATCH_MAX {
            let detail = format!("{count} tombstones, at most {TOMBSTONES_PER_BATCH_MAX} fit");
            return Err(FormatError::beyond_limits(Self::KIND, detail));
        }
        if self.tombstones.iter().any(|tombstone| tombstone.date != self.date) {
            return Err(FormatError::damaged(Self::KIND, "it holds tombstones of another day"));
        }
        Ok(())
    }
}

/// All tombstones of a group that are folded: those with their record, and those of which only the hash is left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FoldedTombstones {
    /// The day.
    pub date: Date,
    /// Counts the versions of this document.
    pub generation: u64,
    /// The newest transactions, so that a lost acknowledgement can be told from a lost race.
    #[serde(default)]
    pub transactions: Vec<Uuid>,
    /// Deletions whose bytes may still be somewhere.
    pub tombstones: Vec<Tombstone>,
    /// Deletions whose bytes are proven gone.
    #[serde(default)]
    pub erased: Vec<UidHash>,
    /// Shards that are deleted whole.
    #[serde(default)]
    pub shards: Vec<WholeShard>,
    /// Records and batches that are in here and may be deleted ten minutes after the fold.
    #[serde(default)]
    pub folded: Vec<FoldedBatch>,
}

/// A record or batch that a fold has taken in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FoldedBatch {
    /// Its operation, the head of its key.
    pub operation: Uuid,
    /// When the fold was committed, by the store's clock.
    pub at: Timestamp,
}

impl Document for FoldedTombstones {
    const KIND: &'static str = "folded tombstones";
    const VERSION: u32 = 1;

    fn check(&self) -> Result<(), FormatError> {
        if self.tombstones.iter().any(|tombstone| tombstone.date != self.date) {
            return Err(FormatError::damaged(Self::KIND, "it holds tombstones of another day"));
        }
        Ok(())
    }
}
