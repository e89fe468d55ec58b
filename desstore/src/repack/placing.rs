//! What an old shard's content looks like in the light of what is deleted: which frames can be taken over as they are.
//!
//! Contents are ranges of one stream; equal contents share a range. A frame is taken over only if every byte of it belongs
//! to a file that stays.

use desfmt::v3::PageNumber;
use desfmt::v3::limits::{SLOT_BITS, SLOT_LEN};

use crate::archive::ArchiveError;
use crate::repack::local::LocalShard;
use crate::repack::merge::Liveness;
use crate::repack::source::Source;
use crate::rules::{Rule, keeps};

/// No number of a frame and no address.
pub(super) const NONE: u64 = u64::MAX;

/// A range of the stream that one or several files have for content.
#[derive(Debug, Clone, Copy)]
struct Extent {
    offset: u64,
    len: u64,
    is_live: bool,
    /// Its address in the new shard.
    placed: u64,
}

/// One old shard, surveyed.
#[derive(Debug)]
pub(super) struct Ground {
    /// A bit for each entry that stays.
    live: Vec<u64>,
    /// Ascending, without overlaps.
    extents: Vec<Extent>,
    frames: Vec<FrameFate>,
    pub(super) entries_live: u64,
    pub(super) entries_dead: u64,
    /// Plain bytes of the files that stay; shared contents count each time.
    pub(super) bytes_live: u64,
    /// For each origin, whether any entry of it stays.
    pub(super) origins: Vec<bool>,
}

/// What becomes of a frame.
#[derive(Debug, Clone, Copy)]
struct FrameFate {
    /// Bytes of it that belong to files that stay.
    live_bytes: u64,
    has_dead: bool,
    /// Its number in the new shard.
    copied: u64,
}

impl Ground {
    /// Surveys a shard: reads all its index pages.
    pub(super) fn survey(source: &Source, liveness: &Liveness) -> Result<Self, ArchiveError> {
        let (shard, id) = (&source.shard, source.listed.shard);
        let footer = shard.index().footer();
        let words = u64::from(footer.entries).div_ceil(64);
        let frames = usize::try_from(footer.frames).unwrap_or(usize::MAX);
        let mut ground = Self {
            live: vec![0; usize::try_from(words).unwrap_or(usize::MAX)],
            extents: Vec::new(),
            frames: vec![FrameFate { live_bytes: 0, has_dead: false, copied: NONE }; frames],
            entries_live: 0,
            entries_dead: 0,
            bytes_live: 0,
            origins: vec![false; source.listed.serials.len()],
        };
        for page in (0..shard.index().index_pages()).map(PageNumber) {
            for entry in shard.index_page(page)?.entries() {
                let wrong = !keeps(Rule::OnlyDeadAreDropped) && entry.position % 3 == 1;
                let is_live = liveness.is_live(id, entry.uid.as_str()) && !wrong;
                ground.note(entry.position, is_live, entry.len);
                if is_live && let Some(origin) = ground.origins.get_mut(usize::from(entry.origin)) {
                    *origin = true;
                }
                if entry.len > 0 {
                    ground.note_extent(entry.offset, entry.len, is_live);
                }
            }
        }
        ground.judge_frames(shard)?;
        Ok(ground)
    }

    fn note(&mut self, position: u32, is_live: bool, len: u64) {
        if !is_live {
            self.entries_dead = self.entries_dead.saturating_add(1);
            return;
        }
        self.entries_live = self.entries_live.saturating_add(1);
        self.bytes_live = self.bytes_live.saturating_add(len);
        if let Some(word) = self.live.get_mut(usize::try_from(position / 64).unwrap_or(usize::MAX)) {
            *word |= 1 << (position % 64);
        }
    }

    fn note_extent(&mut self, offset: u64, len: u64, is_live: bool) {
        let end = self.extents.last().map_or(0, |last| last.offset.saturating_add(last.len));
        if offset >= end {
            self.extents.push(Extent { offset, len, is_live, placed: NONE });
        } else if let Some(extent) = self.find(offset, len) {
            if let Some(extent) = self.extents.get_mut(extent) {
                extent.is_live |= is_live;
            }
        } else {
            // Contents that overlap without being equal: no writer makes them. Nothing they touch is taken over.
            for frame in frames_of(offset, len) {
                self.spoil(frame);
            }
        }
    }

    fn spoil(&mut self, frame: u64) {
        if let Some(fate) = usize::try_from(frame).ok().and_then(|frame| self.frames.get_mut(frame)) {
            fate.has_dead = true;
        }
    }

    /// Where an extent stands in the list, if just that one is there.
    fn find(&self, offset: u64, len: u64) -> Option<usize> {
        let at = self.extents.binary_search_by_key(&offset, |extent| extent.offset).ok()?;
        (self.extents.get(at)?.len == len).then_some(at)
    }

    fn judge_frames(&mut self, shard: &LocalShard) -> Result<(), ArchiveError> {
        let extents = std::mem::take(&mut self.extents);
        for extent in &extents {
            let end = extent.offset.saturating_add(extent.len);
            for number in frames_of(extent.offset, extent.len) {
                let start = number << SLOT_BITS;
                let from = extent.offset.max(start);
                let to = end.min(start.saturating_add(SLOT_LEN));
                let fate = usize::try_from(number).ok().and_then(|number| self.frames.get_mut(number));
                let fate =
                    fate.ok_or_else(|| shard.inconsistent(format!("content in frame {number}, beyond the last")))?;
                if extent.is_live {
                    fate.live_bytes = fate.live_bytes.saturating_add(to.saturating_sub(from));
                } else {
                    fate.has_dead = true;
                }
            }
        }
        self.extents = extents;
        Ok(())
    }

    /// True for an entry that stays.
    pub(super) fn is_live(&self, position: u32) -> bool {
        let word = self.live.get(usize::try_from(position / 64).unwrap_or(usize::MAX)).copied().unwrap_or(0);
        word & (1 << (position % 64)) != 0
    }

    /// Where the content has been put already.
    pub(super) fn placed(&self, offset: u64, len: u64) -> Option<u64> {
        let placed = self.extents.get(self.find(offset, len)?)?.placed;
        (placed != NONE).then_some(placed)
    }

    /// Notes where the content has been put.
    pub(super) fn place(&mut self, offset: u64, len: u64, address: u64) {
        if let Some(extent) = self.find(offset, len).and_then(|at| self.extents.get_mut(at)) {
            extent.placed = address;
        }
    }

    /// The new number of a frame that was taken over.
    pub(super) fn copied(&self, frame: u64) -> Option<u64> {
        let copied = self.fate(frame)?.copied;
        (copied != NONE).then_some(copied)
    }

    /// Notes the new number of a frame.
    pub(super) fn copy(&mut self, frame: u64, number: u64) {
        if let Some(fate) = usize::try_from(frame).ok().and_then(|frame| self.frames.get_mut(frame)) {
            fate.copied = number;
        }
    }

    /// True when a frame of so many plain bytes holds nothing but files that stay.
    pub(super) fn is_clean(&self, frame: u64, plain_len: u64) -> bool {
        self.fate(frame).is_some_and(|fate| !fate.has_dead && fate.live_bytes == plain_len)
    }

    /// True when a frame may be clean; its length tells.
    pub(super) fn may_be_clean(&self, frame: u64) -> bool {
        self.fate(frame).is_some_and(|fate| !fate.has_dead)
    }

    fn fate(&self, frame: u64) -> Option<&FrameFate> {
        usize::try_from(frame).ok().and_then(|frame| self.frames.get(frame))
    }
}

/// The numbers of the frames that a content lies in.
pub(super) fn frames_of(offset: u64, len: u64) -> std::ops::RangeInclusive<u64> {
    let last = offset.saturating_add(len).saturating_sub(1);
    (offset >> SLOT_BITS)..=(last >> SLOT_BITS)
}
