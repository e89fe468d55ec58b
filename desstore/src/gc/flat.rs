//! The proof that a shard of the ancestor is needed no longer. Its files have no digests, so what is not deleted is read and
//! compared with what the live shards say.

use std::fmt;

use bytes::Bytes;
use desfmt::document::{Manifest, ManifestShard};
use desfmt::legacy::{
    BigFileHash, BigFileHasher, LegacyCodec, LegacyName, Location, check_compressed_len, decode_payload,
};
use desfmt::{Birth, Date, Digest, ObjectKey};

use super::proof::{Found, Live, Proof, Unproven};
use crate::archive::{ArchiveError, Index, OpenShard};
use crate::deletions::Deletions;
use crate::error::StoreErrorKind;
use crate::publish::ArchiveWriter;

/// How much of a shard is read at a time.
const WINDOW_BYTES: u64 = 8 << 20;

/// A content in the shard itself, and the digest that a live shard gives for it.
struct Inline {
    uid: Box<str>,
    offset: u64,
    stored_len: u64,
    codec: LegacyCodec,
    plain_len: u64,
    digest: Digest,
}

impl ArchiveWriter {
    /// Proves that a shard of the ancestor is needed no longer. Reads it once, and of the live shards of its group the
    /// indexes and what the ancestor kept as big files.
    pub(super) async fn prove_flat(&self, manifest: &Manifest, key: &ObjectKey) -> Result<Proof, ArchiveError> {
        let unreadable = |why: &dyn fmt::Display| Ok(Proof::of(Err(Unproven::Unreadable(why.to_string())), false));
        let Ok(name) = LegacyName::parse(key.as_str(), self.bits()) else {
            return unreadable(&"it is not named as a shard of the ancestor");
        };
        let open = match self.archive().open_object(key).await {
            Ok((_, open)) => open,
            Err(ArchiveError::Store(error)) if error.kind == StoreErrorKind::NotFound => {
                return Ok(Proof::of(Ok(()), false));
            }
            Err(error @ (ArchiveError::Damaged { .. } | ArchiveError::Inconsistent { .. })) => {
                return unreadable(&error);
            }
            Err(error) => return Err(error),
        };
        let Index::Legacy(shard) = &open.index else { return unreadable(&"it is none of the ancestor") };
        let deletions = Deletions::read_group(self.store.as_ref(), &name.group).await?;
        let retired = manifest.retired.iter().find(|object| object.key == *key);
        if retired.is_some_and(|object| deletions.holds_shard(object.shard)) {
            return Ok(Proof::of(Ok(()), true));
        }
        let bucket = name.group.bucket.number();
        let mut live = Live::of_bucket(manifest, bucket);
        let earlier = self.open_earlier_flats(manifest, (bucket, name.split), &deletions).await?;
        let is_in_earlier = |uid: &str| earlier.iter().any(|open| open.holds_flat(uid));
        let (mut has_dead, mut inline) = (false, Vec::new());
        for entry in shard.index().iter() {
            if deletions.holds(self.archive().uid_hasher().hash(entry.uid)) {
                has_dead = true;
                continue;
            }
            // An earlier split has the uid too, and that is the one which counts.
            if is_in_earlier(entry.uid) {
                continue;
            }
            let found = match self.find_live(&mut live, entry.uid).await? {
                Ok(found) => found,
                Err(reason) => return Ok(Proof::of(Err(reason), has_dead)),
            };
            // The same where that split is of the current version by now.
            let is_hidden = found.listed.split < name.split;
            let differs = || Ok(Proof::of(Err(Unproven::Differs(entry.uid.to_owned())), has_dead));
            match entry.location {
                _ if is_hidden => {}
                _ if found.entry.len != entry.location.plain_len() => return differs(),
                Location::BigFile { hash, .. } => {
                    if !self.is_big_file(manifest.date, &found, hash).await? {
                        return differs();
                    }
                }
                Location::Inline { offset, stored_len, codec, plain_len } => {
                    let (uid, digest) = (entry.uid.into(), found.digest);
                    inline.push(Inline { uid, offset, stored_len, codec, plain_len, digest });
                }
            }
        }
        let outcome = match self.compare(&open, inline).await {
            Ok(outcome) => outcome,
            Err(error @ ArchiveError::Damaged { .. }) => Err(Unproven::Unreadable(error.to_string())),
            Err(error) => return Err(error),
        };
        Ok(Proof::of(outcome, has_dead))
    }

    /// True when a file of a live shard is the big file of that hash. By the live one: the big file may be gone already.
    async fn is_big_file(&self, date: Date, found: &Found<'_>, hash: BigFileHash) -> Result<bool, ArchiveError> {
        let Some(birth) = birth_of(found.listed, found) else { return Ok(false) };
        let mut hasher = BigFileHasher::new();
        let mut at = 0;
        while at < found.entry.len {
            let size = usize::try_from(WINDOW_BYTES).unwrap_or(usize::MAX);
            let bytes = self.archive().read(date, birth, at, size).await?;
            if bytes.is_empty() {
                return Ok(false);
            }
            hasher.update(&bytes);
            at = at.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        }
        Ok(hasher.finish() == hash)
    }

    /// Reads contents in the order in which they lie, and compares them.
    async fn compare(&self, open: &OpenShard, mut inline: Vec<Inline>) -> Result<Result<(), Unproven>, ArchiveError> {
        inline.sort_unstable_by_key(|one| one.offset);
        let mut window = Window { start: 0, bytes: Bytes::new() };
        let end_of = |one: &Inline| one.offset.saturating_add(one.stored_len);
        let data_end = inline.iter().map(end_of).max().unwrap_or(0);
        for one in inline {
            let mut hasher = blake3::Hasher::new();
            let end = end_of(&one);
            if one.codec == LegacyCodec::Stored {
                let mut at = one.offset;
                while at < end {
                    let to = at.saturating_add(WINDOW_BYTES).min(end);
                    hasher.update(&self.through(open, &mut window, at..to, data_end).await?);
                    at = to;
                }
            } else {
                check_compressed_len(one.stored_len).map_err(|error| open.damaged(error))?;
                let stored = self.through(open, &mut window, one.offset..end, data_end).await?;
                let plain = decode_payload(one.codec, &stored, one.plain_len);
                hasher.update(&plain.map_err(|error| open.damaged(error))?);
            }
            if hasher.finalize() != one.digest {
                return Ok(Err(Unproven::Differs(one.uid.into())));
            }
        }
        Ok(Ok(()))
    }

    /// Some bytes of the shard, out of the window that was read last or the next one.
    async fn through(
        &self,
        open: &OpenShard,
        window: &mut Window,
        range: std::ops::Range<u64>,
        end: u64,
    ) -> Result<Bytes, ArchiveError> {
        if let Some(bytes) = window.part(&range) {
            return Ok(bytes);
        }
        let to = range.start.saturating_add(WINDOW_BYTES).max(range.end).min(end);
        let bytes = self.store.get_range(&open.key, range.start..to, Some(&open.etag)).await?;
        *window = Window { start: range.start, bytes };
        window.part(&range).ok_or_else(|| ArchiveError::inconsistent(&open.key, "it is shorter than it was"))
    }
}

/// The part of the shard that was read last.
struct Window {
    start: u64,
    bytes: Bytes,
}

impl Window {
    fn part(&self, range: &std::ops::Range<u64>) -> Option<Bytes> {
        let from = usize::try_from(range.start.checked_sub(self.start)?).ok()?;
        let to = usize::try_from(range.end.checked_sub(self.start)?).ok()?;
        (to <= self.bytes.len()).then(|| self.bytes.slice(from..to))
    }
}

fn birth_of(listed: &ManifestShard, found: &Found<'_>) -> Option<Birth> {
    let serial = listed.serials.get(usize::from(found.entry.origin)).copied()?;
    Some(Birth { serial, ordinal: found.entry.ordinal })
}
