//! The JSON documents of an archive: identity, manifests and tombstones.
//!
//! Every document is two lines: a head that says what it is and proves the body, and the body.
//!
//! ```text
//! {"des":"manifest","version":1,"blake3":"<64 hex digits: BLAKE3 of the second line without its newline>"}
//! {...the body...}
//! ```
//!
//! So a flipped bit anywhere is an error, an unknown version is told from damage, and `tail -n 1` gives plain JSON.

mod debt;
mod identity;
mod manifest;
mod tombstone;

pub use debt::{DebtTask, ZoneDebt};
pub use identity::Identity;
pub use manifest::{CondemnedObject, GroupNumbers, Manifest, ManifestShard, RetiredObject, TRANSACTIONS_KEPT};
pub use tombstone::{FoldedBatch, FoldedTombstones, TOMBSTONES_PER_BATCH_MAX, Tombstone, TombstoneBatch, WholeShard};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::FormatError;

/// The largest document that is read, in bytes: a manifest of 200,000 shards or 400,000 folded tombstones.
pub const DOCUMENT_LEN_MAX: u64 = 128 << 20;

/// A kind of document.
pub trait Document: Serialize + DeserializeOwned {
    /// What the head calls it.
    const KIND: &'static str;
    /// The version that is written and the newest that is read.
    const VERSION: u32;

    /// Checks what the types do not say.
    fn check(&self) -> Result<(), FormatError>;
}

#[derive(Serialize, Deserialize)]
struct Head {
    des: String,
    version: u32,
    #[serde(default)]
    blake3: String,
}

/// Writes a document.
pub fn encode<D: Document>(document: &D) -> Result<Vec<u8>, FormatError> {
    let unwritable = |error: serde_json::Error| FormatError::damaged(D::KIND, format!("cannot be written: {error}"));
    let body = serde_json::to_vec(document).map_err(unwritable)?;
    let head = Head { des: D::KIND.to_owned(), version: D::VERSION, blake3: blake3::hash(&body).to_hex().to_string() };
    let mut bytes = serde_json::to_vec(&head).map_err(unwritable)?;
    bytes.push(b'\n');
    bytes.extend_from_slice(&body);
    bytes.push(b'\n');
    Ok(bytes)
}

/// Reads a document: its kind, its version, its digest and its own checks must all be right.
pub fn decode<D: Document>(bytes: &[u8]) -> Result<D, FormatError> {
    let len = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    if len > DOCUMENT_LEN_MAX {
        return Err(FormatError::beyond_limits(D::KIND, format!("{len} bytes, at most {DOCUMENT_LEN_MAX} are read")));
    }
    let damaged = |detail: String| FormatError::damaged(D::KIND, detail);
    let end = bytes.iter().position(|byte| *byte == b'\n').ok_or_else(|| damaged("no second line".to_owned()))?;
    let (head, rest) = bytes.split_at(end);
    let head: Head = serde_json::from_slice(head).map_err(|error| damaged(format!("first line: {error}")))?;
    if head.des != D::KIND {
        return Err(FormatError::foreign(D::KIND, format!("it calls itself {:?}", head.des)));
    }
    if head.version != D::VERSION {
        return Err(FormatError::too_new(D::KIND, format!("version {}, this is for {}", head.version, D::VERSION)));
    }
    let body = rest
        .strip_prefix(b"\n")
        .and_then(|body| body.strip_suffix(b"\n"))
        .ok_or_else(|| damaged("the last newline is missing".to_owned()))?;
    if blake3::hash(body).to_hex().as_str() != head.blake3 {
        return Err(damaged("its digest does not match".to_owned()));
    }
    let document: D = serde_json::from_slice(body).map_err(|error| damaged(error.to_string()))?;
    document.check()?;
    Ok(document)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ArchiveId, BucketBits, Timestamp};

    fn identity() -> Identity {
        Identity::new(ArchiveId::from_bytes([9; 16]), BucketBits::new(8).unwrap(), Timestamp::from_micros(0))
    }

    #[test]
    fn a_document_reads_back_as_it_is_written() {
        let bytes = encode(&identity()).unwrap();
        assert_eq!(decode::<Identity>(&bytes), Ok(identity()));
    }

    #[test]
    fn every_flipped_bit_and_every_truncation_of_a_document_is_refused() {
        let bytes = encode(&identity()).unwrap();
        for at in 0..bytes.len() {
            assert!(decode::<Identity>(&bytes[..at]).is_err(), "cut at {at}");
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                assert!(decode::<Identity>(&flipped).is_err(), "bit {bit} of byte {at}");
            }
        }
    }

    #[test]
    fn another_version_is_told_from_damage() {
        let text = String::from_utf8(encode(&identity()).unwrap()).unwrap();
        let newer = text.replace("\"version\":1", "\"version\":2");
        assert!(matches!(decode::<Identity>(newer.as_bytes()), Err(FormatError::TooNew { .. })));
        let other = text.replace("\"archive\",\"version\"", "\"manifest\",\"version\"");
        assert!(matches!(decode::<Identity>(other.as_bytes()), Err(FormatError::Foreign { .. })));
    }
}
