//! The command line of des-tombstones.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use desfmt::Date;
use desstore::{Deletion, ErasureState};
use packer::StoreArgs;
use packer::erase::{Age, day_of};
use packer::program::LogArgs;

/// Deletes files from a DES archive on order, and says how far each deletion has come.
///
/// Exit codes: 0 done; 1 something failed, or an erasure that was asked about has not come as far as `--expect` says; 2 the
/// command line is wrong, or what it asks for needs `--yes`.
#[derive(Debug, Parser)]
#[command(name = "des-tombstones", version)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) store: StoreArgs,

    #[command(flatten)]
    pub(crate) log: LogArgs,

    /// Answers in JSON: one object, or one a line where there are many.
    #[arg(global = true, long)]
    pub(crate) json: bool,

    #[command(subcommand)]
    pub(crate) task: Task,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Task {
    /// Deletes files: one by UID and DAY, or many by --from-file.
    Add(AddArgs),
    /// Deletes everything in days that are old enough, by one record a shard.
    Expire(ExpireArgs),
    /// Lists deletions.
    List(ListArgs),
    /// Says how far the erasure of a file has come: a receipt.
    Status(StatusArgs),
    /// Counts the records of deletions.
    Stats,
    /// Gathers the records of each group in one document; what was gathered ten minutes ago is removed. To be run hourly.
    Fold(FoldArgs),
}

/// What is recorded with each deletion, and whether to go ahead.
#[derive(Debug, ClapArgs)]
pub(crate) struct Order {
    /// Why it is deleted.
    #[arg(long, value_name = "TEXT", default_value = "on order")]
    reason: String,

    /// Who asks; the user of this process and the host if not given.
    #[arg(long, value_name = "TEXT")]
    actor: Option<String>,

    /// The ticket that orders it.
    #[arg(long, value_name = "TEXT")]
    ticket: Option<String>,

    /// Says what would be deleted, and deletes nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,

    /// Does not ask, however much is deleted.
    #[arg(long)]
    pub(crate) yes: bool,
}

impl Order {
    pub(crate) fn deletion(&self) -> Deletion {
        let actor = self.actor.clone().unwrap_or_else(|| {
            let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
            format!("uid {} on {}", rustix::process::getuid().as_raw(), host.trim())
        });
        Deletion { actor, reason: self.reason.clone(), ticket: self.ticket.clone() }
    }
}

#[derive(Debug, ClapArgs)]
pub(crate) struct AddArgs {
    /// The uid of the file.
    #[arg(required_unless_present_any = ["from_file", "delete_older_than"], conflicts_with = "from_file", requires = "day")]
    pub(crate) uid: Option<String>,

    /// Its day (20240115), or when it was created, with the zone (2024-01-15T09:30:00Z).
    #[arg(value_name = "DAY", value_parser = day_of)]
    pub(crate) day: Option<Date>,

    /// Files to delete, or - for standard input: lines of `UID DAY`, split at the last blank, or JSON objects with `uid` and
    /// `created_at` (or `date`).
    #[arg(long, value_name = "FILE")]
    pub(crate) from_file: Option<PathBuf>,

    /// The day of all lines of --from-file, which then hold uids only.
    #[arg(long, value_name = "DAY", value_parser = day_of, requires = "from_file")]
    pub(crate) date: Option<Date>,

    /// Deletes whole days instead, as `expire --older-than`.
    #[arg(long, value_name = "AGE", conflicts_with_all = ["uid", "from_file", "always"])]
    pub(crate) delete_older_than: Option<Age>,

    /// Records deletions of files that are not there too, so that they can never be packed.
    #[arg(long)]
    pub(crate) always: bool,

    #[command(flatten)]
    pub(crate) order: Order,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ExpireArgs {
    /// How old a day must be: 90d, 12w, 7y. Counted from the day that the store's clock shows.
    #[arg(long, visible_alias = "delete-older-than", value_name = "AGE")]
    pub(crate) older_than: Age,

    #[command(flatten)]
    pub(crate) order: Order,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ListArgs {
    /// Only those from this day.
    #[arg(long, value_name = "DAY", value_parser = day_of, conflicts_with_all = ["from", "to"])]
    pub(crate) date: Option<Date>,

    /// Only those from this day and later ones.
    #[arg(long, value_name = "DAY", value_parser = day_of)]
    pub(crate) from: Option<Date>,

    /// Only those from this day and earlier ones.
    #[arg(long, value_name = "DAY", value_parser = day_of)]
    pub(crate) to: Option<Date>,

    /// Only those asked for at least so long ago: 12h, 2d.
    #[arg(long, value_name = "TIME", value_parser = desstore::values::parse_duration)]
    pub(crate) older_than: Option<Duration>,

    /// Only those asked for at most so long ago.
    #[arg(long, value_name = "TIME", value_parser = desstore::values::parse_duration)]
    pub(crate) newer_than: Option<Duration>,

    /// Only those that have come so far and no further. Looks into every object of their groups.
    #[arg(long, value_enum, value_name = "STATE")]
    pub(crate) state: Option<StateArg>,
}

/// How far an erasure has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum StateArg {
    /// Recorded; other hosts hide the file within a minute.
    Requested,
    /// Hidden everywhere; a live object holds its bytes.
    Hidden,
    /// No live object holds its bytes; an old one does.
    Rewritten,
    /// No object holds its bytes.
    Gone,
}

impl StateArg {
    pub(crate) const fn state(self) -> ErasureState {
        match self {
            Self::Requested => ErasureState::Requested,
            Self::Hidden => ErasureState::Hidden,
            Self::Rewritten => ErasureState::Rewritten,
            Self::Gone => ErasureState::Gone,
        }
    }
}

#[derive(Debug, ClapArgs)]
pub(crate) struct StatusArgs {
    /// The uid of the file.
    pub(crate) uid: String,

    /// Its day (20240115), or when it was created, with the zone.
    #[arg(value_name = "DAY", value_parser = day_of)]
    pub(crate) day: Date,

    /// Ends with 1 unless the erasure has come at least so far.
    #[arg(long, value_enum, value_name = "STATE")]
    pub(crate) expect: Option<StateArg>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct FoldArgs {
    /// Only the records of this day.
    #[arg(long, value_name = "DAY", value_parser = day_of)]
    pub(crate) date: Option<Date>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Args, String> {
        let words = ["des-tombstones", "--archive", "a"].into_iter().chain(line.split(' '));
        Args::try_parse_from(words).map_err(|error| error.to_string())
    }

    #[test]
    fn the_command_line_is_sound() {
        <Args as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn what_makes_no_sense_is_refused_in_words() {
        for (line, reason) in [
            ("add", "UID"),
            ("add a", "DAY"),
            ("add a 20241301", "neither a day"),
            ("add a 20240115 --from-file f", "cannot be used with"),
            ("add --delete-older-than 7", "no age"),
            ("add --from-file f --date yesterday", "neither a day"),
            ("expire", "--older-than"),
            ("list --state nowhere", "possible values"),
            ("list --older-than soon", "not a time"),
            ("status a", "DAY"),
        ] {
            let refused = parse(line).map(drop).unwrap_err();
            assert!(refused.contains(reason), "{line}: {refused}");
        }
        for line in ["add a 20240115 --ticket T", "add --from-file - --yes", "add --delete-older-than 7y", "stats"] {
            assert!(parse(line).is_ok(), "{line}");
        }
    }
}
