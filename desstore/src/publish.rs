//! Filling an archive: a finished shard becomes part of it by one commit of the day's manifest.
//!
//! The steps and what is safe when any of them dies are in `docs/protocol.md`. In short: the empty manifest of
//! the day, then the object under a name nobody else has, then reading it back, then the commit. Only then is a file
//! published.

pub(crate) mod change;
mod commit;
mod expire;
mod rebuild;
mod survey;
mod swap;
pub(crate) mod upload;

use std::path::PathBuf;
use std::sync::Arc;

use desfmt::document::{self, Identity, Manifest};
use desfmt::{ArchiveId, BucketBits, Date, Group, ShardName, Uid, layout, v3};

use change::Decision;
pub use expire::ExpiringDay;
pub use rebuild::{RebuildOptions, Rebuilt};
pub use survey::{Survey, UidState};
pub use swap::Swapped;

use crate::archive::{Archive, ArchiveError, Day, ReadOptions, read_identity};
use crate::clock::{Clock, Randomness};
use crate::error::{StoreError, StoreErrorKind};
use crate::gc::BigFileUse;
use crate::probe::{Conditions, UNCONDITIONAL, clear_probes, probe};
use crate::store::{ObjectStore, Payload};

/// The right to change an archive. Share it by [`Arc`]; any number of them may work on one archive.
#[derive(Debug)]
pub struct ArchiveWriter {
    pub(crate) store: Arc<dyn ObjectStore>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) random: Arc<dyn Randomness>,
    pub(crate) archive: Arc<Archive>,
    commits: commit::CommitQueues,
    /// Which shard of the ancestor names which big files.
    pub(crate) big_files: tokio::sync::Mutex<BigFileUse>,
}

/// A shard that lies finished and verified in a local file.
#[derive(Debug)]
pub struct BuiltShard {
    /// The group of all its uids.
    pub group: Group,
    /// The file: the body and behind it [`v3::FOOTER_LEN`] bytes that this module writes. Nobody else may change it.
    pub file: PathBuf,
    /// What is known of the body.
    pub body: v3::Body,
    /// Its uids, ascending.
    pub uids: Arc<[Uid]>,
    /// The plain size of its files, in bytes; shared contents count each time.
    pub plain_len: u64,
    /// The survey that its uids were found absent by.
    pub survey: Survey,
}

/// What became of a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is part of the archive now.
    Published {
        /// Its name.
        name: ShardName,
        /// The birth serial of its entries.
        serial: u32,
        /// True when an earlier run had already uploaded the very same object.
        adopted: bool,
    },
    /// Somebody else has published or deleted some of its uids meanwhile, so it was given up: survey again and build a
    /// shard without them.
    Overlap,
}

/// How often a step that others can win is tried.
const ATTEMPTS_MAX: u32 = 12;

/// How often a store is probed: who creates the archive at the same time may disturb a probe.
const PROBES_MAX: u32 = 3;

impl ArchiveWriter {
    /// Opens an archive for writing; `None` where there is none yet.
    pub async fn open(
        store: Arc<dyn ObjectStore>,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Randomness>,
    ) -> Result<Option<Self>, ArchiveError> {
        let Some(identity) = read_identity(store.as_ref()).await? else { return Ok(None) };
        Ok(Some(Self::new(store, clock, random, identity)))
    }

    /// Creates an archive, or opens the one that somebody else has created meanwhile.
    ///
    /// Refused on a store whose conditional writes do not work, since two writers could then overwrite each other.
    pub async fn create(
        store: Arc<dyn ObjectStore>,
        bits: BucketBits,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Randomness>,
    ) -> Result<Self, ArchiveError> {
        if let Some(identity) = prove_conditions(store.as_ref(), random.as_ref()).await? {
            return Ok(Self::new(store, clock, random, identity));
        }
        let mut id = [0; 16];
        random.fill(&mut id);
        let identity = Identity::new(ArchiveId::from_bytes(id), bits, clock.now());
        let key = layout::identity();
        let body = document::encode(&identity).map_err(|error| ArchiveError::damaged(&key, error))?;
        let created = store.put_if_absent(&key, Payload::Bytes(body.into())).await;
        match created {
            Ok(_) => Ok(Self::new(store, clock, random, identity)),
            // Created by somebody else, or by this very call with the answer lost: what is there is the truth.
            Err(error) if is_unsettled(&error) => match read_identity(store.as_ref()).await? {
                Some(identity) => Ok(Self::new(store, clock, random, identity)),
                None => Err(error.into()),
            },
            Err(error) => Err(error.into()),
        }
    }

    fn new(
        store: Arc<dyn ObjectStore>,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Randomness>,
        identity: Identity,
    ) -> Self {
        let archive = Archive::new(
            Arc::clone(&store),
            ReadOptions { memory_bytes: 64 << 20, ..ReadOptions::default() },
            Arc::clone(&clock),
            Arc::clone(&random),
            (identity, false),
        );
        let (archive, commits) = (Arc::new(archive), commit::CommitQueues::default());
        Self { store, clock, random, archive, commits, big_files: tokio::sync::Mutex::default() }
    }

    /// The archive's identity.
    pub fn identity(&self) -> &Identity {
        self.archive.identity()
    }

    /// The archive, to read from.
    pub fn archive(&self) -> &Arc<Archive> {
        &self.archive
    }

    /// Makes a shard part of the archive. Needs the manifest, one listing, one upload, one reading back and one commit with a
    /// listing of the day's deletions.
    ///
    /// On an error the shard may or may not have been published; surveying its uids tells. Not to be cancelled between
    /// its first poll and its end: an object could be left that only a later run adopts.
    pub async fn publish(&self, shard: &BuiltShard) -> Result<Outcome, ArchiveError> {
        // Held until the commit, which then reads only the deletions that are new.
        let _deletions = self.archive.tombstone_set(shard.group.date);
        self.ensure_day(shard.group.date).await?;
        self.refuse_deleted(shard).await?;
        for _ in 0..ATTEMPTS_MAX {
            let claim = self.claim(shard).await?;
            if !self.reads_back(shard.into(), &claim).await? {
                tracing::error!(key = %claim.key, "the object read back is not what was uploaded; its name is given up");
                self.condemn(shard.group.date, &claim, "it did not read back as it was uploaded").await?;
                continue;
            }
            match self.commit(shard, &claim).await? {
                Decision::Committed(serial) => {
                    return Ok(Outcome::Published { name: claim.name, serial, adopted: claim.adopted });
                }
                Decision::Overlap | Decision::Deleted => return Ok(Outcome::Overlap),
                Decision::Terminal | Decision::Recompare | Decision::Stale => {}
            }
        }
        let reason = format!("no name for a shard of {} could be won in {ATTEMPTS_MAX} attempts", shard.group);
        Err(ArchiveError::refused(reason))
    }

    /// A shard is known by its content: one that retention has deleted would be published and never be seen.
    async fn refuse_deleted(&self, shard: &BuiltShard) -> Result<(), ArchiveError> {
        let date = shard.group.date;
        let is_deleted = |day: Arc<Day>| day.tombstones.holds_shard(shard.body.shard_id());
        if !self.archive.day(date).await?.is_some_and(is_deleted) {
            return Ok(());
        }
        let reason =
            format!("a shard of {date} with the same files was deleted whole; leave them out, they cannot come back");
        Err(ArchiveError::refused(reason))
    }

    /// Creates the empty manifest of a day before the first object of that day.
    async fn ensure_day(&self, date: Date) -> Result<(), ArchiveError> {
        if self.archive.day(date).await?.is_some() {
            return Ok(());
        }
        let key = layout::manifest(date);
        let body = document::encode(&Manifest::empty(date)).map_err(|error| ArchiveError::damaged(&key, error))?;
        match self.store.put_if_absent(&key, Payload::Bytes(body.into())).await {
            Ok(_) => {}
            Err(error) if is_unsettled(&error) => drop(self.store.head(&key).await?),
            Err(error) => return Err(error.into()),
        }
        self.archive.forget_day(date).await;
        Ok(())
    }
}

/// True when a conditional create has failed in a way that leaves open what is there now.
pub(crate) const fn is_unsettled(error: &StoreError) -> bool {
    matches!(error.kind, StoreErrorKind::AlreadyExists | StoreErrorKind::Unavailable | StoreErrorKind::Throttled)
}

/// Proves that a store honours conditions, and takes away what probes of dead processes have left. The identity, where
/// somebody else has created the archive meanwhile.
///
/// Taking away may hit the probe of somebody else that is under way: that one then proves nothing and is made again.
async fn prove_conditions(store: &dyn ObjectStore, random: &dyn Randomness) -> Result<Option<Identity>, ArchiveError> {
    let mut failure = ArchiveError::refused(UNCONDITIONAL);
    for _ in 0..PROBES_MAX {
        let found = probe(store, random).await;
        if let Some(identity) = read_identity(store).await? {
            return Ok(Some(identity));
        }
        match found {
            Ok(Conditions::Honoured) => {
                clear_probes(store).await?;
                return Ok(None);
            }
            Ok(Conditions::CreateOnly | Conditions::Ignored) => {}
            Err(error) => failure = error,
        }
    }
    Err(failure)
}
