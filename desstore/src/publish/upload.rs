//! From a finished file to an object under a name that nobody else has.

use std::os::unix::fs::FileExt;
use std::path::Path;

use desfmt::{Digest, ObjectKey, ShardName, Timestamp, layout, v3};

use crate::archive::ArchiveError;
use crate::error::{StoreError, StoreErrorKind};
use crate::publish::{ATTEMPTS_MAX, ArchiveWriter, BuiltShard, is_unsettled};
use crate::rules::{Rule, keeps};
use crate::store::{Depth, Payload, Receipt, list_all};

/// An object that is ours.
#[derive(Debug)]
pub(crate) struct Claim {
    pub(crate) name: ShardName,
    pub(crate) key: ObjectKey,
    /// BLAKE3 of the object as it must be.
    pub(crate) blake3: Digest,
    /// True when it was there already.
    pub(crate) adopted: bool,
    /// When it was written, by the store's clock.
    pub(crate) uploaded: Timestamp,
}

/// How many objects of a group are looked at.
const GROUP_OBJECTS_MAX: usize = 1_000_000;

/// How many bytes are read back at a time.
const READ_BACK_BYTES: u64 = 8 << 20;

/// A shard in a local file, its footer still to be written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Finished<'a> {
    pub(crate) file: &'a Path,
    pub(crate) body: &'a v3::Body,
}

impl<'a> From<&'a BuiltShard> for Finished<'a> {
    fn from(shard: &'a BuiltShard) -> Self {
        Self { file: &shard.file, body: &shard.body }
    }
}

/// The name to try when one is taken.
pub(crate) type NextName = fn(ShardName) -> ShardName;

/// The next split of a group.
const fn next_split(name: ShardName) -> ShardName {
    ShardName { split: name.split.saturating_add(1), ..name }
}

/// Who holds a key.
enum Owner {
    /// We do, since then.
    Ours(Timestamp),
    Other,
    Nobody,
}

impl ArchiveWriter {
    /// Uploads a shard under the next free split number of its group, or adopts the same object of an earlier run.
    pub(super) async fn claim(&self, shard: &BuiltShard) -> Result<Claim, ArchiveError> {
        let group = shard.group;
        let Some(day) = self.archive.day(group.date).await? else {
            return Err(ArchiveError::inconsistent(&layout::manifest(group.date), "it was created and is gone"));
        };
        let manifest = day.manifest.as_ref().map(|(manifest, _)| manifest);
        let prefix = format!("{}{group}_", layout::shards_prefix(group.date));
        let listed = list_all(self.store.as_ref(), &prefix, Depth::Recursive, GROUP_OBJECTS_MAX).await?;
        let mut split = manifest
            .and_then(|manifest| manifest.numbers.get(&group.bucket.number()))
            .map_or(0, |numbers| numbers.split_max.saturating_add(1));
        // A condemned object may be deleted; its key must not name another one.
        let condemned = manifest.map_or(&[][..], |manifest| &manifest.condemned);
        for object in condemned {
            let name = layout::parse_shard(object.key.as_str(), group.bits).filter(|name| name.group == group);
            split = name.map_or(split, |name| split.max(name.split.saturating_add(1)));
        }
        for object in &listed {
            let Some(name) = layout::parse_shard(object.key.as_str(), group.bits).filter(|name| name.group == group)
            else {
                continue;
            };
            split = split.max(name.split.saturating_add(1));
            let is_known = manifest.is_some_and(|manifest| {
                manifest.is_terminal(&object.key) || manifest.shards.iter().any(|shard| shard.key == object.key)
            });
            let may_be_ours = !is_known && name.repack == 0 && object.len == shard.body.object_len();
            if may_be_ours && matches!(self.owner(shard.into(), &object.key).await?, Owner::Ours(_)) {
                // Created once more rather than taken as it is: the store then vouches that it is durable.
                return Ok(Claim { adopted: true, ..self.upload(shard.into(), name, next_split).await? });
            }
        }
        self.upload(shard.into(), ShardName { group, split, repack: 0 }, next_split).await
    }

    /// Uploads a shard under a name that nobody has, trying one after the other.
    pub(crate) async fn upload(
        &self,
        shard: Finished<'_>,
        first: ShardName,
        next: NextName,
    ) -> Result<Claim, ArchiveError> {
        let mut name = first;
        for _ in 0..ATTEMPTS_MAX {
            let key = layout::shard(&name);
            write_footer(shard, &name).map_err(|error| spool_error(shard.file, error))?;
            match self.create_shard(&key, Payload::File(shard.file.to_owned())).await {
                Ok(receipt) => return Ok(claimed(shard, name, receipt.at)),
                Err(error) if is_unsettled(&error) => match self.owner(shard, &key).await? {
                    Owner::Ours(since) => return Ok(claimed(shard, name, since)),
                    Owner::Other => name = next(name),
                    // The write did not take effect; once more under the same name.
                    Owner::Nobody => {}
                },
                Err(error) => return Err(error.into()),
            }
        }
        Err(ArchiveError::refused(format!("no free name was found from {first} on")))
    }

    async fn create_shard(&self, key: &ObjectKey, payload: Payload) -> Result<Receipt, StoreError> {
        if keeps(Rule::ShardsAreCreated) {
            self.store.put_if_absent(key, payload).await
        } else {
            self.store.put(key, payload).await
        }
    }

    /// Tells whose object lies under a key, by the footer that every shard ends with.
    async fn owner(&self, shard: Finished<'_>, key: &ObjectKey) -> Result<Owner, ArchiveError> {
        let footer_len = u64::try_from(v3::FOOTER_LEN).unwrap_or(u64::MAX);
        let fetched = match self.store.get_tail(key, footer_len).await {
            Ok(fetched) => fetched,
            Err(error) if error.kind == StoreErrorKind::NotFound => return Ok(Owner::Nobody),
            Err(error) => return Err(error.into()),
        };
        // What is no shard at all is certainly not ours.
        let is_ours = v3::Footer::decode(&fetched.bytes).is_ok_and(|footer| footer.body_digest == shard.body.digest());
        Ok(if is_ours { Owner::Ours(fetched.meta.modified) } else { Owner::Other })
    }

    /// True when the object under a key has the very body of this shard.
    pub(crate) async fn is_ours(&self, shard: Finished<'_>, key: &ObjectKey) -> Result<bool, ArchiveError> {
        Ok(matches!(self.owner(shard, key).await?, Owner::Ours(_)))
    }

    /// Reads an object back as a whole and compares its digest.
    pub(crate) async fn reads_back(&self, shard: Finished<'_>, claim: &Claim) -> Result<bool, ArchiveError> {
        if !keeps(Rule::UploadIsReadBack) {
            return Ok(true);
        }
        let meta = self.store.head(&claim.key).await?;
        if meta.len != shard.body.object_len() {
            return Ok(false);
        }
        let mut hasher = blake3::Hasher::new();
        let mut at = 0;
        while at < meta.len {
            let end = at.saturating_add(READ_BACK_BYTES).min(meta.len);
            hasher.update(&self.store.get_range(&claim.key, at..end, Some(&meta.etag)).await?);
            at = end;
        }
        Ok(hasher.finalize() == claim.blake3)
    }
}

fn claimed(shard: Finished<'_>, name: ShardName, uploaded: Timestamp) -> Claim {
    Claim { name, key: layout::shard(&name), blake3: shard.body.object_digest(&name), adopted: false, uploaded }
}

/// Writes the footer of a name behind the body. The file is not linked anywhere yet, or what it was linked as is proven
/// not to be it.
fn write_footer(shard: Finished<'_>, name: &ShardName) -> std::io::Result<()> {
    let file = std::fs::OpenOptions::new().write(true).open(shard.file)?;
    file.write_all_at(&shard.body.footer_bytes(name), shard.body.len())?;
    file.set_len(shard.body.object_len())
}

fn spool_error(file: &Path, error: std::io::Error) -> ArchiveError {
    let is_full = matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded);
    let kind = if is_full { StoreErrorKind::Full } else { StoreErrorKind::Unavailable };
    StoreError::new(kind, "spool", file.display()).caused_by(error).into()
}
