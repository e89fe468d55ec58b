//! What is on the disk, as far as it is known: the table that readers look into.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::sync::Arc;

use desfmt::ShardId;

use super::record::Record;

/// How many frames that must not come back are remembered one by one; beyond, whole shards are.
const CONDEMNED_MAX: usize = 1 << 20;

/// An entry: a record without what its key says.
#[derive(Debug, Clone, Copy)]
struct Slot {
    segment: u32,
    number: u32,
    offset: u32,
    len: u32,
    digest: u64,
    written: u32,
    /// Seconds of monotonic time.
    last_read: u32,
}

/// The pieces of one object.
#[derive(Debug, Default)]
struct Pieces {
    version: u64,
    slots: HashMap<u64, Slot>,
}

#[derive(Debug)]
enum Condemned {
    Frames(HashSet<u64>),
    Shard,
}

#[derive(Debug)]
pub(super) struct Table {
    shards: HashMap<ShardId, Pieces>,
    files: BTreeMap<u32, Arc<File>>,
    entry_count: usize,
    entries_max: usize,
    condemned: HashMap<ShardId, Condemned>,
    condemned_count: usize,
    /// What is out of the table and still on the disk.
    to_erase: Vec<Record>,
}

impl Table {
    pub(super) fn new(entries_max: usize) -> Self {
        Self {
            shards: HashMap::new(),
            files: BTreeMap::new(),
            entry_count: 0,
            entries_max,
            condemned: HashMap::new(),
            condemned_count: 0,
            to_erase: Vec::new(),
        }
    }

    pub(super) const fn len(&self) -> usize {
        self.entry_count
    }

    pub(super) const fn is_full(&self) -> bool {
        self.entry_count >= self.entries_max
    }

    /// Where a piece is. With a time, it counts as read then.
    pub(super) fn find(
        &mut self,
        shard: ShardId,
        version: Option<u64>,
        piece: u64,
        now: Option<u32>,
    ) -> Option<(Record, Arc<File>)> {
        let pieces = self.shards.get_mut(&shard)?;
        if version.is_some_and(|version| version != pieces.version) {
            return None;
        }
        let slot = pieces.slots.get_mut(&piece)?;
        if let Some(now) = now {
            slot.last_read = now;
        }
        let file = self.files.get(&slot.segment)?;
        Some((slot.record(shard, pieces.version, piece), Arc::clone(file)))
    }

    /// True for a piece that may be taken in: it is not there yet and was not forgotten for good.
    pub(super) fn wants(&self, shard: ShardId, version: u64, piece: u64) -> bool {
        let is_there = self
            .shards
            .get(&shard)
            .is_some_and(|pieces| pieces.version == version && pieces.slots.contains_key(&piece));
        !is_there && !self.is_condemned(shard, piece)
    }

    /// Takes in a piece that is on the disk. Pieces of another version of the object go.
    pub(super) fn insert(&mut self, record: &Record, last_read: u32) {
        let is_other = self.shards.get(&record.shard).is_some_and(|pieces| pieces.version != record.version);
        if is_other {
            self.remove_shard(record.shard);
        }
        if !self.wants(record.shard, record.version, record.piece) {
            self.to_erase.push(*record);
            return;
        }
        let pieces = self.shards.entry(record.shard).or_default();
        pieces.version = record.version;
        pieces.slots.insert(record.piece, Slot::new(record, last_read));
        self.entry_count = self.entry_count.saturating_add(1);
    }

    pub(super) fn add_file(&mut self, segment: u32, file: Arc<File>) {
        self.files.insert(segment, file);
    }

    /// Forgets a segment, whose files are about to go. Returns how many pieces went with it.
    pub(super) fn remove_segment(&mut self, segment: u32) -> usize {
        self.files.remove(&segment);
        self.to_erase.retain(|record| record.segment != segment);
        let before = self.entry_count;
        self.shards.retain(|_, pieces| {
            pieces.slots.retain(|_, slot| slot.segment != segment);
            !pieces.slots.is_empty()
        });
        self.entry_count = self.shards.values().map(|pieces| pieces.slots.len()).sum();
        before.saturating_sub(self.entry_count)
    }

    /// Forgets a piece that is not what it should be.
    pub(super) fn remove(&mut self, record: &Record) {
        let Some(pieces) = self.shards.get_mut(&record.shard) else { return };
        let is_it = |slot: &Slot| slot.segment == record.segment && slot.number == record.number;
        if pieces.slots.get(&record.piece).is_some_and(is_it) {
            pieces.slots.remove(&record.piece);
            self.entry_count = self.entry_count.saturating_sub(1);
            self.to_erase.push(*record);
        }
    }

    /// Forgets everything of a shard. Returns how many pieces that were.
    pub(super) fn remove_shard(&mut self, shard: ShardId) -> usize {
        let Some(pieces) = self.shards.remove(&shard) else { return 0 };
        let version = pieces.version;
        self.to_erase.extend(pieces.slots.iter().map(|(piece, slot)| slot.record(shard, version, *piece)));
        self.entry_count = self.entry_count.saturating_sub(pieces.slots.len());
        pieces.slots.len()
    }

    /// Forgets pieces of a shard for good. Returns how many of them were there.
    pub(super) fn condemn(&mut self, shard: ShardId, pieces: impl Iterator<Item = u64>) -> usize {
        let pieces: Vec<u64> = pieces.collect();
        let mut removed = 0_usize;
        if let Some(known) = self.shards.get_mut(&shard) {
            for piece in &pieces {
                if let Some(slot) = known.slots.remove(piece) {
                    self.to_erase.push(slot.record(shard, known.version, *piece));
                    removed = removed.saturating_add(1);
                }
            }
        }
        self.entry_count = self.entry_count.saturating_sub(removed);
        let is_full = self.condemned_count.saturating_add(pieces.len()) > CONDEMNED_MAX;
        let condemned = self.condemned.entry(shard).or_insert_with(|| Condemned::Frames(HashSet::new()));
        match condemned {
            Condemned::Shard => {}
            Condemned::Frames(frames) if is_full => {
                self.condemned_count = self.condemned_count.saturating_sub(frames.len());
                *condemned = Condemned::Shard;
                removed = removed.saturating_add(self.remove_shard(shard));
            }
            Condemned::Frames(frames) => {
                let before = frames.len();
                frames.extend(pieces);
                let added = frames.len().saturating_sub(before);
                self.condemned_count = self.condemned_count.saturating_add(added);
            }
        }
        removed
    }

    /// Forgets everything of a shard for good. Returns how many pieces of it were there.
    pub(super) fn condemn_shard(&mut self, shard: ShardId) -> usize {
        if self.condemned.len() >= CONDEMNED_MAX {
            // By now what was on its way to the disk then has come to its end.
            self.condemned.retain(|_, condemned| matches!(condemned, Condemned::Frames(_)));
        }
        self.condemned.insert(shard, Condemned::Shard);
        self.remove_shard(shard)
    }

    /// Forgets what was last read before a time. Returns how many pieces that were.
    pub(super) fn expire(&mut self, before: u32) -> usize {
        let to_erase = &mut self.to_erase;
        let mut expired = 0_usize;
        self.shards.retain(|shard, pieces| {
            let version = pieces.version;
            let old = pieces.slots.extract_if(|_, slot| slot.last_read < before);
            for (piece, slot) in old {
                to_erase.push(slot.record(*shard, version, piece));
                expired = expired.saturating_add(1);
            }
            !pieces.slots.is_empty()
        });
        self.entry_count = self.entry_count.saturating_sub(expired);
        expired
    }

    /// Takes a piece off the disk that is not in the table.
    pub(super) fn erase(&mut self, record: &Record) {
        self.to_erase.push(*record);
    }

    /// What is to be taken off the disk.
    pub(super) fn take_to_erase(&mut self) -> Vec<Record> {
        std::mem::take(&mut self.to_erase)
    }

    fn is_condemned(&self, shard: ShardId, piece: u64) -> bool {
        match self.condemned.get(&shard) {
            Some(Condemned::Shard) => true,
            Some(Condemned::Frames(frames)) => frames.contains(&piece),
            None => false,
        }
    }
}

impl Slot {
    const fn new(record: &Record, last_read: u32) -> Self {
        Self {
            segment: record.segment,
            number: record.number,
            offset: record.offset,
            len: record.len,
            digest: record.digest,
            written: record.written,
            last_read,
        }
    }

    const fn record(&self, shard: ShardId, version: u64, piece: u64) -> Record {
        Record {
            shard,
            version,
            piece,
            offset: self.offset,
            len: self.len,
            written: self.written,
            digest: self.digest,
            segment: self.segment,
            number: self.number,
        }
    }
}
