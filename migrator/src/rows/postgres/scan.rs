//! The source table: pages of rows by (time, uid), read-only, on one index, without an offset.

mod clocks;
mod sql;

use std::ops::ControlFlow;

use desfmt::Timestamp;
use jiff::tz::TimeZone;
use packer::ChecksumAlgorithm;
use postgres::{IsolationLevel, Row, Transaction};

use self::clocks::{EDGE_MICROS, from_wall, wall};
use self::sql::{Json, Sql, column};
use super::connection::{Database, failed};
use super::name::{Identifier, Relation};
use super::plan::ScanPlan;
use super::values::{SqlTime, SqlUid, hex_bytes};
use crate::days::{Window, day_start, first_day};
use crate::error::DatabaseError;
use crate::rows::{DayVolume, Key, Nameless, RowSource, SourceRow, TakePage, Which};

/// Which table and columns are meant.
#[derive(Debug, Clone)]
pub struct Table {
    /// `TABLE` or `SCHEMA.TABLE`.
    pub table: String,
    /// The column of the uid: text, an integer or a UUID.
    pub uid: String,
    /// The column of the time: with zone, or without.
    pub created_at: String,
    /// The column of the place.
    pub location: String,
    /// The column of the length.
    pub size: Option<String>,
    /// The column of the checksum, and how it is computed.
    pub checksum: Option<(String, ChecksumAlgorithm)>,
    /// The column that says that a row was archived.
    pub archived: Option<String>,
    /// A condition in SQL that all rows must meet.
    pub filter: Option<String>,
    /// What a time without zone is local to.
    pub zone: TimeZoneOf,
    /// Rows of one page.
    pub page_rows: u32,
}

/// What a time without zone is local to, where that is known.
#[derive(Debug, Clone, Default)]
pub struct TimeZoneOf(pub Option<TimeZone>);

/// A source table that was looked at.
#[derive(Debug)]
pub struct PostgresRows {
    database: Database,
    sql: Sql,
    page_rows: u32,
    algorithm: Option<ChecksumAlgorithm>,
    /// Set where times have no zone.
    local: Option<TimeZone>,
    uid_may_be_null: bool,
}

impl PostgresRows {
    /// Looks at the table: whether all columns are there, and of which types.
    pub fn open(database: Database, table: &Table) -> Result<Self, DatabaseError> {
        let named = |what: &str, name: &str| {
            Identifier::new(name).map_err(|error| DatabaseError::unfit(format!("database.{what}: {error}")))
        };
        let relation = Relation::parse(&table.table)
            .map_err(|error| DatabaseError::unfit(format!("database.table: {error}")))?
            .to_string();
        let look = |what: &str, name: &str| column(&database, &relation, what, &named(what, name)?);
        let (uid, time, place) = (
            look("uid_column", &table.uid)?,
            look("created_at_column", &table.created_at)?,
            look("location_column", &table.location)?,
        );
        let local = match (time.ty.as_str(), &table.zone.0) {
            ("timestamp with time zone", _) => None,
            ("timestamp without time zone", Some(zone)) => Some(zone.clone()),
            ("timestamp without time zone", None) => {
                return Err(DatabaseError::unfit(format!(
                    "{} has no time zone; database.created_at_zone says which one is meant, such as UTC",
                    table.created_at
                )));
            }
            (other, _) => {
                return Err(DatabaseError::unfit(format!("{} is {other}, no time", table.created_at)));
            }
        };
        if !matches!(uid.ty.as_str(), "text" | "character varying" | "character" | "bigint" | "integer" | "uuid") {
            return Err(DatabaseError::unfit(format!(
                "{} is {}; a uid is text, a number or a UUID",
                table.uid, uid.ty
            )));
        }
        let size = table.size.as_deref().map(|name| look("size_column", name).map(|_| name)).transpose()?;
        let checksum = table.checksum.as_ref();
        let checksum =
            checksum.map(|(name, _)| look("checksum_column", name).map(|found| (name, found))).transpose()?;
        let archived = table.archived.as_deref().map(|name| look("archived_column", name).map(|_| name)).transpose()?;
        drop(place);
        let (uid_name, time_name) = (named("uid_column", &table.uid)?, named("created_at_column", &table.created_at)?);
        let filter = table.filter.as_ref().map(|filter| format!(" AND ({filter})")).unwrap_or_default();
        let archived = archived.map(|name| named("archived_column", name)).transpose()?;
        let size_text = match size {
            Some(name) => format!("{}::text", named("size_column", name)?),
            None => "NULL::text".to_owned(),
        };
        let checksum_text = match &checksum {
            Some((name, found)) if found.ty == "bytea" => format!("encode({}, 'hex')", named("checksum_column", name)?),
            Some((name, _)) => format!("{}::text", named("checksum_column", name)?),
            None => "NULL::text".to_owned(),
        };
        let place_name = named("location_column", &table.location)?;
        // ORDER BY would take an output of a column's own name for the column: a number would be sorted as a text.
        let columns =
            format!("{uid_name}::text AS des_uid, {time_name}, {place_name}::text, {size_text}, {checksum_text}");
        let sql = Sql::new(&relation, (&uid_name, &time_name), &columns, filter, size, archived.as_ref());
        Ok(Self {
            database,
            sql,
            page_rows: table.page_rows.max(1),
            algorithm: table.checksum.as_ref().map(|(_, algorithm)| *algorithm),
            local,
            uid_may_be_null: uid.may_be_null,
        })
    }

    /// How the server would read a page in the middle of a window.
    pub fn explain(&self, window: Window) -> Result<ScanPlan, DatabaseError> {
        let doing = "explaining a scan";
        let mut client = self.database.get()?;
        let statement = format!("EXPLAIN {}", self.sql.waiting.next);
        let (start, end) = self.bounds(window);
        let limit = i64::from(self.page_rows);
        let rows =
            client.query(&statement, &[&SqlTime(start), &SqlUid("0"), &SqlTime(end), &limit]).map_err(failed(doing))?;
        Ok(ScanPlan::new(rows.iter().map(|row| row.get::<_, String>(0)).collect()))
    }

    /// The bounds of a window in the terms of the column.
    fn bounds(&self, window: Window) -> (Timestamp, Timestamp) {
        match &self.local {
            None => (window.start, window.end),
            // Clocks that are set back show some times twice, so the edges are taken wider and sorted out by row.
            Some(zone) => (wall(window.start, zone, -EDGE_MICROS), wall(window.end, zone, EDGE_MICROS)),
        }
    }

    /// The point in time that a column's value means.
    fn instant(&self, value: Timestamp) -> Timestamp {
        match &self.local {
            None => value,
            Some(zone) => from_wall(value, zone).unwrap_or(value),
        }
    }

    fn row(&self, row: &Row) -> Result<(SourceRow, Timestamp), postgres::Error> {
        let written = row.try_get::<_, SqlTime>(1)?.0;
        let len = row.try_get::<_, Option<String>>(3)?;
        let checksum = row.try_get::<_, Option<String>>(4)?;
        let parsed = SourceRow {
            uid: row.try_get(0)?,
            created_at: self.instant(written),
            location: row.try_get(2)?,
            len: len.map(|text| length(&text)).transpose(),
            checksum: match (checksum, self.algorithm) {
                (Some(text), Some(algorithm)) => {
                    let found = hex_bytes(text.trim()).and_then(|bytes| algorithm.checksum(&bytes));
                    found.map(Some).ok_or_else(|| format!("the checksum is {text:?}, not one in hexadecimal digits"))
                }
                _ => Ok(None),
            },
        };
        Ok((parsed, written))
    }

    /// Reads pages until there are no more, or nobody wants more.
    fn pages(
        &self,
        transaction: &mut Transaction<'_>,
        (window, which): (Window, Which),
        after: Option<Key>,
        take: TakePage<'_>,
    ) -> Result<(), postgres::Error> {
        let (start, end) = self.bounds(window);
        let limit = i64::from(self.page_rows);
        // A place is known by its point in time; two of a clock that was set back have one each.
        let mut last = after.map(|key| (self.written(key.created_at), key.uid));
        let pages = match which {
            Which::Waiting => &self.sql.waiting,
            Which::All => &self.sql.all,
        };
        let (first_page, next_page) = (transaction.prepare(&pages.first)?, transaction.prepare(&pages.next)?);
        loop {
            let rows = match &last {
                None => transaction.query(&first_page, &[&SqlTime(start), &SqlTime(end), &limit])?,
                Some((time, uid)) => {
                    transaction.query(&next_page, &[&SqlTime(*time), &SqlUid(uid), &SqlTime(end), &limit])?
                }
            };
            let mut page = Vec::with_capacity(rows.len());
            let is_last = rows.len() < usize::try_from(self.page_rows).unwrap_or(usize::MAX);
            for row in &rows {
                let (parsed, written) = self.row(row)?;
                last = Some((written, parsed.uid.clone()));
                if window.has(parsed.created_at) {
                    page.push(parsed);
                }
            }
            if (!page.is_empty() && take(page) == ControlFlow::Break(())) || is_last {
                return Ok(());
            }
        }
    }

    fn written(&self, instant: Timestamp) -> Timestamp {
        match &self.local {
            None => instant,
            Some(zone) => wall(instant, zone, 0),
        }
    }
}

fn length(text: &str) -> Result<u64, String> {
    text.trim().parse().map_err(|_| format!("the length is {text}, not a whole number of bytes"))
}

impl RowSource for PostgresRows {
    fn now(&self) -> Result<Timestamp, DatabaseError> {
        let row = self.database.get()?.query_one("SELECT now()", &[]).map_err(failed("asking for the time"))?;
        Ok(row.get::<_, SqlTime>(0).0)
    }

    fn first(&self, window: Window) -> Result<Option<Timestamp>, DatabaseError> {
        let (doing, mut from) = ("looking for the next day", self.bounds(window).0);
        let end = self.bounds(window).1;
        let mut client = self.database.get()?;
        loop {
            let found = client.query_opt(&self.sql.first, &[&SqlTime(from), &SqlTime(end)]).map_err(failed(doing))?;
            let Some(found) = found else { return Ok(None) };
            let written = found.get::<_, SqlTime>(0).0;
            let instant = self.instant(written);
            if instant >= window.end {
                return Ok(None);
            }
            if window.has(instant) {
                return Ok(Some(instant));
            }
            // Within the wider edge of a zone.
            from = Timestamp::from_micros(written.micros().saturating_add(1));
        }
    }

    fn scan(&self, window: Window, which: Which, after: Option<Key>, take: TakePage<'_>) -> Result<(), DatabaseError> {
        let doing = "reading rows";
        let mut client = self.database.get()?;
        let mut transaction = client
            .build_transaction()
            .isolation_level(IsolationLevel::RepeatableRead)
            .read_only(true)
            .start()
            .map_err(failed(doing))?;
        self.pages(&mut transaction, (window, which), after, take).map_err(failed(doing))?;
        transaction.commit().map_err(failed(doing))
    }

    fn nameless(&self, window: Window) -> Result<Vec<Nameless>, DatabaseError> {
        if !self.uid_may_be_null {
            return Ok(Vec::new());
        }
        let (start, end) = self.bounds(window);
        let mut client = self.database.get()?;
        let rows = client
            .query(&self.sql.nameless, &[&SqlTime(start), &SqlTime(end)])
            .map_err(failed("counting rows without a uid"))?;
        let nameless = rows.iter().map(|row| Nameless {
            created_at: self.instant(row.get::<_, SqlTime>(0).0),
            rows: u64::try_from(row.get::<_, i64>(1)).unwrap_or(0),
        });
        Ok(nameless.filter(|found| window.has(found.created_at)).collect())
    }

    fn undated(&self) -> Result<u64, DatabaseError> {
        let mut client = self.database.get()?;
        let row = client
            .query_one(&self.sql.undated, &[&SqlTime(first_day().start())])
            .map_err(failed("counting rows without a time"))?;
        Ok(u64::try_from(row.get::<_, i64>(0)).unwrap_or(0))
    }

    fn estimate(&self, window: Window) -> Result<u64, DatabaseError> {
        let (start, end) = self.bounds(window);
        let Sql { relation, time, condition, .. } = &self.sql;
        let statement =
            format!("EXPLAIN (FORMAT JSON) SELECT 1 FROM {relation} WHERE {time} >= $1 AND {time} < $2{condition}");
        let mut client = self.database.get()?;
        let row = client
            .query_one(&statement, &[&SqlTime(start), &SqlTime(end)])
            .map_err(failed("estimating how many rows there are"))?;
        Ok(super::plan::rows_of(&row.get::<_, Json>(0).0))
    }

    fn volumes(&self, window: Window, class_bounds: &[u64]) -> Result<Vec<DayVolume>, DatabaseError> {
        let (start, end) = self.bounds(window);
        let Sql { relation, time, condition, size, .. } = &self.sql;
        let length = size.as_ref().map_or("0::numeric".to_owned(), |size| format!("coalesce({size}::numeric, 0)"));
        let bounds: Vec<String> = class_bounds.iter().map(u64::to_string).collect();
        // Days of a zone are its own here: this is an overview, not the division into days.
        let statement = format!(
            "SELECT date_trunc('day', {time}) AS day, width_bucket({length}, ARRAY[{}]::numeric[]) AS class, \
             count(*), sum({length})::bigint, min({time}), max({time}) \
             FROM {relation} WHERE {time} >= $1 AND {time} < $2{condition} GROUP BY 1, 2 ORDER BY 1, 2",
            bounds.join(",")
        );
        let doing = "summing up the table";
        let mut client = self.database.get()?;
        let mut transaction = client.build_transaction().read_only(true).start().map_err(failed(doing))?;
        transaction.batch_execute("SET LOCAL timezone = 'UTC'").map_err(failed(doing))?;
        let rows = transaction.query(&statement, &[&SqlTime(start), &SqlTime(end)]).map_err(failed(doing))?;
        let unsigned = |row: &Row, at: usize| u64::try_from(row.get::<_, Option<i64>>(at).unwrap_or(0)).unwrap_or(0);
        let volume = |row: &Row| DayVolume {
            day: day_start(row.get::<_, SqlTime>(0).0),
            class: usize::try_from(row.get::<_, i32>(1)).unwrap_or(0),
            files: unsigned(row, 2),
            bytes: unsigned(row, 3),
            oldest: self.instant(row.get::<_, SqlTime>(4).0),
            newest: self.instant(row.get::<_, SqlTime>(5).0),
        };
        Ok(rows.iter().map(volume).collect())
    }

    fn mark_archived(&self, rows: &[Key]) -> Result<(), DatabaseError> {
        let Some(statement) = &self.sql.mark else { return Ok(()) };
        let doing = "marking rows as archived";
        let mut client = self.database.get()?;
        let mut transaction = client.transaction().map_err(failed(doing))?;
        let statement = transaction.prepare(statement).map_err(failed(doing))?;
        for key in rows {
            let time = SqlTime(self.written(key.created_at));
            transaction.execute(&statement, &[&time, &SqlUid(&key.uid)]).map_err(failed(doing))?;
        }
        transaction.commit().map_err(failed(doing))
    }
}
