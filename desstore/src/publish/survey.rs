//! Which uids of a group the archive holds already.

use std::sync::Arc;

use desfmt::{Digest, Group, ObjectKey, Uid};

use crate::archive::{ArchiveError, Day};
use crate::publish::ArchiveWriter;

/// What the archive knows of a uid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UidState {
    /// Nothing: it can be packed.
    Absent,
    /// It holds the uid, with this content.
    Present {
        /// Its size in bytes.
        len: u64,
        /// BLAKE3 of its content.
        digest: Digest,
    },
    /// It was deleted and does not come back in this date.
    Deleted,
}

/// What was found of some uids, and in the light of which shards.
#[derive(Debug, Clone, Default)]
pub struct Survey {
    /// One state for each uid, in their order.
    pub states: Vec<UidState>,
    /// The live shards of the group that were searched. [`ArchiveWriter::publish`] compares only with those that come
    /// later.
    pub(super) shards: Vec<ObjectKey>,
}

impl ArchiveWriter {
    /// Looks up uids of one group as they are now. For each uid that is present one more request, for its digest.
    pub async fn survey(&self, group: &Group, uids: &[Uid]) -> Result<Survey, ArchiveError> {
        let Some(day) = self.archive.day_now(group.date).await? else {
            return Ok(Survey { states: vec![UidState::Absent; uids.len()], shards: Vec::new() });
        };
        let shards = day.group(group.bucket.number()).iter().map(|shard| shard.key.clone()).collect();
        let mut states = Vec::with_capacity(uids.len());
        for uid in uids {
            states.push(self.state(&day, group, uid).await?);
        }
        Ok(Survey { states, shards })
    }

    async fn state(&self, day: &Arc<Day>, group: &Group, uid: &Uid) -> Result<UidState, ArchiveError> {
        if self.archive.is_tombstoned(&day.tombstones, uid.as_str()) {
            return Ok(UidState::Deleted);
        }
        for shard in day.group(group.bucket.number()).iter().filter(|shard| shard.may_hold(uid.as_str())) {
            if let Some(located) = self.archive.find_in(shard, uid.as_str()).await? {
                if day.is_deleted(shard) {
                    return Ok(UidState::Deleted);
                }
                let details = self.archive.details_of(&located).await?;
                let unproven =
                    || ArchiveError::refused(format!("{uid} is in a shard without digests; repack it first"));
                return Ok(UidState::Present { len: details.len, digest: details.digest.ok_or_else(unproven)? });
            }
        }
        Ok(UidState::Absent)
    }
}
