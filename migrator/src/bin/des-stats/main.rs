//! `des-stats`: what a migration would be about, before it runs.
#![expect(clippy::print_stdout, reason = "a program that is asked answers on its standard output")]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use desfmt::{BucketBits, Date};
use migrator::config::{self, Settings};
use migrator::days::{Window, horizon};
use migrator::rows::RowSource;
use migrator::rows::postgres::{Database, PostgresRows};
use migrator::stats::{Assumptions, CLASS_BOUNDS, Scope};
use packer::program::{DONE, LogArgs, USAGE, failed, misused};

/// Sums up what a table holds: files and bytes by day and size, the oldest and the newest, how many shards they will fill,
/// and what requests and storage cost before and after. Only reads.
#[derive(Debug, Parser)]
#[command(name = "des-stats", version)]
struct Args {
    /// The configuration of des-migrate; instead of --db-url and what follows.
    #[arg(long, value_name = "FILE", env = "DES_MIGRATE_CONFIG", conflicts_with_all = ["db_url", "table"])]
    config: Option<PathBuf>,

    /// The database.
    #[arg(long, value_name = "URL", env = "DES_DATABASE_URL", hide_env_values = true)]
    db_url: Option<String>,

    /// The table, or SCHEMA.TABLE.
    #[arg(long, value_name = "TABLE")]
    table: Option<String>,

    /// The column of the uid.
    #[arg(long, value_name = "COLUMN", default_value = "uid")]
    uid_column: String,

    /// The column of the time.
    #[arg(long, value_name = "COLUMN", default_value = "created_at")]
    created_at_column: String,

    /// The column of the place.
    #[arg(long, value_name = "COLUMN", default_value = "file_location")]
    file_location_column: String,

    /// The column of the length; '' where there is none.
    #[arg(long, value_name = "COLUMN", default_value = "size_bytes")]
    size_bytes_column: String,

    /// The column that says that a row was archived already; such rows are not counted.
    #[arg(long, value_name = "COLUMN")]
    archived_column: Option<String>,

    /// What a time without zone is local to.
    #[arg(long, value_name = "TZ")]
    timezone: Option<String>,

    /// Counts rows before this day; all that are old enough by the lag (7 days, or what the configuration says) if not given.
    #[arg(long, value_name = "DATE", value_parser = parse_day)]
    cutoff: Option<Date>,

    /// As JSON.
    #[arg(long)]
    json: bool,

    /// How to log.
    #[command(flatten)]
    log: LogArgs,
}

fn parse_day(text: &str) -> Result<Date, String> {
    text.replace('-', "").parse().map_err(|error: desfmt::DateError| error.to_string())
}

#[expect(clippy::disallowed_methods, reason = "handed to whoever reads the configuration, from here only")]
fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

impl Args {
    /// The settings of the file, or those of the command line.
    fn settings(&self) -> Result<Settings, String> {
        let mut settings = Settings::default();
        let (Some(url), Some(table)) = (&self.db_url, &self.table) else {
            return Err("either --config, or --db-url and --table are needed".to_owned());
        };
        let named = |name: &String| Some(name.clone()).filter(|name| !name.is_empty());
        settings.database.url.clone_from(url);
        settings.database.table.clone_from(table);
        settings.database.uid_column.clone_from(&self.uid_column);
        settings.database.created_at_column.clone_from(&self.created_at_column);
        settings.database.location_column.clone_from(&self.file_location_column);
        settings.database.size_column = named(&self.size_bytes_column);
        settings.database.archived_column = self.archived_column.as_ref().and_then(named);
        settings.database.created_at_zone.clone_from(&self.timezone);
        Ok(settings)
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    args.log.start();
    let settings = match &args.config {
        Some(path) => match config::load(path, &environment) {
            Ok(settings) => settings,
            Err(error) => {
                failed("des-stats", &error);
                return ExitCode::from(USAGE);
            }
        },
        None => match args.settings() {
            Ok(settings) => settings,
            Err(reason) => return misused::<Args>(reason),
        },
    };
    let table = match settings.table() {
        Ok(table) => table,
        Err((at, detail)) => return misused::<Args>(format!("{at}: {detail}")),
    };
    let scope = Database::connect(&settings.connection())
        .and_then(|database| PostgresRows::open(database, &table))
        .and_then(|rows| scope(&rows, &settings, args.cutoff));
    match scope {
        Ok(scope) if args.json => println!("{}", serde_json::to_string_pretty(&scope).unwrap_or_default()),
        Ok(scope) => println!("{scope}"),
        Err(error) => return failed("des-stats", &error),
    }
    ExitCode::from(DONE)
}

fn scope(rows: &PostgresRows, settings: &Settings, cutoff: Option<Date>) -> Result<Scope, migrator::DatabaseError> {
    let end = match cutoff {
        Some(day) => day.start(),
        None => horizon(rows.now()?, settings.migration.lag_days, None),
    };
    let volumes = rows.volumes(Window::until(end), &CLASS_BOUNDS)?;
    Ok(Scope::of(
        &volumes,
        &Assumptions {
            bits: settings.archive.n_bits.and_then(BucketBits::new),
            shard_bytes: settings.archive.max_shard_size.0,
            prices: settings.prices,
            knows_sizes: settings.database.size_column.is_some(),
        },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        <Args as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn the_ancestors_command_line_is_understood() {
        let line = "--db-url postgres://h/d --table files --cutoff 2024-01-01 --size-bytes-column=";
        let args = Args::try_parse_from(["des-stats"].into_iter().chain(line.split(' '))).unwrap();
        let settings = args.settings().unwrap();
        assert_eq!(settings.database.table, "files");
        assert_eq!(settings.database.size_column, None);
        assert_eq!(args.cutoff.unwrap().to_string(), "20240101");
    }
}
