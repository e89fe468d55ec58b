//! The tables of state: claims of days, and the cutoff.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use desfmt::{Date, Timestamp};
use postgres::Client;

use super::connection::{Database, failed};
use super::ddl::{StateNames, ddl};
use super::name::Identifier;
use super::values::{SqlDay, SqlTime};
use super::{claims, exceptions, marks};
use crate::error::DatabaseError;
use crate::state::{
    Claim, Claims, Cleaned, Cutoff, DayMark, Exception, ListedException, Marked, Receipt, Selection, Stage, StateStore,
};

/// State in tables of PostgreSQL.
pub struct PostgresState {
    database: Database,
    names: StateNames,
    schema: Option<Identifier>,
    /// The connection that holds the worker's name as long as it lives.
    holder: Mutex<Option<Client>>,
}

impl fmt::Debug for PostgresState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresState").field("database", &self.database).finish_non_exhaustive()
    }
}

/// What all names of workers are hashed with, so that no other program's lock is met.
const NAME_LOCK: i32 = 0x0064_6573;

impl PostgresState {
    /// State in this database; in this schema, or in the one that the role finds first.
    pub fn new(database: Database, schema: Option<Identifier>) -> Self {
        let names = StateNames::new(schema.as_ref());
        Self { database, names, schema, holder: Mutex::new(None) }
    }

    /// Makes the tables, and sets the lag.
    pub fn init(&self, lag_days: u32) -> Result<(), DatabaseError> {
        let doing = "making the tables of state";
        let lag_days = i32::try_from(lag_days).unwrap_or(i32::MAX);
        let mut client = self.database.get()?;
        let mut transaction = client.transaction().map_err(failed(doing))?;
        transaction.batch_execute(&ddl(self.schema.as_ref())).map_err(failed(doing))?;
        let set = "INSERT INTO {config} (lag_days) VALUES ($1) \
                   ON CONFLICT (singleton) DO UPDATE SET lag_days = excluded.lag_days";
        transaction.execute(&self.names.sql(set), &[&lag_days]).map_err(failed(doing))?;
        transaction.commit().map_err(failed(doing))
    }

    /// Runs statements of one transaction.
    fn transact<T>(
        &self,
        doing: &'static str,
        run: impl FnOnce(&mut postgres::Transaction<'_>, &StateNames) -> Result<T, postgres::Error>,
    ) -> Result<T, DatabaseError> {
        let mut client = self.database.get()?;
        let mut transaction = client.transaction().map_err(failed(doing))?;
        // Whatever the server is set to, what is said to be done is on its disk.
        transaction.batch_execute("SET LOCAL synchronous_commit = on").map_err(failed(doing))?;
        let value = run(&mut transaction, &self.names).map_err(failed(doing))?;
        transaction.commit().map_err(failed(doing))?;
        Ok(value)
    }
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64()
}

impl StateStore for PostgresState {
    fn cutoff(&self) -> Result<Cutoff, DatabaseError> {
        let doing = "reading how far the archive is";
        let mut client = self.database.get()?;
        let found = client
            .query_opt(&self.names.sql("SELECT archived_until, planned_until, lag_days, archive FROM {config}"), &[])
            .map_err(|error| match error.code() {
                Some(&postgres::error::SqlState::UNDEFINED_TABLE) => no_tables(),
                _ => failed(doing)(error),
            })?;
        let found = found.ok_or_else(no_tables)?;
        let time = |at: usize| found.get::<_, Option<SqlTime>>(at).map(|time| time.0);
        Ok(Cutoff {
            archived_until: time(0),
            planned_until: time(1),
            lag_days: u32::try_from(found.get::<_, i32>(2)).unwrap_or(0),
            archive: found.get(3),
        })
    }

    fn bind(&self, archive: &str) -> Result<bool, DatabaseError> {
        let changed = self.transact("noting the archive", |transaction, names| {
            let set = names.sql("UPDATE {config} SET archive = $1 WHERE archive IS NULL OR archive = $1");
            transaction.execute(&set, &[&archive])
        })?;
        Ok(changed == 1)
    }

    fn hold_name(&self, worker: &str) -> Result<bool, DatabaseError> {
        let doing = "holding the worker's name";
        let mut holder = self.holder.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = holder.as_mut()
            && client.simple_query("").is_ok()
        {
            return Ok(true);
        }
        *holder = None;
        let mut client = self.database.alone(doing)?;
        let locked = client
            .query_one("SELECT pg_try_advisory_lock($1, hashtext($2))", &[&NAME_LOCK, &worker])
            .map_err(failed(doing))?
            .get(0);
        if locked {
            *holder = Some(client);
        }
        Ok(locked)
    }

    fn plan(&self, days: &[Date], planned_until: Timestamp) -> Result<(), DatabaseError> {
        self.transact("listing days", |transaction, names| {
            // One planner after the other, so that none moves the horizon over days that it has not seen listed.
            transaction.execute(&names.sql("SELECT 1 FROM {config} FOR UPDATE"), &[])?;
            let days: Vec<SqlDay> = days.iter().copied().map(SqlDay).collect();
            let insert = "INSERT INTO {day} (day) SELECT unnest($1::date[]) ON CONFLICT (day) DO NOTHING";
            transaction.execute(&names.sql(insert), &[&days])?;
            let until = "UPDATE {config} SET planned_until = $1 WHERE planned_until IS NULL OR planned_until < $1";
            transaction.execute(&names.sql(until), &[&SqlTime(planned_until)])?;
            marks::advance(transaction, names)
        })
    }

    fn claim(&self, worker: &str, last: Option<Date>, count: u32, lease: Duration) -> Result<Claims, DatabaseError> {
        self.transact("claiming days", |transaction, names| {
            claims::days(transaction, names, worker, last, (count, millis(lease)))
        })
    }

    fn renew(&self, worker: &str, claims: &[Claim], lease: Duration) -> Result<bool, DatabaseError> {
        let changed = self.transact("renewing a lease", |transaction, names| {
            let renew = names.sql(
                "UPDATE {day} SET lease_until = clock_timestamp() + make_interval(secs => $4) \
                 WHERE day = $1 AND epoch = $2 AND worker = $3 AND state = 'claimed'",
            );
            let mut changed = 0;
            for claim in claims {
                changed += transaction.execute(&renew, &[&SqlDay(claim.day), &claim.epoch, &worker, &millis(lease)])?;
            }
            Ok(changed)
        })?;
        Ok(usize::try_from(changed) == Ok(claims.len()))
    }

    fn release(&self, worker: &str, claims: &[Claim]) -> Result<(), DatabaseError> {
        self.transact("giving days back", |transaction, names| {
            let release = names.sql(
                "UPDATE {day} SET state = 'open', worker = NULL, lease_until = NULL \
                 WHERE day = $1 AND epoch = $2 AND worker = $3 AND state = 'claimed'",
            );
            for claim in claims {
                transaction.execute(&release, &[&SqlDay(claim.day), &claim.epoch, &worker])?;
            }
            Ok(())
        })
    }

    fn note(&self, exceptions: &[Exception], epoch: i64) -> Result<(), DatabaseError> {
        self.transact("noting exceptions", |transaction, names| exceptions::note(transaction, names, exceptions, epoch))
    }

    fn mark(&self, worker: &str, day_marks: &[DayMark]) -> Result<Marked, DatabaseError> {
        let doing = "marking days as moved";
        let mut client = self.database.get()?;
        let mut transaction = client.transaction().map_err(failed(doing))?;
        transaction.batch_execute("SET LOCAL synchronous_commit = on").map_err(failed(doing))?;
        let marked = marks::mark(&mut transaction, &self.names, worker, day_marks).map_err(failed(doing))?;
        match marked {
            Marked::Done => transaction.commit().map_err(failed(doing))?,
            Marked::Overtaken(_) => transaction.rollback().map_err(failed(doing))?,
        }
        Ok(marked)
    }

    fn add_receipts(&self, receipts: &[Receipt]) -> Result<(), DatabaseError> {
        self.transact("noting receipts", |transaction, names| {
            for receipt in receipts {
                marks::receipt(transaction, names, receipt)?;
                marks::forget_cleanup(transaction, names, receipt.day)?;
            }
            Ok(())
        })
    }

    fn open_exceptions(&self) -> Result<u64, DatabaseError> {
        let count = "SELECT coalesce(sum(n_rows), 0)::bigint FROM {exception} WHERE acked_by IS NULL";
        let mut client = self.database.get()?;
        let row = client.query_one(&self.names.sql(count), &[]).map_err(failed("counting exceptions"))?;
        Ok(u64::try_from(row.get::<_, i64>(0)).unwrap_or(0))
    }

    fn excepted(&self, day: Date, stage: Stage) -> Result<BTreeSet<String>, DatabaseError> {
        let select = "SELECT uid FROM {exception} WHERE day = $1 AND stage = $2";
        let mut client = self.database.get()?;
        let rows = client
            .query(&self.names.sql(select), &[&SqlDay(day), &stage.name()])
            .map_err(failed("reading exceptions"))?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    fn list(&self, selection: &Selection, count: u32) -> Result<Vec<ListedException>, DatabaseError> {
        let mut client = self.database.get()?;
        exceptions::list(&mut client, &self.names, selection, count).map_err(failed("listing exceptions"))
    }

    fn acknowledge(&self, selection: &Selection, by: &str) -> Result<u64, DatabaseError> {
        self.transact("acknowledging exceptions", |transaction, names| {
            let changed = exceptions::acknowledge(transaction, names, selection, by)?;
            marks::unblock(transaction, names)?;
            marks::advance(transaction, names)?;
            Ok(changed)
        })
    }

    fn retry(&self, selection: &Selection) -> Result<u64, DatabaseError> {
        self.transact("opening days again", |transaction, names| exceptions::retry(transaction, names, selection))
    }

    fn claim_cleanup(&self, worker: &str, delay: Duration, lease: Duration) -> Result<Claims, DatabaseError> {
        self.transact("claiming a day to clean up", |transaction, names| {
            claims::cleanup(transaction, names, worker, (millis(delay), millis(lease)))
        })
    }

    fn mark_cleaned(&self, worker: &str, claim: Claim, cleaned: &Cleaned) -> Result<bool, DatabaseError> {
        self.transact("marking a day as cleaned up", |transaction, names| {
            marks::mark_cleaned(transaction, names, worker, (claim, cleaned))
        })
    }
}

fn no_tables() -> DatabaseError {
    DatabaseError::unfit("there are no tables of state (des_archive_config); `des-migrate init` makes them")
}
