//! What will be packed into which shard: decided from the sorted rows alone, before anything is built.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::num::NonZeroU32;
use std::ops::Range;

use desfmt::{BucketBits, Date, Group};

use crate::issue::{IssueLog, Outcome};
use crate::limits;
use crate::rows::{EncodedRow, RowLog, RowLogWriter};
use crate::size::ByteSize;
use crate::sort::sorted;
use crate::spool::Spool;

/// How many files and bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Volume {
    /// How many files.
    pub files: u64,
    /// Their declared lengths together.
    pub bytes: u64,
}

impl Volume {
    /// Counts one more file.
    pub fn add(&mut self, len: u64) {
        self.files += 1;
        self.bytes = self.bytes.saturating_add(len);
    }
}

/// The number of bits for a new archive: the largest for which a day's shard is expected to hold
/// [`limits::SHARD_BYTES_EXPECTED`], but at least 4.
pub fn choose_bits(days: &BTreeMap<Date, Volume>) -> BucketBits {
    let bytes = days.values().fold(0_u64, |sum, day| sum.saturating_add(day.bytes));
    let a_day = bytes / u64::try_from(days.len()).unwrap_or(u64::MAX).max(1);
    (4..=BucketBits::MAX)
        .rev()
        .filter_map(BucketBits::new)
        .find(|bits| a_day / u64::from(bits.buckets()) >= limits::SHARD_BYTES_EXPECTED)
        .or(BucketBits::new(4))
        .unwrap_or_else(|| unreachable!("4 bits are within the range"))
}

/// The share of one of several packers that divide the groups among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Which packer, from 0.
    pub index: u32,
    /// How many packers there are.
    pub count: NonZeroU32,
}

impl Share {
    /// The share of a packer that is alone.
    pub const ALL: Self = Self { index: 0, count: NonZeroU32::MIN };

    /// True where this packer packs that group. The same on every machine and in every version.
    pub fn has(self, group: &Group) -> bool {
        if self.count == NonZeroU32::MIN {
            return true;
        }
        let hash = blake3::hash(group.to_string().as_bytes());
        hash.as_bytes().first_chunk().map_or(0, |head| u32::from_le_bytes(*head)) % self.count == self.index
    }
}

/// What bounds a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShardLimits {
    /// Declared bytes, but for a single larger file.
    pub bytes: u64,
    /// Files.
    pub entries: u64,
}

/// One shard that is to be built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ShardPlan {
    /// The group of its files.
    pub(crate) group: Group,
    /// What it will hold.
    pub(crate) volume: Volume,
    /// Where its rows are in the sorted log.
    pub(crate) rows: Range<u64>,
}

/// Cuts the sorted rows into shards. Pure: the same rows and limits give the same shards.
#[derive(Debug)]
pub(crate) struct ShardCutter {
    limits: ShardLimits,
    open: Option<ShardPlan>,
    index_cost: u64,
}

impl ShardCutter {
    pub(crate) const fn new(limits: ShardLimits) -> Self {
        Self { limits, open: None, index_cost: 0 }
    }

    /// Takes the next row; returns the shard before it if that is complete.
    pub(crate) fn push(&mut self, group: Group, row: EncodedRow<'_>, at: Range<u64>) -> Option<ShardPlan> {
        let (len, index_cost) = (row.file_len(), row.index_cost());
        if let Some(open) = &mut self.open
            && open.group == group
            && open.volume.files < self.limits.entries
            && open.volume.bytes.saturating_add(len) <= self.limits.bytes
            && self.index_cost + index_cost <= limits::SHARD_INDEX_BYTES
        {
            open.volume.add(len);
            open.rows.end = at.end;
            self.index_cost += index_cost;
            return None;
        }
        self.index_cost = index_cost;
        self.open.replace(ShardPlan { group, volume: Volume { files: 1, bytes: len }, rows: at })
    }

    /// The last shard.
    pub(crate) fn finish(self) -> Option<ShardPlan> {
        self.open
    }
}

/// What is planned for a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DayPlan {
    /// The day.
    pub date: Date,
    /// Its files.
    pub volume: Volume,
    /// How many groups they fall into.
    pub groups: u64,
    /// How many shards they fill.
    pub shards: u64,
}

/// The plan of a run, summed up by days. Printed by `--dry-run`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// How many bits the archive has or will have.
    pub bits: BucketBits,
    /// The days, ascending.
    pub days: Vec<DayPlan>,
    /// Rows that repeat another one in all they say; taken once.
    pub repeated: u64,
    /// Files in groups that other packers pack.
    pub of_others: Volume,
}

impl Plan {
    /// All that will be packed.
    pub fn volume(&self) -> Volume {
        let sum = |of: fn(&DayPlan) -> u64| self.days.iter().fold(0_u64, |sum, day| sum.saturating_add(of(day)));
        Volume { files: sum(|day| day.volume.files), bytes: sum(|day| day.volume.bytes) }
    }

    /// How many groups.
    pub fn groups(&self) -> u64 {
        self.days.iter().map(|day| day.groups).sum()
    }

    /// How many shards.
    pub fn shards(&self) -> u64 {
        self.days.iter().map(|day| day.shards).sum()
    }

    fn count(&mut self, shard: &ShardPlan, is_new_group: bool) {
        let date = shard.group.date;
        if self.days.last().is_none_or(|day| day.date != date) {
            self.days.push(DayPlan { date, volume: Volume::default(), groups: 0, shards: 0 });
        }
        if let Some(day) = self.days.last_mut() {
            day.volume.files += shard.volume.files;
            day.volume.bytes = day.volume.bytes.saturating_add(shard.volume.bytes);
            day.groups += u64::from(is_new_group);
            day.shards += 1;
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:>8} {:>10} {:>8} {:>12} {:>12}", "day", "groups", "shards", "files", "bytes")?;
        for day in &self.days {
            let (groups, shards, files) = (day.groups, day.shards, day.volume.files);
            let bytes = ByteSize(day.volume.bytes).to_string();
            writeln!(f, "{} {groups:>10} {shards:>8} {files:>12} {bytes:>12}", day.date)?;
        }
        let Volume { files, bytes } = self.volume();
        let (days, groups, shards) = (self.days.len(), self.groups(), self.shards());
        let bits = self.bits.get();
        write!(f, "{days} days, {groups} groups, {shards} shards, {files} files, {}; n_bits {bits}", ByteSize(bytes))?;
        if self.of_others.files > 0 {
            write!(f, "; {} files are left to other workers", self.of_others.files)?;
        }
        Ok(())
    }
}

/// How rows become a plan.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Planner<'a> {
    pub(crate) bits: BucketBits,
    pub(crate) limits: ShardLimits,
    pub(crate) share: Share,
    pub(crate) spool: &'a Spool,
    pub(crate) issues: &'a IssueLog,
}

impl Planner<'_> {
    /// Sorts the rows, leaves out repetitions, contradictions and other packers' groups, and plans the rest.
    /// The sorted rows that come with the plan are exactly those that are to be packed.
    pub(crate) fn plan(self, rows: &RowLog) -> io::Result<(Plan, RowLog)> {
        let mut building = Building {
            planner: self,
            plan: Plan { bits: self.bits, days: Vec::new(), repeated: 0, of_others: Volume::default() },
            cutter: ShardCutter::new(self.limits),
            last_group: None,
            out: RowLogWriter::new(self.spool),
        };
        let mut sorted = sorted(rows, self.bits, self.spool)?;
        // The rows of one uid stand together; the first is held back until it is known that no other contradicts it.
        let mut first: Vec<u8> = Vec::new();
        let mut is_contradicted = false;
        while let Some(row) = sorted.next_row()? {
            let held = EncodedRow::new(&first);
            if !first.is_empty() && row.is_same_uid(held) {
                if is_contradicted || !row.is_repetition_of(held) {
                    if !is_contradicted {
                        building.contradiction(held)?;
                    }
                    is_contradicted = true;
                    building.contradiction(row)?;
                } else {
                    building.plan.repeated += 1;
                }
                continue;
            }
            if !first.is_empty() && !is_contradicted {
                building.take(held)?;
            }
            is_contradicted = false;
            first.clear();
            first.extend_from_slice(row.bytes());
        }
        if !first.is_empty() && !is_contradicted {
            building.take(EncodedRow::new(&first))?;
        }
        building.finish()
    }
}

struct Building<'a> {
    planner: Planner<'a>,
    plan: Plan,
    cutter: ShardCutter,
    last_group: Option<Group>,
    out: RowLogWriter<'a>,
}

impl Building<'_> {
    fn take(&mut self, row: EncodedRow<'_>) -> io::Result<()> {
        let group = row.group(self.planner.bits).ok_or(io::ErrorKind::InvalidData)?;
        if !self.planner.share.has(&group) {
            self.plan.of_others.add(row.file_len());
            return Ok(());
        }
        let start = self.out.position();
        self.out.push(row)?;
        if let Some(shard) = self.cutter.push(group, row, start..self.out.position()) {
            self.count(&shard);
        }
        Ok(())
    }

    fn count(&mut self, shard: &ShardPlan) {
        self.plan.count(shard, self.last_group != Some(shard.group));
        self.last_group = Some(shard.group);
    }

    fn contradiction(&self, row: EncodedRow<'_>) -> io::Result<()> {
        // Every packer sees all rows; the one that has the group tells of it.
        if row.group(self.planner.bits).is_some_and(|group| self.planner.share.has(&group)) {
            let reason = "several rows of this day have this uid, and they differ; none of them is packed";
            self.planner.issues.leave_out(Outcome::Failed, &row.decode()?, reason);
        }
        Ok(())
    }

    fn finish(mut self) -> io::Result<(Plan, RowLog)> {
        let limits = self.planner.limits;
        if let Some(shard) = std::mem::replace(&mut self.cutter, ShardCutter::new(limits)).finish() {
            self.count(&shard);
        }
        Ok((self.plan, self.out.finish()?))
    }
}

/// Reads the shards of a plan again from its sorted rows, one at a time.
#[derive(Debug)]
pub(crate) struct ShardPlans {
    reader: crate::rows::RowReader,
    bits: BucketBits,
    cutter: Option<ShardCutter>,
    position: u64,
}

impl ShardPlans {
    pub(crate) fn new(rows: &RowLog, bits: BucketBits, limits: ShardLimits) -> Self {
        Self { reader: rows.read_all(), bits, cutter: Some(ShardCutter::new(limits)), position: 0 }
    }

    /// The next shard, or `None` at the end.
    pub(crate) fn next_shard(&mut self) -> io::Result<Option<ShardPlan>> {
        let Some(cutter) = &mut self.cutter else {
            return Ok(None);
        };
        while let Some(row) = self.reader.next_row()? {
            let group = row.group(self.bits).ok_or(io::ErrorKind::InvalidData)?;
            let start = self.position;
            self.position += u64::try_from(row.bytes().len()).unwrap_or(u64::MAX) + 4;
            if let Some(shard) = cutter.push(group, row, start..self.position) {
                return Ok(Some(shard));
            }
        }
        Ok(self.cutter.take().and_then(ShardCutter::finish))
    }
}

#[cfg(test)]
mod tests;
