//! The directory: what finds a page. All of it is read when a shard is opened.
//!
//! ```text
//! lineage       serial count varint, serials ints, parent count varint, (shard id [u8; 16], digest [u8; 32]) each
//! separators    front-coded texts   one for each index page: not above its first uid, above the last uid before it
//! last uid      varint len, bytes   only with entries
//! entry counts  ints                entries of each index page
//! index lens    ints                bytes of each index page
//! index crcs    ints                CRC-32C of each index page
//! cold lens     ints                bytes of each cold page
//! cold crcs     ints                CRC-32C of each cold page
//! next births   ints for each origin: the smallest ordinal of it in an index page or after; 2^22 where none follows
//! frame lens    ints                bytes of each page of the frame table
//! frame crcs    ints                CRC-32C of each page of the frame table
//! stored lens   ints                bytes of the frames that each page of the frame table describes
//! ```

use super::column::{ColumnEncoder, decode_ints};
use super::cursor::{Cursor, put_varint};
use super::footer::Footer;
use super::header::HEADER_LEN;
use super::limits::{
    ENTRIES_MAX, ORIGIN_CELLS_MAX, PAGE_ENTRIES_MAX, PAGE_STORED_LEN_MAX, SEPARATORS_LEN_MAX, SLOT_LEN,
};
use super::lineage::Lineage;
use super::texts::Texts;
use crate::FormatError;
use crate::uid::Uid;
use crate::v3::{BuildError, to_u64, to_usize};

/// Stands for "no entry of this origin follows".
pub(super) const NO_BIRTH: u32 = ENTRIES_MAX;

/// Pages of one kind: where each lies in its section, and what its bytes must sum up to.
#[derive(Debug, Default)]
pub(super) struct Pages {
    /// Where each page begins, and where the last one ends.
    pub(super) borders: Vec<u64>,
    pub(super) crcs: Vec<u32>,
}

impl Pages {
    fn decode(cursor: &mut Cursor<'_>, count: usize, section: std::ops::Range<u64>) -> Result<Self, FormatError> {
        let borders = decode_borders(cursor, count, &section, PAGE_STORED_LEN_MAX)?;
        let crcs: Result<Vec<u32>, _> = decode_ints(cursor, count)?.into_iter().map(u32::try_from).collect();
        let crcs = crcs.map_err(|_| cursor.damaged("a checksum out of range"))?;
        Ok(Self { borders, crcs })
    }

    fn memory_bytes(&self) -> usize {
        size_of_val(self.borders.as_slice()).saturating_add(size_of_val(self.crcs.as_slice()))
    }
}

/// Reads `count` lengths, each at most `len_max`, which must fill the section exactly.
fn decode_borders(
    cursor: &mut Cursor<'_>,
    count: usize,
    section: &std::ops::Range<u64>,
    len_max: u64,
) -> Result<Vec<u64>, FormatError> {
    let mut border = section.start;
    let mut borders = Vec::with_capacity(count.saturating_add(1));
    borders.push(border);
    for len in decode_ints(cursor, count)? {
        let len = u64::try_from(len).unwrap_or(u64::MAX);
        if len > len_max {
            return Err(FormatError::beyond_limits("directory", format!("{len} bytes where {len_max} are the most")));
        }
        border = border.saturating_add(len);
        borders.push(border);
    }
    if border != section.end {
        return Err(cursor.damaged(format!("pages that end at {border} in a section that ends at {}", section.end)));
    }
    Ok(borders)
}

/// The directory of an opened shard.
#[derive(Debug)]
pub(super) struct Directory {
    pub(super) lineage: Lineage,
    pub(super) separators: Texts,
    pub(super) last_uid: Option<Uid>,
    /// The position at which each index page begins, and the count of all entries.
    pub(super) positions: Vec<u32>,
    pub(super) index: Pages,
    pub(super) cold: Pages,
    /// For each origin the next ordinal at the beginning of each index page.
    pub(super) next_births: Vec<Vec<u32>>,
    pub(super) frame_table: Pages,
    /// Where the first frame of each page of the frame table begins, and where the frames end.
    pub(super) frame_borders: Vec<u64>,
}

impl Directory {
    pub(super) fn decode(bytes: &[u8], footer: &Footer) -> Result<Self, FormatError> {
        let mut cursor = Cursor::new("directory", bytes);
        let pages = to_usize(u64::from(footer.index_pages));
        let frame_pages = to_usize(u64::from(footer.frame_pages()));
        let sections = &footer.sections;

        let lineage = Lineage::decode(&mut cursor)?;
        if to_u64(lineage.serials.len()) != u64::from(footer.origins) {
            return Err(cursor.damaged("serials and origins differ in number"));
        }
        let separators = Texts::decode(&mut cursor, pages, SEPARATORS_LEN_MAX)?;
        let last_uid = if footer.entries > 0 { Some(decode_uid(&mut cursor)?) } else { None };
        let positions = decode_positions(&mut cursor, pages, footer.entries)?;
        let index = Pages::decode(&mut cursor, pages, sections.index..sections.frame_table)?;
        let cold = Pages::decode(&mut cursor, pages, sections.cold..sections.index)?;
        let next_births = decode_next_births(&mut cursor, pages, footer.origins)?;
        let frame_table = Pages::decode(&mut cursor, frame_pages, sections.frame_table..sections.dictionary)?;
        let frames = to_u64(HEADER_LEN)..sections.cold;
        let frame_borders = decode_borders(&mut cursor, frame_pages, &frames, SLOT_LEN << 11)?;
        cursor.finish(footer.features.extended())?;
        Ok(Self { lineage, separators, last_uid, positions, index, cold, next_births, frame_table, frame_borders })
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let births = self.next_births.iter().map(|row| size_of_val(row.as_slice()));
        let parts = [
            size_of::<Self>(),
            size_of_val(self.lineage.serials.as_slice()),
            size_of_val(self.lineage.parents.as_slice()),
            self.separators.memory_bytes(),
            size_of_val(self.positions.as_slice()),
            self.index.memory_bytes(),
            self.cold.memory_bytes(),
            self.frame_table.memory_bytes(),
            size_of_val(self.frame_borders.as_slice()),
        ];
        parts.into_iter().chain(births).fold(0, usize::saturating_add)
    }
}

fn decode_uid(cursor: &mut Cursor<'_>) -> Result<Uid, FormatError> {
    let len = cursor.varint_up_to(Uid::LEN_MAX)?;
    let text = std::str::from_utf8(cursor.take(len)?).ok();
    text.and_then(|text| Uid::new(text).ok()).ok_or_else(|| cursor.damaged("the last uid is none"))
}

fn decode_positions(cursor: &mut Cursor<'_>, pages: usize, entries: u32) -> Result<Vec<u32>, FormatError> {
    let mut position = 0_u32;
    let mut positions = vec![position];
    for count in decode_ints(cursor, pages)? {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        if !(1..=PAGE_ENTRIES_MAX).contains(&count) {
            return Err(FormatError::beyond_limits("directory", format!("a page of {count} entries")));
        }
        position = position.saturating_add(count);
        positions.push(position);
    }
    if position != entries {
        return Err(cursor.damaged(format!("pages of {position} entries in a shard of {entries}")));
    }
    Ok(positions)
}

fn decode_next_births(cursor: &mut Cursor<'_>, pages: usize, origins: u32) -> Result<Vec<Vec<u32>>, FormatError> {
    if to_u64(pages).saturating_mul(u64::from(origins)) > ORIGIN_CELLS_MAX {
        return Err(FormatError::beyond_limits("directory", format!("{origins} origins in {pages} pages")));
    }
    let mut rows = Vec::new();
    for _ in 0..origins {
        let row: Result<Vec<u32>, _> = decode_ints(cursor, pages)?.into_iter().map(u32::try_from).collect();
        let row = row.map_err(|_| cursor.damaged("a birth out of range"))?;
        if !row.is_sorted() || row.last().is_some_and(|last| *last > NO_BIRTH) {
            return Err(cursor.damaged("births out of order"));
        }
        rows.push(row);
    }
    Ok(rows)
}

/// What the writer gathers for the directory while pages are encoded.
#[derive(Debug, Default)]
pub(super) struct DirectoryBuilder {
    pub(super) separators: Texts,
    pub(super) counts: Vec<i64>,
    pub(super) index: PagesBuilder,
    pub(super) cold: PagesBuilder,
    pub(super) frame_table: PagesBuilder,
    /// Bytes of the frames of each page of the frame table.
    pub(super) frame_lens: Vec<i64>,
    /// For each origin the pages that have entries of it: page number, and the smallest ordinal there.
    pub(super) births: Vec<Vec<(usize, u32)>>,
}

/// Pages of one kind while they are written.
#[derive(Debug, Default)]
pub(super) struct PagesBuilder {
    pub(super) bytes: Vec<u8>,
    lens: Vec<i64>,
    crcs: Vec<i64>,
}

impl PagesBuilder {
    pub(super) fn push(&mut self, page: &[u8]) {
        self.lens.push(i64::try_from(page.len()).unwrap_or(i64::MAX));
        self.crcs.push(i64::from(crc32c::crc32c(page)));
        self.bytes.extend_from_slice(page);
    }

    pub(super) fn len(&self) -> usize {
        self.lens.len()
    }

    fn encode(&self, columns: &mut ColumnEncoder, out: &mut Vec<u8>) -> Result<(), BuildError> {
        columns.ints(out, &self.lens)?;
        columns.ints(out, &self.crcs)
    }
}

impl DirectoryBuilder {
    pub(super) fn encode(
        &self,
        columns: &mut ColumnEncoder,
        lineage: &Lineage,
        last_uid: Option<&[u8]>,
    ) -> Result<Vec<u8>, BuildError> {
        let mut out = Vec::new();
        lineage.encode(columns, &mut out)?;
        self.separators.encode(columns, &mut out)?;
        if let Some(uid) = last_uid {
            put_varint(&mut out, to_u64(uid.len()));
            out.extend_from_slice(uid);
        }
        columns.ints(&mut out, &self.counts)?;
        self.index.encode(columns, &mut out)?;
        self.cold.encode(columns, &mut out)?;
        for births in &self.births {
            columns.ints(&mut out, &next_births(births, self.counts.len()))?;
        }
        self.frame_table.encode(columns, &mut out)?;
        columns.ints(&mut out, &self.frame_lens)?;
        Ok(out)
    }
}

/// Spells out, for every page, the smallest ordinal from there on.
fn next_births(births: &[(usize, u32)], pages: usize) -> Vec<i64> {
    let mut row = Vec::with_capacity(pages);
    for (page, ordinal) in births {
        row.resize(page.saturating_add(1), i64::from(*ordinal));
    }
    row.resize(pages, i64::from(NO_BIRTH));
    row
}
