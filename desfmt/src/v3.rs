//! Shards of format v3: writing and reading.
//!
//! ```text
//! HEADER | frames | cold pages | index pages | frame pages | dictionary | directory | FOOTER
//!                                            '------------------- tail -------------------'   large index
//!                              '-------------------------- tail --------------------------'   small index
//! '----------------------------------- body ------------------------------------'
//! ```
//!
//! The plain contents of the files, in the order of their uids, are cut into *frames*, each compressed on its own.
//! An *address* is the number of a frame times 2^20 plus an offset within its plain bytes; a frame holds at most so
//! many. A file up to that size lies within one frame; a larger one begins a frame and fills all of its frames but
//! the last, so its addresses are contiguous. An entry is a range of addresses, and equal contents can share one.
//!
//! Whoever opens a shard reads its tail, in one request, and has a [`ShardIndex`]: directories to find the page of a
//! uid, a position or a birth number, and the page of a frame. Digests and metadata lie in *cold* pages of their own.
//! Everything is covered by a CRC-32C where it is used, and by the BLAKE3 of the body as a whole. The name of a shard
//! stands in its footer only, so the same files give the same body under any name.
//!
//! The byte-level specification is `docs/format.md`.

#![cfg_attr(test, allow(clippy::arithmetic_side_effects, reason = "a test that overflows fails, as it should"))]

mod bits;
mod check;
mod codec;
mod cold_page;
mod column;
mod cursor;
mod cutter;
mod directory;
mod entry;
mod footer;
mod frame;
mod frame_page;
mod header;
mod index_page;
pub mod limits;
mod lineage;
mod reader;
mod texts;
mod writer;

pub use check::{CheckDepth, CheckError, Report, Seen, ShardSource, check_object, check_shard};
pub use codec::{Codec, Dictionary};
pub use cold_page::ColdPage;
pub use cutter::{FrameCutter, FrameSize, Placement};
pub use entry::{Entry, Mtime, NewEntry};
pub use footer::{FOOTER_LEN, Footer};
pub use frame::{EncodedFrame, Encoding, FrameEncoder, FrameRef};
pub use frame_page::FramePage;
pub use header::{Features, HEADER_LEN, Header};
pub use index_page::IndexPage;
pub use lineage::{Lineage, Parent};
pub use reader::{PageNumber, ShardIndex};
pub use writer::{Body, BodySettings, BodyWriter};

/// Why a shard cannot be built as asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// More than one shard can hold: the caller must split.
    #[error("{what}: {figure} where {limit} is the most")]
    BeyondLimits {
        /// What there is too much of.
        what: &'static str,
        /// How much.
        figure: u64,
        /// How much there may be.
        limit: u64,
    },
    /// The caller broke a rule of the format.
    #[error("an entry or frame that no shard can have: {detail}")]
    Invalid {
        /// Which rule.
        detail: String,
    },
    /// The compressor refused its settings or failed.
    #[error("compressor: {detail}")]
    Compressor {
        /// What it said.
        detail: String,
    },
}

impl BuildError {
    pub(crate) fn invalid(detail: impl Into<String>) -> Self {
        Self::Invalid { detail: detail.into() }
    }
}

/// Widens a length or count of things in memory.
pub(crate) fn to_u64(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

/// Narrows a length or number; what does not fit becomes larger than anything that can be there.
pub(crate) fn to_usize(len: u64) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;
