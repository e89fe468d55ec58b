//! The thread that writes, forgets and makes room. Whatever goes wrong on the disk is counted, and after a while tried
//! again; until then nothing is written.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, TryRecvError};

use bytes::Bytes;
use desfmt::ShardId;

use super::record::Record;
use super::segment::{Directory, Segment};
use super::{DiskCacheOptions, Piece, Shared, UNREAD_MAX, count, len_of};

/// Bytes of data in a segment, and the part of the quota that one is at most.
const SEGMENT_BYTES_MAX: u64 = 64 << 20;
const SEGMENTS_MIN: u64 = 16;

/// How long nothing is written after the disk has failed, in seconds.
const PAUSE_SECONDS: u32 = 60;

/// What is to be done.
pub(super) enum Job {
    Write {
        shard: ShardId,
        version: u64,
        pieces: Vec<(Piece, Bytes)>,
        bytes: u64,
    },
    /// Something is to be taken off the disk.
    Wake,
    Tend,
    #[cfg(test)]
    Tell(std::sync::mpsc::Sender<()>),
}

/// Why pieces go that nobody has asked to forget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reason {
    Size,
    Pressure,
}

pub(super) struct Keeper {
    directory: Directory,
    shared: Arc<Shared>,
    bytes_max: u64,
    bytes_free_min: u64,
    segment_bytes: u64,
    segments: BTreeMap<u32, Segment>,
    /// Found in the directory and not read yet, the oldest first, with what they take.
    unread: Vec<(u32, u64)>,
    /// The one that is appended to.
    open: Option<u32>,
    next_id: u32,
    paused_until: Option<u32>,
}

impl Keeper {
    pub(super) fn new(directory: Directory, options: &DiskCacheOptions, shared: Arc<Shared>) -> Self {
        Self {
            directory,
            shared,
            bytes_max: options.bytes_max,
            bytes_free_min: options.bytes_free_min,
            segment_bytes: (options.bytes_max / SEGMENTS_MIN).min(SEGMENT_BYTES_MAX),
            segments: BTreeMap::new(),
            unread: Vec::new(),
            open: None,
            next_id: 0,
            paused_until: None,
        }
    }

    /// Goes on until nobody can ask for anything any more.
    pub(super) fn run(mut self, jobs: &Receiver<Job>) {
        match self.directory.segments() {
            Ok(found) => {
                self.next_id = found.last().map_or(0, |(id, _)| id.saturating_add(1));
                self.unread = found;
            }
            Err(error) => self.failed("list", &error),
        }
        loop {
            self.erase_forgotten();
            self.tell_bytes();
            // What was there before is read when there is nothing else to do, the newest first.
            let job = match self.unread.pop() {
                None => jobs.recv().map_err(|_| ()),
                Some(segment) => match jobs.try_recv() {
                    Ok(job) => {
                        self.unread.push(segment);
                        Ok(job)
                    }
                    Err(TryRecvError::Empty) => {
                        self.read_again(segment.0);
                        continue;
                    }
                    Err(TryRecvError::Disconnected) => Err(()),
                },
            };
            match job {
                Ok(job) => self.work_on(job),
                Err(()) => return self.erase_forgotten(),
            }
        }
    }

    fn work_on(&mut self, job: Job) {
        match job {
            Job::Write { shard, version, pieces, bytes } => {
                for (piece, bytes) in pieces {
                    self.write(shard, version, piece.number(), &bytes);
                }
                self.shared.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
            }
            Job::Wake => {}
            Job::Tend => self.tend(),
            #[cfg(test)]
            Job::Tell(done) => {
                while let Some((segment, _)) = self.unread.pop() {
                    self.read_again(segment);
                }
                self.erase_forgotten();
                self.tell_bytes();
                let _told = done.send(());
            }
        }
    }

    fn write(&mut self, shard: ShardId, version: u64, piece: u64, bytes: &Bytes) {
        let len = len_of(bytes);
        let is_wanted = self.shared.table().wants(shard, version, piece);
        if !is_wanted || len > self.segment_bytes / 2 {
            return;
        }
        if self.is_paused() || !self.make_room(len) {
            return count(&self.shared.counters.skipped, 1);
        }
        let written = u32::try_from(self.shared.clock.now().seconds()).unwrap_or(0);
        let digest = Record::digest_of(shard, version, piece, bytes);
        let mut record = Record { shard, version, piece, offset: 0, len: 0, written, digest, segment: 0, number: 0 };
        let Some(segment) = self.open.and_then(|id| self.segments.get_mut(&id)) else { return };
        match segment.append(&mut record, bytes) {
            Ok(()) => {
                let now = self.shared.now();
                self.shared.table().insert(&record, now);
                count(&self.shared.counters.written, 1);
            }
            Err(error) => {
                self.failed("write", &error);
                // What was written of it is behind the end of what counts; a new segment begins elsewhere.
                self.open = None;
            }
        }
    }

    /// Sees to it that the open segment has room: within the quota, with enough left free for others, and with room in the
    /// table.
    fn make_room(&mut self, len: u64) -> bool {
        let has_room = |segment: &Segment| segment.has_room(len, self.segment_bytes);
        let is_open = self.open.and_then(|id| self.segments.get(&id)).is_some_and(has_room);
        while self.shared.table().is_full() {
            if !self.drop_oldest(Reason::Size) {
                return false;
            }
        }
        if is_open && self.open.is_some() {
            return true;
        }
        self.open = None;
        let needed = Segment::bytes_max(self.segment_bytes);
        while self.bytes().saturating_add(needed) > self.bytes_max {
            if !self.drop_oldest(Reason::Size) {
                return false;
            }
        }
        loop {
            match self.directory.bytes_free() {
                Ok(free) if free >= self.bytes_free_min.saturating_add(needed) => break,
                Ok(_) if self.drop_oldest(Reason::Pressure) => {}
                Ok(_) => {
                    self.pause();
                    return false;
                }
                Err(error) => {
                    self.failed("look for space", &error);
                    return false;
                }
            }
        }
        let id = self.next_id;
        self.next_id = id.saturating_add(1);
        match self.directory.create(id) {
            Ok(segment) => {
                self.shared.table().add_file(id, Arc::clone(&segment.data));
                self.segments.insert(id, segment);
                self.open = Some(id);
                true
            }
            Err(error) => {
                self.failed("create", &error);
                false
            }
        }
    }

    /// Removes the oldest segment. False when there is none.
    fn drop_oldest(&mut self, reason: Reason) -> bool {
        let unread = self.unread.first().map(|(id, _)| *id);
        let oldest = unread.into_iter().chain(self.segments.keys().next().copied()).min();
        let Some(oldest) = oldest else { return false };
        if let Err(error) = self.directory.remove(oldest) {
            self.failed("remove", &error);
            return false;
        }
        let gone = self.shared.table().remove_segment(oldest);
        let counters = &self.shared.counters;
        let counter = match reason {
            Reason::Size => &counters.evicted_by_size,
            Reason::Pressure => &counters.evicted_by_pressure,
        };
        count(counter, gone);
        self.unread.retain(|(id, _)| *id != oldest);
        self.segments.remove(&oldest);
        if self.open == Some(oldest) {
            self.open = None;
        }
        true
    }

    /// Learns what is in a segment that was there before.
    fn read_again(&mut self, id: u32) {
        let (segment, records) = match self.directory.reopen(id) {
            Ok(found) => found,
            Err(error) => {
                tracing::debug!(segment = id, %error, "a segment of the disk cache cannot be used");
                if let Err(error) = self.directory.remove(id) {
                    self.failed("remove", &error);
                }
                return;
            }
        };
        let (now, time) = (self.shared.now(), u32::try_from(self.shared.clock.now().seconds()).unwrap_or(0));
        let age_max = u32::try_from(UNREAD_MAX.as_secs()).unwrap_or(u32::MAX);
        let mut table = self.shared.table();
        table.add_file(id, Arc::clone(&segment.data));
        let mut expired = 0_usize;
        let mut is_empty = true;
        for record in records {
            // One that was written in the future was written by a clock that has gone back since.
            let age = time.checked_sub(record.written).filter(|age| *age < age_max);
            match age {
                Some(age) if !table.is_full() => {
                    table.insert(&record, now.saturating_sub(age));
                    is_empty = false;
                }
                Some(_) | None => {
                    table.erase(&record);
                    expired = expired.saturating_add(1);
                }
            }
        }
        drop(table);
        self.segments.insert(id, segment);
        if is_empty {
            self.remove_segment(id);
        }
        count(&self.shared.counters.evicted_by_age, expired);
    }

    fn remove_segment(&mut self, id: u32) {
        match self.directory.remove(id) {
            Ok(()) => {
                self.shared.table().remove_segment(id);
                self.segments.remove(&id);
            }
            Err(error) => self.failed("remove", &error),
        }
    }

    fn tend(&mut self) {
        let age_max = u32::try_from(UNREAD_MAX.as_secs()).unwrap_or(u32::MAX);
        if let Some(before) = self.shared.now().checked_sub(age_max) {
            let expired = self.shared.table().expire(before);
            count(&self.shared.counters.evicted_by_age, expired);
        }
        while self.directory.bytes_free().is_ok_and(|free| free < self.bytes_free_min) {
            if !self.drop_oldest(Reason::Pressure) {
                return;
            }
        }
    }

    /// Takes off the disk what is no longer in the table.
    fn erase_forgotten(&mut self) {
        let forgotten = self.shared.table().take_to_erase();
        for record in forgotten {
            let Some(segment) = self.segments.get(&record.segment) else { continue };
            if let Err(error) = segment.erase(&record) {
                self.failed("erase", &error);
                // What cannot be erased goes with all that lies beside it.
                self.remove_segment(record.segment);
            }
        }
    }

    fn bytes(&self) -> u64 {
        let unread = self.unread.iter().map(|(_, bytes)| *bytes);
        self.segments.values().map(Segment::bytes).chain(unread).fold(0, u64::saturating_add)
    }

    fn tell_bytes(&self) {
        self.shared.counters.bytes.store(self.bytes(), Ordering::Relaxed);
    }

    fn is_paused(&self) -> bool {
        self.paused_until.is_some_and(|until| self.shared.now() < until)
    }

    fn pause(&mut self) {
        self.paused_until = Some(self.shared.now().saturating_add(PAUSE_SECONDS));
    }

    fn failed(&mut self, what: &str, error: &io::Error) {
        if self.shared.counters.failed.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::warn!(what, %error, "the disk cache fails; reads go on without it, further failures are only counted");
        }
        self.pause();
    }
}
