//! What a run works with, opened as the configuration says.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use desstore::config::ConfigError;
use desstore::{Clock, ObjectStore, Surroundings, SystemClock, SystemRandom};
use migrator::config::Settings;
use migrator::rows::postgres::{Database, PostgresRows, PostgresState};
use migrator::{MigrateError, MigrationMetrics, Migrator, Progress};

use crate::Failure;

/// A variable of this process.
#[expect(clippy::disallowed_methods, reason = "handed to whoever reads the configuration, from here only")]
pub(crate) fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// A setting that cannot be used.
pub(crate) fn wrong(path: &Path) -> impl Fn((&'static str, String)) -> Failure {
    move |(at, detail)| ConfigError::value(path, at, detail).into()
}

/// The tables of state.
pub(crate) fn state(path: &Path, settings: &Settings) -> Result<PostgresState, Failure> {
    let connection = settings.state_connection().unwrap_or_else(|| settings.connection());
    let schema = settings.schema().map_err(wrong(path))?;
    Ok(PostgresState::new(Database::connect(&connection)?, schema))
}

/// The source table and the tables of state.
pub(crate) struct Parts {
    pub(crate) rows: Arc<PostgresRows>,
    pub(crate) state: Arc<PostgresState>,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Parts {
    /// Connects to the databases.
    pub(crate) fn open(path: &Path, settings: &Settings) -> Result<Self, Failure> {
        let database = Database::connect(&settings.connection())?;
        let table = settings.table().map_err(wrong(path))?;
        let rows = Arc::new(PostgresRows::open(database.clone(), &table)?);
        let schema = settings.schema().map_err(wrong(path))?;
        let state = match settings.state_connection() {
            Some(connection) => PostgresState::new(Database::connect(&connection)?, schema),
            None => PostgresState::new(database, schema),
        };
        Ok(Self { rows, state: Arc::new(state), clock: Arc::new(SystemClock::new()) })
    }

    /// Connects to the store; with `look_only` nothing is made where nothing is.
    pub(crate) async fn store(
        &self,
        path: &Path,
        settings: &Settings,
        look_only: bool,
    ) -> Result<Arc<dyn ObjectStore>, Failure> {
        let location = settings.location().map_err(wrong(path))?;
        let options = settings.store_options().map_err(wrong(path))?;
        let surroundings = Surroundings::new(Arc::clone(&self.clock), Arc::new(SystemRandom));
        let connected = if look_only {
            location.connect(&options, &surroundings).await
        } else {
            location.create(&options, &surroundings).await
        };
        let connected = connected.map_err(MigrateError::from)?;
        if let (false, Some(local)) = (look_only, &connected.local) {
            local.clean_debris().map_err(packer::PackError::from).map_err(MigrateError::from)?;
        }
        if look_only {
            return Ok(connected.store);
        }
        Ok(packer::writable(&connected, false, &SystemRandom).await.map_err(MigrateError::from)?)
    }

    /// All of it together.
    pub(crate) async fn migrator(
        &self,
        path: &Path,
        settings: &Settings,
        metrics: MigrationMetrics,
        stop: Arc<AtomicBool>,
    ) -> Result<Migrator, Failure> {
        let sources = settings.open_sources();
        let sources = sources.map_err(|error| wrong(path)(("sources.roots", packer::program::reason_of(&error))))?;
        Ok(Migrator {
            source: Arc::<PostgresRows>::clone(&self.rows),
            state: Arc::<PostgresState>::clone(&self.state),
            store: self.store(path, settings, false).await?,
            clock: Arc::clone(&self.clock),
            random: Arc::new(SystemRandom),
            sources,
            packing: settings.packing().map_err(wrong(path))?,
            plan: settings.plan(),
            metrics: Arc::new(metrics),
            progress: Arc::new(Progress::default()),
            stop,
        })
    }
}
