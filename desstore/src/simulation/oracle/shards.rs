//! The objects below `shards/`: a key names one content, and nothing is deleted that may still be needed.

use std::sync::Arc;

use bytes::Bytes;
use desfmt::v3::{PageNumber, ShardIndex};
use desfmt::{Digest, ObjectKey, Timestamp, UidHash};

use super::{By, Oracle};

/// A file in a shard.
#[derive(Debug, Clone)]
pub(in crate::simulation) struct ShardFile {
    pub(in crate::simulation) uid: String,
    pub(in crate::simulation) hash: UidHash,
    pub(in crate::simulation) digest: Digest,
    pub(super) origin: u16,
    pub(super) ordinal: u32,
}

/// The files of a shard; none where it cannot be read.
pub(in crate::simulation) type Contents = Option<Arc<[ShardFile]>>;

/// An object that is there.
#[derive(Debug, Clone)]
pub(in crate::simulation) struct Held {
    pub(super) len: u64,
    pub(super) digest: Digest,
    /// The operation that created it.
    pub(super) created: u64,
    pub(in crate::simulation) files: Contents,
}

impl Oracle {
    pub(super) fn shard_written(&mut self, key: &ObjectKey, bytes: &Bytes) -> Result<(), String> {
        let digest = blake3::hash(bytes);
        if let Some(held) = self.shards.get(key) {
            if held.digest != digest {
                return Err(format!("G5: {key} was overwritten with other bytes"));
            }
            return Ok(());
        }
        let listed = self.manifest.iter().flat_map(|manifest| &manifest.shards).find(|shard| shard.key == *key);
        if listed.is_some_and(|shard| shard.blake3 == digest.to_hex().as_str()) {
            // A late upload has brought back what was lost.
            self.lost.remove(key);
        }
        self.reached.recreated += u64::from(self.spent.contains_key(key));
        let files = self.files_of(bytes);
        let len = u64::try_from(bytes.len()).unwrap();
        self.shards.insert(key.clone(), Held { len, digest, created: self.operation, files });
        Ok(())
    }

    pub(super) fn shard_removed(&mut self, key: &ObjectKey, at: Timestamp, by: By) -> Result<(), String> {
        let Some(held) = self.shards.remove(key) else { return Ok(()) };
        let Some(spent) = self.spent.get(key).copied() else {
            return Err(format!("G6b: {key} was deleted without having been retired or condemned before"));
        };
        if spent.operation < held.created {
            // A late upload under a key that was used up: it can never be live, and was acknowledged to nobody.
            return Ok(());
        }
        if spent.was_live && at.since(spent.at) < self.grace {
            let waited = at.since(spent.at).as_secs();
            return Err(format!(
                "C-4: {key} was deleted {waited} s after it was retired, before the grace period was over"
            ));
        }
        if spent.was_live {
            self.reached.purged_retired += 1;
        } else {
            self.reached.purged_condemned += 1;
        }
        if !spent.was_live && by.troubles > 1 {
            // Twice damaged on the way, it is taken for unreadable; nothing of it was acknowledged to anybody.
            return Ok(());
        }
        for file in held.files.iter().flat_map(|files| files.iter()) {
            self.is_dispensable(key, file)?;
        }
        Ok(())
    }

    /// A file may go with its object when it is deleted, or in a live object with the same content.
    fn is_dispensable(&self, key: &ObjectKey, file: &ShardFile) -> Result<(), String> {
        let uid = &file.uid;
        if self.deleted.contains(&file.hash) {
            return Ok(());
        }
        let Some(successor) = self.live.get(uid) else {
            return Err(format!("G6: {key} was deleted, and {uid} was neither deleted nor in a live shard"));
        };
        let Some(held) = self.shards.get(successor) else {
            return Err(format!("G6: {key} was deleted, and {successor}, which should hold {uid} too, is lost"));
        };
        let mut files = held.files.iter().flat_map(|files| files.iter());
        if files.any(|other| other.uid == *uid && other.digest == file.digest) {
            return Ok(());
        }
        Err(format!("G6: {key} was deleted, and {successor} holds {uid} with other content"))
    }

    /// Reads the index of a shard; nothing where it is damaged.
    fn files_of(&self, bytes: &Bytes) -> Contents {
        let index = ShardIndex::open(bytes.clone(), u64::try_from(bytes.len()).unwrap()).ok()?;
        let part = |range: Option<std::ops::Range<u64>>| {
            let range = range?;
            let (start, end) = (usize::try_from(range.start).ok()?, usize::try_from(range.end).ok()?);
            (end <= bytes.len()).then(|| bytes.slice(start..end))
        };
        let mut files = Vec::new();
        for number in (0..index.index_pages()).map(PageNumber) {
            let page = index.decode_index_page(number, &part(index.index_page_range(number))?).ok()?;
            let cold = index.decode_cold_page(number, &part(index.cold_page_range(number))?).ok()?;
            for (place, entry) in page.entries().enumerate() {
                files.push(ShardFile {
                    hash: self.hash(entry.uid.as_str()),
                    uid: entry.uid.to_string(),
                    digest: cold.digest(place)?,
                    origin: entry.origin,
                    ordinal: entry.ordinal,
                });
            }
        }
        Some(files.into())
    }
}
