//! Shards to be damaged: small ones of every kind, and larger ones.

use std::collections::HashMap;

use bytes::Bytes;
use desfmt::v3::{
    BodySettings, BodyWriter, Codec, Dictionary, FrameCutter, FrameEncoder, FrameSize, Lineage, Mtime, NewEntry,
    Parent, Placement,
};
use desfmt::{ArchiveId, Bucket, BucketBits, Group, ShardId, ShardName, Timestamp, Uid};

/// 2024-01-15T00:00:00Z.
const DAY_START: i64 = 1_705_276_800_000_000;

/// A file that is packed into a sample.
#[derive(Debug, Clone)]
pub(crate) struct File {
    pub(crate) uid: Uid,
    pub(crate) content: Vec<u8>,
    pub(crate) metadata: Option<String>,
    pub(crate) birth: Option<(u16, u32)>,
}

/// A shard, and what is in it.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    pub(crate) what: &'static str,
    pub(crate) object: Bytes,
    pub(crate) files: Vec<File>,
}

/// How a sample is built.
#[derive(Debug, Clone)]
pub(crate) struct Recipe {
    pub(crate) codec: Codec,
    pub(crate) frame_size: FrameSize,
    pub(crate) dictionary: Option<Dictionary>,
    pub(crate) lineage: Lineage,
}

impl Default for Recipe {
    fn default() -> Self {
        Self {
            codec: Codec::Zstd,
            frame_size: FrameSize::new(64).unwrap(),
            dictionary: None,
            lineage: Lineage::default(),
        }
    }
}

impl Recipe {
    /// Builds a shard. Files must be in the order of their uids; equal contents are stored once.
    pub(crate) fn build(&self, what: &'static str, files: Vec<File>) -> Sample {
        let encoder = FrameEncoder::new(self.codec, 3, self.dictionary.as_ref()).unwrap();
        let settings = BodySettings { archive: ArchiveId::from_bytes([0xa5; 16]), codec: self.codec };
        let mut writer = BodyWriter::new(settings, self.dictionary.as_ref(), self.lineage.clone()).unwrap();
        let mut cutter = FrameCutter::new(self.frame_size);
        let (mut object, mut frames) = (writer.header(), Vec::new());
        let mut placements: HashMap<blake3::Hash, Placement> = HashMap::new();
        for (number, file) in (0_i64..).zip(&files) {
            let digest = blake3::hash(&file.content);
            let placement = *placements.entry(digest).or_insert_with(|| {
                cutter.push(&file.content, &mut frames).unwrap();
                cutter.end_file(&mut frames).unwrap()
            });
            let created_at = Timestamp::from_micros(DAY_START + number * 1_234_567);
            let entry = NewEntry {
                uid: &file.uid,
                created_at,
                mtime: Mtime { seconds: created_at.seconds() - 60, nanos: u32::try_from(number % 1_000).unwrap() },
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
            object.extend(writer.push_frame(encoder.encode(&frame).unwrap()).unwrap());
        }
        let body = writer.finish().unwrap();
        object.extend(body.trailer());
        object.extend(body.footer_bytes(&name()));
        Sample { what, object: Bytes::from(object), files }
    }
}

/// The name of every sample.
pub(crate) fn name() -> ShardName {
    let bits = BucketBits::new(8).unwrap();
    let group = Group { date: "20240115".parse().unwrap(), bucket: Bucket::new(0x3f, bits).unwrap(), bits };
    ShardName { group, split: 7, repack: 2 }
}

pub(crate) fn file(uid: &str, content: &[u8]) -> File {
    File { uid: Uid::new(uid).unwrap(), content: content.to_vec(), metadata: None, birth: None }
}

/// A few files: compressible, incompressible, empty, equal.
fn few_files() -> Vec<File> {
    let mut files: Vec<File> = (0..6)
        .map(|number| {
            file(&format!("uid-{number}"), format!("some text {}, some text, some text", number % 4).as_bytes())
        })
        .collect();
    files[1].content = blake3::hash(b"noise").as_bytes().to_vec();
    files[2].content.clear();
    files
}

fn dictionary() -> Dictionary {
    Dictionary::from_bytes(b"some text 0, some text 1, some text").unwrap()
}

fn lineage() -> Lineage {
    let parent = Parent { shard: ShardId::from_bytes([3; 16]), body_digest: blake3::hash(b"parent") };
    Lineage { serials: vec![1, 2], parents: vec![parent] }
}

fn with_births(mut files: Vec<File>) -> Vec<File> {
    for (number, file) in (0_u32..).zip(&mut files) {
        file.birth = Some((u16::try_from(number % 2).unwrap(), number * 3));
    }
    files
}

/// Small shards of every kind.
pub(crate) fn small() -> Vec<Sample> {
    let recipe = Recipe::default;
    let mut with_metadata = few_files();
    with_metadata[3].metadata = Some("{\"user.a\":1}".to_owned());
    with_metadata[4].metadata = Some("{\"user.b\":\"\u{e9}\"}".to_owned());
    vec![
        Recipe { codec: Codec::Stored, ..recipe() }.build("stored", few_files()),
        Recipe { codec: Codec::Lz4, ..recipe() }.build("lz4", few_files()),
        recipe().build("zstd", few_files()),
        Recipe { dictionary: Some(dictionary()), ..recipe() }.build("zstd with a dictionary", few_files()),
        Recipe { frame_size: FrameSize::ONE_FILE, ..recipe() }.build("zstd with metadata", with_metadata),
        Recipe { lineage: lineage(), ..recipe() }.build("zstd with lineage", with_births(few_files())),
        recipe().build("no files", Vec::new()),
    ]
}

/// Larger shards: several index pages, several pages of the frame table, files of several frames.
pub(crate) fn large() -> Vec<Sample> {
    let digest = |number: u32| blake3::hash(&number.to_le_bytes()).to_hex();
    let content = |number: u32| match number % 97 {
        0 => Vec::new(),
        1 => digest(number).repeat(40).into_bytes(),
        2 => b"the same in many".to_vec(),
        _ => format!("content of {number}, {}", &digest(number)[..16]).into_bytes(),
    };
    let mut files: Vec<File> = (0..1_500).map(|number| file(&digest(number)[..32], &content(number))).collect();
    files.sort_by(|left, right| left.uid.cmp(&right.uid));
    for file in files.iter_mut().step_by(7) {
        file.metadata = Some(format!("{{\"user.note\":\"{}\"}}", &file.uid.as_str()[..8]));
    }
    let mut with_long = files.clone();
    with_long[700].content = (0..2_200_000_u32).map(|place| (place / 251).to_le_bytes()[0]).collect();
    let one_file = Recipe { frame_size: FrameSize::ONE_FILE, ..Recipe::default() };
    vec![
        Recipe { codec: Codec::Stored, frame_size: FrameSize::default(), ..Recipe::default() }
            .build("stored, large", files.clone()),
        Recipe { frame_size: FrameSize::default(), ..Recipe::default() }.build("zstd, a long file", with_long),
        Recipe { lineage: lineage(), dictionary: Some(dictionary()), ..one_file.clone() }
            .build("zstd, a file a frame, dictionary and lineage", with_births(files.clone())),
        Recipe { codec: Codec::Lz4, ..one_file }.build("lz4, a file a frame", files),
    ]
}
