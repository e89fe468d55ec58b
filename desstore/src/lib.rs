//! Where bytes live and how a DES archive is read and changed.
//!
//! [`ObjectStore`] is the seam to storage; clock and randomness are passed in as [`Clock`] and [`Randomness`].

mod clock;
pub mod conformance;
mod error;
pub mod fault;
mod local;
mod memory;
mod store;

pub use clock::{Clock, ManualClock, Randomness, SeededRandom, SystemClock, SystemRandom};
pub use error::{StoreError, StoreErrorKind};
pub use local::LocalStore;
pub use memory::MemoryStore;
pub use store::{Depth, ETag, Fetched, ObjectMeta, ObjectStore, Page, Payload, Receipt, list_all};
