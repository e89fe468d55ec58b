//! Building the body of a shard, frame by frame and entry by entry, in memory proportional to its index.

mod body;
mod body_hasher;
mod page_builder;

pub use self::body::Body;
use self::body::Facts;
use self::body_hasher::BodyHasher;
use self::page_builder::PageBuilder;
use super::codec::{Codec, Dictionary};
use super::column::ColumnEncoder;
use super::cursor::put_varint;
use super::directory::{DirectoryBuilder, NO_BIRTH};
use super::entry::NewEntry;
use super::footer::{FOOTER_LEN, Sections};
use super::frame::{EncodedFrame, address_of};
use super::header::{Features, HEADER_LEN, Header};
use super::limits::{
    ENTRIES_MAX, FRAMES_MAX, INDEX_PAGES_MAX, METADATA_LEN_MAX, ORIGIN_CELLS_MAX, ORIGINS_MAX, PAGE_FRAMES,
    RESIDENT_PAGES_LEN_MAX, SEPARATORS_LEN_MAX,
};
use super::lineage::Lineage;
use super::texts::shared_len;
use crate::ids::{ArchiveId, ShardId};
use crate::uid::Uid;
use crate::v3::{BuildError, to_u64};

/// What the whole shard has in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodySettings {
    /// The archive that it belongs to.
    pub archive: ArchiveId,
    /// What its frames are compressed with.
    pub codec: Codec,
}

/// Builds a body. Frames and entries may come interleaved; each in their own order. What it returns as bytes the
/// caller writes, one after the other: the header, the frames, the trailer, and the footer.
pub struct BodyWriter {
    settings: BodySettings,
    dictionary: Option<Dictionary>,
    lineage: Lineage,
    hasher: BodyHasher,
    columns: ColumnEncoder,
    page: PageBuilder,
    directory: DirectoryBuilder,
    last_uid: Option<Uid>,
    entries: u32,
    content_len: u64,
    /// The ordinal that must come next at least, for each origin.
    ordinals: Vec<u32>,
    frames: u32,
    frames_len: u64,
    plain_len: u64,
    /// Stored lengths of the frames that are not in a page of the frame table yet.
    frame_lens: Vec<i64>,
    /// Where the content of the entries ends.
    content_end: u64,
}

impl std::fmt::Debug for BodyWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BodyWriter")
            .field("settings", &self.settings)
            .field("entries", &self.entries)
            .field("frames", &self.frames)
            .finish_non_exhaustive()
    }
}

impl BodyWriter {
    /// Begins a body. The dictionary is the one that the frames are encoded with; the lineage is empty unless the
    /// shard replaces others.
    pub fn new(settings: BodySettings, dictionary: Option<&Dictionary>, lineage: Lineage) -> Result<Self, BuildError> {
        if dictionary.is_some() && settings.codec != Codec::Zstd {
            return Err(BuildError::invalid(format!("{} has no dictionaries", settings.codec)));
        }
        let origins = lineage.serials.len();
        refuse_beyond("origins", to_u64(origins), u64::from(ORIGINS_MAX))?;
        refuse_beyond("parents", to_u64(lineage.parents.len()), u64::from(ORIGINS_MAX))?;
        lineage.validate().map_err(|detail| BuildError::Invalid { detail })?;
        let mut hasher = BodyHasher::new();
        hasher.update(&header_of(settings));
        let directory = DirectoryBuilder { births: vec![Vec::new(); origins], ..DirectoryBuilder::default() };
        Ok(Self {
            settings,
            dictionary: dictionary.cloned(),
            lineage,
            hasher,
            columns: ColumnEncoder::new()?,
            page: PageBuilder::default(),
            directory,
            last_uid: None,
            entries: 0,
            content_len: 0,
            ordinals: vec![0; origins],
            frames: 0,
            frames_len: 0,
            plain_len: 0,
            frame_lens: Vec::new(),
            content_end: 0,
        })
    }

    /// The first bytes of the shard.
    pub fn header(&self) -> Vec<u8> {
        header_of(self.settings)
    }

    /// Takes the next frame, in the order in which they were cut, and returns the bytes to write.
    pub fn push_frame(&mut self, frame: EncodedFrame) -> Result<Vec<u8>, BuildError> {
        refuse_beyond("frames of a shard", u64::from(self.frames).saturating_add(1), u64::from(FRAMES_MAX))?;
        self.plain_len = self.plain_len.saturating_add(u64::from(frame.plain_len()));
        let stored = frame.bind(self.frames);
        self.hasher.update(&stored);
        self.frames = self.frames.saturating_add(1);
        self.frames_len = self.frames_len.saturating_add(to_u64(stored.len()));
        self.frame_lens.push(i64::try_from(stored.len()).unwrap_or(i64::MAX));
        if to_u64(self.frame_lens.len()) >= u64::from(PAGE_FRAMES) {
            self.close_frame_page()?;
        }
        Ok(stored)
    }

    /// Takes the next entry. Uids ascend strictly, by their bytes; in a shard with lineage so do the ordinals of
    /// each origin. The offset of an empty file does not matter.
    pub fn push_entry(&mut self, entry: NewEntry<'_>) -> Result<(), BuildError> {
        self.check_entry(&entry)?;
        if let Some((origin, ordinal)) = entry.birth {
            self.note_birth(origin, ordinal)?;
        }
        if self.page.is_empty() {
            self.begin_page(entry.uid)?;
        }
        self.page.push(&entry)?;
        self.content_end = self.page.content_end();
        self.content_len = self.content_len.saturating_add(entry.len);
        self.entries = self.entries.saturating_add(1);
        self.last_uid = Some(entry.uid.clone());
        if self.page.is_full() {
            self.close_page()?;
        }
        Ok(())
    }

    fn check_entry(&self, entry: &NewEntry<'_>) -> Result<(), BuildError> {
        refuse_beyond("entries of a shard", u64::from(self.entries).saturating_add(1), u64::from(ENTRIES_MAX))?;
        if self.last_uid.as_ref().is_some_and(|last| last >= entry.uid) {
            return Err(BuildError::invalid(format!("uid {:?} out of order", entry.uid)));
        }
        if entry.birth.is_some() == self.lineage.is_fresh() {
            return Err(BuildError::invalid("an entry has a birth if and only if its shard has lineage"));
        }
        if let Some(metadata) = entry.metadata {
            refuse_beyond("bytes of metadata", to_u64(metadata.len()), to_u64(METADATA_LEN_MAX))?;
            if serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(metadata).is_err() {
                return Err(BuildError::invalid(format!("metadata of {:?} is not a JSON object", entry.uid)));
            }
        }
        Ok(())
    }

    fn note_birth(&mut self, origin: u16, ordinal: u32) -> Result<(), BuildError> {
        let index = usize::from(origin);
        let page = self.directory.counts.len();
        let (Some(next), Some(births)) = (self.ordinals.get_mut(index), self.directory.births.get_mut(index)) else {
            return Err(BuildError::invalid(format!("origin {origin} is not in the lineage")));
        };
        if ordinal < *next || ordinal >= NO_BIRTH {
            return Err(BuildError::invalid(format!("ordinal {ordinal} of origin {origin} out of order")));
        }
        *next = ordinal.saturating_add(1);
        if births.last().is_none_or(|(last, _)| *last != page) {
            births.push((page, ordinal));
        }
        Ok(())
    }

    fn begin_page(&mut self, first: &Uid) -> Result<(), BuildError> {
        let pages = to_u64(self.directory.counts.len()).saturating_add(1);
        refuse_beyond("index pages", pages, u64::from(INDEX_PAGES_MAX))?;
        let cells = pages.saturating_mul(to_u64(self.lineage.serials.len()));
        refuse_beyond("origins times index pages", cells, ORIGIN_CELLS_MAX)?;
        let first = first.as_str().as_bytes();
        let shortest = match &self.last_uid {
            Some(last) => shared_len(last.as_str().as_bytes(), first).saturating_add(1),
            None => first.len(),
        };
        self.directory.separators.push(first.get(..shortest).unwrap_or(first));
        let separators_len = to_u64(self.directory.separators.text_len());
        refuse_beyond("bytes of first uids", separators_len, SEPARATORS_LEN_MAX)?;
        self.page.begin(self.content_end);
        Ok(())
    }

    fn close_page(&mut self) -> Result<(), BuildError> {
        self.directory.counts.push(i64::try_from(self.page.len()).unwrap_or(i64::MAX));
        self.directory.index.push(&self.page.encode_index(&mut self.columns)?);
        self.directory.cold.push(&self.page.encode_cold(&mut self.columns)?);
        self.page.clear();
        Ok(())
    }

    fn close_frame_page(&mut self) -> Result<(), BuildError> {
        let mut page = Vec::new();
        self.columns.ints(&mut page, &self.frame_lens)?;
        self.directory.frame_table.push(&page);
        self.directory.frame_lens.push(self.frame_lens.iter().copied().fold(0, i64::saturating_add));
        self.frame_lens.clear();
        Ok(())
    }

    /// Ends the body.
    pub fn finish(mut self) -> Result<Body, BuildError> {
        if !self.page.is_empty() {
            self.close_page()?;
        }
        if !self.frame_lens.is_empty() {
            self.close_frame_page()?;
        }
        if self.content_end > address_of(self.frames) {
            return Err(BuildError::invalid("an entry's content lies beyond the last frame"));
        }
        let dictionary = self.encode_dictionary()?;
        let last_uid = self.last_uid.as_ref().map(|uid| uid.as_str().as_bytes());
        let directory = self.directory.encode(&mut self.columns, &self.lineage, last_uid)?;
        let (dictionary_crc, directory_crc) = (crc32c::crc32c(&dictionary), crc32c::crc32c(&directory));
        let index_pages = self.directory.index.len();

        let DirectoryBuilder { cold, index, frame_table, .. } = self.directory;
        let mut trailer = cold.bytes;
        let frames_end = to_u64(HEADER_LEN).saturating_add(self.frames_len);
        let mut append = |part: &[u8]| {
            let start = frames_end.saturating_add(to_u64(trailer.len()));
            trailer.extend_from_slice(part);
            start
        };
        let sections = Sections {
            cold: frames_end,
            index: append(&index.bytes),
            frame_table: append(&frame_table.bytes),
            dictionary: append(&dictionary),
            directory: append(&directory),
            footer: append(&[]),
        };
        self.hasher.update(&trailer);
        let hasher = self.hasher.finish();
        let body_digest = hasher.finalize();
        let resident = sections.dictionary.saturating_sub(sections.index) <= RESIDENT_PAGES_LEN_MAX;
        let tail_start = if resident { sections.index } else { sections.dictionary };
        let object_len = sections.footer.saturating_add(to_u64(FOOTER_LEN));
        let facts = Facts {
            archive: self.settings.archive,
            shard_id: ShardId::of_body(self.settings.archive, &body_digest),
            body_digest,
            codec: self.settings.codec,
            entries: self.entries,
            frames: self.frames,
            plain_len: self.plain_len,
            content_len: self.content_len,
            object_len,
            tail_len: object_len.saturating_sub(tail_start),
            index_pages: u32::try_from(index_pages).unwrap_or(u32::MAX),
            origins: u32::try_from(self.lineage.serials.len()).unwrap_or(u32::MAX),
            dictionary_crc,
            directory_crc,
            sections,
        };
        Ok(Body { trailer, hasher, facts })
    }

    /// The length of the dictionary, then its bytes as a column; nothing without one.
    fn encode_dictionary(&mut self) -> Result<Vec<u8>, BuildError> {
        let mut out = Vec::new();
        if let Some(dictionary) = &self.dictionary {
            put_varint(&mut out, to_u64(dictionary.as_bytes().len()));
            self.columns.bytes(&mut out, dictionary.as_bytes())?;
        }
        Ok(out)
    }
}

fn header_of(settings: BodySettings) -> Vec<u8> {
    Header { features: Features::default(), archive: settings.archive }.encode()
}

fn refuse_beyond(what: &'static str, figure: u64, limit: u64) -> Result<(), BuildError> {
    if figure > limit { Err(BuildError::BeyondLimits { what, figure, limit }) } else { Ok(()) }
}
