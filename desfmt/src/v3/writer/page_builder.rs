//! Gathers the entries of one page as columns.

use crate::v3::column::ColumnEncoder;
use crate::v3::cursor::put_varint;
use crate::v3::entry::NewEntry;
use crate::v3::index_page::{PLACED_ELSEWHERE, PLACED_NEXT, PLACED_NEXT_FRAME, Places, is_place};
use crate::v3::limits::{FRAMES_MAX, PAGE_ENTRIES, PAGE_TEXT_TARGET};
use crate::v3::texts::Texts;
use crate::v3::{BuildError, to_u64};

/// An index page and its cold page while entries are added.
#[derive(Debug)]
pub(super) struct PageBuilder {
    base: u64,
    places: Places,
    uids: Texts,
    created_at: Vec<i64>,
    mtime: Vec<i64>,
    nanos: Vec<i64>,
    lens: Vec<i64>,
    placements: Vec<i64>,
    elsewhere: Vec<i64>,
    births: Vec<(u16, u32)>,
    digests: Vec<u8>,
    presence: Vec<i64>,
    metadata: Vec<u8>,
}

impl Default for PageBuilder {
    fn default() -> Self {
        Self {
            base: 0,
            places: Places::new(0),
            uids: Texts::default(),
            created_at: Vec::new(),
            mtime: Vec::new(),
            nanos: Vec::new(),
            lens: Vec::new(),
            placements: Vec::new(),
            elsewhere: Vec::new(),
            births: Vec::new(),
            digests: Vec::new(),
            presence: Vec::new(),
            metadata: Vec::new(),
        }
    }
}

impl PageBuilder {
    pub(super) fn begin(&mut self, content_end: u64) {
        self.base = content_end;
        self.places = Places::new(content_end);
    }

    pub(super) fn len(&self) -> usize {
        self.uids.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// True when no further entry should be added.
    pub(super) fn is_full(&self) -> bool {
        self.len() >= PAGE_ENTRIES || self.uids.text_len().saturating_add(self.metadata.len()) >= PAGE_TEXT_TARGET
    }

    /// Where the content of all entries so far ends.
    pub(super) const fn content_end(&self) -> u64 {
        self.places.end
    }

    pub(super) fn push(&mut self, entry: &NewEntry<'_>) -> Result<(), BuildError> {
        self.place(entry)?;
        let seconds_apart = entry.mtime.seconds.wrapping_sub(entry.created_at.seconds());
        self.uids.push(entry.uid.as_str().as_bytes());
        self.created_at.push(entry.created_at.micros());
        self.mtime.push(seconds_apart);
        self.nanos.push(i64::from(entry.mtime.nanos));
        self.lens.push(i64::try_from(entry.len).unwrap_or(i64::MAX));
        self.births.extend(entry.birth);
        self.digests.extend_from_slice(entry.digest.as_bytes());
        let presence = entry.metadata.map_or(0, |text| text.len().saturating_add(1));
        self.presence.push(i64::try_from(presence).unwrap_or(i64::MAX));
        self.metadata.extend_from_slice(entry.metadata.unwrap_or("").as_bytes());
        Ok(())
    }

    fn place(&mut self, entry: &NewEntry<'_>) -> Result<(), BuildError> {
        let place = if entry.len == 0 { self.places.end } else { entry.offset };
        if !is_place(place, entry.len, FRAMES_MAX) {
            return Err(BuildError::invalid(format!("{} bytes at address {place}", entry.len)));
        }
        if place == self.places.end {
            self.placements.push(PLACED_NEXT);
        } else if place == self.places.next_frame() {
            self.placements.push(PLACED_NEXT_FRAME);
        } else {
            self.placements.push(PLACED_ELSEWHERE);
            self.elsewhere.push(place.cast_signed().wrapping_sub(self.places.end.cast_signed()));
        }
        self.places.pass(place, entry.len);
        if entry.mtime.nanos >= 1_000_000_000 {
            return Err(BuildError::invalid(format!("{} nanoseconds in a second", entry.mtime.nanos)));
        }
        Ok(())
    }

    pub(super) fn encode_index(&self, columns: &mut ColumnEncoder) -> Result<Vec<u8>, BuildError> {
        let mut page = Vec::new();
        put_varint(&mut page, self.base);
        self.uids.encode(columns, &mut page)?;
        for column in [&self.created_at, &self.mtime, &self.nanos, &self.lens, &self.placements, &self.elsewhere] {
            columns.ints(&mut page, column)?;
        }
        let (origins, ordinals): (Vec<i64>, Vec<i64>) =
            self.births.iter().map(|(origin, ordinal)| (i64::from(*origin), i64::from(*ordinal))).unzip();
        columns.ints(&mut page, &origins)?;
        columns.ints(&mut page, &ordinals)?;
        Ok(page)
    }

    pub(super) fn encode_cold(&self, columns: &mut ColumnEncoder) -> Result<Vec<u8>, BuildError> {
        let mut page = self.digests.clone();
        columns.ints(&mut page, &self.presence)?;
        columns.bytes(&mut page, &self.metadata)?;
        debug_assert!(to_u64(page.len()) <= super::super::limits::PAGE_STORED_LEN_MAX, "{}", page.len());
        Ok(page)
    }

    pub(super) fn clear(&mut self) {
        let Self {
            base: _,
            places: _,
            uids,
            created_at,
            mtime,
            nanos,
            lens,
            placements,
            elsewhere,
            births,
            digests,
            presence,
            metadata,
        } = self;
        uids.clear();
        births.clear();
        for column in [created_at, mtime, nanos, lens, placements, elsewhere, presence] {
            column.clear();
        }
        for bytes in [digests, metadata] {
            bytes.clear();
        }
    }
}
