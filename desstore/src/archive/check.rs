//! Whether everything that a reader needs is there and can be read, in three depths: what manifests say against what the
//! store lists; the index of every shard; every content.
//!
//! What is found is handed out one by one, and the check goes on with the next object: an operator wants all of it.
//! Nothing is ever changed.

mod days;
mod legacy;
pub(crate) mod prove;
mod shards;
mod source;
#[cfg(test)]
mod tests;
pub(crate) mod throttle;

use std::collections::HashMap;
use std::num::{NonZeroU64, NonZeroUsize};
use std::time::Duration;

use desfmt::{Date, ShardId, Timestamp};

use crate::archive::Archive;
use crate::archive::error::ArchiveError;
use crate::error::StoreErrorKind;
use shards::Target;
use throttle::Throttle;

/// Something that a check came across.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The object's key, or a prefix of keys.
    pub object: String,
    /// What is wrong with it, or why it could not be checked.
    pub problem: String,
    /// How sure that is.
    pub verdict: Verdict,
    /// Of what kind it is.
    pub kind: FindingKind,
}

/// How sure a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Something is wrong.
    Wrong,
    /// The store did not let it be checked.
    Unchecked,
    /// It is as it may be, and worth knowing.
    Harmless,
}

/// What a finding is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FindingKind {
    /// An object that should be there is not.
    Missing,
    /// An object is there that no manifest knows.
    Orphan,
    /// An object is not the one that it should be.
    Mismatch,
    /// An object cannot be read or decoded, or is not what its checksums say.
    Damaged,
    /// The store did not answer as it should.
    Unreachable,
    /// A zone has not got what its home holds, or still has what it should have lost, as a debt says.
    Owed,
}

impl FindingKind {
    /// Its name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Orphan => "orphan",
            Self::Mismatch => "mismatch",
            Self::Damaged => "damaged",
            Self::Unreachable => "unreachable",
            Self::Owed => "owed",
        }
    }
}

/// How deep a check goes; each depth includes those before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum CheckLevel {
    /// What manifests say against what the store lists. In an archive of the ancestor names, sidecars and indexes.
    #[default]
    Manifest,
    /// The index of each shard, and that it is the shard that its manifest lists.
    Index,
    /// Every byte of each shard: every frame is decoded, every content hashed.
    Content,
}

/// A part of the shards, picked by chance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// How large a part, in millionths.
    pub millionths: u32,
    /// What decides which.
    pub seed: u64,
}

/// What is to be checked, and how.
#[derive(Debug, Clone)]
pub struct CheckOptions {
    /// How deep.
    pub level: CheckLevel,
    /// Only so many days, the newest.
    pub newest: Option<usize>,
    /// Only this day and later ones.
    pub since: Option<Date>,
    /// Only a part of the shards, below the level of manifests.
    pub sample: Option<Sample>,
    /// How many shards are checked at once.
    pub jobs: NonZeroUsize,
    /// How many bytes are read in a second, on average.
    pub bytes_per_second: Option<NonZeroU64>,
    /// Objects that no manifest knows are findings, unless they are younger and look like those of a run under way.
    pub orphans_older_than: Option<Duration>,
    /// When shards were last found sound. Those that are not in here come first, then the oldest.
    pub checked_before: HashMap<ShardId, Timestamp>,
    /// Shards that were found sound since then are left out.
    pub leave_out_since: Option<Timestamp>,
    /// No shard is begun later, by the monotonic clock.
    pub until: Option<Duration>,
}

impl Default for CheckOptions {
    fn default() -> Self {
        Self {
            level: CheckLevel::Manifest,
            newest: None,
            since: None,
            sample: None,
            jobs: NonZeroUsize::MIN,
            bytes_per_second: None,
            orphans_older_than: None,
            checked_before: HashMap::new(),
            leave_out_since: None,
            until: None,
        }
    }
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
    /// Shards of which more than the presence was checked.
    pub examined: u64,
    /// Those of them with findings that say that something is wrong.
    pub damaged: u64,
    /// Shards that were to be examined and were not: time was up.
    pub left_out: u64,
    /// What was read of shards, in bytes.
    pub bytes_read: u64,
    /// How many findings say that something is wrong.
    pub wrong: u64,
    /// How many findings say that something could not be checked.
    pub unchecked: u64,
}

/// What a check tells while it is under way.
#[derive(Debug)]
pub enum CheckEvent<'a> {
    /// Something was found.
    Found(&'a Finding),
    /// A live shard is there; told at every level, before any of them is examined.
    Listed(ShardId),
    /// A shard was examined as deep as was asked for; true when it is sound.
    Examined(ShardId, bool),
}

/// Where findings go.
pub(crate) type Report<'a> = &'a mut (dyn FnMut(&Finding) + Send + Sync);

/// Where all that a check tells goes.
pub(crate) type Tell<'a> = &'a mut (dyn FnMut(CheckEvent<'_>) + Send + Sync);

/// A check under way.
struct Check<'a> {
    archive: &'a Archive,
    options: &'a CheckOptions,
    throttle: Throttle,
    tell: Tell<'a>,
    targets: Vec<Target>,
    checked: Checked,
}

impl Archive {
    /// Checks the archive, or its newest days, as far as manifests and listings tell. Costs one listing of all shards (unless
    /// days are left out), and for each day two requests for its manifest, one listing of its shards and one of its
    /// tombstones.
    pub async fn check(&self, newest: Option<usize>, report: Report<'_>) -> Checked {
        let options = CheckOptions { newest, ..CheckOptions::default() };
        let mut tell = |event: CheckEvent<'_>| match event {
            CheckEvent::Found(finding) => report(finding),
            CheckEvent::Listed(_) | CheckEvent::Examined(..) => {}
        };
        self.verify(&options, &mut tell).await
    }

    /// Checks the archive. Each shard that is examined is read once. Memory: a few windows of 8 MiB for each job, the index
    /// of its shard, and 40 bytes for each shard of the archive.
    pub async fn verify(&self, options: &CheckOptions, tell: Tell<'_>) -> Checked {
        let throttle = Throttle::new(std::sync::Arc::clone(&self.clock), options.bytes_per_second);
        let mut check =
            Check { archive: self, options, throttle, tell, targets: Vec::new(), checked: Checked::default() };
        if self.legacy {
            check.legacy().await;
        } else {
            check.days().await;
            check.examine_shards().await;
        }
        check.checked
    }
}

impl Check<'_> {
    /// The days that are asked for out of some that are sorted; the others are counted.
    fn chosen<'d, T>(&mut self, days: &'d [T], date_of: impl Fn(&T) -> Date) -> &'d [T] {
        let by_count = days.len().saturating_sub(self.options.newest.unwrap_or(usize::MAX));
        let by_date = days.partition_point(|day| self.options.since.is_some_and(|since| date_of(day) < since));
        let left_out = by_count.max(by_date);
        self.checked.days_left_out = u64::try_from(left_out).unwrap_or(u64::MAX);
        days.get(left_out..).unwrap_or_default()
    }

    fn wrong(&mut self, object: &impl ToString, kind: FindingKind, problem: String) {
        self.find(&Finding { object: object.to_string(), problem, verdict: Verdict::Wrong, kind });
    }

    fn fail(&mut self, object: &(impl ToString + ?Sized), error: &ArchiveError) {
        self.find(&Finding::of(&object.to_string(), error));
    }

    fn find(&mut self, finding: &Finding) {
        self.checked.count(finding.verdict);
        (self.tell)(CheckEvent::Found(finding));
    }
}

impl Checked {
    /// Counts a finding.
    pub(crate) const fn count(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Wrong => self.wrong = self.wrong.saturating_add(1),
            Verdict::Unchecked => self.unchecked = self.unchecked.saturating_add(1),
            Verdict::Harmless => {}
        }
    }
}

impl Finding {
    /// What an error says of an object, unless it names a better one.
    pub fn of(object: &str, error: &ArchiveError) -> Self {
        let named = |object: &str, problem: String, (verdict, kind)| {
            let object = object.to_owned();
            Self { object, problem, verdict, kind }
        };
        match error {
            ArchiveError::Store(error) => {
                let object = if error.key().is_empty() { object } else { error.key() };
                named(object, with_causes(&error.kind, error), verdict_of(error.kind))
            }
            ArchiveError::Damaged { object, source } => {
                named(object, with_causes(source, source), (Verdict::Wrong, FindingKind::Damaged))
            }
            ArchiveError::Inconsistent { object, detail } => {
                named(object, detail.clone(), (Verdict::Wrong, FindingKind::Mismatch))
            }
            ArchiveError::Gone { .. } | ArchiveError::ReadOnly { .. } | ArchiveError::Refused { .. } => {
                named(object, error.to_string(), (Verdict::Unchecked, FindingKind::Unreachable))
            }
        }
    }
}

/// What a store's failure proves: an object that is not there or not what was asked for is wrong, a store that does not
/// answer proves nothing.
const fn verdict_of(kind: StoreErrorKind) -> (Verdict, FindingKind) {
    match kind {
        StoreErrorKind::NotFound => (Verdict::Wrong, FindingKind::Missing),
        StoreErrorKind::Corrupt | StoreErrorKind::Unsupported => (Verdict::Wrong, FindingKind::Damaged),
        StoreErrorKind::AlreadyExists
        | StoreErrorKind::PreconditionFailed
        | StoreErrorKind::Denied
        | StoreErrorKind::Throttled
        | StoreErrorKind::Unavailable
        | StoreErrorKind::Full => (Verdict::Unchecked, FindingKind::Unreachable),
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
