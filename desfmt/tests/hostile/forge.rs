//! Takes v3 shards apart and puts them together again with any part replaced and every checksum right: what somebody
//! would do who knows the format and means harm.
//!
//! It encodes by the specification alone and shares no code with the writer, so that it can write what that never would.

use bytes::Bytes;
use desfmt::v3::{FOOTER_LEN, Footer, HEADER_LEN, PageNumber, ShardIndex};
use desfmt::{FormatError, ShardId};

/// Frames that one page of the frame table describes.
pub(crate) const PAGE_FRAMES: usize = 1_024;

/// Columns, encoded in the plainest way that there is.
pub(crate) mod column {
    /// A number of seven bits a byte, the lowest first.
    pub(crate) fn varint(mut value: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        while value >= 0x80 {
            bytes.push(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        bytes.push(value.to_le_bytes()[0]);
        bytes
    }

    /// A number with its sign in the lowest bit.
    pub(crate) fn signed(value: i64) -> Vec<u8> {
        varint(((value << 1) ^ (value >> 63)).cast_unsigned())
    }

    /// Numbers, eight bytes each.
    pub(crate) fn ints(values: &[i64]) -> Vec<u8> {
        if values.is_empty() {
            return Vec::new();
        }
        let mut bytes = vec![0, 0, 64];
        bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        bytes
    }

    /// The same number as often as the reader likes.
    pub(crate) fn constant(value: i64) -> Vec<u8> {
        [&[0], &signed(value)[..], &[0]].concat()
    }

    /// Bytes as they are.
    pub(crate) fn raw(values: &[u8]) -> Vec<u8> {
        if values.is_empty() { Vec::new() } else { [&[0], values].concat() }
    }

    /// Bytes as a frame of zstd, whatever that is.
    pub(crate) fn compressed(frame: &[u8]) -> Vec<u8> {
        [&[1], &varint(u64::try_from(frame.len()).unwrap())[..], frame].concat()
    }

    /// One byte as often as the reader likes.
    pub(crate) fn repeated(byte: u8) -> Vec<u8> {
        vec![2, byte]
    }

    /// Front-coded texts of which none shares anything.
    pub(crate) fn texts<T: AsRef<[u8]>>(texts: &[T]) -> Vec<u8> {
        let lens: Vec<i64> = texts.iter().map(|text| i64::try_from(text.as_ref().len()).unwrap()).collect();
        let all: Vec<u8> = texts.iter().flat_map(AsRef::as_ref).copied().collect();
        [ints(&vec![0; texts.len()]), ints(&lens), raw(&all)].concat()
    }
}

/// The bytes of a frame with this number. `field` is its plain length, with bit 31 set where it is compressed.
pub(crate) fn frame(number: u32, payload: &[u8], field: u32) -> Vec<u8> {
    let mut bytes = [payload, &field.to_le_bytes()].concat();
    let crc = crc32c::crc32c(&[&bytes[..], &(u64::from(number) << 20).to_le_bytes()].concat());
    bytes.extend(crc.to_le_bytes());
    bytes
}

/// A shard in parts. The directory and the footer follow from them when it is put together.
#[derive(Debug, Clone)]
pub(crate) struct Parts {
    pub(crate) header: Vec<u8>,
    /// The footer as it was found; what the parts do not decide is taken from here.
    pub(crate) footer: Vec<u8>,
    pub(crate) frames: Vec<Vec<u8>>,
    pub(crate) cold: Vec<Vec<u8>>,
    pub(crate) index: Vec<Vec<u8>>,
    pub(crate) frame_table: Vec<Vec<u8>>,
    /// The whole section.
    pub(crate) dictionary: Vec<u8>,
    pub(crate) serials: Vec<i64>,
    pub(crate) parents: Vec<u8>,
    pub(crate) separators: Vec<Vec<u8>>,
    pub(crate) last_uid: Option<Vec<u8>>,
    /// Entries of each index page.
    pub(crate) counts: Vec<i64>,
    /// For each origin and page the next ordinal.
    pub(crate) next_births: Vec<Vec<i64>>,
    /// Stored bytes of the frames of each page of the frame table.
    pub(crate) frame_lens: Vec<i64>,
    /// Whether all pages are part of the tail.
    pub(crate) resident: bool,
}

impl Parts {
    /// Takes a sound shard apart.
    pub(crate) fn of(object: &Bytes) -> Result<Self, FormatError> {
        let index = ShardIndex::open(object.clone(), u64::try_from(object.len()).unwrap())?;
        let footer = index.footer();
        let part = |range: std::ops::Range<u64>| {
            object[usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()].to_vec()
        };
        let pages = (0..index.index_pages()).map(PageNumber);
        let (mut frames, mut frame_table, mut frame_lens) = (Vec::new(), Vec::new(), Vec::new());
        for page in (0..index.frame_pages()).map(PageNumber) {
            let bytes = part(index.frame_page_range(page).unwrap());
            let decoded = index.decode_frame_page(page, &bytes)?;
            let stored: Vec<Vec<u8>> =
                (0..decoded.len()).map(|place| part(decoded.frame(place).unwrap().stored)).collect();
            frame_lens.push(stored.iter().map(|frame| i64::try_from(frame.len()).unwrap()).sum());
            frames.extend(stored);
            frame_table.push(bytes);
        }
        let (mut cold, mut index_pages, mut separators, mut counts) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut first_births = vec![Vec::new(); index.lineage().serials.len()];
        for page in pages {
            cold.push(part(index.cold_page_range(page).unwrap()));
            let bytes = part(index.index_page_range(page).unwrap());
            let decoded = index.decode_index_page(page, &bytes)?;
            separators.push(decoded.entry_uid(0).unwrap().as_bytes().to_vec());
            counts.push(i64::try_from(decoded.len()).unwrap());
            for (origin, births) in first_births.iter_mut().enumerate() {
                let of_origin = |entry: &desfmt::v3::Entry| usize::from(entry.origin) == origin;
                births.push(decoded.entries().find(of_origin).map(|entry| i64::from(entry.ordinal)));
            }
            index_pages.push(bytes);
        }
        let sections = sections_of(&object[object.len() - FOOTER_LEN..]);
        Ok(Self {
            header: object[..HEADER_LEN].to_vec(),
            footer: object[object.len() - FOOTER_LEN..].to_vec(),
            frames,
            cold,
            index: index_pages,
            frame_table,
            dictionary: part(sections.dictionary..sections.directory),
            serials: index.lineage().serials.iter().copied().map(i64::from).collect(),
            parents: index
                .lineage()
                .parents
                .iter()
                .flat_map(|parent| [&parent.shard.bytes()[..], parent.body_digest.as_bytes()].concat())
                .collect(),
            separators,
            last_uid: index.last_uid().map(|uid| uid.as_str().as_bytes().to_vec()),
            counts,
            next_births: first_births.into_iter().map(|births| next_of(&births)).collect(),
            frame_lens,
            resident: footer.tail_range().start == sections.index,
        })
    }

    /// The directory that goes with the parts.
    pub(crate) fn directory(&self) -> Vec<u8> {
        let lens = |pages: &[Vec<u8>]| {
            column::ints(&pages.iter().map(|page| i64::try_from(page.len()).unwrap()).collect::<Vec<_>>())
        };
        let crcs = |pages: &[Vec<u8>]| {
            column::ints(&pages.iter().map(|page| i64::from(crc32c::crc32c(page))).collect::<Vec<_>>())
        };
        let count = |len: usize| column::varint(u64::try_from(len).unwrap());
        let mut bytes = [count(self.serials.len()), column::ints(&self.serials)].concat();
        bytes.extend(count(self.parents.len() / 48));
        bytes.extend(&self.parents);
        bytes.extend(column::texts(&self.separators));
        if let Some(uid) = &self.last_uid {
            bytes.extend(count(uid.len()));
            bytes.extend(uid);
        }
        bytes.extend(column::ints(&self.counts));
        bytes.extend([lens(&self.index), crcs(&self.index), lens(&self.cold), crcs(&self.cold)].concat());
        bytes.extend(self.next_births.iter().flat_map(|row| column::ints(row)));
        bytes.extend([lens(&self.frame_table), crcs(&self.frame_table), column::ints(&self.frame_lens)].concat());
        bytes
    }

    /// Puts the shard together.
    pub(crate) fn assemble(&self) -> Bytes {
        self.assemble_with(&self.directory())
    }

    /// Puts the shard together with another directory.
    pub(crate) fn assemble_with(&self, directory: &[u8]) -> Bytes {
        let mut object = self.header.clone();
        let mut starts = Vec::new();
        for section in [&self.frames, &self.cold, &self.index, &self.frame_table] {
            starts.push(to_u64(object.len()));
            object.extend(section.concat());
        }
        starts.push(to_u64(object.len()));
        object.extend(&self.dictionary);
        starts.push(to_u64(object.len()));
        object.extend(directory);
        let object_len = to_u64(object.len() + FOOTER_LEN);
        let tail_start = if self.resident { starts[2] } else { starts[4] };

        let mut footer = self.footer.clone();
        let entries: i64 = self.counts.iter().fold(0, |sum, count| sum.wrapping_add(*count));
        put(&mut footer, 100, &entries.to_le_bytes()[..4]);
        put_u32(&mut footer, 104, self.frames.len());
        put_u32(&mut footer, 108, self.index.len());
        put_u32(&mut footer, 112, self.serials.len());
        put(&mut footer, 140, &object_len.to_le_bytes());
        for (place, start) in [148, 156, 164, 172, 180].into_iter().zip(&starts[1..]) {
            put(&mut footer, place, &start.to_le_bytes());
        }
        put(&mut footer, 188, &(object_len - tail_start).to_le_bytes());
        object.extend(footer);
        seal(&mut object);
        Bytes::from(object)
    }

    /// Writes the page of the frame table that tells where the frames lie, after some were replaced.
    pub(crate) fn describe_frames(&mut self) {
        let lens: Vec<i64> = self.frames.iter().map(|frame| i64::try_from(frame.len()).unwrap()).collect();
        self.frame_table = lens.chunks(PAGE_FRAMES).map(column::ints).collect();
        self.frame_lens = lens.chunks(PAGE_FRAMES).map(|lens| lens.iter().sum()).collect();
    }
}

/// Makes the checksums and the identity right that the last bytes of a shard hold, as far as its sections lie within it.
/// The checksums of pages stand in the directory and those of frames in the frames; they stay as they are.
pub(crate) fn seal(object: &mut [u8]) {
    let Some(body_len) = object.len().checked_sub(FOOTER_LEN) else { return };
    let (body, footer) = object.split_at_mut(body_len);
    let sections = sections_of(footer);
    let crc = |start: u64, end: u64| {
        let range = usize::try_from(start).unwrap_or(usize::MAX)..usize::try_from(end).unwrap_or(usize::MAX);
        body.get(range).map_or([0; 4], |part| crc32c::crc32c(part).to_le_bytes())
    };
    let digest = blake3::hash(body);
    put(footer, 52, digest.as_bytes());
    let archive: [u8; 16] = footer[20..36].try_into().unwrap();
    let id = ShardId::of_body(desfmt::ArchiveId::from_bytes(archive), &digest);
    put(footer, 36, id.bytes());
    put(footer, 116, &crc(sections.dictionary, sections.directory));
    put(footer, 120, &crc(sections.directory, to_u64(body_len)));
    let crc = crc32c::crc32c(&footer[..FOOTER_LEN - 4]);
    put(footer, FOOTER_LEN - 4, &crc.to_le_bytes());
}

/// Makes the checksum and the identity of a footer right.
pub(crate) fn seal_footer(footer: &mut [u8; FOOTER_LEN]) {
    let archive: [u8; 16] = footer[20..36].try_into().unwrap();
    let digest: [u8; 32] = footer[52..84].try_into().unwrap();
    let id = ShardId::of_body(desfmt::ArchiveId::from_bytes(archive), &digest.into());
    put(footer, 36, id.bytes());
    let crc = crc32c::crc32c(&footer[..FOOTER_LEN - 4]);
    put(footer, FOOTER_LEN - 4, &crc.to_le_bytes());
}

/// Where the sections begin that no public function tells of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sections {
    pub(crate) index: u64,
    pub(crate) dictionary: u64,
    pub(crate) directory: u64,
}

/// What a footer says of the sections, believed or not.
pub(crate) fn sections_of(footer: &[u8]) -> Sections {
    let at = |place: usize| u64::from_le_bytes(footer[place..place + 8].try_into().unwrap());
    Sections { index: at(156), dictionary: at(172), directory: at(180) }
}

/// A footer with fields replaced, given by their place and their bytes, and its checksum right again.
pub(crate) fn footer_with(footer: &Footer, changes: &[(usize, &[u8])]) -> [u8; FOOTER_LEN] {
    let mut bytes = footer.encode();
    for (place, value) in changes {
        put(&mut bytes, *place, value);
    }
    seal_footer(&mut bytes);
    bytes
}

/// Spells out, for every page, the smallest ordinal from there on.
fn next_of(births: &[Option<i64>]) -> Vec<i64> {
    let mut next = 1 << 22;
    let mut row: Vec<i64> = births
        .iter()
        .rev()
        .map(|birth| {
            next = birth.unwrap_or(next);
            next
        })
        .collect();
    row.reverse();
    row
}

fn put(bytes: &mut [u8], place: usize, value: &[u8]) {
    bytes[place..place + value.len()].copy_from_slice(value);
}

fn put_u32(bytes: &mut [u8], place: usize, value: usize) {
    put(bytes, place, &u32::try_from(value).unwrap().to_le_bytes());
}

fn to_u64(len: usize) -> u64 {
    u64::try_from(len).unwrap()
}
