//! Index pages: a few hundred entries in the order of their uids, as columns.
//!
//! ```text
//! base        varint        where the content of the entries before this page ends
//! uids        front-coded texts (see `texts`)
//! created_at  ints          microseconds since the Unix epoch
//! mtime       ints          seconds, less the second of created_at
//! nanos       ints          nanoseconds of mtime
//! len         ints          plain bytes
//! placement   ints          0: begins where the one before ends; 1: at the next frame; 2: elsewhere
//! elsewhere   ints          for each 2: its address, less where the one before ends
//! origin      ints   \      only in shards with lineage
//! ordinal     ints   /
//! ```
//!
//! "Where the one before ends" is the highest end of any content so far, so that an entry that shares the content of
//! an earlier one does not disturb those that follow.

use super::column::decode_ints;
use super::cursor::Cursor;
use super::cutter::Placement;
use super::entry::{Entry, Mtime};
use super::frame::address_of;
use super::limits::{ADDRESS_MAX, ENTRIES_MAX, PAGE_UIDS_LEN_MAX, SLOT_LEN};
use super::texts::Texts;
use crate::FormatError;
use crate::time::Timestamp;
use crate::uid::Uid;

pub(super) const PLACED_NEXT: i64 = 0;
pub(super) const PLACED_NEXT_FRAME: i64 = 1;
pub(super) const PLACED_ELSEWHERE: i64 = 2;

const NANOS_PER_SECOND: u32 = 1_000_000_000;

/// What a page must agree with.
#[derive(Debug, Clone, Copy)]
pub(super) struct PageContext {
    pub(super) first_position: u32,
    pub(super) count: usize,
    pub(super) frames: u32,
    pub(super) origins: u32,
    pub(super) extended: bool,
}

/// A decoded index page.
#[derive(Debug)]
pub struct IndexPage {
    first_position: u32,
    uids: Texts,
    created_at: Vec<i64>,
    mtime_seconds: Vec<i64>,
    mtime_nanos: Vec<u32>,
    lens: Vec<u64>,
    offsets: Vec<u64>,
    /// Empty in a fresh shard, where births follow from positions.
    births: Vec<(u16, u32)>,
}

impl IndexPage {
    pub(super) fn decode(bytes: &[u8], context: PageContext) -> Result<Self, FormatError> {
        let count = context.count;
        let mut cursor = Cursor::new("index page", bytes);
        let base = cursor.varint()?;
        let uids = Texts::decode(&mut cursor, count, PAGE_UIDS_LEN_MAX)?;
        if !uids.are_utf8() {
            return Err(cursor.damaged("a uid that is not UTF-8"));
        }
        let created_at = decode_ints(&mut cursor, count)?;
        let mut mtime_seconds = decode_ints(&mut cursor, count)?;
        for (seconds, created_at) in mtime_seconds.iter_mut().zip(&created_at) {
            *seconds = seconds.wrapping_add(Timestamp::from_micros(*created_at).seconds());
        }
        let mtime_nanos = decode_u32s(&mut cursor, count, NANOS_PER_SECOND)?;
        let lens = decode_ints(&mut cursor, count)?;
        let lens: Vec<u64> = lens.into_iter().map(|len| u64::try_from(len).unwrap_or(u64::MAX)).collect();
        let offsets = decode_offsets(&mut cursor, base, &lens, context.frames)?;
        let births =
            if context.origins == 0 { Vec::new() } else { decode_births(&mut cursor, count, context.origins)? };
        cursor.finish(context.extended)?;
        let first_position = context.first_position;
        Ok(Self { first_position, uids, created_at, mtime_seconds, mtime_nanos, lens, offsets, births })
    }

    /// The position in the shard of the first entry.
    pub const fn first_position(&self) -> u32 {
        self.first_position
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.uids.len()
    }

    /// True without entries, which no page of a shard is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The entry with this uid.
    pub fn find(&self, uid: &str) -> Option<Entry> {
        let index = self.lower_bound(uid);
        if self.uids.get(index)? == uid.as_bytes() { self.entry(index) } else { None }
    }

    /// How many uids come before this one: the place in the page where it is or would be.
    pub fn lower_bound(&self, uid: &str) -> usize {
        self.uids.partition_point(|other| other < uid.as_bytes())
    }

    /// The entry that was born there.
    pub fn find_birth(&self, origin: u16, ordinal: u32) -> Option<Entry> {
        self.entry(self.index_of_birth(origin, ordinal)?)
    }

    /// The position of the entry that was born there, and where its content lies: all that reading needs, without
    /// making an entry.
    pub fn find_content(&self, origin: u16, ordinal: u32) -> Option<(u32, Placement)> {
        let index = self.index_of_birth(origin, ordinal)?;
        let position = self.first_position.checked_add(u32::try_from(index).ok()?)?;
        Some((position, Placement { offset: *self.offsets.get(index)?, len: *self.lens.get(index)? }))
    }

    fn index_of_birth(&self, origin: u16, ordinal: u32) -> Option<usize> {
        if self.births.is_empty() {
            let index = ordinal.checked_sub(self.first_position).filter(|_| origin == 0)?;
            usize::try_from(index).ok().filter(|index| *index < self.len())
        } else {
            self.births.iter().position(|birth| *birth == (origin, ordinal))
        }
    }

    /// The entry at a place in this page, from 0.
    pub fn entry(&self, index: usize) -> Option<Entry> {
        let uid = Uid::new(self.entry_uid(index)?).ok()?;
        let position = self.first_position.checked_add(u32::try_from(index).ok()?)?;
        let mtime = Mtime { seconds: *self.mtime_seconds.get(index)?, nanos: *self.mtime_nanos.get(index)? };
        let (origin, ordinal) = self.birth(index)?;
        Some(Entry {
            position,
            uid,
            created_at: Timestamp::from_micros(*self.created_at.get(index)?),
            mtime,
            offset: *self.offsets.get(index)?,
            len: *self.lens.get(index)?,
            origin,
            ordinal,
        })
    }

    /// All entries, in order.
    pub fn entries(&self) -> impl Iterator<Item = Entry> {
        (0..self.len()).filter_map(|index| self.entry(index))
    }

    /// The uid of an entry, without making one.
    pub fn entry_uid(&self, index: usize) -> Option<&str> {
        std::str::from_utf8(self.uids.get(index)?).ok()
    }

    /// Origin and ordinal of an entry, without making one.
    pub fn birth(&self, index: usize) -> Option<(u16, u32)> {
        if self.births.is_empty() && index < self.len() {
            return Some((0, self.first_position.checked_add(u32::try_from(index).ok()?)?));
        }
        self.births.get(index).copied()
    }

    /// The memory that it takes.
    pub fn memory_bytes(&self) -> usize {
        let numbers = [&self.lens, &self.offsets].map(|column| size_of_val(column.as_slice()));
        let times = [&self.created_at, &self.mtime_seconds].map(|column| size_of_val(column.as_slice()));
        let parts = [
            size_of::<Self>(),
            self.uids.memory_bytes(),
            size_of_val(self.mtime_nanos.as_slice()),
            size_of_val(self.births.as_slice()),
        ];
        parts.into_iter().chain(numbers).chain(times).fold(0, usize::saturating_add)
    }
}

fn decode_u32s(cursor: &mut Cursor<'_>, count: usize, below: u32) -> Result<Vec<u32>, FormatError> {
    let values = decode_ints(cursor, count)?;
    if values.iter().any(|value| !(0..i64::from(below)).contains(value)) {
        return Err(cursor.damaged(format!("a number that is not below {below}")));
    }
    Ok(values.into_iter().map(|value| u32::try_from(value).unwrap_or(0)).collect())
}

fn decode_births(cursor: &mut Cursor<'_>, count: usize, origins: u32) -> Result<Vec<(u16, u32)>, FormatError> {
    let origins = decode_u32s(cursor, count, origins.min(1 << 16))?;
    let ordinals = decode_u32s(cursor, count, ENTRIES_MAX)?;
    Ok(origins.into_iter().map(|origin| u16::try_from(origin).unwrap_or(u16::MAX)).zip(ordinals).collect())
}

fn decode_offsets(cursor: &mut Cursor<'_>, base: u64, lens: &[u64], frames: u32) -> Result<Vec<u64>, FormatError> {
    let placements = decode_ints(cursor, lens.len())?;
    let elsewhere = placements.iter().filter(|placement| **placement == PLACED_ELSEWHERE).count();
    let mut elsewhere = decode_ints(cursor, elsewhere)?.into_iter();
    let mut places = Places::new(base);
    let mut offsets = Vec::with_capacity(lens.len());
    for (placement, len) in placements.into_iter().zip(lens) {
        let offset = match placement {
            PLACED_NEXT => Some(places.end),
            PLACED_NEXT_FRAME => Some(places.next_frame()),
            PLACED_ELSEWHERE => elsewhere.next().and_then(|distance| places.end.checked_add_signed(distance)),
            _ => None,
        };
        let valid = offset.filter(|offset| is_place(*offset, *len, frames));
        let Some(offset) = valid else {
            return Err(cursor.damaged(format!("content of {len} bytes where none can be")));
        };
        places.pass(offset, *len);
        offsets.push(offset);
    }
    Ok(offsets)
}

/// Where contents end so far.
#[derive(Debug, Clone, Copy)]
pub(super) struct Places {
    pub(super) end: u64,
}

impl Places {
    pub(super) const fn new(end: u64) -> Self {
        Self { end }
    }

    /// The address of the frame that begins next.
    pub(super) const fn next_frame(self) -> u64 {
        self.end.saturating_add(SLOT_LEN - 1) & !(SLOT_LEN - 1)
    }

    pub(super) fn pass(&mut self, offset: u64, len: u64) {
        if len > 0 {
            self.end = self.end.max(offset.saturating_add(len));
        }
    }
}

/// The law of addresses: content ends within the frames, and lies within one frame or begins one.
pub(super) fn is_place(offset: u64, len: u64, frames: u32) -> bool {
    let skip = offset & (SLOT_LEN - 1);
    match offset.checked_add(len) {
        Some(_) if len == 0 => offset <= ADDRESS_MAX,
        Some(end) => end <= address_of(frames) && (skip == 0 || len <= SLOT_LEN.saturating_sub(skip)),
        None => false,
    }
}
