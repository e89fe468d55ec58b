//! Where bytes live and how a DES archive is read and changed.
//!
//! [`ObjectStore`] is the seam to storage; [`Archive`] reads and deletes, [`ArchiveWriter`] fills. Clock and randomness are
//! passed in as [`Clock`] and [`Randomness`].

mod adopt;
mod archive;
mod cache;
mod clock;
pub mod config;
pub mod conformance;
mod deletions;
mod disk_cache;
mod error;
pub mod fault;
#[cfg(test)]
mod fixture;
mod fold;
pub mod gc;
mod inventory;
mod journal;
mod local;
mod location;
mod memory;
mod object;
pub mod observe;
mod probe;
mod publish;
pub mod repack;
mod rules;
mod s3;
#[cfg(test)]
mod simulation;
mod single_writer;
pub mod stack;
mod store;
pub mod values;
pub mod zones;

pub use adopt::{Adopted, adopt};
pub use archive::{
    AheadStats, Archive, ArchiveCacheStats, ArchiveError, CacheMetrics, CheckEvent, CheckLevel, CheckOptions, Checked,
    Deleted, Deletion, DeletionRecord, Details, ErasureReceipt, ErasureState, FileEntry, Finding, FindingKind, Holder,
    Lease, ReadOptions, Role, Sample, Standing, Totals, Verdict,
};
pub use cache::{ByteCache, CacheStats};
pub use clock::{Clock, ManualClock, Randomness, SeededRandom, SystemClock, SystemRandom};
pub use deletions::Deletions;
pub use disk_cache::{DISK_CACHE_BYTES_MIN, DiskCache, DiskCacheOptions, DiskCacheStats};
pub use error::{StoreError, StoreErrorKind};
pub use fold::{FOLD_AGE_MIN, Folded};
pub use inventory::{Held, Inventory, ReadManifest, State};
pub use journal::{Journal, JournalError};
pub use local::LocalStore;
pub use location::{
    ConnectError, Connected, Encryption, Location, LocationError, OptionError, PlacedZone, S3Location, StoreOptions,
    Surroundings, ZonedLocation,
};
pub use memory::MemoryStore;
pub use probe::{Conditions, demand_conditions, probe};
pub use publish::{
    ArchiveWriter, BuiltShard, ExpiringDay, Outcome, RebuildOptions, Rebuilt, Survey, Swapped, UidState,
};
pub use s3::S3Store;
pub use single_writer::SingleWriterStore;
pub use store::{Depth, ETag, Fetched, ObjectMeta, ObjectStore, Page, Payload, Receipt, list_all};
