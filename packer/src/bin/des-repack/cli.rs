//! The command line of des-repack.

use std::net::SocketAddr;
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args as ClapArgs, Parser, Subcommand};
use desfmt::v3::FrameSize;
use desfmt::{Date, ObjectKey};
use desstore::LocalStore;
use desstore::observe::parse_address;
use desstore::repack::Thresholds;
use packer::program::LogArgs;
use packer::repack::{GcConfig, RepackConfig};
use packer::{ByteSize, CodecChoice, Compression, StoreArgs};

/// Takes the bytes of deleted files out of a DES archive.
///
/// Without a command it folds the records of deletions, then rewrites the shards that are due: those with too many deleted
/// files, those in which a deletion has waited for long enough, and small ones of a group that has too many. What is visible
/// never changes. The old versions stay until `des-repack gc` deletes them, after the grace period and with proof. Both are
/// meant to run every hour; any number may run at once, and running one again after any crash is safe.
///
/// Exit codes: 0 done; 1 something failed or had to be kept (the report says what); 2 the command line is wrong.
#[derive(Debug, Parser)]
#[command(name = "des-repack", version)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) store: StoreArgs,

    #[command(flatten)]
    pub(crate) log: LogArgs,

    #[command(flatten)]
    pub(crate) run: RunArgs,

    #[command(flatten)]
    pub(crate) repack: RepackArgs,

    #[command(subcommand)]
    pub(crate) task: Option<Task>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Task {
    /// Deletes retired and condemned objects whose grace period is over, older versions of them too, each after a proof that
    /// all it holds is deleted or is in a live shard.
    Gc(GcArgs),
}

/// How it runs.
#[derive(Debug, ClapArgs)]
#[command(next_help_heading = "How it runs")]
#[expect(clippy::struct_excessive_bools, reason = "one for each switch")]
pub(crate) struct RunArgs {
    /// Only this day, YYYYMMDD; may be repeated.
    #[arg(global = true, long = "date", value_name = "DAY", value_parser = parse_day)]
    pub(crate) dates: Vec<Date>,

    /// Says what would be done, and changes nothing.
    #[arg(global = true, long)]
    pub(crate) dry_run: bool,

    /// Prints the report as JSON.
    #[arg(global = true, long)]
    pub(crate) json: bool,

    /// Collects afterwards in the same run, whatever has come of the repacking.
    #[arg(global = true, long)]
    pub(crate) collect: bool,

    /// Goes on for ever: repacks and collects, then waits for the interval.
    #[arg(global = true, long, conflicts_with = "dry_run")]
    pub(crate) continuous: bool,

    /// The time between two runs of --continuous.
    #[arg(global = true, long, value_name = "TIME", default_value = "1h", value_parser = parse_time)]
    pub(crate) interval: Duration,

    /// Serves /metrics, /health and /ready there while it runs.
    #[arg(global = true, long, value_name = "ADDRESS", value_parser = parse_address)]
    pub(crate) http: Option<SocketAddr>,

    /// Writes the metrics to a file when it ends, for the textfile collector of `node_exporter`.
    #[arg(global = true, long, value_name = "FILE")]
    pub(crate) textfile: Option<PathBuf>,

    /// How long a retired version stays before it is deleted; at least an hour.
    #[arg(global = true, long, value_name = "TIME", default_value = "24h", value_parser = parse_time)]
    pub(crate) grace: Duration,

    /// Where shards lie while they are rebuilt; room for twice the size of a shard for each job is needed. What killed runs
    /// have left there is taken away.
    #[arg(global = true, long, value_name = "DIR")]
    pub(crate) spool: Option<PathBuf>,

    /// For tests: lets the grace period be shorter than an hour.
    #[arg(global = true, long, hide = true)]
    pub(crate) unsafe_short_grace: bool,
}

/// What is repacked.
#[derive(Debug, ClapArgs)]
#[command(next_help_heading = "Repacking")]
pub(crate) struct RepackArgs {
    /// The share of a shard that must be deleted, in percent of its bytes or files.
    #[arg(long, value_name = "PERCENT", default_value_t = 20, value_parser = clap::value_parser!(u8).range(1..=100))]
    threshold: u8,

    /// How old the oldest deletion in a shard may become.
    #[arg(long, value_name = "TIME", default_value = "12h", value_parser = parse_time)]
    max_age: Duration,

    /// How many shards a group may have before the small ones are merged.
    #[arg(long, value_name = "N", default_value = "4")]
    group_shards: NonZeroUsize,

    /// Compresses every shard anew: zstd, `zstd:LEVEL`, lz4, none or auto.
    #[arg(long, value_name = "CODEC", value_parser = parse_compression)]
    recompress: Option<Compression>,

    /// Turns every shard of the ancestor (version 1 or 2) into one of the current version, also where nothing is deleted. Its own
    /// readers do not find these files any more.
    #[arg(long)]
    convert: bool,

    /// How many shards are repacked at once; as many as there are processors if not given.
    #[arg(long, value_name = "N")]
    jobs: Option<NonZeroUsize>,

    /// The most bytes a second that are read and written for each job.
    #[arg(long, value_name = "SIZE", value_parser = parse_rate)]
    rate: Option<NonZeroU64>,

    /// Brings a retired version back under a new name, given by its key, such as
    /// `shards/20240115/20240115_3F_0000.des`.
    #[arg(long, value_name = "KEY", value_parser = parse_key)]
    pub(crate) rollback: Option<ObjectKey>,
}

/// What is collected.
#[derive(Debug, ClapArgs)]
pub(crate) struct GcArgs {
    /// Does not ask, however much goes. Without it nothing is deleted where more than 1,000 objects or 10 % of all would go.
    #[arg(long)]
    pub(crate) yes: bool,
}

impl Args {
    /// What is wrong with the command line as a whole.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.run.grace < Duration::from_hours(1) && !self.run.unsafe_short_grace {
            return Err(
                "--grace must be at least 1h: whoever reads a retired version needs time to learn of the new one"
                    .to_owned(),
            );
        }
        if self.run.interval.is_zero() {
            return Err("--interval must be longer than nothing".to_owned());
        }
        let RunArgs { collect, continuous, dry_run, .. } = self.run;
        if self.repack.rollback.is_some() && (self.task.is_some() || collect || continuous || dry_run) {
            return Err("--rollback goes alone".to_owned());
        }
        Ok(())
    }

    /// True where a run also collects.
    pub(crate) const fn collects(&self) -> bool {
        matches!(self.task, Some(Task::Gc(_))) || self.run.continuous || self.run.collect
    }

    /// How it repacks; `scratch` is where shards lie unless told otherwise, `directory` the archive, if it is a directory.
    pub(crate) fn repack_config(&self, scratch: PathBuf, directory: Option<LocalStore>) -> RepackConfig {
        let RepackArgs { threshold, max_age, group_shards, recompress, convert, jobs, rate, rollback: _ } =
            &self.repack;
        let auto = Compression { choice: CodecChoice::Auto, level: Compression::LEVEL_DEFAULT };
        RepackConfig {
            days: self.run.dates.clone(),
            thresholds: Thresholds {
                dead_percent: *threshold,
                age_max: *max_age,
                group_shards_max: group_shards.get(),
                all: recompress.is_some(),
                convert: *convert,
                ..Thresholds::default()
            },
            compression: recompress.unwrap_or(auto),
            recompress: recompress.is_some(),
            frame_size: FrameSize::default(),
            jobs: jobs.or_else(|| std::thread::available_parallelism().ok()).unwrap_or(NonZeroUsize::MIN),
            spool: self.run.spool.clone().unwrap_or(scratch),
            directory,
            rate: *rate,
            dry_run: self.run.dry_run,
        }
    }

    /// How it collects.
    pub(crate) fn gc_config(&self) -> GcConfig {
        let yes = self.task.as_ref().is_some_and(|Task::Gc(gc)| gc.yes);
        GcConfig { days: self.run.dates.clone(), grace: self.run.grace, yes, dry_run: self.run.dry_run }
    }
}

fn parse_day(text: &str) -> Result<Date, String> {
    text.replace('-', "").parse().map_err(|_| format!("{text:?} is not a day such as 20240115"))
}

fn parse_key(text: &str) -> Result<ObjectKey, String> {
    ObjectKey::new(text).map_err(|error| error.to_string())
}

fn parse_rate(text: &str) -> Result<NonZeroU64, String> {
    let size: ByteSize = text.parse().map_err(|error: packer::SizeError| error.to_string())?;
    NonZeroU64::new(size.0).ok_or_else(|| "a rate of nothing never ends".to_owned())
}

fn parse_time(text: &str) -> Result<Duration, String> {
    let refused = || format!("{text:?} is not a time such as 90s, 15m, 12h or 2d");
    let end = text.find(|one: char| !one.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(end).ok_or_else(refused)?;
    let unit = match unit {
        "s" => Duration::from_secs(1),
        "m" => Duration::from_mins(1),
        "h" => Duration::from_hours(1),
        "d" => Duration::from_hours(24),
        _ => return Err(refused()),
    };
    unit.checked_mul(number.parse().map_err(|_| refused())?).ok_or_else(refused)
}

fn parse_compression(text: &str) -> Result<Compression, String> {
    let refused = || format!("{text:?} is not zstd, zstd:1 to zstd:22, lz4, none or auto");
    let (codec, level) = match text.split_once(':') {
        Some(("zstd", level)) => {
            ("zstd", level.parse().ok().filter(|level| (1..=22).contains(level)).ok_or_else(refused)?)
        }
        Some(_) => return Err(refused()),
        None => (text, Compression::LEVEL_DEFAULT),
    };
    let choice = match codec {
        "zstd" => CodecChoice::Zstd,
        "lz4" => CodecChoice::Lz4,
        "none" => CodecChoice::Stored,
        "auto" => CodecChoice::Auto,
        _ => return Err(refused()),
    };
    Ok(Compression { choice, level })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Args, String> {
        let words = ["des-repack", "--archive", "/archive"].into_iter().chain(line.split_whitespace());
        let args = Args::try_parse_from(words).map_err(|error| error.to_string())?;
        args.check()?;
        Ok(args)
    }

    #[test]
    fn the_command_line_is_sound() {
        <Args as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn what_is_typed_becomes_the_configuration() {
        let args =
            parse("--threshold 5 --max-age 6h --convert --recompress zstd:19 --rate 10M --date 2024-01-15").unwrap();
        let config = args.repack_config(PathBuf::from("/spool"), None);

        assert_eq!((config.thresholds.dead_percent, config.thresholds.age_max), (5, Duration::from_hours(6)));
        assert!(config.thresholds.convert);
        assert_eq!(config.compression, Compression { choice: CodecChoice::Zstd, level: 19 });
        assert_eq!((config.recompress, config.rate), (true, NonZeroU64::new(10 << 20)));
        assert_eq!(config.days, ["20240115".parse().unwrap()]);

        let args = parse("gc --yes --grace 2d").unwrap();
        assert_eq!((args.gc_config().grace, args.gc_config().yes), (Duration::from_hours(48), true));
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        for (line, reason) in [
            ("--grace 59m gc", "--grace must be at least 1h"),
            ("--threshold 0", "--threshold"),
            ("--max-age 12", "\"12\" is not a time"),
            ("--recompress zstd:23", "\"zstd:23\" is not zstd"),
            ("--rate 0", "a rate of nothing"),
            ("--rollback a --dry-run", "--rollback goes alone"),
            ("--rollback a --collect", "--rollback goes alone"),
            ("--continuous --dry-run", "--dry-run"),
        ] {
            let refused = parse(line).unwrap_err();
            assert!(refused.contains(reason), "{line}: {refused}");
        }
        assert!(parse("--grace 1s --unsafe-short-grace gc").is_ok());
    }
}
