//! The entries of several shards in the order of their uids.

use std::sync::Arc;

use desfmt::v3::{ColdPage, Entry, IndexPage, PageNumber};
use desfmt::{Digest, ShardId, UidHasher};

use crate::archive::ArchiveError;
use crate::deletions::Deletions;
use crate::repack::local::LocalShard;
use crate::repack::source::Source;

/// Which entries are alive.
#[derive(Debug, Clone)]
pub(super) struct Liveness {
    pub(super) deletions: Arc<Deletions>,
    pub(super) hasher: UidHasher,
}

impl Liveness {
    pub(super) fn is_live(&self, shard: ShardId, uid: &str) -> bool {
        let is_dead = self.deletions.holds_shard(shard)
            || (!self.deletions.is_empty() && self.deletions.holds(self.hasher.hash(uid)));
        !is_dead
    }
}

/// An entry with all that a new shard must say of it.
#[derive(Debug)]
pub(super) struct Item {
    /// Which of the sources has it.
    pub(super) source: usize,
    pub(super) entry: Entry,
    pub(super) digest: Digest,
    pub(super) metadata: Option<String>,
}

/// Walks over all entries of several shards.
#[derive(Debug)]
pub(super) struct Merge {
    cursors: Vec<Cursor>,
}

#[derive(Debug)]
struct Cursor {
    page: u32,
    place: usize,
    loaded: Option<(IndexPage, ColdPage)>,
    head: Option<Item>,
    is_done: bool,
}

impl Merge {
    pub(super) fn new(sources: usize) -> Self {
        let start = |_| Cursor { page: 0, place: 0, loaded: None, head: None, is_done: false };
        Self { cursors: (0..sources).map(start).collect() }
    }

    /// The next entry. Two shards that hold the same uid are a contradiction.
    pub(super) fn next(&mut self, sources: &[Source]) -> Result<Option<Item>, ArchiveError> {
        for (number, (cursor, source)) in self.cursors.iter_mut().zip(sources).enumerate() {
            if cursor.head.is_none() && !cursor.is_done {
                cursor.head = cursor.read(number, &source.shard)?;
                cursor.is_done = cursor.head.is_none();
            }
        }
        let heads =
            || self.cursors.iter().enumerate().filter_map(|(at, one)| Some((&one.head.as_ref()?.entry.uid, at)));
        let Some((uid, first)) = heads().min() else { return Ok(None) };
        if heads().any(|(other, at)| at != first && other == uid) {
            let detail = format!("{uid:?} is in two live shards of its group; run des-verify");
            let name = sources.get(first).map_or_else(String::new, |source| source.listed.key.to_string());
            return Err(ArchiveError::inconsistent(&name, detail));
        }
        Ok(self.cursors.get_mut(first).and_then(|cursor| cursor.head.take()))
    }
}

impl Cursor {
    fn read(&mut self, source: usize, shard: &LocalShard) -> Result<Option<Item>, ArchiveError> {
        loop {
            if let Some((index, cold)) = &self.loaded
                && let Some(entry) = index.entry(self.place)
            {
                let lost = || shard.inconsistent(format!("{:?} has no digest", entry.uid));
                let digest = cold.digest(self.place).ok_or_else(lost)?;
                let metadata = cold.metadata(self.place).map(ToOwned::to_owned);
                self.place = self.place.saturating_add(1);
                return Ok(Some(Item { source, entry, digest, metadata }));
            }
            if self.page >= shard.index().index_pages() {
                return Ok(None);
            }
            let number = PageNumber(self.page);
            self.loaded = Some((shard.index_page(number)?, shard.cold_page(number)?));
            self.page = self.page.saturating_add(1);
            self.place = 0;
        }
    }
}
