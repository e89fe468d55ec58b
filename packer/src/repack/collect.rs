//! `des-repack gc`: what of all days can be deleted, whether that is too much to go without asking, and deleting it.

use std::fmt;
use std::time::Duration;

use desfmt::{Date, Timestamp};
use desstore::ArchiveWriter;
use desstore::gc::DayGarbage;
use serde::Serialize;

use super::days;
use super::metrics::RepackMetrics;
use crate::error::PackError;
use crate::program::reason_of;
use crate::size::ByteSize;

/// How many objects may go at once without asking.
const OBJECTS_UNASKED_MAX: u64 = 1_000;

/// The share of all objects that may go at once without asking, in percent.
const SHARE_UNASKED_MAX: u64 = 10;

/// With fewer objects than these the share says nothing.
const SHARE_COUNTS_FROM: u64 = 100;

/// What is to be collected, and how.
#[derive(Debug, Clone)]
pub struct GcConfig {
    /// Only these days; all if empty.
    pub days: Vec<Date>,
    /// How long a retired or condemned object stays.
    pub grace: Duration,
    /// Do not ask, however much goes.
    pub yes: bool,
    /// Plan, and delete nothing.
    pub dry_run: bool,
}

/// What was collected, or would be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct GcReport {
    /// True when nothing was changed.
    pub dry_run: bool,
    /// Objects in the days looked at.
    pub objects: u64,
    /// Objects deleted, or due.
    pub purged: u64,
    /// Their bytes.
    pub purged_bytes: u64,
    /// Orphans condemned, or found.
    pub condemned: u64,
    /// Retired and condemned objects whose grace period is not over.
    pub waiting: u64,
    /// Records of deletions that have shrunk to a hash: their bytes are proven gone.
    pub erased: u64,
    /// Objects that could not be proven to be needed no longer, and why.
    pub held_back: Vec<(String, String)>,
    /// Live objects that are missing or have another length than they should.
    pub damaged: Vec<String>,
    /// Days that failed, and why.
    pub failures: Vec<(String, String)>,
    /// When the oldest deletion was made that is not proven to be carried out, in microseconds since 1970.
    pub oldest_deletion: Option<i64>,
}

impl GcReport {
    /// True when nothing failed and everything due could be proven.
    pub const fn is_clean(&self) -> bool {
        self.failures.is_empty() && self.held_back.is_empty() && self.damaged.is_empty()
    }
}

/// Plans for all days first, refuses where too much would go, then deletes day by day.
pub async fn collect(
    writer: &ArchiveWriter,
    config: &GcConfig,
    metrics: &RepackMetrics,
) -> Result<GcReport, PackError> {
    let mut report = GcReport { dry_run: config.dry_run, ..GcReport::default() };
    let mut planned: Vec<DayGarbage> = Vec::new();
    for date in days(writer, &config.days).await? {
        match writer.plan_gc(date, config.grace).await {
            Ok(Some(garbage)) => {
                report.objects += garbage.objects;
                report.waiting += garbage.waiting;
                report.damaged.extend(garbage.damaged.iter().map(ToString::to_string));
                let oldest = garbage.oldest.map(Timestamp::micros);
                report.oldest_deletion = report.oldest_deletion.into_iter().chain(oldest).min();
                planned.push(garbage);
            }
            Ok(None) => {}
            Err(error) => {
                report.failures.push((date.to_string(), reason_of(&error)));
                // Its deletions wait all the same.
                let oldest = writer.oldest_deletion(date).await.unwrap_or_default().map(Timestamp::micros);
                report.oldest_deletion = report.oldest_deletion.into_iter().chain(oldest).min();
            }
        }
    }
    refuse_too_much(&planned, report.objects, config)?;
    for garbage in planned {
        if config.dry_run {
            report.purged += u64::try_from(garbage.due.len()).unwrap_or(u64::MAX);
            report.purged_bytes += garbage.due.iter().map(|(_, len)| len).sum::<u64>();
            report.condemned += u64::try_from(garbage.orphans.len()).unwrap_or(u64::MAX);
            continue;
        }
        match Box::pin(writer.collect(&garbage, config.grace)).await {
            Ok(collected) => {
                report.purged += collected.purged;
                report.purged_bytes += collected.purged_bytes;
                report.condemned += collected.condemned;
                report.erased += collected.erased;
                let held = collected.held_back.iter().map(|(key, why)| (key.to_string(), why.to_string()));
                report.held_back.extend(held);
            }
            Err(error) => report.failures.push((garbage.date.to_string(), reason_of(&error))),
        }
    }
    metrics.note_gc(&report);
    Ok(report)
}

/// A wrong prefix, a lost manifest or a clock far off would make much look like garbage at once.
fn refuse_too_much(planned: &[DayGarbage], objects: u64, config: &GcConfig) -> Result<(), PackError> {
    let due = planned.iter().map(|garbage| garbage.due.len() + garbage.orphans.len()).sum::<usize>();
    let due = u64::try_from(due).unwrap_or(u64::MAX);
    let is_large_share =
        objects >= SHARE_COUNTS_FROM && due.saturating_mul(100) > objects.saturating_mul(SHARE_UNASKED_MAX);
    if config.yes || config.dry_run || !(due > OBJECTS_UNASKED_MAX || is_large_share) {
        return Ok(());
    }
    Err(PackError::refused(format!(
        "{due} of {objects} objects would go at once, more than {OBJECTS_UNASKED_MAX} or {SHARE_UNASKED_MAX} %, so \
         nothing was deleted; look at --dry-run, then say --yes"
    )))
}

impl fmt::Display for GcReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (key, why) in &self.held_back {
            writeln!(f, "{key}: kept, since {why}")?;
        }
        for key in &self.damaged {
            writeln!(f, "{key}: live, and missing or of the wrong length; run des-verify")?;
        }
        let (deleted, condemned) = if self.dry_run { ("would delete", "condemn") } else { ("deleted", "condemned") };
        write!(
            f,
            "{deleted} {} of {} objects ({}), {condemned} {} orphans; {} wait, {} deletions are proven to be carried out",
            self.purged,
            self.objects,
            ByteSize(self.purged_bytes),
            self.condemned,
            self.waiting,
            self.erased,
        )
    }
}
