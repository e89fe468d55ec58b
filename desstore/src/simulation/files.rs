//! The files that packers are given.

use desfmt::v3::Codec;
use desfmt::{Date, Digest, Uid};

use super::dice::Dice;
use crate::fixture::uid;

/// The one day that everything happens on.
pub(super) fn day() -> Date {
    crate::fixture::day()
}

/// A file as a source has it.
#[derive(Debug, Clone)]
pub(super) struct SourceFile {
    pub(super) uid: Uid,
    pub(super) content: Vec<u8>,
}

impl SourceFile {
    fn new(number: u64, variant: u64) -> Self {
        let uid = uid(&format!("uid-{number:02}"));
        let content = content_of(uid.as_str(), variant);
        Self { uid, content }
    }

    pub(super) fn digest(&self) -> Digest {
        blake3::hash(&self.content)
    }
}

/// Different files of one group differ in length, and none is empty.
fn content_of(uid: &str, variant: u64) -> Vec<u8> {
    let number: usize = uid[4..].parse().unwrap();
    format!("<{uid} in variant {variant}>").repeat(1 + number % 5).into_bytes()
}

/// True for the bytes of a file, in any variant of it.
pub(super) fn is_content_of(uid: &str, bytes: &[u8]) -> bool {
    (0..VARIANTS).any(|variant| content_of(uid, variant) == bytes)
}

const VARIANTS: u64 = 2;

/// Files that are packed into one shard, as far as they are not there.
#[derive(Debug, Clone)]
pub(super) struct Batch {
    pub(super) files: Vec<SourceFile>,
    pub(super) codec: Codec,
}

/// All that there is to be packed.
#[derive(Debug, Clone)]
pub(super) struct Sources {
    pub(super) batches: Vec<Batch>,
    pub(super) uids: Vec<Uid>,
    /// Whether two sources may have other content for one uid.
    pub(super) has_conflicts: bool,
}

impl Sources {
    /// These batches of files.
    pub(super) fn of(batches: &[&[u64]]) -> Self {
        let batch = |numbers: &&[u64]| Batch {
            files: numbers.iter().map(|number| SourceFile::new(*number, 0)).collect(),
            codec: Codec::Lz4,
        };
        let batches: Vec<Batch> = batches.iter().map(batch).collect();
        let uids = batches.iter().flat_map(|batch| &batch.files).map(|file| file.uid.clone()).collect();
        Self { batches, uids, has_conflicts: false }
    }

    /// Some batches of a few files, which may have files in common.
    pub(super) fn new(dice: &mut Dice) -> Self {
        let count = 4 + dice.below(9);
        let has_conflicts = dice.permille(100);
        let batch = |dice: &mut Dice| {
            let mut numbers: Vec<u64> = (0..=dice.below(4)).map(|_| dice.below(count)).collect();
            numbers.sort_unstable();
            numbers.dedup();
            let file = |number| SourceFile::new(number, u64::from(has_conflicts && dice.permille(200)));
            Batch {
                files: numbers.into_iter().map(file).collect(),
                codec: if dice.permille(500) { Codec::Stored } else { Codec::Lz4 },
            }
        };
        let batches = (0..4 + dice.below(4)).map(|_| batch(dice)).collect();
        Self { batches, uids: (0..count).map(|number| SourceFile::new(number, 0).uid).collect(), has_conflicts }
    }
}
