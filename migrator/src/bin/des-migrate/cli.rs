//! The command line of des-migrate.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand};
use desfmt::Date;
use desstore::config::Interval;
use migrator::state::{Selection, Stage};
use packer::program::LogArgs;

/// Moves the files that a PostgreSQL table lists into a DES archive.
///
/// Reads the table by days, packs, reads every file back from the archive, and only then moves the cutoff, in one
/// transaction. Running it again moves nothing twice and goes on where a run was interrupted; several may run at once, each
/// under a name of its own. A file that cannot be moved becomes an exception, which holds the cutoff until it is
/// acknowledged. Without a command it moves all that is due.
///
/// Exit codes: 0 all that was due is moved; 1 something failed, or there are exceptions that nobody has acknowledged; 2 the
/// command line or the configuration is wrong.
#[derive(Debug, Parser)]
#[command(name = "des-migrate", version, args_conflicts_with_subcommands = false)]
pub(crate) struct Args {
    /// The configuration: TOML, YAML or JSON, by its name.
    #[arg(long, value_name = "FILE", env = "DES_MIGRATE_CONFIG", global = true)]
    pub(crate) config: Option<PathBuf>,

    /// The name of this worker; no two processes may have the same at once.
    #[arg(long, value_name = "NAME", env = "DES_WORKER", global = true)]
    pub(crate) worker: Option<String>,

    /// What to do, if not to move files.
    #[command(subcommand)]
    pub(crate) command: Option<Command>,

    /// How to move files.
    #[command(flatten)]
    pub(crate) run: RunArgs,

    /// How to log.
    #[command(flatten)]
    pub(crate) log: LogArgs,
}

/// How to move files.
#[derive(Debug, ClapArgs)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub(crate) struct RunArgs {
    /// Says what would be moved, as a table or with --json, and changes nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,

    /// With --dry-run: as JSON.
    #[arg(long, requires = "dry_run")]
    pub(crate) json: bool,

    /// Goes on for ever: a cycle, then a wait. SIGTERM lets the batch in hand end.
    #[arg(long)]
    pub(crate) continuous: bool,

    /// How long to wait between cycles, such as 15m; what the configuration says if not given.
    #[arg(long, value_name = "TIME", value_parser = parse_interval)]
    pub(crate) interval: Option<Interval>,

    /// Moves no day after this one, YYYYMMDD or YYYY-MM-DD.
    #[arg(long, value_name = "DATE", value_parser = parse_day)]
    pub(crate) until: Option<Date>,

    /// Serves metrics, health and readiness at this address, such as 127.0.0.1:9551, while it runs.
    #[arg(long, value_name = "ADDRESS", env = "DES_HTTP", global = true)]
    pub(crate) http: Option<String>,

    /// Writes the metrics to this file at the end, for the textfile collector of the node exporter.
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) textfile: Option<PathBuf>,

    /// Shows no progress.
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
}

/// What else there is to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Makes the tables of state, and sets how many days a row must be old.
    Init {
        /// Prints the statements instead, for whoever may create tables.
        #[arg(long)]
        print_ddl: bool,
        /// How many days a row must be old; what the configuration says if not given.
        #[arg(long, value_name = "DAYS")]
        lag_days: Option<u32>,
    },
    /// Says how far the archive is.
    Status,
    /// Lists, acknowledges or retries rows that could not be moved.
    Exceptions {
        /// What to do with them.
        #[command(subcommand)]
        command: ExceptionsCommand,
    },
    /// Finds rows that came below the cutoff after their day had been moved, and moves them.
    Sweep,
    /// Removes sources that the archive is proven to hold.
    Cleanup {
        /// Also those whose uid was deleted from the archive.
        #[arg(long)]
        remove_deleted: bool,
    },
    /// Checks or converts a configuration.
    Config {
        /// What to do with it.
        #[command(subcommand)]
        command: ConfigCommand,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ExceptionsCommand {
    /// Lists them.
    List {
        /// Which ones.
        #[command(flatten)]
        which: Which,
        /// Those too that are acknowledged.
        #[arg(long)]
        acked: bool,
        /// As JSON lines.
        #[arg(long)]
        json: bool,
        /// How many at most.
        #[arg(long, value_name = "N", default_value_t = 1_000)]
        limit: u32,
    },
    /// Acknowledges them: the cutoff may pass. Their sources stay.
    Ack {
        /// Which ones.
        #[command(flatten)]
        which: Which,
        /// All of them.
        #[arg(long)]
        all: bool,
        /// Who does.
        #[arg(long, value_name = "NAME", env = "USER")]
        by: String,
    },
    /// Lets their days be moved, or cleaned up, again.
    Retry {
        /// Which ones.
        #[command(flatten)]
        which: Which,
        /// All of them.
        #[arg(long)]
        all: bool,
    },
}

/// Which exceptions.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct Which {
    /// Only those of this uid.
    #[arg(long, value_name = "UID")]
    uid: Option<String>,
    /// Only those of this day.
    #[arg(long, value_name = "DATE", value_parser = parse_day)]
    day: Option<Date>,
    /// Only those that arose when moving, sweeping or cleaning up.
    #[arg(long, value_name = "migrate|sweep|cleanup", value_parser = parse_stage)]
    stage: Option<Stage>,
}

impl Which {
    /// The selection, unless it would mean everything by mistake.
    pub(crate) fn selection(self, all: bool, acked: bool) -> Result<Selection, String> {
        let is_empty = self.uid.is_none() && self.day.is_none() && self.stage.is_none();
        if is_empty && !all {
            return Err("which ones? --uid, --day, --stage, or --all".to_owned());
        }
        Ok(Selection { uid: self.uid, day: self.day, stage: self.stage, acked })
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Checks the configuration, and that the database, the table, the tables of state and the archive can be used.
    Check {
        /// The file only; nothing is opened.
        #[arg(long)]
        offline: bool,
    },
    /// Turns a configuration of the Python DES into one of ours, and prints it.
    Convert {
        /// The file of the Python DES.
        file: PathBuf,
    },
}

fn parse_day(text: &str) -> Result<Date, String> {
    text.replace('-', "").parse().map_err(|error: desfmt::DateError| error.to_string())
}

fn parse_stage(text: &str) -> Result<Stage, String> {
    let stages = [Stage::Migrate, Stage::Sweep, Stage::Cleanup];
    let found = stages.into_iter().find(|stage| stage.name() == text);
    found.ok_or_else(|| "migrate, sweep or cleanup".to_owned())
}

fn parse_interval(text: &str) -> Result<Interval, String> {
    let value = serde::de::value::StrDeserializer::<serde::de::value::Error>::new(text);
    serde::Deserialize::deserialize(value).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Args, String> {
        Args::try_parse_from(["des-migrate"].into_iter().chain(line.split_whitespace()))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn the_command_line_is_sound() {
        <Args as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn the_ancestors_command_line_is_understood() {
        let args = parse("--config m.yaml --continuous --interval 3600").unwrap();
        assert!(args.run.continuous && args.command.is_none());
        assert_eq!(args.run.interval.unwrap().0.as_secs(), 3_600);
        assert!(parse("--config m.yaml --dry-run").unwrap().run.dry_run);
        assert!(parse("cleanup --quiet --config m.yaml").unwrap().run.quiet);
    }

    #[test]
    fn what_makes_no_sense_is_refused_in_words() {
        for (line, reason) in [
            ("--until 20240230", "not a day"),
            ("--interval soon", "soon"),
            ("--json", "--dry-run"),
            ("exceptions list --stage x", "migrate, sweep or cleanup"),
            ("frobnicate", "frobnicate"),
        ] {
            let refused = parse(line).map(|_| ()).unwrap_err();
            assert!(refused.contains(reason), "{line}: {refused}");
        }
    }

    #[test]
    fn nothing_is_acknowledged_by_mistake() {
        let which = Which { uid: None, day: None, stage: None };
        assert!(which.clone().selection(false, false).is_err());
        assert!(which.selection(true, false).is_ok());
    }
}
