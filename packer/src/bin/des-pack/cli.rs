//! The command line of des-pack, and how it becomes a configuration.

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::str::FromStr;

use clap::{ArgGroup, Parser, ValueEnum};
use desfmt::v3::FrameSize;
use desfmt::{BucketBits, Date};
use desstore::{Location, StoreOptions};
use jiff::tz::TimeZone;
use packer::pack::Config;
use packer::program::LogArgs;
use packer::{
    ByteSize, CodecChoice, Compression, Dating, Framing, Input, Naming, ObserveArgs, ShardLimits, Share, Sources,
    StoreArgs, TimeRules, limits,
};

/// Packs files into a DES archive.
///
/// Reads a manifest or walks a directory, plans, then builds, verifies and publishes shard after shard. Running it again
/// packs nothing twice and goes on where a run was interrupted; several may run at once on one archive. A file that cannot
/// be packed is reported and left out.
///
/// Exit codes: 0 everything is in the archive; 1 something failed, was skipped or is in conflict (the report says what);
/// 2 the command line is wrong.
#[derive(Debug, Parser)]
#[command(name = "des-pack", version, group(ArgGroup::new("input").required(true).args(["input_json", "input_dir"])))]
pub(crate) struct Args {
    #[command(flatten)]
    store: StoreArgs,

    #[command(flatten)]
    pub(crate) log: LogArgs,

    #[command(flatten)]
    pub(crate) observe: ObserveArgs,

    /// A manifest, which may be `s3://BUCKET/KEY`, or - for standard input: a JSON array of `{uid, created_at, size_bytes, source_path}`, or such objects
    /// one after the other. A row may hold `metadata`, an object; other keys are ignored. Relative paths are relative to
    /// the manifest.
    #[arg(long, value_name = "FILE", help_heading = "What and where")]
    input_json: Option<PathBuf>,

    /// A directory: all regular files below it. Symbolic links are not followed.
    #[arg(long, value_name = "DIR", help_heading = "What and where")]
    input_dir: Option<PathBuf>,

    /// How files of --input-dir are named: by their path below it, their file name, or that without its extension.
    #[arg(long, value_enum, value_name = "NAME", default_value = "path", help_heading = "What and where")]
    uid: NamingArg,

    /// How files of --input-dir are dated: by their modification time (its UTC day), or all by one day, YYYYMMDD.
    #[arg(long, value_name = "mtime|DATE", default_value = "mtime", help_heading = "What and where")]
    created_at: DatingArg,

    /// What a `created_at` without a zone is local to, such as Europe/Warsaw or UTC; without this such a row is refused.
    #[arg(long, value_name = "TZ", value_parser = parse_zone, help_heading = "What and where")]
    timezone: Option<TimeZone>,

    /// How shards are compressed; auto decides by a sample of each.
    #[arg(long, value_enum, value_name = "CODEC", default_value = "auto", help_heading = "Format")]
    codec: CodecArg,

    /// How hard zstd tries, 1 to 22.
    #[arg(
        long,
        value_name = "N",
        default_value_t = Compression::LEVEL_DEFAULT,
        value_parser = clap::value_parser!(i32).range(1..=22),
        help_heading = "Format"
    )]
    level: i32,

    /// The most content in a shard; a single larger file has a shard of its own.
    #[arg(long, value_name = "SIZE", default_value = "256M", value_parser = parse_positive_size, help_heading = "Format")]
    max_shard_size: ByteSize,

    /// 2^N groups a day in a new archive, 0 to 16; fixed for ever. Chosen by the volume if not given: at least 4, more where
    /// a day's shards would still hold 64 MiB.
    #[arg(long, value_name = "N", value_parser = parse_bits, help_heading = "Format")]
    n_bits: Option<BucketBits>,

    /// How much content is compressed together and read at once, up to 1M; 0 puts each file into a frame of its own. If not
    /// given 8K, or 32K for shards of small files that become clearly smaller by it.
    #[arg(long, value_name = "SIZE", value_parser = parse_frame_size, help_heading = "Format")]
    frame_size: Option<FrameSize>,

    /// 3, or 2 for the flat files of the Python ancestor.
    #[arg(long, value_name = "3|2", default_value = "3", value_parser = clap::value_parser!(u8).range(2..=3), help_heading = "Format")]
    format: u8,

    /// Packs one of N shares of the groups. I counts from 0, or from 1: N/N is the same as 0/N.
    #[arg(long, value_name = "I/N", default_value = "0/1", value_parser = parse_share, help_heading = "How")]
    worker: Share,

    /// How many shards are built at once; as many as there are processors if not given.
    #[arg(long, value_name = "N", help_heading = "How")]
    jobs: Option<NonZeroUsize>,

    /// Plans, prints the plan and writes nothing.
    #[arg(long, help_heading = "How")]
    dry_run: bool,

    /// Vouches that nobody else writes to the archive. Only for buckets that do not honour conditional writes.
    #[arg(long, help_heading = "How")]
    single_writer: bool,

    /// Writes the summary and every row that was left out, as JSON.
    #[arg(long, value_name = "FILE", help_heading = "How")]
    report: Option<PathBuf>,

    /// Where shards are built before they are published. If not given, in the archive itself where that is a directory, so
    /// that publishing is a link, else below /var/tmp.
    #[arg(long, value_name = "DIR", help_heading = "How")]
    spool: Option<PathBuf>,

    /// How much content the shards in hand may have together, so that the spool does not grow above it; a single larger
    /// shard is built alone. No limit if not given.
    #[arg(long, value_name = "SIZE", value_parser = parse_positive_size, help_heading = "How")]
    spool_size: Option<ByteSize>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum NamingArg {
    Path,
    Name,
    Stem,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum CodecArg {
    Auto,
    Zstd,
    Lz4,
    None,
}

#[derive(Debug, Clone, Copy)]
struct DatingArg(Dating);

impl FromStr for DatingArg {
    type Err = desfmt::DateError;

    fn from_str(text: &str) -> Result<Self, desfmt::DateError> {
        match text {
            "mtime" => Ok(Self(Dating::Modified)),
            date => Ok(Self(Dating::At(date.replace('-', "").parse::<Date>()?.start()))),
        }
    }
}

fn parse_zone(text: &str) -> Result<TimeZone, String> {
    if let Ok(zone) = TimeZone::get(text) {
        return Ok(zone);
    }
    // A fixed distance from UTC, such as +02:00.
    let parsed = jiff::fmt::temporal::DateTimeParser::new().parse_time_zone(text);
    parsed.map_err(|error| format!("no such time zone: {error}"))
}

fn parse_positive_size(text: &str) -> Result<ByteSize, String> {
    match text.parse::<ByteSize>() {
        Ok(ByteSize(0)) => Err("a shard must have room for something".to_owned()),
        Ok(size) => Ok(size),
        Err(error) => Err(error.to_string()),
    }
}

fn parse_frame_size(text: &str) -> Result<FrameSize, String> {
    let size: ByteSize = text.parse().map_err(|error: packer::SizeError| error.to_string())?;
    FrameSize::new(size.0).ok_or_else(|| "a frame holds at most 1 MiB".to_owned())
}

fn parse_bits(text: &str) -> Result<BucketBits, String> {
    text.parse().ok().and_then(BucketBits::new).ok_or_else(|| "a number from 0 to 16 is needed".to_owned())
}

fn parse_share(text: &str) -> Result<Share, String> {
    let parts = text.split_once('/').and_then(|(index, count)| {
        let (index, count) = (index.parse::<u32>().ok()?, count.parse::<NonZeroU32>().ok()?);
        (index <= count.get()).then_some(Share { index: index % count, count })
    });
    parts.ok_or_else(|| "I/N is needed, with I from 0 to N".to_owned())
}

/// What the command line asks for.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) archive: Location,
    pub(crate) options: StoreOptions,
    pub(crate) single_writer: bool,
    pub(crate) format: u8,
    pub(crate) config: Config,
    pub(crate) observe: ObserveArgs,
}

impl Args {
    /// Turns the command line into a request, or says why it cannot be one. `temporary` is the spool of dry runs.
    pub(crate) fn request(self, temporary: PathBuf) -> Result<Request, String> {
        let Self {
            store,
            log: _,
            observe,
            input_json,
            input_dir,
            uid,
            created_at,
            timezone,
            codec,
            level,
            max_shard_size,
            n_bits,
            frame_size,
            format,
            worker,
            jobs,
            dry_run,
            single_writer,
            report,
            spool,
            spool_size,
        } = self;
        let (archive, options) = store.resolve().map_err(|error| error.to_string())?;
        if format == 2 && !archive.is_local() {
            return Err("--format 2 writes to a local directory only; copy it to the bucket afterwards".to_owned());
        }
        let input = match (input_json, input_dir) {
            (Some(file), None) => {
                let file = Some(file).filter(|file| file.as_os_str() != "-");
                Input::Manifest { file }
            }
            (None, Some(root)) => {
                let naming = match uid {
                    NamingArg::Path => Naming::RelativePath,
                    NamingArg::Name => Naming::FileName,
                    NamingArg::Stem => Naming::Stem,
                };
                Input::Directory { root, naming, dating: created_at.0, except: archive.local_path().map(PathBuf::from) }
            }
            (None, None) | (Some(_), Some(_)) => return Err("one of --input-json and --input-dir is needed".to_owned()),
        };
        let choice = match codec {
            CodecArg::Auto => CodecChoice::Auto,
            CodecArg::Zstd => CodecChoice::Zstd,
            CodecArg::Lz4 => CodecChoice::Lz4,
            CodecArg::None => CodecChoice::Stored,
        };
        // A dry run must not make a directory of the archive.
        let spool = spool.unwrap_or_else(|| if dry_run { temporary } else { archive.scratch() });
        let config = Config {
            input,
            times: TimeRules { zone: timezone, as_written: format == 2 },
            compression: Compression { choice, level },
            framing: frame_size.map_or(Framing::BySample, Framing::Of),
            shard_limits: ShardLimits { bytes: max_shard_size.0, entries: limits::SHARD_ENTRIES },
            bits: n_bits,
            share: worker,
            jobs: jobs.or_else(|| std::thread::available_parallelism().ok()).unwrap_or(NonZeroUsize::MIN),
            dry_run,
            spool,
            report,
            spool_bytes: spool_size.map(|size| size.0),
            sources: Sources::default(),
            witness: None,
        };
        Ok(Request { archive, options, single_writer, format, config, observe })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(arguments: &str) -> Result<Request, String> {
        let arguments = ["des-pack"].into_iter().chain(arguments.split(' '));
        Args::try_parse_from(arguments).map_err(|error| error.to_string())?.request(PathBuf::from("/tmp/x"))
    }

    #[test]
    fn the_command_line_is_sound() {
        <Args as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn the_ancestors_command_line_is_understood() {
        let asked = request("--input-json m.json --output-dir out --max-shard-size 1000000000 --n-bits 8").unwrap();
        assert_eq!(asked.archive, Location::parse("out").unwrap());
        assert_eq!(asked.config.shard_limits.bytes, 1_000_000_000);
        assert_eq!(asked.config.bits, BucketBits::new(8));
        assert!(asked.config.spool.ends_with("out/.spool"));
    }

    #[test]
    fn workers_count_from_0_or_from_1() {
        for (text, index) in [("0/3", 0), ("1/3", 1), ("2/3", 2), ("3/3", 0)] {
            let asked = request(&format!("--archive a --input-dir d --worker {text}")).unwrap();
            assert_eq!((asked.config.share.index, asked.config.share.count.get()), (index, 3));
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_in_words() {
        for (arguments, reason) in [
            ("--archive a", "--input-json"),
            ("--archive a --input-dir d --input-json m", "cannot be used with"),
            ("--archive s3://b/p --input-dir d", "no name of a bucket"),
            ("--archive s3://bucket --endpoint x --input-dir d", "endpoint"),
            ("--archive s3://bucket --format 2 --input-dir d", "local directory"),
            ("--archive http://x --input-dir d", "local directories"),
            ("--archive a --input-dir d --worker 4/3", "I/N"),
            ("--archive a --input-dir d --worker 0/0", "I/N"),
            ("--archive a --input-dir d --n-bits 17", "0 to 16"),
            ("--archive a --input-dir d --frame-size 2M", "1 MiB"),
            ("--archive a --input-dir d --max-shard-size 0", "room"),
            ("--archive a --input-dir d --timezone Mars/Base", "no such time zone"),
            ("--archive a --input-dir d --created-at 20240230", "not a day"),
            ("--archive a --input-dir d --format 1", "format"),
            ("--archive a --input-dir d --level 0", "level"),
        ] {
            let refused = request(arguments).map(|_| ()).unwrap_err();
            assert!(refused.contains(reason), "{arguments}: {refused}");
        }
    }

    #[test]
    fn zones_are_named_or_fixed() {
        for zone in ["UTC", "Europe/Warsaw", "+02:00"] {
            assert!(request(&format!("--archive a --input-dir d --timezone {zone}")).is_ok(), "{zone}");
        }
    }
}
