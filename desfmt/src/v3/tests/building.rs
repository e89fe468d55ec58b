//! Builds shards as the packer does, but in memory, and reads them as a mount does.

use std::collections::HashMap;

use bytes::Bytes;

use crate::ids::ArchiveId;
use crate::layout::ShardName;
use crate::routing::{Bucket, BucketBits, Group};
use crate::time::Timestamp;
use crate::uid::Uid;
use crate::v3::{
    Body, BodySettings, BodyWriter, Codec, Dictionary, Entry, FrameCutter, FrameEncoder, FrameSize, Lineage, Mtime,
    NewEntry, PageNumber, Placement, ShardIndex,
};

pub(crate) const ARCHIVE: ArchiveId = ArchiveId::from_bytes([0xa5; 16]);

/// 2024-01-15T00:00:00Z.
pub(crate) const DAY_START: i64 = 1_705_276_800_000_000;

pub(crate) fn name() -> ShardName {
    let bits = BucketBits::new(8).unwrap();
    let group = Group { date: "20240115".parse().unwrap(), bucket: Bucket::new(0x3f, bits).unwrap(), bits };
    ShardName { group, split: 7, repack: 2 }
}

/// A file to be packed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct File {
    pub(crate) uid: Uid,
    pub(crate) content: Vec<u8>,
    pub(crate) created_at: Timestamp,
    pub(crate) mtime: Mtime,
    pub(crate) metadata: Option<String>,
    pub(crate) birth: Option<(u16, u32)>,
}

pub(crate) fn file(uid: &str, content: &[u8]) -> File {
    let created_at = Timestamp::from_micros(DAY_START + 123_456_789);
    let mtime = Mtime { seconds: created_at.seconds(), nanos: 0 };
    let content = content.to_vec();
    File { uid: Uid::new(uid).unwrap(), content, created_at, mtime, metadata: None, birth: None }
}

/// How a shard is built.
#[derive(Debug, Clone)]
pub(crate) struct ShardBuilder {
    pub(crate) codec: Codec,
    pub(crate) level: i32,
    pub(crate) frame_size: FrameSize,
    pub(crate) dictionary: Option<Dictionary>,
    pub(crate) lineage: Lineage,
}

impl Default for ShardBuilder {
    fn default() -> Self {
        Self {
            codec: Codec::Zstd,
            level: 3,
            frame_size: FrameSize::default(),
            dictionary: None,
            lineage: Lineage::default(),
        }
    }
}

impl ShardBuilder {
    /// Header, frames and trailer, and the body. Equal contents share their frames.
    pub(crate) fn build_body(&self, files: &[File]) -> (Vec<u8>, Body) {
        let encoder = FrameEncoder::new(self.codec, self.level, self.dictionary.as_ref()).unwrap();
        let settings = BodySettings { archive: ARCHIVE, codec: self.codec };
        let mut writer = BodyWriter::new(settings, self.dictionary.as_ref(), self.lineage.clone()).unwrap();
        let mut cutter = FrameCutter::new(self.frame_size);
        let (mut out, mut frames) = (writer.header(), Vec::new());
        let mut seen: HashMap<blake3::Hash, Placement> = HashMap::new();
        for file in files {
            let digest = blake3::hash(&file.content);
            let placement = *seen.entry(digest).or_insert_with(|| {
                cutter.push(&file.content, &mut frames).unwrap();
                cutter.end_file(&mut frames).unwrap()
            });
            let entry = NewEntry {
                uid: &file.uid,
                created_at: file.created_at,
                mtime: file.mtime,
                offset: placement.offset,
                len: placement.len,
                digest,
                metadata: file.metadata.as_deref(),
                birth: file.birth,
            };
            writer.push_entry(entry).unwrap();
        }
        cutter.finish(&mut frames).unwrap();
        for frame in frames {
            out.extend(writer.push_frame(encoder.encode(&frame).unwrap()).unwrap());
        }
        let body = writer.finish().unwrap();
        out.extend(body.trailer());
        assert_eq!(body.len(), crate::v3::to_u64(out.len()));
        (out, body)
    }

    pub(crate) fn build(&self, files: &[File]) -> Bytes {
        let (mut object, body) = self.build_body(files);
        object.extend(body.footer_bytes(&name()));
        assert_eq!(body.object_len(), crate::v3::to_u64(object.len()));
        Bytes::from(object)
    }
}

/// An opened shard and the bytes behind it: what a store would be asked for is counted by no one here.
pub(crate) struct Opened {
    pub(crate) object: Bytes,
    pub(crate) index: ShardIndex,
}

impl Opened {
    pub(crate) fn new(object: &Bytes) -> Self {
        let footer = crate::v3::Footer::decode(&object[object.len() - crate::v3::FOOTER_LEN..]).unwrap();
        let tail = object.slice(usize::try_from(footer.tail_range().start).unwrap()..);
        Self { object: object.clone(), index: ShardIndex::open(tail, crate::v3::to_u64(object.len())).unwrap() }
    }

    pub(crate) fn part(&self, range: std::ops::Range<u64>) -> &[u8] {
        &self.object[usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()]
    }

    pub(crate) fn page(&self, page: PageNumber) -> crate::v3::IndexPage {
        let bytes = self.part(self.index.index_page_range(page).unwrap());
        self.index.decode_index_page(page, bytes).unwrap()
    }

    pub(crate) fn find(&self, uid: &str) -> Option<Entry> {
        self.page(self.index.page_of_uid(uid)?).find(uid)
    }

    pub(crate) fn find_birth(&self, origin: u16, ordinal: u32) -> Option<Entry> {
        self.page(self.index.page_of_birth(origin, ordinal)?).find_birth(origin, ordinal)
    }

    pub(crate) fn metadata(&self, entry: &Entry) -> Option<String> {
        let page = self.index.page_of_position(entry.position).unwrap();
        let cold = self.index.decode_cold_page(page, self.part(self.index.cold_page_range(page).unwrap())).unwrap();
        let place = entry.position - self.page(page).first_position();
        cold.metadata(usize::try_from(place).unwrap()).map(ToOwned::to_owned)
    }

    /// Reads a part of a file, frame by frame.
    pub(crate) fn read(&self, entry: &Entry, offset: u64, len: u64) -> Vec<u8> {
        let end = entry.len.min(offset + len);
        let (mut address, end) = (entry.offset + offset, entry.offset + end);
        let mut content = Vec::new();
        while address < end {
            let page = self.index.frame_page_of(address).unwrap();
            let page_bytes = self.part(self.index.frame_page_range(page).unwrap());
            let frame = self.index.decode_frame_page(page, page_bytes).unwrap().find(address).unwrap();
            let plain = self.index.decode_frame(&frame, self.part(frame.stored.clone())).unwrap();
            let skip = usize::try_from(address - frame.plain.start).unwrap();
            let until = usize::try_from(end.min(frame.plain.end) - frame.plain.start).unwrap();
            content.extend_from_slice(&plain[skip..until]);
            address = end.min(frame.plain.end);
        }
        content
    }
}
