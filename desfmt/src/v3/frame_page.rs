//! Pages of the frame table: how long each of 1,024 frames is as stored.
//!
//! ```text
//! stored len  ints    bytes of each frame, its trailer among them
//! ```

use super::column::decode_ints;
use super::cursor::Cursor;
use super::frame::{FrameRef, TRAILER_LEN};
use super::limits::{SLOT_BITS, SLOT_LEN};
use crate::FormatError;
use crate::v3::to_u64;

/// Where a page's frames lie.
#[derive(Debug, Clone, Copy)]
pub(super) struct FramePageContext {
    pub(super) first: u32,
    pub(super) count: usize,
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) extended: bool,
}

/// A decoded page of the frame table.
#[derive(Debug)]
pub struct FramePage {
    first: u32,
    start: u64,
    /// Where each frame ends, counted from `start`.
    ends: Vec<u32>,
}

impl FramePage {
    pub(super) fn decode(bytes: &[u8], context: FramePageContext) -> Result<Self, FormatError> {
        let mut cursor = Cursor::new("frame page", bytes);
        let mut ends = Vec::with_capacity(context.count);
        let mut end = 0_u64;
        let shortest = to_u64(TRAILER_LEN).saturating_add(1);
        let longest = to_u64(TRAILER_LEN).saturating_add(SLOT_LEN);
        for len in decode_ints(&mut cursor, context.count)? {
            let len = u64::try_from(len).unwrap_or(u64::MAX);
            if !(shortest..=longest).contains(&len) {
                return Err(cursor.damaged(format!("a frame of {len} bytes")));
            }
            end = end.saturating_add(len);
            // 1,024 frames of a little over a MiB: less than 2^32.
            ends.push(u32::try_from(end).unwrap_or(u32::MAX));
        }
        if context.start.checked_add(end) != Some(context.end) {
            let detail = format!("frames of {end} bytes between {} and {}", context.start, context.end);
            return Err(cursor.damaged(detail));
        }
        cursor.finish(context.extended)?;
        Ok(Self { first: context.first, start: context.start, ends })
    }

    /// How many frames there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// True without frames, which no page of a shard is.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The number of its first frame.
    pub const fn first_frame(&self) -> u32 {
        self.first
    }

    /// The frame that an address belongs to.
    pub fn find(&self, offset: u64) -> Option<FrameRef> {
        let number = u32::try_from(offset >> SLOT_BITS).ok()?;
        self.frame(usize::try_from(number.checked_sub(self.first)?).ok()?)
    }

    /// The frame at a place in the page, from 0.
    pub fn frame(&self, index: usize) -> Option<FrameRef> {
        let end = *self.ends.get(index)?;
        let start = match index.checked_sub(1) {
            Some(before) => *self.ends.get(before)?,
            None => 0,
        };
        let number = self.first.checked_add(u32::try_from(index).ok()?)?;
        let stored = self.start.checked_add(u64::from(start))?..self.start.checked_add(u64::from(end))?;
        Some(FrameRef::new(number, stored))
    }

    /// The memory that it takes.
    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>().saturating_add(size_of_val(self.ends.as_slice()))
    }
}
