//! `des.json`: what the archive is; written once.

use serde::{Deserialize, Serialize};

use super::Document;
use crate::{ArchiveId, BucketBits, FormatError, Timestamp};

/// The newest layout of an archive that is read.
const LAYOUT: u32 = 1;

/// The identity of an archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// The archive's own identity.
    pub archive: ArchiveId,
    layout: u32,
    n_bits: u8,
    created: Timestamp,
    /// Absent where it is false.
    #[serde(default, skip_serializing_if = "is_false")]
    adopted: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
const fn is_false(flag: &bool) -> bool {
    !*flag
}

impl Identity {
    /// The identity of a new archive.
    pub const fn new(archive: ArchiveId, bits: BucketBits, created: Timestamp) -> Self {
        Self { archive, layout: LAYOUT, n_bits: bits.get(), created, adopted: false }
    }

    /// The same of an archive that was the ancestor's: its manifests list shards beside `des.json`.
    #[must_use]
    pub const fn adopted(mut self) -> Self {
        self.adopted = true;
        self
    }

    /// True for an archive that was the ancestor's.
    pub const fn is_adopted(&self) -> bool {
        self.adopted
    }

    /// How many bits of a bucket number it uses.
    pub fn bits(&self) -> BucketBits {
        BucketBits::new(self.n_bits).unwrap_or_default()
    }

    /// When it was created.
    pub const fn created(&self) -> Timestamp {
        self.created
    }
}

impl Document for Identity {
    const KIND: &'static str = "archive";
    const VERSION: u32 = 1;

    fn check(&self) -> Result<(), FormatError> {
        if self.layout != LAYOUT {
            return Err(FormatError::too_new(Self::KIND, format!("layout {}, this is for {LAYOUT}", self.layout)));
        }
        match BucketBits::new(self.n_bits) {
            Some(_) => Ok(()),
            None => Err(FormatError::damaged(Self::KIND, format!("n_bits is {}, at most 16 is possible", self.n_bits))),
        }
    }
}
