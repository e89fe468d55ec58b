//! How far the erasure of one file has come: asked for, hidden, rewritten, gone. Told from the tombstones, the manifest and
//! a look into every object of the file's group, whether it is live, retired, condemned or not listed at all.

use std::collections::BTreeMap;
use std::time::Duration;

use desfmt::document::{Tombstone, WholeShard};
use desfmt::legacy::{BIG_FILES_PREFIX, LegacyName};
use desfmt::{Date, FormatError, Group, ObjectKey, Timestamp, Uid, layout, v3};

use crate::archive::error::ArchiveError;
use crate::archive::legacy::legacy_day_shard;
use crate::archive::records::DeletionRecord;
use crate::archive::{Archive, Day, DayShard, OpenShard};
use crate::error::StoreErrorKind;
use crate::store::{Depth, list_all};

/// How many objects a group may have.
const GROUP_OBJECTS_MAX: usize = 1_000_000;

/// What an object is to its manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// It is read.
    Live,
    /// It was replaced, and is deleted after the grace period.
    Retired,
    /// It never became live, and is deleted after the grace period.
    Condemned,
    /// No manifest knows it.
    Unlisted,
}

/// An object that still holds a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The object.
    pub key: ObjectKey,
    /// What it is.
    pub role: Role,
    /// Since when it is retired or condemned, by the store's clock.
    pub since: Option<Timestamp>,
}

/// How far an erasure has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ErasureState {
    /// Nobody has asked for it.
    NotRequested,
    /// A tombstone is durable; other hosts hide the file when they look the next time.
    Requested,
    /// Every host that keeps to the longest `ttl` asked about hides it; a live object holds its bytes.
    Hidden,
    /// No live object holds its bytes; another one does.
    Rewritten,
    /// No object holds its bytes.
    Gone,
}

/// Proof of how far the erasure of a file has come.
#[derive(Debug, Clone)]
pub struct ErasureReceipt {
    /// The day of the file.
    pub date: Date,
    /// Its uid.
    pub uid: Uid,
    /// The hash of it that outlives it.
    pub uid_hash: desfmt::UidHash,
    /// Who asked, the first one first.
    pub requests: Vec<Tombstone>,
    /// Deletions of whole shards that hold it.
    pub whole_shards: Vec<WholeShard>,
    /// True when its record was reduced to a hash, which is done after proof.
    pub is_reduced: bool,
    /// The objects that hold its bytes.
    pub holders: Vec<Holder>,
    /// Objects of its group that could not be looked into, and why.
    pub unexamined: Vec<(String, String)>,
    /// How many objects were looked into.
    pub examined: u64,
    /// When, by the store's clock.
    pub at: Timestamp,
    /// How far it has come. Never further than what could be looked into proves.
    pub state: ErasureState,
}

/// What the record of a deletion needs to be in force everywhere.
const TTL_ASSUMED: Duration = Duration::from_mins(1);

impl Archive {
    /// Says how far the erasure of a file has come, as it is now. Costs a listing of its group's objects and a few requests
    /// for each, and one for each record of its day that is not folded.
    pub async fn erasure(&self, date: Date, uid: &Uid) -> Result<ErasureReceipt, ArchiveError> {
        self.refuse_legacy()?;
        let day = self.day_now(date).await?;
        let uid_hash = self.uid_hasher.hash(uid.as_str());
        let (mut requests, mut shards, mut is_reduced) = (Vec::new(), Vec::new(), false);
        self.deletions(date, &mut |record| match record {
            DeletionRecord::File { tombstone, .. } if tombstone.uid_hash == uid_hash => requests.push(tombstone),
            DeletionRecord::File { .. } => {}
            DeletionRecord::Shard { record, .. } => shards.push(record),
            DeletionRecord::Erased { uid_hash: erased, .. } => is_reduced |= erased == uid_hash,
        })
        .await?;
        requests.sort_by_key(|one| one.at);
        let mut receipt = ErasureReceipt {
            date,
            uid: uid.clone(),
            uid_hash,
            requests,
            whole_shards: Vec::new(),
            is_reduced,
            holders: Vec::new(),
            unexamined: Vec::new(),
            examined: 0,
            at: self.store.time().await?,
            state: ErasureState::NotRequested,
        };
        self.look_into_objects(day.as_deref(), &shards, &mut receipt).await?;
        receipt.state = state_of(&receipt);
        if receipt.state == ErasureState::Gone && !receipt.is_reduced && self.may_keep_big_files().await? {
            receipt.state = ErasureState::Rewritten;
            let why = "the ancestor kept contents there without their uids; des-repack gc proves when none is left";
            receipt.unexamined.push((format!("{BIG_FILES_PREFIX}/"), why.to_owned()));
        }
        Ok(receipt)
    }

    /// True where big files of the ancestor are left, of which only their digests are known.
    async fn may_keep_big_files(&self) -> Result<bool, ArchiveError> {
        if !self.identity.is_adopted() {
            return Ok(false);
        }
        let folder = format!("{BIG_FILES_PREFIX}/");
        Ok(!self.store.list(&folder, Depth::Recursive, None).await?.objects.is_empty())
    }

    async fn look_into_objects(
        &self,
        day: Option<&Day>,
        shards: &[WholeShard],
        receipt: &mut ErasureReceipt,
    ) -> Result<(), ArchiveError> {
        let group = self.group_of(receipt.date, &receipt.uid)?;
        for (key, (role, since)) in self.objects_of(day, &group).await? {
            match self.object_holding(&key, &receipt.uid).await {
                Ok(Some((shard, holds))) => {
                    receipt.examined = receipt.examined.saturating_add(1);
                    if holds {
                        receipt.whole_shards.extend(shards.iter().filter(|one| one.shard == shard.id).cloned());
                        receipt.holders.push(Holder { key, role, since });
                    }
                }
                Ok(None) if role == Role::Live => {
                    receipt.unexamined.push((key.to_string(), "it is live, and it is missing".to_owned()));
                }
                Ok(None) => {}
                Err(error @ (ArchiveError::Damaged { .. } | ArchiveError::Inconsistent { .. })) => {
                    receipt.unexamined.push((key.to_string(), super::check::in_words(&error)));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Every object that may hold files of a group, whatever the manifest makes of it. One listing.
    async fn objects_of(
        &self,
        day: Option<&Day>,
        group: &Group,
    ) -> Result<BTreeMap<ObjectKey, (Role, Option<Timestamp>)>, ArchiveError> {
        let mut objects = BTreeMap::new();
        let prefix = format!("{}{group}_", layout::shards_prefix(group.date));
        for object in list_all(self.store.as_ref(), &prefix, Depth::Recursive, GROUP_OBJECTS_MAX).await? {
            objects.insert(object.key, (Role::Unlisted, None));
        }
        if let Some((manifest, _)) = day.and_then(|day| day.manifest.as_ref()) {
            let flat = LegacyName::prefix(group);
            let of_group = |key: &ObjectKey| key.as_str().starts_with(&prefix) || key.as_str().starts_with(&flat);
            for one in manifest.condemned.iter().filter(|one| of_group(&one.key)) {
                objects.insert(one.key.clone(), (Role::Condemned, Some(one.at)));
            }
            for one in manifest.retired.iter().filter(|one| of_group(&one.key)) {
                objects.insert(one.key.clone(), (Role::Retired, Some(one.at)));
            }
            for one in manifest.shards.iter().filter(|one| one.bucket == group.bucket.number()) {
                objects.insert(one.key.clone(), (Role::Live, None));
            }
        }
        Ok(objects)
    }

    /// How far the erasures of files have come for which a tombstone is known, each with its time. As receipts say it, at
    /// the cost of one listing for each group and a few requests for each object in it.
    pub async fn erasure_states(
        &self,
        date: Date,
        asked: &[(Uid, Timestamp)],
    ) -> Result<Vec<ErasureState>, ArchiveError> {
        self.refuse_legacy()?;
        let (day, now) = (self.day_now(date).await?, self.store.time().await?);
        let mut groups = BTreeMap::<Group, Vec<usize>>::new();
        for (at, (uid, _)) in asked.iter().enumerate() {
            groups.entry(self.group_of(date, uid)?).or_default().push(at);
        }
        let furthest = if self.may_keep_big_files().await? { ErasureState::Rewritten } else { ErasureState::Gone };
        let mut states = vec![furthest; asked.len()];
        for (group, members) in groups {
            for (key, (role, _)) in self.objects_of(day.as_deref(), &group).await? {
                let found = match self.open_object(&key).await {
                    Ok((_, open)) => Some(open),
                    Err(ArchiveError::Store(error)) if error.kind == StoreErrorKind::NotFound && role != Role::Live => {
                        continue;
                    }
                    // It may hold any of them.
                    Err(ArchiveError::Damaged { .. } | ArchiveError::Inconsistent { .. }) => None,
                    Err(error) => return Err(error),
                };
                for at in &members {
                    let (Some((uid, since)), Some(state)) = (asked.get(*at), states.get_mut(*at)) else { continue };
                    let holds = match &found {
                        Some(open) => self.holds(open, uid.as_str()).await?,
                        None => true,
                    };
                    if holds {
                        let is_live = role == Role::Live || found.is_none();
                        *state = (*state).min(held(is_live, now.since(*since)));
                    }
                }
            }
        }
        Ok(states)
    }

    /// Whether an object holds a uid, deleted or not; `None` when there is no such object.
    async fn object_holding(&self, key: &ObjectKey, uid: &Uid) -> Result<Option<(DayShard, bool)>, ArchiveError> {
        match self.open_object(key).await {
            Ok((shard, open)) => {
                let holds = self.holds(&open, uid.as_str()).await?;
                Ok(Some((shard, holds)))
            }
            Err(ArchiveError::Store(error)) if error.kind == StoreErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Opens an object by what it says of itself, whatever manifests say. Two requests; nothing is kept.
    pub(crate) async fn open_object(&self, key: &ObjectKey) -> Result<(DayShard, OpenShard), ArchiveError> {
        if layout::is_flat(key) {
            return self.open_flat_object(key).await;
        }
        let footer_len = u64::try_from(v3::FOOTER_LEN).unwrap_or(u64::MAX);
        let fetched = self.store.get_tail(key, footer_len).await?;
        let footer = v3::Footer::decode(&fetched.bytes).map_err(|error| ArchiveError::damaged(key, error))?;
        if footer.archive != self.identity.archive {
            let detail = format!("it belongs to archive {}", footer.archive);
            return Err(ArchiveError::damaged(key, FormatError::foreign("shard", detail)));
        }
        let shard = DayShard {
            key: key.clone(),
            id: footer.shard_id,
            bucket: footer.name.group.bucket.number(),
            len: fetched.meta.len,
            tail_len: footer.tail_len,
            entries: footer.entries,
            uid_min: None,
            uid_max: None,
            // Nobody asks for the births of what is found.
            serials: Vec::new(),
        };
        let (open, _) = self.open_paged_shard(&shard).await?;
        Ok((shard, open))
    }
}

impl Archive {
    /// The same for a shard of the ancestor, whose identity only its manifest knows.
    async fn open_flat_object(&self, key: &ObjectKey) -> Result<(DayShard, OpenShard), ArchiveError> {
        let Ok(name) = LegacyName::parse(key.as_str(), self.bits()) else {
            return Err(ArchiveError::inconsistent(key, "it is not named as a shard of the ancestor"));
        };
        let shard = legacy_day_shard(&name, &self.store.head(key).await?, 1);
        let (open, _) = self.open_legacy_shard(&shard).await?;
        Ok((shard, open))
    }
}

fn state_of(receipt: &ErasureReceipt) -> ErasureState {
    let first = receipt.requests.first().map(|one| one.at);
    let asked = first.into_iter().chain(receipt.whole_shards.iter().map(|one| one.at)).min();
    match asked {
        None if receipt.is_reduced && receipt.holders.is_empty() && receipt.unexamined.is_empty() => ErasureState::Gone,
        None if receipt.is_reduced => ErasureState::Hidden,
        None => ErasureState::NotRequested,
        Some(_) if receipt.holders.is_empty() && receipt.unexamined.is_empty() => ErasureState::Gone,
        Some(at) => {
            // What could not be looked into may be what is read.
            let is_live = receipt.holders.iter().any(|one| one.role == Role::Live) || !receipt.unexamined.is_empty();
            held(is_live, receipt.at.since(at))
        }
    }
}

/// How far the erasure of a file has come that an object still holds.
fn held(is_live: bool, age: Duration) -> ErasureState {
    match (is_live, age >= TTL_ASSUMED) {
        (false, _) => ErasureState::Rewritten,
        (true, true) => ErasureState::Hidden,
        (true, false) => ErasureState::Requested,
    }
}
