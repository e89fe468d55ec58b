//! The configuration file of des-migrate and des-stats: what stands in it, and what becomes of it. `docs/migrating.md` tells
//! of every key.

mod convert;
mod places;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use desfmt::BucketBits;
use desfmt::v3::FrameSize;
use desstore::config::{ArchiveConfig, ConfigError, Environment, Interval, Size};
use desstore::{Location, StoreOptions};
use jiff::tz::TimeZone;
use packer::{ChecksumAlgorithm, CodecChoice, Compression, Framing, ShardLimits, limits};
use serde::Deserialize;

use crate::cleanup::CleanupPlan;
use crate::migrator::{PackSettings, Plan};
use crate::rows::postgres::{Connection, Identifier, Table, TimeZoneOf};
use crate::stats::Prices;

pub use convert::convert;

/// All settings.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// The source table.
    pub database: DatabaseSettings,
    /// The tables of state.
    pub state: StateSettings,
    /// Where files are read from.
    pub sources: SourceSettings,
    /// The archive.
    pub archive: ArchiveSettings,
    /// How it is gone about.
    pub migration: MigrationSettings,
    /// Whether sources are removed.
    pub cleanup: CleanupSettings,
    /// What is told while it runs.
    pub metrics: MetricsSettings,
    /// What requests and bytes cost.
    pub prices: Prices,
    /// Where the archive lies by a file of its own.
    #[serde(skip)]
    place: Option<(Location, StoreOptions)>,
}

/// The source table, and how its database is reached.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "docs/migrating.md tells of every key")]
pub struct DatabaseSettings {
    pub url: String,
    pub password_file: Option<PathBuf>,
    pub tls: Option<String>,
    pub ca_file: Option<PathBuf>,
    pub pool_size: u32,
    pub table: String,
    pub uid_column: String,
    pub created_at_column: String,
    pub location_column: String,
    pub size_column: Option<String>,
    pub checksum_column: Option<String>,
    pub checksum_algorithm: Option<String>,
    pub archived_column: Option<String>,
    #[serde(rename = "where")]
    pub filter: Option<String>,
    pub created_at_zone: Option<String>,
    pub page_size: u32,
}

impl Default for DatabaseSettings {
    fn default() -> Self {
        Self {
            url: String::new(),
            password_file: None,
            tls: None,
            ca_file: None,
            pool_size: 4,
            table: "files".to_owned(),
            uid_column: "uid".to_owned(),
            created_at_column: "created_at".to_owned(),
            location_column: "file_location".to_owned(),
            size_column: None,
            checksum_column: None,
            checksum_algorithm: None,
            archived_column: None,
            filter: None,
            created_at_zone: None,
            page_size: 5_000,
        }
    }
}

/// The tables of state.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "docs/migrating.md tells of every key")]
pub struct StateSettings {
    pub url: Option<String>,
    pub password_file: Option<PathBuf>,
    pub schema: Option<String>,
}

/// Where files are read from.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "docs/migrating.md tells of every key")]
pub struct SourceSettings {
    pub roots: Vec<PathBuf>,
    pub follow_links: bool,
    pub options: BTreeMap<String, String>,
}

/// The archive, and how shards are built.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "docs/migrating.md tells of every key")]
pub struct ArchiveSettings {
    pub uri: String,
    pub config: Option<PathBuf>,
    pub options: BTreeMap<String, String>,
    pub n_bits: Option<u8>,
    pub codec: String,
    pub level: i32,
    pub max_shard_size: Size,
    pub frame_size: Option<Size>,
    pub jobs: Option<NonZeroUsize>,
    pub spool: Option<PathBuf>,
}

impl Default for ArchiveSettings {
    fn default() -> Self {
        Self {
            uri: String::new(),
            config: None,
            options: BTreeMap::new(),
            n_bits: None,
            codec: "auto".to_owned(),
            level: Compression::LEVEL_DEFAULT,
            max_shard_size: Size(limits::SHARD_BYTES),
            frame_size: None,
            jobs: None,
            spool: None,
        }
    }
}

/// How a migration goes about it.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "docs/migrating.md tells of every key")]
pub struct MigrationSettings {
    pub lag_days: u32,
    pub worker: String,
    pub batch_days: u32,
    pub batch_size: u64,
    pub lease: Interval,
    pub patience: Interval,
    pub interval: Interval,
    pub mark_archived: bool,
}

impl Default for MigrationSettings {
    fn default() -> Self {
        Self {
            lag_days: 7,
            worker: "main".to_owned(),
            batch_days: 16,
            batch_size: 1_000_000,
            lease: Interval(Duration::from_mins(10)),
            patience: Interval(Duration::from_mins(5)),
            interval: Interval(Duration::from_hours(1)),
            mark_archived: false,
        }
    }
}

/// Whether and when sources are removed.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "docs/migrating.md tells of every key")]
pub struct CleanupSettings {
    pub enabled: bool,
    pub delay: Interval,
    pub remove_deleted: bool,
}

impl Default for CleanupSettings {
    fn default() -> Self {
        Self { enabled: false, delay: Interval(Duration::from_hours(7 * 24)), remove_deleted: false }
    }
}

/// What is told while it runs.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "docs/migrating.md tells of every key")]
pub struct MetricsSettings {
    pub http: Option<String>,
    pub textfile: Option<PathBuf>,
}

/// Reads a configuration file.
pub fn load(path: &Path, environment: Environment<'_>) -> Result<Settings, ConfigError> {
    let mut settings: Settings = desstore::config::load(path, environment)?;
    if let Some(file) = &settings.archive.config {
        settings.place = Some(ArchiveConfig::load(file, environment)?.place(file)?);
    }
    settings.check().map_err(|(at, detail)| ConfigError::value(path, at, detail))?;
    Ok(settings)
}

/// A key and what is wrong with it.
type Wrong = (&'static str, String);

impl Settings {
    /// Makes sure that everything can be understood; nothing is opened.
    fn check(&self) -> Result<(), Wrong> {
        if self.database.url.is_empty() {
            return Err(("database.url", "it is needed, such as postgres://user@host/database".to_owned()));
        }
        if self.database.checksum_column.is_some() != self.database.checksum_algorithm.is_some() {
            let detail = "checksum_column and checksum_algorithm (blake3, sha256, md5) go together".to_owned();
            return Err(("database.checksum_column", detail));
        }
        if self.migration.mark_archived && self.database.archived_column.is_none() {
            return Err(("migration.mark_archived", "database.archived_column says which column".to_owned()));
        }
        if self.migration.lease.0 < Duration::from_secs(4) {
            return Err(("migration.lease", "less than 4 s is over before it can be renewed".to_owned()));
        }
        if self.migration.batch_size == 0 || self.migration.batch_days == 0 {
            return Err(("migration.batch_size", "a batch of nothing never ends".to_owned()));
        }
        self.table()?;
        self.schema()?;
        self.place()?;
        self.bucket_roots()?;
        self.source_options()?;
        self.codec()?;
        self.framing()?;
        self.bits()?;
        Ok(())
    }

    /// How the source's database is reached.
    pub fn connection(&self) -> Connection {
        let of = &self.database;
        Connection {
            url: of.url.clone(),
            password_file: of.password_file.clone(),
            tls: of.tls.clone(),
            ca_file: of.ca_file.clone(),
            pool_size: of.pool_size,
        }
    }

    /// How the database with the tables of state is reached; none where it is the source's.
    pub fn state_connection(&self) -> Option<Connection> {
        let url = self.state.url.clone()?;
        Some(Connection { url, password_file: self.state.password_file.clone(), ..self.connection() })
    }

    /// The schema of the tables of state.
    pub fn schema(&self) -> Result<Option<Identifier>, Wrong> {
        self.state.schema.as_deref().map(Identifier::new).transpose().map_err(|error| ("state.schema", error))
    }

    /// The source table.
    pub fn table(&self) -> Result<Table, Wrong> {
        let of = &self.database;
        let algorithm = of.checksum_algorithm.as_deref().map(str::parse::<ChecksumAlgorithm>).transpose();
        let algorithm = algorithm.map_err(|error| ("database.checksum_algorithm", error))?;
        let zone = of.created_at_zone.as_deref().map(TimeZone::get).transpose();
        let zone = zone.map_err(|error| ("database.created_at_zone", format!("no such time zone: {error}")))?;
        Ok(Table {
            table: of.table.clone(),
            uid: of.uid_column.clone(),
            created_at: of.created_at_column.clone(),
            location: of.location_column.clone(),
            size: of.size_column.clone(),
            checksum: of.checksum_column.clone().zip(algorithm),
            archived: of.archived_column.clone(),
            filter: of.filter.clone(),
            zone: TimeZoneOf(zone),
            page_rows: of.page_size,
        })
    }

    fn codec(&self) -> Result<CodecChoice, Wrong> {
        match self.archive.codec.as_str() {
            "auto" => Ok(CodecChoice::Auto),
            "zstd" => Ok(CodecChoice::Zstd),
            "lz4" => Ok(CodecChoice::Lz4),
            "none" => Ok(CodecChoice::Stored),
            other => Err(("archive.codec", format!("{other:?} is not known; auto, zstd, lz4 and none are"))),
        }
    }

    fn framing(&self) -> Result<Framing, Wrong> {
        let Some(size) = self.archive.frame_size else { return Ok(Framing::BySample) };
        let size = FrameSize::new(size.0).ok_or(("archive.frame_size", "a frame holds at most 1M".to_owned()))?;
        Ok(Framing::Of(size))
    }

    fn bits(&self) -> Result<Option<BucketBits>, Wrong> {
        let bits = self.archive.n_bits.map(|bits| BucketBits::new(bits).ok_or(bits)).transpose();
        bits.map_err(|bits| ("archive.n_bits", format!("{bits} is not from 0 to 16")))
    }

    /// How shards are built.
    pub fn packing(&self) -> Result<PackSettings, Wrong> {
        let of = &self.archive;
        let spool = match &of.spool {
            Some(spool) => spool.clone(),
            None => self.place()?.0.scratch(),
        };
        Ok(PackSettings {
            compression: Compression { choice: self.codec()?, level: of.level },
            framing: self.framing()?,
            shard_limits: ShardLimits { bytes: of.max_shard_size.0.max(1), entries: limits::SHARD_ENTRIES },
            bits: self.bits()?,
            jobs: of.jobs.or_else(|| std::thread::available_parallelism().ok()).unwrap_or(NonZeroUsize::MIN),
            spool,
        })
    }

    /// How a migration goes about it.
    pub fn plan(&self) -> Plan {
        let of = &self.migration;
        Plan {
            worker: of.worker.clone(),
            last: None,
            batch_days: of.batch_days,
            batch_rows: of.batch_size,
            lease: of.lease.0,
            mark_archived: of.mark_archived,
            patience: of.patience.0,
        }
    }

    /// How a cleanup goes about it.
    pub fn cleanup_plan(&self) -> CleanupPlan {
        CleanupPlan { delay: self.cleanup.delay.0, remove_deleted: self.cleanup.remove_deleted }
    }
}

#[cfg(test)]
mod tests;
