//! What every backend must do, as checks that any of them can run: the contract of [`ObjectStore`] in code.
//!
//! Each check works on a store of its own (or a prefix of its own in a shared one) and says in words what it found wrong.

mod listings;
mod races;
mod reads;
mod writes;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use desfmt::ObjectKey;

use crate::error::{StoreError, StoreErrorKind};
use crate::store::{ObjectStore, Payload};

/// What a store did that it must not do.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{check}: {detail}")]
pub struct Violation {
    /// The check that found it.
    pub check: &'static str,
    detail: String,
    #[source]
    source: Option<StoreError>,
}

/// What a check works with.
#[derive(Debug, Clone)]
struct Ground {
    store: Arc<dyn ObjectStore>,
    scratch: PathBuf,
}

/// A check that failed, before it is known which one it was.
struct Fault(String, Option<StoreError>);

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self("an operation failed that must succeed".to_owned(), Some(error))
    }
}

impl From<std::io::Error> for Fault {
    fn from(error: std::io::Error) -> Self {
        Self(format!("the scratch directory: {error}"), None)
    }
}

type Checked = Result<(), Fault>;

/// Fails the check unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($detail:tt)+) => {
        if !$condition {
            return Err(crate::conformance::Fault(format!($($detail)+), None));
        }
    };
}
use ensure;

macro_rules! run_all {
    ($make:ident, $scratch:ident, [$($module:ident :: $check:ident,)+]) => {
        $(
            let ground = Ground { store: $make(), scratch: $scratch.to_owned() };
            run_one(stringify!($check), $module::$check(ground)).await?;
        )+
    };
}

/// In what a store may differ from others without harm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traits {
    /// Whether every write makes a version that never was before. In a bucket the version is a hash of the content, so
    /// equal content is the same version again. `docs/protocol.md` says why that is safe.
    pub every_write_is_a_version: bool,
    /// Whether an object can be replaced if it is still the version that is named. Where not, one writer at a time can work.
    pub replaces_if_unchanged: bool,
}

impl Traits {
    /// Of a store that keeps all promises.
    pub const STRICT: Self = Self { every_write_is_a_version: true, replaces_if_unchanged: true };

    /// Of a bucket.
    pub const BUCKET: Self = Self { every_write_is_a_version: false, replaces_if_unchanged: true };

    /// Of a bucket on a server that refuses or ignores *replace if unchanged*.
    pub const BUCKET_OF_ONE_WRITER: Self = Self { replaces_if_unchanged: false, ..Self::BUCKET };
}

/// Runs all checks on a store that keeps all promises; see [`run_with`].
pub async fn run(make: impl Fn() -> Arc<dyn ObjectStore> + Send, scratch: &Path) -> Result<(), Violation> {
    run_with(Traits::STRICT, make, scratch).await
}

/// Runs all checks that these traits allow. `make` gives an empty store, or a view of one, to each; files to be uploaded are written to `scratch`.
/// Needs tokio's runtime; with several threads the races are real.
pub async fn run_with(
    traits: Traits,
    make: impl Fn() -> Arc<dyn ObjectStore> + Send,
    scratch: &Path,
) -> Result<(), Violation> {
    if traits.every_write_is_a_version {
        run_all!(
            make,
            scratch,
            [writes::equal_content_is_another_version, writes::a_recreated_object_is_another_version,]
        );
    }
    if traits.replaces_if_unchanged {
        run_all!(
            make,
            scratch,
            [writes::an_object_is_replaced_only_in_the_version_named, races::one_of_eight_replacers_wins,]
        );
    }
    run_all!(
        make,
        scratch,
        [
            writes::an_object_is_created_once,
            writes::an_absent_object_is_not_replaced,
            writes::an_unconditional_put_creates_and_replaces,
            writes::removing_twice_succeeds,
            writes::what_is_purged_is_gone,
            writes::the_store_tells_the_time_of_its_writes,
            writes::a_large_file_becomes_an_object,
            writes::a_payload_that_cannot_be_read_writes_nothing,
            writes::unusual_keys_are_kept_apart,
            reads::ranges_are_exact_or_refused,
            reads::tails_are_as_long_as_the_object_allows,
            reads::an_empty_object_is_an_object,
            reads::a_whole_object_over_the_limit_is_refused,
            reads::an_unchanged_object_is_not_read_again,
            reads::a_missing_object_is_not_found,
            reads::a_range_of_another_version_is_refused,
            reads::writes_are_seen_at_once,
            listings::a_listing_has_all_keys_with_the_prefix,
            listings::a_direct_listing_stops_at_the_next_slash,
            listings::a_listing_tells_what_head_tells,
            listings::pages_hold_every_key_once,
            listings::writes_are_listed_at_once,
            races::one_of_eight_creators_wins,
            races::readers_never_see_part_of_an_object,
        ]
    );
    Ok(())
}

async fn run_one(check: &'static str, outcome: impl Future<Output = Checked> + Send) -> Result<(), Violation> {
    outcome.await.map_err(|Fault(detail, source)| Violation { check, detail, source })
}

impl Ground {
    async fn create(&self, text: &str, bytes: impl Into<Bytes> + Send) -> Result<crate::store::Receipt, Fault> {
        Ok(self.store.put_if_absent(&key(text)?, Payload::Bytes(bytes.into())).await?)
    }
}

fn key(text: &str) -> Result<ObjectKey, Fault> {
    ObjectKey::new(text).map_err(|error| Fault(error.to_string(), None))
}

fn payload(bytes: impl Into<Bytes>) -> Payload {
    Payload::Bytes(bytes.into())
}

/// Fails the check unless the operation failed with that kind.
fn refused<T: std::fmt::Debug>(outcome: Result<T, StoreError>, kind: StoreErrorKind, what: &str) -> Checked {
    match outcome {
        Err(error) if error.kind == kind => Ok(()),
        Err(error) => Err(Fault(format!("{what}: another error than {kind:?}"), Some(error))),
        Ok(done) => Err(Fault(format!("{what}: {done:?} instead of {kind:?}"), None)),
    }
}

/// Bytes that differ everywhere, so that a shifted read shows.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|index| u8::try_from(index.wrapping_mul(31) % 251).unwrap_or(0)).collect()
}
