//! Archives of the Python ancestor: shards of version 1 and 2, big files, flat names and sidecars.
//!
//! ```text
//! HEADER (8) | payloads, back to back | INDEX | FOOTER (12)
//! ```
//!
//! Reading is total: the index is checked whole before anything is believed, and nothing in a file decides how much
//! memory is taken. The format has no checksums, so what can be checked is bounds and relations, not bytes.
//! Writing is pure: the caller moves the bytes. The specification is `docs/format-legacy.md`.

mod big_file;
mod cursor;
mod envelope;
mod index;
mod json;
mod names;
mod payload;
mod sidecar;
mod writer;

pub use big_file::{BIG_FILE_THRESHOLD, BIG_FILES_PREFIX, BigFileHash, BigFileHasher, is_big_file};
pub use envelope::{LegacyFooter, LegacyHeader, LegacyVersion};
pub use index::{INDEX_LEN_MAX, LegacyEntry, LegacyIndex, Location};
pub use names::{LegacyName, LegacyNameError};
pub use payload::{
    COMPRESSED_PLAIN_LEN_MAX, LegacyCodec, LegacyCompression, PayloadEncoder, check_compressed_len, decode_payload,
    is_never_compressed,
};
pub use sidecar::{SIDECAR_LEN_MAX, Sidecar, SidecarTombstone};
pub use writer::{LegacyWriter, StoredPayload};
