//! Bytes and their meaning: identifiers, routing, names, shards and documents of a DES archive.
//!
//! Pure: no I/O, no async, no clock. Every decoder is total: any bytes give a value or a [`FormatError`], never a panic,
//! in bounded memory. The byte-level specification is `docs/format.md`.

mod digits;
pub mod document;
mod error;
mod ids;
pub mod instant;
pub mod layout;
pub mod legacy;
mod routing;
mod time;
mod uid;
pub mod v3;

pub use error::FormatError;
pub use ids::{ArchiveId, Birth, Digest, ShardId, UidHash, UidHasher};
pub use layout::{ObjectKey, ShardName};
pub use routing::{Bucket, BucketBits, Group, RoutingError, bucket_of};
pub use time::{Date, DateError, Timestamp};
pub use uid::{Uid, UidError};
pub use uuid::Uuid;
