//! What the fuzzer begins with: sound inputs of every kind, in the form in which its targets take them.

use std::fmt::Display;
use std::io;
use std::path::Path;

use bytes::Bytes;
use desfmt::document::{self, FoldedTombstones, Identity, Manifest, ManifestShard, Tombstone, TombstoneBatch};
use desfmt::legacy::{LegacyCompression, PayloadEncoder};
use desfmt::v3::FOOTER_LEN;
use desfmt::{ArchiveId, BucketBits, Digest, ShardId, Timestamp, Uid, UidHasher, Uuid, layout};

use crate::forge::Parts;
use crate::samples;

/// An input for a target.
#[derive(Debug, Clone)]
pub(crate) struct Seed {
    pub(crate) target: &'static str,
    /// Tells it from the other seeds of the target.
    pub(crate) name: String,
    pub(crate) input: Vec<u8>,
}

impl Seed {
    fn new(target: &'static str, name: impl Display, input: Vec<u8>) -> Self {
        Self { target, name: name.to_string(), input }
    }
}

/// The seeds of all targets. `golden` holds shards of the ancestor.
pub(crate) fn all(golden: &Path) -> io::Result<Vec<Seed>> {
    let mut seeds: Vec<Seed> = v3_seeds().chain(payloads()).chain(documents_as_seeds()).collect();
    seeds.push(Seed::new("legacy_sidecar", 0, SIDECAR.as_bytes().to_vec()));
    seeds.push(Seed::new("legacy_names", 0, Digest::from_bytes([0x5a; 32]).to_hex().as_bytes().to_vec()));
    let names = NAMES.iter().enumerate();
    seeds.extend(names.map(|(number, text)| Seed::new("names", number, [&[8], text.as_bytes()].concat())));
    let instants = INSTANTS.iter().enumerate();
    seeds.extend(instants.map(|(number, text)| Seed::new("instants", number, text.as_bytes().to_vec())));
    for case in std::fs::read_dir(golden)? {
        let case = case?.path();
        if !case.is_dir() {
            continue;
        }
        for file in std::fs::read_dir(&case)? {
            let file = file?.path();
            let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if file.extension().is_some_and(|extension| extension == "des") {
                seeds.push(Seed::new("legacy_names", &name, [&[8], name.as_bytes()].concat()));
                seeds.push(Seed::new("legacy_shard", &name, std::fs::read(&file)?));
            }
        }
    }
    Ok(seeds)
}

fn v3_seeds() -> impl Iterator<Item = Seed> {
    samples::small().into_iter().zip(0_u8..).flat_map(|(sample, choice)| v3_seeds_of(choice, &sample.object))
}

fn v3_seeds_of(choice: u8, object: &Bytes) -> Vec<Seed> {
    let seed = |target, input| Seed::new(target, choice, input);
    let footer = &object[object.len() - FOOTER_LEN..];
    let mut seeds = vec![
        seed("v3_object", object.to_vec()),
        seed("v3_footer", footer.to_vec()),
        Seed::new("v3_footer", format!("{choice}-header"), object[..FOOTER_LEN].to_vec()),
    ];
    let parts = Parts::of(object).unwrap();
    let (Some(index), Some(cold), Some(frame_page)) =
        (parts.index.first(), parts.cold.first(), parts.frame_table.first())
    else {
        return seeds;
    };
    let count = u16::try_from(parts.counts[0]).unwrap().to_le_bytes();
    let frames = u16::try_from(parts.frames.len()).unwrap().to_le_bytes();
    seeds.extend([
        seed("v3_directory", [&[choice], &parts.directory()[..]].concat()),
        seed("v3_index_page", [&[choice], &count[..], index].concat()),
        seed("v3_cold_page", [&[choice], &cold[..]].concat()),
        seed("v3_frame_page", [&[choice], &frames[..], frame_page].concat()),
        seed("v3_dictionary", [&[choice], &parts.dictionary[..]].concat()),
    ]);
    let frames = parts.frames.iter().enumerate().map(|(place, frame)| {
        let (payload, trailer) = frame.split_at(frame.len() - 8);
        Seed::new("v3_frame", format!("{choice}-{place}"), [&[choice], &trailer[..4], payload].concat())
    });
    seeds.extend(frames);
    seeds
}

fn payloads() -> impl Iterator<Item = Seed> {
    let plain = b"some text, some text, some text, some text, and the end".as_slice();
    let plain_len = u16::try_from(plain.len()).unwrap().to_le_bytes();
    let ways = [LegacyCompression::Stored, LegacyCompression::Zstd { level: 3 }, LegacyCompression::Lz4];
    (0_u8..).zip(ways).map(move |(number, way)| {
        let stored = PayloadEncoder::new(way).unwrap().encode(plain).unwrap();
        Seed::new("legacy_payload", number, [&[number], &plain_len[..], &stored].concat())
    })
}

fn documents_as_seeds() -> impl Iterator<Item = Seed> {
    documents().into_iter().zip(0_u8..).flat_map(|(document, kind)| {
        let body = document.split(|byte| *byte == b'\n').nth(1).unwrap();
        [
            Seed::new("documents", format!("{kind}-body"), [&[kind], body].concat()),
            Seed::new("documents", kind, [&[kind], &document[..]].concat()),
        ]
    })
}

const NAMES: [&str; 8] = [
    "20240115_3F_0000.des",
    "shards/20240115/20240115_3F_0000_R001.des",
    "manifests/20240115.json",
    "tombstones/20240115/3F.json",
    "tombstones/20240115/3F/018d0a6e-7c2b-7d3a-9f1e-2b3c4d5e6f70-batch.json",
    "_bigFiles/71bd663bcc8c2a8c6c6196df6ac08c6a9e4c6d9c3bf2ba41975d83f0ef4c1e40",
    "18446744073709551616",
    "\u{661}\u{662}\u{663}",
];

const INSTANTS: [&str; 6] = [
    "2024-01-15T09:30:00Z",
    "20240115T093000.123456+0530",
    "2024-W03-1 09:30",
    "2024-01-15T09:30:00,123-01:02:03",
    " 0001-01-01 ",
    "9999-12-31T23:59:59.999999999+00:00",
];

const SIDECAR: &str = r#"{"version":1,"shard_file":"20240301_0A_0000.des","shard_size":100,"created_at":"2024-03-01T00:00:00+00:00",
"last_updated":"2024-03-02T00:00:00","index":{"a":{"offset":8,"x":[NaN,-Infinity]}},"tombstones":{"a:2024-03-01":
{"uid":"a","created_at":"2024-03-01T00:00:00","deleted_at":"2024-03-02T00:00:00Z","deleted_by":"me","reason":"why","ticket_id":null}},"stats":{}}"#;

/// One document of each kind, in the order in which the target numbers them.
pub(crate) fn documents() -> [Vec<u8>; 5] {
    let archive = ArchiveId::from_bytes([9; 16]);
    let at = Timestamp::from_micros(1_705_300_000_000_000);
    let date = "20240115".parse().unwrap();
    let uid = Uid::new("a \"uid\"/\u{e9}").unwrap();
    let identity = Identity::new(archive, BucketBits::new(8).unwrap(), at);
    let mut manifest = Manifest::empty(date);
    manifest.next_serial = 3;
    manifest.note_transaction(Uuid::from_bytes([7; 16]));
    manifest.shards.push(ManifestShard {
        bucket: 0x3f,
        split: 7,
        repack: 2,
        key: layout::shard(&samples::name()),
        shard: ShardId::from_bytes([3; 16]),
        len: 1_000,
        tail_len: 400,
        blake3: Digest::from_bytes([1; 32]).to_hex().to_string(),
        entries: 6,
        plain_len: 200,
        uid_min: ManifestShard::bound("a"),
        uid_max: None,
        serials: vec![1, 2],
    });
    let tombstone = Tombstone {
        date,
        uid_hash: UidHasher::new(archive).hash(uid.as_str()),
        uid,
        operation: Uuid::from_bytes([8; 16]),
        actor: "somebody".to_owned(),
        reason: "asked to".to_owned(),
        ticket: Some("T-1".to_owned()),
        at,
    };
    let batch = TombstoneBatch { date, tombstones: vec![tombstone.clone()], shards: Vec::new() };
    let folded = FoldedTombstones {
        date,
        generation: 4,
        transactions: Vec::new(),
        erased: vec![tombstone.uid_hash],
        tombstones: vec![tombstone.clone()],
        shards: Vec::new(),
        folded: Vec::new(),
    };
    [
        document::encode(&identity).unwrap(),
        document::encode(&manifest).unwrap(),
        document::encode(&tombstone).unwrap(),
        document::encode(&batch).unwrap(),
        document::encode(&folded).unwrap(),
    ]
}
