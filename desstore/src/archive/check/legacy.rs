//! The check of an archive of the ancestor: its index is all that a shard of it says of itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use desfmt::legacy::{
    BIG_FILES_PREFIX, BigFileHash, LegacyIndex, LegacyName, LegacyNameError, Location, SIDECAR_LEN_MAX, Sidecar,
};
use desfmt::{Birth, Date, bucket_of};

use super::{Check, CheckEvent, CheckLevel, FindingKind};
use crate::archive::OpenShard;
use crate::archive::entries::Content;
use crate::archive::error::ArchiveError;
use crate::archive::legacy::{OBJECTS_MAX, legacy_day_shard};
use crate::archive::shard::Index;
use crate::store::{Depth, ObjectMeta, list_all};

/// How much of a content is read at a time.
const READ_BYTES: u64 = 8 << 20;

/// What lies in a day.
#[derive(Default)]
struct DayObjects<'a> {
    shards: Vec<(LegacyName, &'a ObjectMeta)>,
    sidecars: Vec<&'a ObjectMeta>,
}

impl Check<'_> {
    pub(super) async fn legacy(&mut self) {
        let objects = match list_all(self.archive.store.as_ref(), "", Depth::Direct, OBJECTS_MAX).await {
            Ok(objects) => objects,
            Err(error) => return self.fail(".", &error.into()),
        };
        let days: Vec<_> = self.sort_by_day(&objects).into_iter().collect();
        for (_, day) in self.chosen(&days, |(date, _)| *date) {
            self.checked.days = self.checked.days.saturating_add(1);
            for sidecar in &day.sidecars {
                if let Err(error) = self.sidecar(sidecar).await {
                    self.fail(&sidecar.key, &error);
                }
            }
            for (name, object) in &day.shards {
                if let Err(error) = self.legacy_shard(name, object).await {
                    self.fail(&object.key, &error);
                }
            }
        }
    }

    /// Sorts objects by what their names say. Names of other bits are one finding: they are all of them or none.
    fn sort_by_day<'o>(&mut self, objects: &'o [ObjectMeta]) -> BTreeMap<Date, DayObjects<'o>> {
        let bits = self.archive.bits();
        let mut days = BTreeMap::<Date, DayObjects<'o>>::new();
        let mut misfits = Vec::new();
        for object in objects {
            let key = object.key.as_str();
            match (LegacyName::parse(key, bits), LegacyName::parse_sidecar(key, bits)) {
                (Ok(name), _) => days.entry(name.group.date).or_default().shards.push((name, object)),
                (_, Ok(name)) => days.entry(name.group.date).or_default().sidecars.push(object),
                (Err(LegacyNameError::OtherBits { .. }), _) | (_, Err(LegacyNameError::OtherBits { .. })) => {
                    misfits.push(&object.key);
                }
                (Err(LegacyNameError::Other), Err(LegacyNameError::Other)) => {}
            }
        }
        if let Some(first) = misfits.first() {
            let detail = format!(
                "{} names, of which this is the first, do not fit n_bits={}; give the right one with n_bits",
                misfits.len(),
                bits.get()
            );
            self.wrong(first, FindingKind::Mismatch, detail);
        }
        // A day is there by its shards.
        days.retain(|_, day| !day.shards.is_empty());
        if days.is_empty() && misfits.is_empty() {
            self.wrong(
                &".",
                FindingKind::Missing,
                "nothing here is named as the ancestor names its shards, such as 20240115_3F_0000.des".into(),
            );
        }
        days
    }

    async fn sidecar(&self, object: &ObjectMeta) -> Result<(), ArchiveError> {
        let fetched = self.archive.store.get(&object.key, SIDECAR_LEN_MAX).await?;
        Sidecar::parse(&fetched.bytes).map(drop).map_err(|error| ArchiveError::damaged(&object.key, error))
    }

    async fn legacy_shard(&mut self, name: &LegacyName, object: &ObjectMeta) -> Result<(), ArchiveError> {
        self.checked.shards = self.checked.shards.saturating_add(1);
        self.checked.stored_bytes = self.checked.stored_bytes.saturating_add(object.len);
        let (open, _) = self.archive.open_legacy_shard(&legacy_day_shard(name, object, 1)).await?;
        let Index::Legacy(shard) = &open.index else { return Ok(()) };
        let index = shard.index();
        let files = u64::try_from(index.len()).unwrap_or(u64::MAX);
        self.checked.files = self.checked.files.saturating_add(files);
        self.routes(name, object, index);
        for (hash, len) in big_files(index) {
            if let Err(error) = self.big_file(object, hash, len).await {
                self.fail(&object.key, &error);
            }
        }
        if self.options.level == CheckLevel::Content {
            let wrong_before = self.checked.wrong;
            self.contents(&Arc::new(open)).await;
            let is_damaged = self.checked.wrong > wrong_before;
            self.checked.examined = self.checked.examined.saturating_add(1);
            self.checked.damaged = self.checked.damaged.saturating_add(u64::from(is_damaged));
            let id = legacy_day_shard(name, object, 1).id;
            (self.tell)(CheckEvent::Examined(id, !is_damaged));
        }
        Ok(())
    }

    /// Decodes every content. The ancestor keeps digests of big files only: of the others, what is stored plainly cannot be
    /// proven, only read.
    async fn contents(&mut self, open: &Arc<OpenShard>) {
        let Index::Legacy(shard) = &open.index else { return };
        for ordinal in 0..shard.index().ordinals() {
            let Some(located) = shard.by_ordinal(open, Birth { serial: 1, ordinal }) else { continue };
            let Content::Legacy(file) = &located.content else { continue };
            let mut at = 0;
            loop {
                let size = located.file.len.saturating_sub(at).min(READ_BYTES);
                self.throttle.take(size).await;
                self.checked.bytes_read = self.checked.bytes_read.saturating_add(size);
                if let Err(error) = self.archive.read_legacy(open, file, at, size).await {
                    self.fail(&open.key, &error);
                    break;
                }
                at = at.saturating_add(size);
                if at >= located.file.len {
                    break;
                }
            }
        }
    }

    /// Uids that a lookup would not look for in this shard. Names fit several numbers of bits, uids only one.
    fn routes(&mut self, name: &LegacyName, object: &ObjectMeta, index: &LegacyIndex) {
        let bits = self.archive.bits();
        let is_astray = |uid: &str| bucket_of(uid, bits).ok() != Some(name.group.bucket);
        let mut astray = index.iter().filter(|entry| is_astray(entry.uid));
        if let Some(first) = astray.next() {
            let detail = format!(
                "{} of its {} uids, such as {:?}, are not found here with n_bits={}; give the right one with n_bits",
                astray.count().saturating_add(1),
                index.len(),
                first.uid.chars().take(64).collect::<String>(),
                bits.get()
            );
            self.wrong(&object.key, FindingKind::Mismatch, detail);
        }
    }

    async fn big_file(&self, shard: &ObjectMeta, hash: BigFileHash, len: u64) -> Result<(), ArchiveError> {
        let key = hash
            .key(&shard.key, BIG_FILES_PREFIX)
            .map_err(|error| ArchiveError::inconsistent(&shard.key, error.to_string()))?;
        let found = self.archive.store.head(&key).await?.len;
        if found == len {
            return Ok(());
        }
        Err(ArchiveError::inconsistent(&key, format!("it has {found} bytes, {} says {len}", shard.key)))
    }
}

/// The big files of an index, each once.
fn big_files(index: &LegacyIndex) -> Vec<(BigFileHash, u64)> {
    let of_entry = |location| match location {
        Location::BigFile { hash, len } => Some((hash, len)),
        Location::Inline { .. } => None,
    };
    let mut files: Vec<_> = index.iter().filter_map(|entry| of_entry(entry.location)).collect();
    files.sort_unstable_by_key(|(hash, len)| (hash.to_string(), *len));
    files.dedup();
    files
}
