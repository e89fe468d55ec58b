//! What a migration would be about, before it runs: files and bytes by days and sizes, shards, requests and their price.

use std::collections::BTreeMap;
use std::fmt;

use desfmt::{Date, Timestamp};
use packer::{ByteSize, Volume, choose_bits};
use serde::{Deserialize, Serialize};

use crate::rows::DayVolume;

/// What requests and bytes cost, in dollars. The defaults are those of S3 Standard in us-east-1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Prices {
    /// A thousand requests that write or list.
    pub put_per_1000: f64,
    /// A thousand requests that read.
    pub get_per_1000: f64,
    /// A gigabyte (10^9 bytes) for a month.
    pub storage_per_gb_month: f64,
    /// The least that is charged for an object, in bytes.
    pub object_bytes_min: u64,
}

impl Default for Prices {
    fn default() -> Self {
        Self { put_per_1000: 0.005, get_per_1000: 0.0004, storage_per_gb_month: 0.023, object_bytes_min: 0 }
    }
}

/// Upper bounds of the classes of sizes; the last class is all above.
pub const CLASS_BOUNDS: [u64; 6] = [1 << 10, 4 << 10, 16 << 10, 64 << 10, 1 << 20, 16 << 20];

/// The names of the classes.
pub const CLASS_NAMES: [&str; 7] =
    ["below 1 KiB", "1 to 4 KiB", "4 to 16 KiB", "16 to 64 KiB", "64 KiB to 1 MiB", "1 to 16 MiB", "16 MiB and more"];

/// Parts of a large upload, in bytes.
const PART_BYTES: u64 = 8 << 20;

/// Requests that a shard costs besides its parts: begin and end of the upload, or its single one, and the reading back.
const WRITES_A_SHARD: u64 = 2;

/// Requests that a day costs: its empty manifest, and a commit for each batch, which all its shards share.
const WRITES_A_DAY: u64 = 2;

/// What is assumed of compression where nothing was packed yet: contents shrink to this many hundredths.
const RATIO_PERCENT: u64 = 55;

/// Files and bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Share {
    /// How many files.
    pub files: u64,
    /// Their lengths together.
    pub bytes: u64,
}

impl Share {
    const fn add(&mut self, files: u64, bytes: u64) {
        self.files = self.files.saturating_add(files);
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

/// One day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DayStats {
    /// The day, `YYYYMMDD`.
    pub day: String,
    /// What it has.
    #[serde(flatten)]
    pub share: Share,
    /// How many shards it is expected to fill.
    pub shards: u64,
}

/// What keeping and writing the files costs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Cost {
    /// Objects.
    pub objects: u64,
    /// Requests that write.
    pub writes: u64,
    /// What they cost once, in dollars.
    pub writing: f64,
    /// What reading every file once costs, in dollars.
    pub reading_all: f64,
    /// What keeping them costs a month, in dollars.
    pub storage_a_month: f64,
}

/// The scope of a migration.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Scope {
    /// All files.
    #[serde(flatten)]
    pub all: Share,
    /// By classes of sizes.
    pub sizes: BTreeMap<&'static str, Share>,
    /// By days, ascending.
    pub days: Vec<DayStats>,
    /// The oldest file.
    pub oldest: Option<String>,
    /// The newest file.
    pub newest: Option<String>,
    /// True where the table tells no lengths, so that all that is about bytes is unknown.
    pub sizes_are_unknown: bool,
    /// The number of bits of the archive.
    pub n_bits: u8,
    /// How many shards are expected.
    pub shards: u64,
    /// To what part of their size files are taken to shrink, in hundredths.
    pub ratio_percent: u64,
    /// With an object for each file.
    pub before: Cost,
    /// With shards.
    pub after: Cost,
}

/// What a scope is computed from, besides the table.
#[derive(Debug, Clone, Copy)]
pub struct Assumptions {
    /// The bits of the archive; chosen by the volume where none are given.
    pub bits: Option<desfmt::BucketBits>,
    /// The most content of a shard.
    pub shard_bytes: u64,
    /// What things cost.
    pub prices: Prices,
    /// True where the table tells lengths.
    pub knows_sizes: bool,
}

impl Scope {
    /// Sums up what a table holds. Pure.
    pub fn of(volumes: &[DayVolume], assumptions: &Assumptions) -> Self {
        let mut by_day: BTreeMap<Date, Volume> = BTreeMap::new();
        let mut sizes: BTreeMap<&'static str, Share> = BTreeMap::new();
        let (mut all, mut billed) = (Share::default(), 0_u64);
        let (mut oldest, mut newest): (Option<Timestamp>, Option<Timestamp>) = (None, None);
        for part in volumes {
            let Some(day) = Date::of(part.day) else { continue };
            let volume = by_day.entry(day).or_default();
            volume.files = volume.files.saturating_add(part.files);
            volume.bytes = volume.bytes.saturating_add(part.bytes);
            all.add(part.files, part.bytes);
            if let Some(name) = CLASS_NAMES.get(part.class) {
                sizes.entry(name).or_default().add(part.files, part.bytes);
            }
            let least = part.files.saturating_mul(assumptions.prices.object_bytes_min);
            billed = billed.saturating_add(part.bytes.max(least));
            oldest = Some(oldest.map_or(part.oldest, |time| time.min(part.oldest)));
            newest = Some(newest.map_or(part.newest, |time| time.max(part.newest)));
        }
        let bits = assumptions.bits.unwrap_or_else(|| choose_bits(&by_day));
        let day_stats = |(day, volume): (&Date, &Volume)| DayStats {
            day: day.to_string(),
            share: Share { files: volume.files, bytes: volume.bytes },
            shards: shards_of(volume, bits, assumptions.shard_bytes),
        };
        let days: Vec<DayStats> = by_day.iter().map(day_stats).collect();
        let shards: u64 = days.iter().map(|day| day.shards).sum();
        let stored = all.bytes / 100 * RATIO_PERCENT;
        let parts = stored.checked_div(shards).map_or(0, |bytes| bytes.div_ceil(PART_BYTES).max(1));
        let day_count = u64::try_from(days.len()).unwrap_or(u64::MAX);
        let prices = &assumptions.prices;
        let before = prices.cost((all.files, all.files), all.files, billed);
        let writes = shards.saturating_mul(parts + WRITES_A_SHARD).saturating_add(day_count * WRITES_A_DAY);
        let after = prices.cost((shards + day_count, writes), all.files.saturating_add(shards * 2), stored);
        Self {
            all,
            sizes,
            days,
            oldest: oldest.map(|time| time.to_string()),
            newest: newest.map(|time| time.to_string()),
            sizes_are_unknown: !assumptions.knows_sizes,
            n_bits: bits.get(),
            shards,
            ratio_percent: RATIO_PERCENT,
            before,
            after,
        }
    }
}

/// Files fall into groups at random, so a day with few files fills fewer groups than there are.
fn shards_of(volume: &Volume, bits: desfmt::BucketBits, shard_bytes: u64) -> u64 {
    let groups = u64::from(bits.buckets()).min(volume.files);
    if groups == 0 {
        return 0;
    }
    let splits = (volume.bytes / groups).div_ceil(shard_bytes.max(1)).max(1);
    groups.saturating_mul(splits)
}

impl Prices {
    #[expect(clippy::cast_precision_loss, clippy::as_conversions, reason = "dollars are told to the cent")]
    fn cost(&self, (objects, writes): (u64, u64), reads: u64, bytes: u64) -> Cost {
        Cost {
            objects,
            writes,
            writing: writes as f64 / 1_000.0 * self.put_per_1000,
            reading_all: reads as f64 / 1_000.0 * self.get_per_1000,
            storage_a_month: bytes as f64 / 1e9 * self.storage_per_gb_month,
        }
    }
}

/// Days that a table shows; the JSON has all of them.
const DAYS_SHOWN: usize = 40;

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = |bytes: u64| if self.sizes_are_unknown { "?".to_owned() } else { ByteSize(bytes).to_string() };
        writeln!(f, "{:>8} {:>14} {:>12} {:>8}", "day", "files", "bytes", "shards")?;
        for day in self.days.iter().take(DAYS_SHOWN) {
            writeln!(f, "{} {:>14} {:>12} {:>8}", day.day, day.share.files, size(day.share.bytes), day.shards)?;
        }
        if let Some(more) = self.days.len().checked_sub(DAYS_SHOWN).filter(|more| *more > 0) {
            writeln!(f, "... and {more} more days (--json tells all)")?;
        }
        writeln!(f)?;
        if !self.sizes_are_unknown {
            for name in CLASS_NAMES {
                let share = self.sizes.get(name).copied().unwrap_or_default();
                writeln!(f, "{name:>16} {:>14} {:>12}", share.files, size(share.bytes))?;
            }
            writeln!(f)?;
        }
        writeln!(f, "files      {}, {}", self.all.files, size(self.all.bytes))?;
        writeln!(f, "oldest     {}", self.oldest.as_deref().unwrap_or("-"))?;
        writeln!(f, "newest     {}", self.newest.as_deref().unwrap_or("-"))?;
        writeln!(f, "days       {}", self.days.len())?;
        writeln!(f, "shards     {} expected, n_bits {}", self.shards, self.n_bits)?;
        writeln!(f)?;
        writeln!(f, "{:22} {:>18} {:>18}", "on S3", "an object a file", "shards")?;
        let row = |f: &mut fmt::Formatter<'_>, name: &str, before: String, after: String| {
            writeln!(f, "{name:22} {before:>18} {after:>18}")
        };
        let (before, after) = (&self.before, &self.after);
        let dollars = |amount: f64| format!("${amount:.4}");
        row(f, "objects", before.objects.to_string(), after.objects.to_string())?;
        row(f, "requests to write", before.writes.to_string(), after.writes.to_string())?;
        row(f, "writing, once", dollars(before.writing), dollars(after.writing))?;
        row(f, "reading all, once", dollars(before.reading_all), dollars(after.reading_all))?;
        row(f, "storage, a month", dollars(before.storage_a_month), dollars(after.storage_a_month))?;
        if self.sizes_are_unknown {
            write!(f, "lengths are unknown: database.size_column names the column that tells them")
        } else {
            write!(f, "shards are taken to hold files at {} % of their size", self.ratio_percent)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(day: &str, class: usize, files: u64, bytes: u64) -> DayVolume {
        let day: Date = day.parse().unwrap();
        DayVolume { day: day.start(), class, files, bytes, oldest: day.start(), newest: crate::days::end_of(day) }
    }

    fn assumptions() -> Assumptions {
        Assumptions { bits: None, shard_bytes: 256 << 20, prices: Prices::default(), knows_sizes: true }
    }

    #[test]
    fn a_million_files_cost_what_the_price_list_says() {
        let scope = Scope::of(&[part("20240115", 3, 1_000_000, 20_000_000_000)], &assumptions());
        assert_eq!((scope.all.files, scope.before.objects), (1_000_000, 1_000_000));
        assert!((scope.before.writing - 5.0).abs() < 1e-9);
        assert!((scope.before.storage_a_month - 0.46).abs() < 1e-9);
        assert!((scope.before.reading_all - 0.4).abs() < 1e-9);
        assert!(scope.after.writing < 0.05 && scope.after.storage_a_month < 0.26, "{:?}", scope.after);
        // 20 GB a day at 64 MiB expected a shard: 2^8 groups.
        assert_eq!((scope.n_bits, scope.shards), (8, 256));
    }

    #[test]
    fn days_and_classes_add_up() {
        let parts = [part("20240115", 0, 3, 300), part("20240115", 6, 1, 32 << 20), part("20240116", 0, 2, 20)];
        let scope = Scope::of(&parts, &assumptions());
        assert_eq!(scope.days.len(), 2);
        assert_eq!(scope.days[0].share, Share { files: 4, bytes: (32 << 20) + 300 });
        assert_eq!(scope.sizes["below 1 KiB"], Share { files: 5, bytes: 320 });
        assert_eq!(scope.days[1].shards, 2);
        assert!(scope.to_string().contains("below 1 KiB"));
    }

    #[test]
    fn the_least_that_is_charged_for_an_object_counts() {
        let prices = Prices { object_bytes_min: 128 << 10, ..Prices::default() };
        let scope = Scope::of(&[part("20240115", 0, 1_000, 1_000)], &Assumptions { prices, ..assumptions() });
        assert!((scope.before.storage_a_month - 0.131_072 * 0.023).abs() < 1e-9);
    }

    #[test]
    fn nothing_costs_nothing() {
        let scope = Scope::of(&[], &assumptions());
        assert_eq!((scope.shards, scope.after.writes), (0, 0));
    }
}
