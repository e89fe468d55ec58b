//! Equal contents within a shard are stored once.

use std::collections::{HashMap, HashSet};

use desfmt::Digest;

use super::Packed;
use crate::limits;

/// The contents of a shard so far. Some 70 bytes for each file.
#[derive(Debug, Default)]
pub(super) struct Contents {
    entries: Vec<Packed>,
    /// The head of a digest, and which entry has it; contents that only look alike are not shared.
    by_digest: HashMap<u64, u32>,
    large_lens: HashSet<u64>,
}

impl Contents {
    /// Where equal content lies.
    pub(super) fn find(&self, digest: &Digest, len: u64) -> Option<u64> {
        let index = usize::try_from(*self.by_digest.get(&key_of(digest))?).ok()?;
        self.entries.get(index).filter(|entry| entry.digest == *digest && entry.len == len).map(|entry| entry.offset)
    }

    /// True where a streamed file of that length is there.
    pub(super) fn has_large(&self, len: u64) -> bool {
        self.large_lens.contains(&len)
    }

    /// Takes the next file.
    pub(super) fn push(&mut self, packed: Packed) {
        let index = u32::try_from(self.entries.len()).unwrap_or(u32::MAX);
        self.by_digest.entry(key_of(&packed.digest)).or_insert(index);
        if packed.len > limits::WHOLE_FILE_BYTES {
            self.large_lens.insert(packed.len);
        }
        self.entries.push(packed);
    }

    /// All files in the order of their uids.
    pub(super) fn entries(&self) -> &[Packed] {
        &self.entries
    }
}

fn key_of(digest: &Digest) -> u64 {
    digest.as_bytes().first_chunk().map_or(0, |head| u64::from_le_bytes(*head))
}
