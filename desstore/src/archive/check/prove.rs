//! One object read whole and proven by its own words, whatever manifests say of it.

use desfmt::document::ManifestShard;
use desfmt::{Digest, ObjectKey, Timestamp, Uid, bucket_of, layout, v3};
use tokio::sync::mpsc;

use super::source::{Ask, Remote};
use crate::archive::error::ArchiveError;
use crate::archive::shard::Index;
use crate::archive::{Archive, OpenShard};
use crate::error::{StoreError, StoreErrorKind};

/// A shard of which every byte was read and found sound.
#[derive(Debug)]
pub(crate) struct ProvenShard {
    /// What a manifest would say of it. A shard that was never repacked does not know its serial: then there is none.
    pub(crate) listed: ManifestShard,
    pub(crate) lineage: v3::Lineage,
    /// Its files and the digests of their contents, ascending.
    pub(crate) files: Vec<(Uid, Digest)>,
    pub(crate) written: Timestamp,
}

impl Archive {
    /// Reads an object and proves all of it. [`ArchiveError::Damaged`] where it is not sound, or not what its key says.
    pub(crate) async fn prove_object(&self, key: &ObjectKey) -> Result<ProvenShard, ArchiveError> {
        let meta = self.store.head(key).await?;
        let (shard, open) = self.open_object(key).await?;
        let OpenShard { etag, index, .. } = open;
        let Index::Paged(index) = index else {
            return Err(ArchiveError::inconsistent(key, "it is a shard of the ancestor"));
        };
        let footer = index.footer().clone();
        if layout::parse_shard(key.as_str(), self.bits()) != Some(footer.name) {
            return Err(ArchiveError::inconsistent(key, format!("it calls itself {}", footer.name)));
        }
        let lineage = index.lineage().clone();
        let (first, last) = (index.first_uid(), index.last_uid().cloned());
        let (ask, mut asked) = mpsc::channel::<Ask>(1);
        let source = Remote::new(ask, key.to_string(), shard.len, true);
        let (bits, bucket, named) = (self.bits(), shard.bucket, key.clone());
        let is_of = move |uid: &Uid| bucket_of(uid.as_str(), bits).is_ok_and(|of| of.number() == bucket);
        let walk = tokio::task::spawn_blocking(move || read_all(&index, source, &named, &is_of));
        while let Some((range, reply)) = asked.recv().await {
            let fetched = self.store.get_range(key, range, Some(&etag)).await;
            // Whoever asked may have given up; then it asks no more.
            drop(reply.send(fetched.map_err(ArchiveError::from)));
        }
        let died = |error| StoreError::new(StoreErrorKind::Unavailable, "check", key).caused_by(error);
        let (blake3, files) = walk.await.map_err(died)??;
        let bound = |uid: Option<Uid>| uid.and_then(|uid| ManifestShard::bound(uid.as_str()));
        let listed = ManifestShard {
            bucket: shard.bucket,
            split: footer.name.split,
            repack: footer.name.repack,
            key: key.clone(),
            shard: footer.shard_id,
            len: shard.len,
            tail_len: footer.tail_len,
            blake3: blake3.to_hex().to_string(),
            entries: footer.entries,
            plain_len: footer.content_len,
            uid_min: bound(first),
            uid_max: bound(last),
            serials: lineage.serials.clone(),
        };
        Ok(ProvenShard { listed, lineage, files, written: meta.modified })
    }
}

/// Reads everything, on a thread of its own. The digest of the object, and its files.
fn read_all(
    index: &v3::ShardIndex,
    mut source: Remote,
    key: &ObjectKey,
    is_of: &dyn Fn(&Uid) -> bool,
) -> Result<(Digest, Vec<(Uid, Digest)>), ArchiveError> {
    let (mut files, mut damage) = (Vec::new(), None);
    let mut see = |seen: v3::Seen<'_>| match seen {
        v3::Seen::Entry(entry, Some(digest)) => files.push((entry.uid.clone(), digest)),
        v3::Seen::Entry(_, None) => {}
        v3::Seen::Damaged(_, error) => drop(damage.get_or_insert(error)),
    };
    let walked = v3::check_shard(index, &mut source, v3::CheckDepth::Content, &mut see);
    match (damage, walked) {
        (Some(error), _) | (None, Err(v3::CheckError::Damaged(error))) => Err(ArchiveError::damaged(key, error)),
        (None, Err(v3::CheckError::Source(error))) => Err(error),
        (None, Ok(_)) => {
            let (whole, body) = source.finish()?;
            if body != index.footer().body_digest {
                return Err(ArchiveError::inconsistent(key, "the digest of its body is wrong"));
            }
            match files.iter().find(|(uid, _)| !is_of(uid)) {
                Some((uid, _)) => Err(ArchiveError::inconsistent(
                    key,
                    format!("it holds {:?}, which belongs to another group", uid.as_str()),
                )),
                None => Ok((whole, files)),
            }
        }
    }
}
