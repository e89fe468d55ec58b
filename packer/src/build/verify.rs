//! Reads a shard back through the reader's code before it is published: every entry, every byte.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use bytes::Bytes;
use desfmt::v3::limits::SLOT_LEN;
use desfmt::v3::{Body, Entry, FOOTER_LEN, FramePage, PageNumber, ShardIndex};
use desfmt::{ShardName, Uid};
use rayon::iter::{IntoParallelIterator, ParallelIterator};

use super::Packed;
use crate::pool::Pool;

/// A body in a file, and what must be in it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Verification<'a> {
    pub(super) file: &'a File,
    pub(super) body: &'a Body,
    /// Any name of the group: the body does not depend on it.
    pub(super) name: ShardName,
    pub(super) uids: &'a [Uid],
    pub(super) contents: &'a [Packed],
}

impl Verification<'_> {
    /// Compares everything; says what differs.
    pub(super) fn run(&self, pool: &Pool) -> Result<(), String> {
        let footer = self.body.footer_bytes(&self.name);
        let footer_len = u64::try_from(FOOTER_LEN).unwrap_or(u64::MAX);
        let start = (self.body.len() + footer_len).checked_sub(self.body.tail_len()).ok_or("the tail is too long")?;
        let mut tail = self.read(start..self.body.len())?;
        tail.extend_from_slice(&footer);
        let index = ShardIndex::open(Bytes::from(tail), self.body.object_len()).map_err(text)?;
        let counted = usize::try_from(index.footer().entries).unwrap_or(usize::MAX);
        if counted != self.uids.len() || counted != self.contents.len() {
            return Err(format!("{counted} entries where {} were written", self.uids.len()));
        }
        pool.install(|| {
            let pages = (0..index.index_pages()).into_par_iter();
            let compared = pages.map(|page| {
                PageCheck { shard: self, index: &index, frames: None, decoded: None }.run(PageNumber(page))
            });
            compared.try_reduce(|| 0, |a, b| Ok(a + b)).and_then(|entries| {
                if entries == counted { Ok(()) } else { Err(format!("{entries} entries in pages where {counted} are")) }
            })
        })
    }

    fn read(&self, range: Range<u64>) -> Result<Vec<u8>, String> {
        let mut bytes = vec![0; usize::try_from(range.end - range.start).unwrap_or(usize::MAX)];
        self.file.read_exact_at(&mut bytes, range.start).map_err(text)?;
        Ok(bytes)
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// The check of one index page and of all that its entries hold.
struct PageCheck<'a> {
    shard: &'a Verification<'a>,
    index: &'a ShardIndex,
    /// The page of the frame table that was used last: the next frame is nearly always in it too.
    frames: Option<FramePage>,
    /// The addresses and the content of the frame that was decoded last: small files share it with their neighbours.
    decoded: Option<(Range<u64>, Bytes)>,
}

impl PageCheck<'_> {
    fn run(mut self, number: PageNumber) -> Result<usize, String> {
        let missing = || format!("index page {number} is missing");
        let bytes = match self.index.resident_index_page(number) {
            Some(bytes) => bytes,
            None => Bytes::from(self.shard.read(self.index.index_page_range(number).ok_or_else(missing)?)?),
        };
        let page = self.index.decode_index_page(number, &bytes).map_err(text)?;
        let cold = self.shard.read(self.index.cold_page_range(number).ok_or_else(missing)?)?;
        let cold = self.index.decode_cold_page(number, &cold).map_err(text)?;
        for place in 0..page.len() {
            let entry = page.entry(place).ok_or_else(missing)?;
            let position = usize::try_from(entry.position).unwrap_or(usize::MAX);
            let expected = self.shard.uids.get(position).zip(self.shard.contents.get(position));
            let Some((uid, packed)) = expected.filter(|(uid, _)| **uid == entry.uid) else {
                return Err(format!("{:?} is not where it was put", entry.uid));
            };
            let is_placed = entry.len == packed.len && (packed.len == 0 || entry.offset == packed.offset);
            if !is_placed || cold.digest(place) != Some(packed.digest) {
                return Err(format!("{uid:?} is described otherwise than it was"));
            }
            // Content that is shared is read where it was first put.
            if !packed.is_shared && self.digest(&entry)? != packed.digest {
                return Err(format!("{uid:?} has other content than was put"));
            }
        }
        Ok(page.len())
    }

    fn digest(&mut self, entry: &Entry) -> Result<desfmt::Digest, String> {
        let mut hasher = blake3::Hasher::new();
        let mut at = entry.offset;
        let end = entry.offset + entry.len;
        while at < end {
            let frame = self.frame(at)?;
            let skip = usize::try_from(at % SLOT_LEN).unwrap_or(usize::MAX);
            let want = usize::try_from(end - at).unwrap_or(usize::MAX);
            let rest = frame.get(skip..).filter(|rest| !rest.is_empty()).ok_or("a frame ends before its content")?;
            let part = rest.get(..want).unwrap_or(rest);
            hasher.update(part);
            at += u64::try_from(part.len()).unwrap_or(u64::MAX);
        }
        Ok(hasher.finalize())
    }

    fn frame(&mut self, address: u64) -> Result<Bytes, String> {
        if let Some((addresses, content)) = &self.decoded
            && addresses.contains(&address)
        {
            return Ok(content.clone());
        }
        let found = match self.frames.as_ref().and_then(|page| page.find(address)) {
            Some(found) => found,
            None => self.load_frames(address)?.find(address).ok_or("a frame is missing")?,
        };
        let stored = Bytes::from(self.shard.read(found.stored.clone())?);
        let content = self.index.decode_frame_in_place(&found, &stored).map_err(text)?;
        self.decoded = Some((found.plain, content.clone()));
        Ok(content)
    }

    fn load_frames(&mut self, address: u64) -> Result<&FramePage, String> {
        let missing = "a page of the frame table is missing";
        let number = self.index.frame_page_of(address).ok_or(missing)?;
        let bytes = match self.index.resident_frame_page(number) {
            Some(bytes) => bytes,
            None => Bytes::from(self.shard.read(self.index.frame_page_range(number).ok_or(missing)?)?),
        };
        let page = self.index.decode_frame_page(number, &bytes).map_err(text)?;
        Ok(self.frames.insert(page))
    }
}
