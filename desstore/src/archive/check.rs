//! Whether everything that a reader needs is there and can be read, short of the contents: documents, and the presence and
//! length of shards; in an archive of the ancestor names, sidecars and indexes.
//!
//! What is found is handed out one by one, and the check goes on with the next object: an operator wants all of it.

mod legacy;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};

use desfmt::document::{self, DOCUMENT_LEN_MAX, Manifest, ManifestShard};
use desfmt::{Date, layout};

use crate::archive::error::ArchiveError;
use crate::archive::tombstones::TombstoneSet;
use crate::archive::{Archive, DAYS_MAX};
use crate::error::StoreErrorKind;
use crate::store::{Depth, ObjectMeta, list_all};

/// How many shards and leftovers one day may have.
const OBJECTS_OF_A_DAY_MAX: usize = 10_000_000;

/// Something that a check came across.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The object's key, or a prefix of keys.
    pub object: String,
    /// What is wrong with it, or why it could not be checked.
    pub problem: String,
    /// Which of both.
    pub verdict: Verdict,
}

/// How sure a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Something is wrong.
    Wrong,
    /// The store did not let it be checked.
    Unchecked,
}

/// What was checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Checked {
    /// Days that were looked at.
    pub days: u64,
    /// Days that were left out as the older ones.
    pub days_left_out: u64,
    /// Live shards.
    pub shards: u64,
    /// Files in them, deleted ones included.
    pub files: u64,
    /// Their stored size, in bytes.
    pub stored_bytes: u64,
    /// Objects beside the shards that no manifest knows: left by runs that died, harmless.
    pub unlisted: u64,
    /// How many findings say that something is wrong.
    pub wrong: u64,
    /// How many findings say that something could not be checked.
    pub unchecked: u64,
}

/// Where findings go.
pub(crate) type Report<'a> = &'a mut (dyn FnMut(&Finding) + Send + Sync);

/// A check under way.
struct Check<'a> {
    archive: &'a Archive,
    report: Report<'a>,
    checked: Checked,
}

impl Archive {
    /// Checks the archive, or its newest days. Costs one listing of all shards (unless days are left out), and for each day one
    /// request for its manifest, one listing of its shards and one of its tombstones.
    pub async fn check(&self, newest: Option<usize>, report: Report<'_>) -> Checked {
        let mut check = Check { archive: self, report, checked: Checked::default() };
        if self.legacy {
            check.legacy(newest).await;
        } else {
            check.days(newest).await;
        }
        check.checked
    }
}

impl Check<'_> {
    async fn days(&mut self, newest: Option<usize>) {
        let store = self.archive.store.as_ref();
        let listed = match list_all(store, layout::MANIFESTS, Depth::Direct, DAYS_MAX).await {
            Ok(listed) => listed,
            Err(error) => return self.fail(layout::MANIFESTS, &error.into()),
        };
        let manifests: Vec<(Date, &ObjectMeta)> =
            listed.iter().filter_map(|object| Some((layout::parse_manifest(object.key.as_str())?, object))).collect();
        let days: HashSet<Date> = manifests.iter().map(|(date, _)| *date).collect();
        for (date, object) in self.newest(&manifests, newest) {
            self.day(*date, object).await;
        }
        if self.checked.days_left_out == 0 {
            self.days_without_manifest(&days).await;
        }
    }

    /// The newest of something that is sorted by day; the others are counted.
    fn newest<'d, T>(&mut self, days: &'d [T], newest: Option<usize>) -> &'d [T] {
        let left_out = days.len().saturating_sub(newest.unwrap_or(usize::MAX));
        self.checked.days_left_out = u64::try_from(left_out).unwrap_or(u64::MAX);
        days.get(left_out..).unwrap_or_default()
    }

    async fn day(&mut self, date: Date, object: &ObjectMeta) {
        self.checked.days = self.checked.days.saturating_add(1);
        match self.manifest(object).await {
            Ok(manifest) if manifest.date != date => {
                self.wrong(&object.key, format!("it is the manifest of {}", manifest.date));
            }
            Ok(manifest) => self.shards(&manifest).await,
            Err(error) => self.fail(&object.key, &error),
        }
        let (store, bits) = (self.archive.store.as_ref(), self.archive.bits());
        if let Err(error) = TombstoneSet::default().refresh(store, date, bits).await {
            self.fail(&layout::tombstones_prefix(date), &error);
        }
    }

    async fn manifest(&self, object: &ObjectMeta) -> Result<Manifest, ArchiveError> {
        let fetched = self.archive.store.get(&object.key, DOCUMENT_LEN_MAX).await?;
        document::decode(&fetched.bytes).map_err(|error| ArchiveError::damaged(&object.key, error))
    }

    /// Looks for the shards that a manifest lists: by a listing that begins after the manifest was read.
    async fn shards(&mut self, manifest: &Manifest) {
        let store = self.archive.store.as_ref();
        let prefix = layout::shards_prefix(manifest.date);
        let listed = match list_all(store, &prefix, Depth::Recursive, OBJECTS_OF_A_DAY_MAX).await {
            Ok(listed) => listed,
            Err(error) => return self.fail(&prefix, &error.into()),
        };
        let mut lens: HashMap<_, _> = listed.into_iter().map(|object| (object.key, object.len)).collect();
        for shard in &manifest.shards {
            self.checked.shards = self.checked.shards.saturating_add(1);
            self.checked.files = self.checked.files.saturating_add(u64::from(shard.entries));
            self.checked.stored_bytes = self.checked.stored_bytes.saturating_add(shard.len);
            let found = match lens.remove(&shard.key) {
                None if !shard.key.as_str().starts_with(&prefix) => store.head(&shard.key).await.map(|meta| meta.len),
                None => Err(crate::StoreError::new(StoreErrorKind::NotFound, "list", &shard.key)),
                Some(len) => Ok(len),
            };
            match found {
                Ok(len) => self.shard(manifest.date, shard, len),
                Err(error) if error.kind == StoreErrorKind::NotFound => {
                    self.wrong(&shard.key, format!("it is missing, with {} files; restore it", shard.entries));
                }
                Err(error) => self.fail(&shard.key, &error.into()),
            }
        }
        let known: HashSet<_> = (manifest.retired.iter().map(|object| &object.key))
            .chain(manifest.condemned.iter().map(|object| &object.key))
            .collect();
        let unlisted = lens.keys().filter(|key| !known.contains(key)).count();
        self.checked.unlisted = self.checked.unlisted.saturating_add(u64::try_from(unlisted).unwrap_or(u64::MAX));
    }

    fn shard(&mut self, date: Date, shard: &ManifestShard, len: u64) {
        let bits = self.archive.bits();
        if len != shard.len {
            self.wrong(&shard.key, format!("it has {len} bytes, its manifest says {}", shard.len));
        }
        if shard.name(date, bits).is_none() {
            let detail = format!("bucket {} is beyond the {} bits of the archive", shard.bucket, bits.get());
            self.wrong(&shard.key, detail);
        }
    }

    /// Days that are lost with their manifest: whoever packs makes the manifest before the first shard.
    async fn days_without_manifest(&mut self, known: &HashSet<Date>) {
        let (store, bits) = (self.archive.store.as_ref(), self.archive.bits());
        let mut lost = HashMap::<Date, u64>::new();
        let mut token: Option<String> = None;
        loop {
            let page = match store.list(layout::SHARDS, Depth::Recursive, token.as_deref()).await {
                Ok(page) => page,
                Err(error) => return self.fail(layout::SHARDS, &error.into()),
            };
            for object in &page.objects {
                let date = layout::parse_shard(object.key.as_str(), bits).map(|name| name.group.date);
                if let Some(date) = date.filter(|date| !known.contains(date)) {
                    let count = lost.entry(date).or_default();
                    *count = count.saturating_add(1);
                }
            }
            token = page.next;
            if token.is_none() {
                break;
            }
        }
        let mut lost: Vec<_> = lost.into_iter().collect();
        lost.sort_unstable();
        for (date, count) in lost {
            self.wrong(&layout::manifest(date), format!("it is missing, though {count} shards are there; restore it"));
        }
    }

    fn wrong(&mut self, object: &impl ToString, problem: String) {
        self.find(&Finding { object: object.to_string(), problem, verdict: Verdict::Wrong });
    }

    fn fail(&mut self, object: &(impl ToString + ?Sized), error: &ArchiveError) {
        self.find(&Finding::of(&object.to_string(), error));
    }

    fn find(&mut self, finding: &Finding) {
        let count = match finding.verdict {
            Verdict::Wrong => &mut self.checked.wrong,
            Verdict::Unchecked => &mut self.checked.unchecked,
        };
        *count = count.saturating_add(1);
        (self.report)(finding);
    }
}

impl Finding {
    /// What an error says of an object, unless it names a better one.
    pub fn of(object: &str, error: &ArchiveError) -> Self {
        let named = |object: &str, problem: String, verdict| Self { object: object.to_owned(), problem, verdict };
        match error {
            ArchiveError::Store(error) => {
                let object = if error.key().is_empty() { object } else { error.key() };
                named(object, with_causes(&error.kind, error), verdict_of(error.kind))
            }
            ArchiveError::Damaged { object, source } => named(object, with_causes(source, source), Verdict::Wrong),
            ArchiveError::Inconsistent { object, detail } => named(object, detail.clone(), Verdict::Wrong),
            ArchiveError::Gone { .. } | ArchiveError::ReadOnly { .. } | ArchiveError::Refused { .. } => {
                named(object, error.to_string(), Verdict::Wrong)
            }
        }
    }
}

/// What a store's failure proves: an object that is not there or not what was asked for is wrong, a store that does not
/// answer proves nothing.
const fn verdict_of(kind: StoreErrorKind) -> Verdict {
    match kind {
        StoreErrorKind::NotFound | StoreErrorKind::Corrupt | StoreErrorKind::Unsupported => Verdict::Wrong,
        StoreErrorKind::AlreadyExists
        | StoreErrorKind::PreconditionFailed
        | StoreErrorKind::Denied
        | StoreErrorKind::Throttled
        | StoreErrorKind::Unavailable
        | StoreErrorKind::Full => Verdict::Unchecked,
    }
}

/// An error with all its causes.
pub(crate) fn in_words(error: &ArchiveError) -> String {
    with_causes(error, error)
}

fn with_causes(text: &impl ToString, error: &dyn std::error::Error) -> String {
    let mut text = text.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
