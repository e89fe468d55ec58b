//! The command line of des-verify.

use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Parser, ValueEnum};
use desfmt::{BucketBits, Date};
use desstore::CheckLevel;
use desstore::values::parse_duration;
use packer::erase::day_of;
use packer::program::LogArgs;
use packer::{ByteSize, StoreArgs};

/// Says whether an archive is sound, from its manifests to its last byte. Changes nothing, unless told to make a lost
/// manifest anew or to adopt an archive of the ancestor.
///
/// One line for each finding, and one that sums up. Also checks archives of the ancestor. Exit codes: 0 sound; 1 damaged;
/// 2 it could not be checked, or not all of it, or the command line is wrong (which is said so).
#[derive(Debug, Parser)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
#[command(name = "des-verify", version, group(ArgGroup::new("change").args(["rebuild_manifest", "adopt"])))]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) store: StoreArgs,

    #[command(flatten)]
    pub(crate) log: LogArgs,

    /// How deep: manifests against what the store lists; also the index of each shard; also every content; or whether all
    /// zones of an archive hold the same.
    #[arg(long, value_enum, value_name = "LEVEL", default_value = "index", help_heading = "What")]
    pub(crate) level: LevelArg,

    /// Only this day and later ones.
    #[arg(long, value_name = "DAY", value_parser = day_of, help_heading = "What")]
    pub(crate) since: Option<Date>,

    /// Only so many percent of the shards, picked by chance: 5, 0.1.
    #[arg(long, value_name = "PERCENT", value_parser = parse_percent, help_heading = "What")]
    pub(crate) sample: Option<u32>,

    /// What decides the sample; by chance if not given.
    #[arg(long, value_name = "N", requires = "sample", help_heading = "What")]
    pub(crate) seed: Option<u64>,

    /// Objects that no manifest lists count as damage when they are older than this, or when they do not even look like
    /// shards of a run under way.
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = parse_duration, help_heading = "What")]
    pub(crate) orphan_age: Duration,

    /// How many bits an archive of the ancestor has; one of DES knows that itself.
    #[arg(long, value_name = "N", default_value = "8", value_parser = parse_bits, help_heading = "What")]
    pub(crate) n_bits: BucketBits,

    /// Only tries whether the store honours conditional writes, by writing below probe/.
    #[arg(long, help_heading = "Instead")]
    pub(crate) probe: bool,

    /// Makes the lost manifest of a day anew, from its objects. Refused where a doubt is left about what was visible.
    #[arg(long, value_name = "DAY", value_parser = day_of, conflicts_with = "probe", help_heading = "Instead")]
    pub(crate) rebuild_manifest: Option<Date>,

    /// Leaves damaged objects out of the manifest, with the files that only they hold.
    #[arg(long, requires = "rebuild_manifest", help_heading = "Instead")]
    pub(crate) without_damaged: bool,

    /// Where two shards hold one uid with different contents, the older one counts.
    #[arg(long, requires = "rebuild_manifest", help_heading = "Instead")]
    pub(crate) oldest_wins: bool,

    /// Turns an archive of the ancestor into one of DES where it lies: it gets manifests and tombstones, and nothing is copied.
    /// Needs the right --n-bits. Nobody else may write to it meanwhile.
    #[arg(long, conflicts_with = "probe", help_heading = "Instead")]
    pub(crate) adopt: bool,

    /// Says what would be done, and writes nothing.
    #[arg(long, requires = "change", help_heading = "Instead")]
    pub(crate) dry_run: bool,

    /// How much is read in a second at most: 20M, 20M/s.
    #[arg(long, value_name = "SIZE", value_parser = parse_rate, help_heading = "How")]
    pub(crate) rate: Option<NonZeroU64>,

    /// How many shards are examined at once.
    #[arg(long, value_name = "N", default_value = "4", help_heading = "How")]
    pub(crate) jobs: NonZeroUsize,

    /// Begins no shard later than so long after the start.
    #[arg(long = "for", value_name = "TIME", value_parser = parse_duration, help_heading = "How")]
    pub(crate) time: Option<Duration>,

    /// A file that remembers when the contents of each shard were last found sound: those come first that were not for the
    /// longest time.
    #[arg(long, value_name = "FILE", help_heading = "How")]
    pub(crate) state: Option<PathBuf>,

    /// Leaves out shards whose contents were found sound less long ago.
    #[arg(long, value_name = "TIME", value_parser = parse_duration, requires = "state", help_heading = "How")]
    pub(crate) again_after: Option<Duration>,

    /// Writes the findings and figures as JSON.
    #[arg(long, value_name = "FILE", help_heading = "How")]
    pub(crate) report: Option<PathBuf>,

    /// Writes figures for the textfile collector of Prometheus.
    #[arg(long, value_name = "FILE", help_heading = "How")]
    pub(crate) metrics: Option<PathBuf>,
}

/// How deep a check goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LevelArg {
    /// What manifests say against what the store lists.
    Manifest,
    /// Also the index of each shard.
    Index,
    /// Also every byte of each shard.
    Content,
    /// What manifests say, and every byte of each copy in every zone; what zones are owed.
    Zones,
}

impl Args {
    /// What is wrong with the command line as a whole.
    pub(crate) fn check(&self) -> Result<(), String> {
        let others =
            [("--sample", self.sample.is_some()), ("--state", self.state.is_some()), ("--for", self.time.is_some())];
        match others.iter().find(|(_, is_given)| *is_given) {
            Some((name, _)) if self.level == LevelArg::Zones => {
                Err(format!("{name} does not go with --level zones, which compares all of every day"))
            }
            Some(_) | None => Ok(()),
        }
    }
}

impl LevelArg {
    pub(crate) const fn level(self) -> CheckLevel {
        match self {
            // Zones are compared beside it.
            Self::Manifest | Self::Zones => CheckLevel::Manifest,
            Self::Index => CheckLevel::Index,
            Self::Content => CheckLevel::Content,
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Manifest => "manifest",
            Self::Index => "index",
            Self::Content => "content",
            Self::Zones => "zones",
        }
    }
}

/// A part in millionths.
fn parse_percent(text: &str) -> Result<u32, String> {
    let refused = || format!("{text:?} is not a number of percent above 0 and up to 100, such as 5 or 0.1");
    let (whole, fraction) = text.trim_end_matches('%').split_once('.').unwrap_or((text.trim_end_matches('%'), ""));
    let is_number = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !is_number(whole) || !is_number(fraction) || fraction.len() > 4 {
        return Err(refused());
    }
    let millionths = format!("{whole}{fraction:0<4}").parse::<u32>().map_err(|_| refused())?;
    (1..=1_000_000).contains(&millionths).then_some(millionths).ok_or_else(refused)
}

fn parse_rate(text: &str) -> Result<NonZeroU64, String> {
    let size: ByteSize =
        text.strip_suffix("/s").unwrap_or(text).parse().map_err(|error: packer::SizeError| error.to_string())?;
    NonZeroU64::new(size.0).ok_or_else(|| "a rate of 0 never ends".to_owned())
}

fn parse_bits(text: &str) -> Result<BucketBits, String> {
    text.parse().ok().and_then(BucketBits::new).ok_or_else(|| "a number from 0 to 16 is needed".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Args, String> {
        let words = ["des-verify", "--archive", "a"].into_iter().chain(line.split(' ').filter(|word| !word.is_empty()));
        Args::try_parse_from(words).map_err(|error| error.to_string())
    }

    #[test]
    fn the_command_line_is_sound() {
        <Args as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn parts_and_rates_are_read_as_people_write_them() {
        for (text, millionths) in [("100", 1_000_000), ("5", 50_000), ("0.1%", 1_000), ("12.5", 125_000)] {
            assert_eq!(parse_percent(text), Ok(millionths), "{text}");
        }
        assert_eq!(parse("--rate 20M/s").unwrap().rate, NonZeroU64::new(20 << 20));
        for line in
            ["--sample 0", "--sample 101", "--sample x", "--rate 0", "--level deep", "--seed 1", "--again-after 1d"]
        {
            assert!(parse(line).is_err(), "{line}");
        }
        assert!(parse("--level zones --since 2024-01-15 --rate 5M").unwrap().check().is_ok());
        let refused = parse("--level zones --sample 5").unwrap().check().unwrap_err();
        assert!(refused.contains("--sample does not go with --level zones"), "{refused}");
    }
}
