//! An opened shard: answers where to look, and proves and decodes what was found there.

use std::fmt;
use std::ops::Range;

use bytes::Bytes;
use zstd::dict::DecoderDictionary;

use super::codec::Dictionary;
use super::cold_page::ColdPage;
use super::column::decode_bytes;
use super::cursor::Cursor;
use super::directory::{Directory, Pages};
use super::footer::{FOOTER_LEN, Footer};
use super::frame::{self, EncodedFrame, FrameRef};
use super::frame_page::{FramePage, FramePageContext};
use super::index_page::{IndexPage, PageContext};
use super::limits::{DICTIONARY_LEN_MAX, PAGE_FRAMES, SLOT_BITS};
use super::lineage::Lineage;
use crate::FormatError;
use crate::uid::Uid;
use crate::v3::{to_u64, to_usize};

/// The number of a page among those of its kind, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageNumber(pub u32);

impl PageNumber {
    fn index(self) -> usize {
        to_usize(u64::from(self.0))
    }
}

impl fmt::Display for PageNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What is known of a shard once its tail is read. The tail stays as it is, compressed; pages are decoded one by one.
pub struct ShardIndex {
    footer: Footer,
    directory: Directory,
    tail: Bytes,
    dictionary: Option<DecoderDictionary<'static>>,
    dictionary_memory_bytes: usize,
}

impl fmt::Debug for ShardIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShardIndex").field("footer", &self.footer).finish_non_exhaustive()
    }
}

impl ShardIndex {
    /// Opens a shard of `object_len` bytes by the last ones of it: as many as the footer says, or more. All of them
    /// are proven, except pages, which are proven when they are decoded.
    pub fn open(mut tail: Bytes, object_len: u64) -> Result<Self, FormatError> {
        let Some(footer) = tail.last_chunk::<FOOTER_LEN>() else {
            return Err(FormatError::damaged("shard", format!("{} bytes hold no footer", tail.len())));
        };
        let footer = Footer::decode(footer)?;
        if footer.object_len != object_len {
            let detail = format!("{object_len} bytes where its footer says {}", footer.object_len);
            return Err(FormatError::damaged("shard", detail));
        }
        let Some(surplus) = tail.len().checked_sub(to_usize(footer.tail_len)) else {
            let detail = format!("a tail of {} bytes where {} are needed", tail.len(), footer.tail_len);
            return Err(FormatError::damaged("shard", detail));
        };
        let tail = tail.split_off(surplus);
        let sections = footer.sections;
        let dictionary = section(&tail, &footer, sections.dictionary..sections.directory)?;
        prove("dictionary", dictionary, footer.dictionary_crc)?;
        let (dictionary, dictionary_memory_bytes) = match decode_dictionary(dictionary)? {
            Some(bytes) => {
                let prepared = DecoderDictionary::try_copy(&bytes)
                    .map_err(|error| FormatError::damaged("dictionary", error.to_string()))?;
                (Some(prepared), bytes.len().saturating_add(DICTIONARY_TABLES_LEN))
            }
            None => (None, 0),
        };
        let directory = section(&tail, &footer, sections.directory..sections.footer)?;
        prove("directory", directory, footer.directory_crc)?;
        let directory = Directory::decode(directory, &footer)?;
        Ok(Self { footer, directory, tail, dictionary, dictionary_memory_bytes })
    }

    /// What the footer says.
    pub const fn footer(&self) -> &Footer {
        &self.footer
    }

    /// Where its entries were born and what it replaces.
    pub const fn lineage(&self) -> &Lineage {
        &self.directory.lineage
    }

    /// The dictionary that its frames are compressed with, if there is one.
    pub fn dictionary(&self) -> Option<Dictionary> {
        let sections = &self.footer.sections;
        let bytes = section(&self.tail, &self.footer, sections.dictionary..sections.directory).ok()?;
        Dictionary::from_bytes(&decode_dictionary(bytes).ok()??)
    }

    /// The smallest uid.
    pub fn first_uid(&self) -> Option<Uid> {
        // The first separator is spelled out: nothing comes before it.
        Uid::new(std::str::from_utf8(self.directory.separators.get(0)?).ok()?).ok()
    }

    /// The largest uid.
    pub const fn last_uid(&self) -> Option<&Uid> {
        self.directory.last_uid.as_ref()
    }

    /// How many index pages there are, and as many cold pages.
    pub const fn index_pages(&self) -> u32 {
        self.footer.index_pages
    }

    /// How many pages the frame table has.
    pub const fn frame_pages(&self) -> u32 {
        self.footer.frame_pages()
    }

    /// The index page that holds a uid if any does; `None` for a uid before the first or after the last.
    pub fn page_of_uid(&self, uid: &str) -> Option<PageNumber> {
        if self.last_uid()?.as_str() < uid {
            return None;
        }
        page_before(self.directory.separators.partition_point(|separator| separator <= uid.as_bytes()))
    }

    /// The index page that holds a position.
    pub fn page_of_position(&self, position: u32) -> Option<PageNumber> {
        if position >= self.footer.entries {
            return None;
        }
        page_before(self.directory.positions.partition_point(|first| *first <= position))
    }

    /// The index page that holds the entry born there, if any does.
    pub fn page_of_birth(&self, origin: u16, ordinal: u32) -> Option<PageNumber> {
        if self.lineage().is_fresh() {
            return if origin == 0 { self.page_of_position(ordinal) } else { None };
        }
        let row = self.directory.next_births.get(usize::from(origin))?;
        page_before(row.partition_point(|next| *next <= ordinal))
    }

    /// Where an index page lies in the object.
    pub fn index_page_range(&self, page: PageNumber) -> Option<Range<u64>> {
        range_of(&self.directory.index, page)
    }

    /// The bytes of an index page, if they are part of the tail.
    pub fn resident_index_page(&self, page: PageNumber) -> Option<Bytes> {
        self.resident(self.index_page_range(page)?)
    }

    /// Proves and decodes an index page.
    pub fn decode_index_page(&self, page: PageNumber, bytes: &[u8]) -> Result<IndexPage, FormatError> {
        prove_page("index page", &self.directory.index, page, bytes)?;
        let decoded = IndexPage::decode(bytes, self.page_context(page)?)?;
        self.check_borders(page, &decoded)?;
        Ok(decoded)
    }

    /// Where the cold page of an index page lies in the object.
    pub fn cold_page_range(&self, page: PageNumber) -> Option<Range<u64>> {
        range_of(&self.directory.cold, page)
    }

    /// Proves and decodes the cold page of an index page.
    pub fn decode_cold_page(&self, page: PageNumber, bytes: &[u8]) -> Result<ColdPage, FormatError> {
        prove_page("cold page", &self.directory.cold, page, bytes)?;
        ColdPage::decode(bytes, self.page_context(page)?)
    }

    /// The page of the frame table that describes the frame of an address.
    pub fn frame_page_of(&self, offset: u64) -> Option<PageNumber> {
        let frame = u32::try_from(offset >> SLOT_BITS).ok()?;
        (frame < self.footer.frames).then_some(PageNumber(frame / PAGE_FRAMES))
    }

    /// Where a page of the frame table lies in the object.
    pub fn frame_page_range(&self, page: PageNumber) -> Option<Range<u64>> {
        range_of(&self.directory.frame_table, page)
    }

    /// The bytes of a page of the frame table, if they are part of the tail.
    pub fn resident_frame_page(&self, page: PageNumber) -> Option<Bytes> {
        self.resident(self.frame_page_range(page)?)
    }

    /// Proves and decodes a page of the frame table.
    pub fn decode_frame_page(&self, page: PageNumber, bytes: &[u8]) -> Result<FramePage, FormatError> {
        prove_page("frame page", &self.directory.frame_table, page, bytes)?;
        let borders = &self.directory.frame_borders;
        let after = page.index().saturating_add(1);
        let (Some(start), Some(end)) = (borders.get(page.index()), borders.get(after)) else {
            return Err(no_such_page("frame page", page));
        };
        let first = page.0.saturating_mul(PAGE_FRAMES);
        let count = self.footer.frames.saturating_sub(first).min(PAGE_FRAMES);
        let count = to_usize(u64::from(count));
        let extended = self.footer.features.extended();
        FramePage::decode(bytes, FramePageContext { first, count, start: *start, end: *end, extended })
    }

    /// Proves and decodes a frame.
    pub fn decode_frame(&self, frame: &FrameRef, stored: &[u8]) -> Result<Bytes, FormatError> {
        frame::prove(frame, stored)?.decode(self.footer.codec, self.dictionary.as_ref())
    }

    /// Proves and decodes a frame; one that is stored as it is is not copied, and so keeps all of the memory that
    /// `stored` is a part of.
    pub fn decode_frame_in_place(&self, frame: &FrameRef, stored: &Bytes) -> Result<Bytes, FormatError> {
        let proven = frame::prove(frame, stored)?;
        match proven.plain_in_place() {
            Some(range) => Ok(stored.slice(range)),
            None => proven.decode(self.footer.codec, self.dictionary.as_ref()),
        }
    }

    /// Proves a frame and takes it over as it is, for another shard of the same codec. Refused where a dictionary is
    /// in play: the other shard has a different one.
    pub fn copy_frame(&self, frame: &FrameRef, stored: &[u8]) -> Result<Option<EncodedFrame>, FormatError> {
        let proven = frame::prove(frame, stored)?;
        Ok(if self.dictionary.is_some() { None } else { Some(proven.to_encoded()) })
    }

    /// The memory that it takes, the tail included.
    pub fn memory_bytes(&self) -> usize {
        let parts = [size_of::<Self>(), self.tail.len(), self.dictionary_memory_bytes, self.directory.memory_bytes()];
        parts.into_iter().fold(0, usize::saturating_add)
    }

    fn resident(&self, range: Range<u64>) -> Option<Bytes> {
        let start = range.start.checked_sub(self.footer.tail_range().start)?;
        let end = range.end.checked_sub(self.footer.tail_range().start)?;
        let (start, end) = (usize::try_from(start).ok()?, usize::try_from(end).ok()?);
        (start <= end && end <= self.tail.len()).then(|| self.tail.slice(start..end))
    }

    fn page_context(&self, page: PageNumber) -> Result<PageContext, FormatError> {
        let positions = &self.directory.positions;
        let after = page.index().saturating_add(1);
        let (Some(first), Some(next)) = (positions.get(page.index()), positions.get(after)) else {
            return Err(no_such_page("index page", page));
        };
        Ok(PageContext {
            first_position: *first,
            count: to_usize(u64::from(next.saturating_sub(*first))),
            frames: self.footer.frames,
            origins: self.footer.origins,
            extended: self.footer.features.extended(),
        })
    }

    /// The uids of a page must be those that the directory sends there.
    fn check_borders(&self, page: PageNumber, decoded: &IndexPage) -> Result<(), FormatError> {
        let uid = |index: Option<usize>| index.and_then(|index| decoded.entry_uid(index)).map(str::as_bytes);
        let (first, last) = (uid(Some(0)), uid(decoded.len().checked_sub(1)));
        let separators = &self.directory.separators;
        let next = page.index().saturating_add(1);
        let ends_in_time = match separators.get(next) {
            Some(next) => last < Some(next),
            None => last == self.last_uid().map(|uid| uid.as_str().as_bytes()),
        };
        if separators.get(page.index()) <= first && ends_in_time {
            Ok(())
        } else {
            Err(FormatError::damaged("index page", format!("page {page} holds uids of another")))
        }
    }
}

/// What zstd 1.5 keeps besides the bytes of a dictionary: decoding tables.
const DICTIONARY_TABLES_LEN: usize = 27_000;

fn page_before(partition_point: usize) -> Option<PageNumber> {
    u32::try_from(partition_point.checked_sub(1)?).ok().map(PageNumber)
}

fn range_of(pages: &Pages, page: PageNumber) -> Option<Range<u64>> {
    let start = *pages.borders.get(page.index())?;
    Some(start..*pages.borders.get(page.index().checked_add(1)?)?)
}

fn no_such_page(what: &'static str, page: PageNumber) -> FormatError {
    FormatError::damaged(what, format!("there is no page {page}"))
}

fn prove_page(what: &'static str, pages: &Pages, page: PageNumber, bytes: &[u8]) -> Result<(), FormatError> {
    let (Some(range), Some(crc)) = (range_of(pages, page), pages.crcs.get(page.index())) else {
        return Err(no_such_page(what, page));
    };
    let expected = range.end.saturating_sub(range.start);
    if to_u64(bytes.len()) != expected {
        let detail = format!("page {page} has {} bytes where {expected} were expected", bytes.len());
        return Err(FormatError::damaged(what, detail));
    }
    prove(what, bytes, *crc)
}

fn prove(what: &'static str, bytes: &[u8], crc: u32) -> Result<(), FormatError> {
    if crc32c::crc32c(bytes) == crc { Ok(()) } else { Err(FormatError::damaged(what, "its checksum is wrong")) }
}

/// A section that lies in the tail.
fn section<'a>(tail: &'a Bytes, footer: &Footer, range: Range<u64>) -> Result<&'a [u8], FormatError> {
    let tail_start = footer.tail_range().start;
    let place = |offset: u64| usize::try_from(offset.checked_sub(tail_start)?).ok();
    let bytes = place(range.start).zip(place(range.end)).and_then(|(start, end)| tail.get(start..end));
    bytes.ok_or_else(|| FormatError::damaged("shard", "a section lies outside the tail"))
}

fn decode_dictionary(bytes: &[u8]) -> Result<Option<Vec<u8>>, FormatError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let mut cursor = Cursor::new("dictionary", bytes);
    let len = cursor.varint_up_to(DICTIONARY_LEN_MAX)?;
    let dictionary = decode_bytes(&mut cursor, len)?;
    cursor.finish(false)?;
    Ok((!dictionary.is_empty()).then_some(dictionary))
}
