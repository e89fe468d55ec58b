//! What a run works with, opened as the configuration says.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use desstore::config::ConfigError;
use desstore::stack::StackMetrics;
use desstore::{Clock, ObjectStore, Surroundings, SystemClock, SystemRandom};
use migrator::config::Settings;
use migrator::rows::postgres::{Database, PostgresRows, PostgresState};
use migrator::{MigrateError, MigrationMetrics, Migrator, Progress};
use tokio::runtime::Handle;

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

    /// What a store works with by itself.
    fn surroundings(&self) -> Surroundings {
        Surroundings::new(Arc::clone(&self.clock), Arc::new(SystemRandom))
    }

    /// Makes sure that the store can be reached; nothing is made where nothing is.
    pub(crate) async fn look(&self, path: &Path, settings: &Settings) -> Result<(), Failure> {
        let (location, options) = settings.place().map_err(wrong(path))?;
        let connected = location.connect(&options, &self.surroundings()).await;
        connected.map(drop).map_err(|error| MigrateError::from(error).into())
    }

    /// Connects to the store that is to be written to, and clears away what dead processes have left. Says whether it is a
    /// local directory.
    async fn store(
        &self,
        path: &Path,
        settings: &Settings,
        surroundings: &Surroundings,
    ) -> Result<(Arc<dyn ObjectStore>, bool), Failure> {
        let (location, options) = settings.place().map_err(wrong(path))?;
        let connected = location.create(&options, surroundings).await.map_err(MigrateError::from)?;
        let spool = settings.packing().map_err(wrong(path))?.spool;
        packer::clear_debris(&connected, &spool).await.map_err(MigrateError::from)?;
        let store = packer::writable(&connected, Arc::new(SystemRandom)).await.map_err(MigrateError::from)?;
        Ok((store, connected.local.is_some()))
    }

    /// All of it together.
    pub(crate) async fn migrator(
        &self,
        path: &Path,
        settings: &Settings,
        (metrics, stack): (MigrationMetrics, &StackMetrics),
        stop: Arc<AtomicBool>,
    ) -> Result<Migrator, Failure> {
        let surroundings = self.surroundings().counting(stack.clone());
        let sources = settings.open_sources(Handle::current(), &surroundings).map_err(wrong(path))?;
        let (store, store_is_near) = self.store(path, settings, &surroundings).await?;
        Ok(Migrator {
            source: Arc::<PostgresRows>::clone(&self.rows),
            state: Arc::<PostgresState>::clone(&self.state),
            store,
            store_is_near,
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
