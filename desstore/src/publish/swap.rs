//! Changes of a manifest by which nothing new becomes visible: shards give way to others, and objects leave.

use desfmt::document::{CondemnedObject, ManifestShard};
use desfmt::{Date, ObjectKey, ShardId, layout};

use crate::archive::ArchiveError;
use crate::publish::ArchiveWriter;
use crate::publish::change::{Change, Decision};

/// What became of a swap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Swapped {
    /// The new shards are live, by this commit or an earlier one of the same.
    Done,
    /// An old shard is no longer live: look again.
    Stale,
    /// The key of a new shard is used up: it needs another name.
    Taken,
}

impl ArchiveWriter {
    /// Replaces live shards by others in one commit; with no others, the old ones are dropped. The old ones are retired
    /// with the time of the store. One reading, one commit, and one request for each new shard.
    ///
    /// The caller has proven that the new shards hold the same files but for deleted ones.
    pub async fn swap(
        &self,
        date: Date,
        old: Vec<(ObjectKey, ShardId)>,
        new: Vec<ManifestShard>,
    ) -> Result<Swapped, ArchiveError> {
        match self.request(date, Change::Swap { old, new }).await? {
            Decision::Committed(_) => Ok(Swapped::Done),
            Decision::Terminal => Ok(Swapped::Taken),
            Decision::Stale | Decision::Overlap | Decision::Deleted | Decision::Recompare => Ok(Swapped::Stale),
        }
    }

    /// Makes sure that objects never become live. False, and nothing is changed, where one of them is live by now.
    pub async fn condemn_objects(&self, date: Date, objects: Vec<CondemnedObject>) -> Result<bool, ArchiveError> {
        Ok(self.request(date, Change::Condemn(objects)).await?.is_committed())
    }

    /// Takes retired and condemned objects out of the manifest. Their names stay used up. The caller has proven that they
    /// are gone from the store.
    pub async fn forget(&self, date: Date, keys: &[ObjectKey]) -> Result<(), ArchiveError> {
        let bits = self.identity().bits();
        let numbered = keys.iter().map(|key| {
            let name = layout::parse_shard(key.as_str(), bits);
            (key.clone(), name.map(|name| (name.group.bucket.number(), name.split, name.repack)))
        });
        // Where somebody else has taken them out before, nothing is left to be done.
        self.request(date, Change::Forget(numbered.collect())).await.map(drop)
    }
}
