//! The proof that an object is needed no longer: every file in it is deleted, or is in a live shard with the same content.

use std::fmt;

use desfmt::document::{Manifest, ManifestShard};
use desfmt::v3::Entry;
use desfmt::{Digest, ObjectKey, layout};

use crate::archive::ArchiveError;
use crate::deletions::Deletions;
use crate::error::StoreErrorKind;
use crate::object::ShardObject;
use crate::publish::ArchiveWriter;
use crate::rules::{Rule, keeps};

/// Why an object is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unproven {
    /// Its grace period is not over, or it has become live.
    NotDue,
    /// This file of it is neither deleted nor in a live shard.
    OnlyHere(String),
    /// This file of it is in a live shard with other content.
    Differs(String),
    /// It is no shard that can be read.
    Unreadable(String),
    /// It is of the ancestor, and whether others need a big file of it cannot be told.
    Ancestor(String),
    /// A live shard that should hold what is left of it cannot be used.
    SuccessorBroken(String),
}

impl fmt::Display for Unproven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotDue => f.write_str("it is not due"),
            Self::OnlyHere(uid) => write!(f, "{uid:?} is in no live shard; run des-pack again, or des-verify"),
            Self::Differs(uid) => write!(f, "{uid:?} has other content in a live shard; run des-verify"),
            Self::Unreadable(why) => write!(f, "it cannot be read ({why}); run des-verify"),
            Self::Ancestor(why) => write!(f, "it is a shard of the ancestor, and {why}"),
            Self::SuccessorBroken(why) => {
                write!(f, "the shard that replaces it cannot be used ({why}); des-repack --rollback brings it back")
            }
        }
    }
}

/// What looking into an object has shown.
#[derive(Debug)]
pub(super) struct Proof {
    pub(super) outcome: Result<(), Unproven>,
    /// True when it holds a deleted file.
    pub(super) has_dead: bool,
}

/// A file in a live shard.
#[derive(Debug)]
pub(super) struct Found<'a> {
    pub(super) listed: &'a ManifestShard,
    pub(super) entry: Entry,
    pub(super) digest: Digest,
}

impl Proof {
    pub(super) const fn of(outcome: Result<(), Unproven>, has_dead: bool) -> Self {
        Self { outcome, has_dead }
    }
}

/// A live shard that is opened when it is needed.
pub(super) struct Live<'a> {
    pub(super) listed: &'a ManifestShard,
    open: Option<ShardObject>,
}

impl<'a> Live<'a> {
    /// The live shards of a bucket that can be opened as such of the current version.
    pub(super) fn of_bucket(manifest: &'a Manifest, bucket: u16) -> Vec<Self> {
        let group = manifest.shards.iter().filter(|shard| shard.bucket == bucket && !layout::is_flat(&shard.key));
        group.map(|listed| Self { listed, open: None }).collect()
    }
}

impl ArchiveWriter {
    /// Proves that an object is needed no longer, in the light of a manifest and of the deletions as they are now.
    pub(super) async fn prove(&self, manifest: &Manifest, key: &ObjectKey) -> Result<Proof, ArchiveError> {
        if !keeps(Rule::DeletionIsProven) {
            return Ok(Proof::of(Ok(()), false));
        }
        let proof = self.look_into(manifest, key).await?;
        if matches!(proof.outcome, Err(Unproven::Unreadable(_))) {
            // What was never live is deleted when it is unreadable: so it is not for a bit that turned on the way.
            return self.look_into(manifest, key).await;
        }
        Ok(proof)
    }

    async fn look_into(&self, manifest: &Manifest, key: &ObjectKey) -> Result<Proof, ArchiveError> {
        let store = self.store.as_ref();
        if layout::is_flat(key) {
            return self.prove_flat(manifest, key).await;
        }
        let mut object = match ShardObject::open(store, key).await {
            Ok(object) => object,
            Err(ArchiveError::Store(error)) if error.kind == StoreErrorKind::NotFound => {
                return Ok(Proof::of(Ok(()), false));
            }
            Err(error @ (ArchiveError::Damaged { .. } | ArchiveError::Inconsistent { .. })) => {
                return Ok(Proof::of(Err(Unproven::Unreadable(error.to_string())), false));
            }
            Err(error) => return Err(error),
        };
        let name = object.index.footer().name;
        if layout::shard(&name) != *key {
            let why = format!("it calls itself {name}");
            return Ok(Proof::of(Err(Unproven::Unreadable(why)), false));
        }
        let deletions = Deletions::read_group(store, &name.group).await?;
        if deletions.holds_shard(object.index.footer().shard_id) {
            return Ok(Proof::of(Ok(()), true));
        }
        let bucket = name.group.bucket.number();
        let mut live = Live::of_bucket(manifest, bucket);
        if let Some(broken) = self.broken_successor(manifest, key, &mut live).await? {
            return Ok(Proof::of(Err(broken), false));
        }
        let (mut outcome, mut has_dead) = (Ok(()), false);
        for number in object.pages() {
            let page = match object.page(store, number).await {
                Ok(page) => page,
                Err(error @ ArchiveError::Damaged { .. }) => {
                    return Ok(Proof::of(Err(Unproven::Unreadable(error.to_string())), has_dead));
                }
                Err(error) => return Err(error),
            };
            for (entry, digest) in page.entries() {
                if deletions.holds(self.archive().uid_hasher().hash(entry.uid.as_str())) {
                    has_dead = true;
                } else if outcome.is_ok() {
                    outcome = self.is_elsewhere(&mut live, entry.uid.as_str(), digest).await?;
                }
            }
        }
        Ok(Proof::of(outcome, has_dead))
    }

    /// Whether a live shard that was made of a retired object cannot be used. Then the object stays even if all that it holds is
    /// deleted: without it nothing of what was merged with it could be brought back.
    async fn broken_successor(
        &self,
        manifest: &Manifest,
        key: &ObjectKey,
        live: &mut [Live<'_>],
    ) -> Result<Option<Unproven>, ArchiveError> {
        let retired = manifest.retired.iter().find(|object| object.key == *key);
        let Some(entry) = retired.and_then(|object| object.entry.as_ref()) else { return Ok(None) };
        let stems_from = |shard: &&mut Live<'_>| shard.listed.serials.iter().any(|one| entry.serials.contains(one));
        for shard in live.iter_mut().filter(stems_from) {
            match open_live(self.store.as_ref(), shard.listed).await? {
                Ok(open) => shard.open = Some(open),
                Err(broken) => return Ok(Some(broken)),
            }
        }
        Ok(None)
    }

    /// Whether a file is in a live shard, with the same content.
    async fn is_elsewhere(
        &self,
        live: &mut [Live<'_>],
        uid: &str,
        digest: Digest,
    ) -> Result<Result<(), Unproven>, ArchiveError> {
        if !keeps(Rule::ProofReadsSuccessor) && live.iter().any(|shard| shard.listed.may_hold(uid)) {
            return Ok(Ok(()));
        }
        Ok(match self.find_live(live, uid).await? {
            Ok(found) if found.digest == digest => Ok(()),
            Ok(_) => Err(Unproven::Differs(uid.to_owned())),
            Err(reason) => Err(reason),
        })
    }

    /// Looks for a file in live shards.
    pub(super) async fn find_live<'a>(
        &self,
        live: &mut [Live<'a>],
        uid: &str,
    ) -> Result<Result<Found<'a>, Unproven>, ArchiveError> {
        let store = self.store.as_ref();
        let mut outcome = Err(Unproven::OnlyHere(uid.to_owned()));
        for shard in live.iter_mut().filter(|shard| shard.listed.may_hold(uid)) {
            let open = match &mut shard.open {
                Some(open) => open,
                None => match open_live(store, shard.listed).await? {
                    Ok(open) => shard.open.insert(open),
                    Err(broken) => {
                        outcome = Err(broken);
                        continue;
                    }
                },
            };
            if let Some((entry, digest)) = open.find(store, uid).await? {
                return Ok(Ok(Found { listed: shard.listed, entry, digest }));
            }
        }
        Ok(outcome)
    }
}

/// Opens a live shard and compares it with what the manifest says.
async fn open_live(
    store: &dyn crate::store::ObjectStore,
    listed: &ManifestShard,
) -> Result<Result<ShardObject, Unproven>, ArchiveError> {
    let broken = |why: String| Ok(Err(Unproven::SuccessorBroken(why)));
    match ShardObject::open(store, &listed.key).await {
        Ok(open) if open.meta.len != listed.len || open.index.footer().shard_id != listed.shard => {
            broken(format!("{} is not what the manifest lists", open.key()))
        }
        Ok(open) => Ok(Ok(open)),
        Err(ArchiveError::Store(error)) if error.kind == StoreErrorKind::NotFound => {
            broken(format!("{} is missing", listed.key))
        }
        Err(error @ (ArchiveError::Damaged { .. } | ArchiveError::Inconsistent { .. })) => broken(error.to_string()),
        Err(error) => Err(error),
    }
}
