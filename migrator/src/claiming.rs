//! Taking a name and days where a process has just died: the server may go on for a while with what it last asked for, and
//! hold its locks until then.

use std::time::Duration;

use crate::error::{DatabaseError, MigrateError};
use crate::migrator::Migrator;
use crate::state::{Claim, Claims, StateStore};

/// How often what is held is asked for.
const ATTEMPTS: u32 = 20;

/// The time between.
const PAUSE: Duration = Duration::from_millis(250);

impl Migrator {
    /// Makes sure that no other process works under this worker's name.
    pub(crate) async fn hold_name(&self) -> Result<(), MigrateError> {
        for _ in 0..ATTEMPTS {
            let worker = self.plan.worker.clone();
            if self.ask(move |state| state.hold_name(&worker)).await? {
                return Ok(());
            }
            self.clock.sleep(PAUSE).await;
        }
        let worker = &self.plan.worker;
        Err(MigrateError::refused(format!(
            "a worker of the name {worker:?} is running already; --worker gives this one a name of its own"
        )))
    }

    /// Takes days; none where nothing is left to be taken.
    pub(crate) async fn claimed(
        &self,
        claim: impl Fn(&dyn StateStore) -> Result<Claims, DatabaseError> + Clone + Send + Sync + 'static,
    ) -> Result<Vec<Claim>, MigrateError> {
        for _ in 0..ATTEMPTS {
            let claim = claim.clone();
            match self.ask(move |state| claim(state)).await? {
                Claims::Taken(claims) => return Ok(claims),
                Claims::None => return Ok(Vec::new()),
                Claims::Held => self.clock.sleep(PAUSE).await,
            }
        }
        Err(MigrateError::refused(
            "another session of the database holds the days that are left (pg_locks shows it); run this again when it is gone",
        ))
    }
}
