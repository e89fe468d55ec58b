//! The command line of desfs, which is also the one that mount(8) uses for its helpers.
//!
//! The first word alone tells a sub-command from a mount. So a source that is called like a sub-command is written
//! `./path`, and the helper of mount(8), which gets its source from others, knows no sub-commands at all.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::{Parser, ValueEnum};

/// The word by which desfs asks itself whether a mount answers.
pub const PROBE: &str = "--probe-mount";

/// A variable of the environment, for configuration files.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
pub fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// What desfs is asked to do.
#[derive(Debug, Clone)]
pub enum Invocation {
    /// To mount.
    Mount(Arguments),
    /// To say where a file is.
    Path(PathArguments),
    /// To say what is wrong with a source.
    Check(CheckArguments),
    /// To ask whether a mount answers; for desfs itself.
    Probe(PathBuf),
}

/// A command line that cannot be understood, or asks for help.
#[derive(Debug)]
pub struct Misuse {
    /// What to print.
    pub error: clap::Error,
    /// The exit code of a wrong command line: mount(8) wants another one than people are used to.
    pub exit_code: u8,
}

impl Invocation {
    /// Reads a command line, the program's name first.
    pub fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Self, Misuse> {
        let words: Vec<OsString> = words.into_iter().collect();
        let is_helper = words.first().and_then(|program| Path::new(program).file_name()).is_some_and(|name| {
            // As mount(8) calls it.
            name.as_encoded_bytes().starts_with(b"mount.")
        });
        let task = words.get(1).filter(|_| !is_helper).and_then(|word| word.to_str());
        let rest = || words.iter().skip(1);
        if let (Some(PROBE), [_, _, target]) = (task, words.as_slice()) {
            return Ok(Self::Probe(PathBuf::from(target)));
        }
        match task {
            Some("path") => PathArguments::try_parse_from(rest()).map(Self::Path).map_err(|error| (error, 2)),
            Some("check") => CheckArguments::try_parse_from(rest()).map(Self::Check).map_err(|error| (error, 2)),
            Some(_) | None => Arguments::try_parse_from(&words).map(Self::Mount).map_err(|error| (error, 1)),
        }
        .map_err(|(error, exit_code)| Misuse { exit_code: if error.use_stderr() { exit_code } else { 0 }, error })
    }
}

/// Says where a file is below a mount: `YYYYMMDD/NAME`.
///
/// Exit codes: 0 it is printed, 1 there can be no such file, 2 wrong arguments.
#[derive(Debug, Clone, Parser)]
#[command(name = "desfs path", bin_name = "desfs path", version)]
pub struct PathArguments {
    /// The file's uid
    pub uid: String,

    /// When it was created, with its time zone: 2024-01-15T09:30:00Z
    pub created_at: String,

    /// The archive; needed for a uid whose name is longer than 255 bytes, and for one of the ancestor
    #[arg(long, value_name = "SOURCE")]
    pub archive: Option<String>,

    /// Mount options, which say how a bucket is reached
    #[arg(short = 'o', value_name = "OPTIONS")]
    pub options: Vec<String>,

    /// How many bits the archive has; one of DES knows that itself
    #[arg(long, value_name = "N")]
    pub n_bits: Option<u8>,

    /// Say its group too, and what the names of the group's shards begin with
    #[arg(short = 'v', long)]
    pub verbose: bool,
}

/// The form of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// A JSON object a line.
    Json,
}

/// Mounts a DES archive as a file system.
///
/// Runs in the background once the mount answers, unless --foreground is given. Exit codes are those of mount(8):
/// 0 mounted, 1 wrong arguments or not permitted, 2 out of resources, 4 a bug, 8 interrupted, 32 not mounted.
#[derive(Debug, Clone, Parser)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
#[command(
    name = "desfs",
    version,
    allow_missing_positional = true,
    after_help = "Besides: desfs path UID CREATED_AT says where a file is, desfs check SOURCE what is wrong with a source.\n\n\
                  See docs/mount.md for all options and docs/semantics.md for what the mount shows."
)]
pub struct Arguments {
    /// The archive: a directory, `s3://BUCKET/PREFIX`, or a configuration file; where it is left out, what the environment
    /// says (`DES_ARCHIVE`, `DES_CONFIG` and others)
    pub source: Option<String>,

    /// The directory to mount it on
    pub mount_point: PathBuf,

    /// Mount options, separated by commas; may be repeated
    #[arg(short = 'o', value_name = "OPTIONS")]
    pub options: Vec<String>,

    /// Stay in the foreground, log to stderr, and tell systemd when the mount answers
    #[arg(long)]
    pub foreground: bool,

    /// Only mount, and leave the connection to systemd for a `desfs --attached` that follows
    #[arg(long, conflicts_with_all = ["foreground", "attached"], help_heading = "For systemd")]
    pub attach: bool,

    /// Serve in the foreground a mount that --attach made; its connection is standard input
    #[arg(long, requires = "foreground", help_heading = "For systemd")]
    pub attached: bool,

    /// Where systemd listens
    #[arg(long, env = "NOTIFY_SOCKET", hide = true)]
    pub supervisor: Option<String>,

    /// Which events are logged, such as `warn` or `desfs=debug`
    #[arg(long, value_name = "FILTER", env = "DESFS_LOG", default_value = "info")]
    pub log: String,

    /// The form of the log
    #[arg(long, value_enum, value_name = "FORM", default_value = "text")]
    pub log_format: LogFormat,

    /// Serve /metrics, /health and /ready there; a port alone is one of this machine: 9550
    #[arg(long, value_name = "ADDRESS", env = "DESFS_HTTP", value_parser = desstore::observe::parse_address)]
    pub http: Option<SocketAddr>,

    /// Say what was mounted
    #[arg(short = 'v', long, help_heading = "For mount(8)")]
    pub verbose: bool,

    /// Do everything but mount (not "foreground", as in other FUSE programs)
    #[arg(short = 'f', long, help_heading = "For mount(8)")]
    pub fake: bool,

    /// Ignore unknown mount options
    #[arg(short = 's', long, help_heading = "For mount(8)")]
    pub sloppy: bool,

    /// Do not write /etc/mtab, which desfs never does
    #[arg(short = 'n', long, help_heading = "For mount(8)")]
    pub no_mtab: bool,

    /// The type, which is always fuse.desfs
    #[arg(short = 't', value_name = "TYPE", hide = true)]
    pub file_system_type: Option<String>,

    /// Another mount namespace, which is refused
    #[arg(short = 'N', value_name = "NAMESPACE", hide = true)]
    pub namespace: Option<String>,

    /// The part that serves in the background: reports to the part that waits
    #[arg(long = "report-to-stdout", hide = true)]
    pub reports: bool,
}

/// Says what is wrong with a source, without mounting it.
///
/// One line for each finding, and one that sums up. Contents are not read; des-verify does that. Exit codes: 0 nothing is
/// wrong, 1 something is, 2 it could not be checked, or not all of it, or wrong arguments.
#[derive(Debug, Clone, Parser)]
#[command(name = "desfs check", bin_name = "desfs check", version)]
pub struct CheckArguments {
    /// The archive: a directory, `s3://BUCKET/PREFIX`, or a configuration file; where it is left out, what the environment
    /// says
    pub source: Option<String>,

    /// Mount options, so that the line of a mount can be checked as it is; only the number of bits matters
    #[arg(short = 'o', value_name = "OPTIONS")]
    pub options: Vec<String>,

    /// Check only so many days, the newest
    #[arg(long, value_name = "DAYS")]
    pub newest: Option<usize>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Invocation, Misuse> {
        Invocation::parse(line.split(' ').map(OsString::from))
    }

    #[test]
    fn the_arguments_are_sound() {
        Arguments::command().debug_assert();
        PathArguments::command().debug_assert();
        CheckArguments::command().debug_assert();
    }

    #[test]
    fn the_first_word_tells_a_sub_command_from_a_mount() {
        assert!(matches!(parse("desfs path INV-17 2024-01-15T00:00Z"), Ok(Invocation::Path(_))));
        for line in
            ["desfs ./path /mnt", "desfs /srv/a path", "desfs -o ro path /mnt", "/sbin/mount.fuse.desfs path /mnt"]
        {
            assert!(matches!(parse(line), Ok(Invocation::Mount(_))), "{line}");
        }
    }

    #[test]
    fn a_wrong_command_line_has_the_exit_code_that_its_reader_expects() {
        for (line, exit_code) in [
            ("desfs", 1),
            ("desfs path", 2),
            ("desfs check --newest", 2),
            ("desfs --help", 0),
            ("desfs path --help", 0),
        ] {
            assert_eq!(parse(line).unwrap_err().exit_code, exit_code, "{line}");
        }
    }
}
