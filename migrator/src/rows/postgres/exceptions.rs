//! The table of exceptions.

use desfmt::Timestamp;
use postgres::types::{ToSql, Type};
use postgres::{Client, Error, Row, Transaction};

use super::ddl::StateNames;
use super::values::{SqlDay, SqlTime};
use crate::state::{Exception, ListedException, Selection};

/// What stands for the time of a row that has none.
const NO_TIME: Timestamp = Timestamp::from_micros(i64::MIN);

/// Bytes of a text that are kept.
const TEXT_BYTES_MAX: usize = 4_096;

/// Notes exceptions. One that was acknowledged stays so as long as it is the same one.
pub(super) fn note(
    transaction: &mut Transaction<'_>,
    names: &StateNames,
    exceptions: &[Exception],
    epoch: i64,
) -> Result<(), Error> {
    let types = [
        Type::BYTEA,
        Type::TIMESTAMPTZ,
        Type::TEXT,
        Type::TEXT,
        Type::DATE,
        Type::TEXT,
        Type::TEXT,
        Type::TEXT,
        Type::INT8,
        Type::INT8,
    ];
    // A sweep meets again what is known not to be in its place.
    let insert = names.sql(
        "INSERT INTO {exception} AS e (uid_hash, created_at, stage, uid, day, kind, reason, source, n_rows, epoch) \
         SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10 \
         WHERE $3 <> 'sweep' OR NOT EXISTS (SELECT 1 FROM {exception} AS known \
             WHERE known.uid_hash = $1 AND known.created_at = $2 AND known.stage = 'migrate') \
         ON CONFLICT (uid_hash, created_at, stage) DO UPDATE SET \
             day = excluded.day, reason = excluded.reason, source = excluded.source, n_rows = excluded.n_rows, \
             epoch = excluded.epoch, last_seen = now(), kind = excluded.kind, \
             acked_by = CASE WHEN e.kind = excluded.kind AND e.n_rows >= excluded.n_rows THEN e.acked_by END, \
             acked_at = CASE WHEN e.kind = excluded.kind AND e.n_rows >= excluded.n_rows THEN e.acked_at END",
    );
    let insert = transaction.prepare_typed(&insert, &types)?;
    for exception in exceptions {
        let hash = blake3::hash(exception.uid.as_bytes());
        let hash = hash.as_bytes().get(..16).unwrap_or_default();
        let created_at = SqlTime(exception.created_at.unwrap_or(NO_TIME));
        let day = exception.day.map(SqlDay);
        let rows = i64::try_from(exception.rows).unwrap_or(i64::MAX);
        let (reason, source) = (storable(&exception.reason), storable(&exception.source));
        let (stage, kind) = (exception.stage.name(), exception.kind.name());
        let values: [&(dyn ToSql + Sync); 10] =
            [&hash, &created_at, &stage, &exception.uid, &day, &kind, &reason, &source, &rows, &epoch];
        transaction.execute(&insert, &values)?;
    }
    Ok(())
}

/// A text that the server takes: without NUL, and not endless.
fn storable(text: &str) -> String {
    let mut end = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().replace('\0', "\u{fffd}")
}

/// The condition that a selection is, with `$1` to `$4`.
const SELECTED: &str = "\
    ($1::text IS NULL OR uid = $1) AND ($2::date IS NULL OR day = $2) AND ($3::text IS NULL OR stage = $3) \
    AND ($4 OR acked_by IS NULL)";

/// The values of a selection.
struct Values {
    uid: Option<String>,
    day: Option<SqlDay>,
    stage: Option<&'static str>,
    acked: bool,
}

impl Values {
    fn of(selection: &Selection) -> Self {
        Self {
            uid: selection.uid.clone(),
            day: selection.day.map(SqlDay),
            stage: selection.stage.map(crate::state::Stage::name),
            acked: selection.acked,
        }
    }

    fn all(&self) -> [&(dyn ToSql + Sync); 4] {
        [&self.uid, &self.day, &self.stage, &self.acked]
    }
}

/// Lists exceptions, the oldest days first.
pub(super) fn list(
    client: &mut Client,
    names: &StateNames,
    selection: &Selection,
    count: u32,
) -> Result<Vec<ListedException>, Error> {
    let select = names.sql(&format!(
        "SELECT uid, created_at, day, stage, kind, reason, source, n_rows, first_seen, acked_by FROM {{exception}} \
         WHERE {SELECTED} ORDER BY day NULLS FIRST, created_at, uid LIMIT $5"
    ));
    let values = Values::of(selection);
    let count = i64::from(count);
    let [uid, day, stage, acked] = values.all();
    let rows = client.query(&select, &[uid, day, stage, acked, &count])?;
    Ok(rows.iter().map(listed).collect())
}

fn listed(row: &Row) -> ListedException {
    let created_at = row.get::<_, SqlTime>(1).0;
    ListedException {
        uid: row.get(0),
        created_at: (created_at != NO_TIME).then(|| created_at.to_string()),
        day: row.get::<_, Option<SqlDay>>(2).map(|day| day.0.to_string()),
        stage: row.get(3),
        kind: row.get(4),
        reason: row.get(5),
        source: row.get(6),
        rows: row.get(7),
        first_seen: row.get::<_, SqlTime>(8).0.to_string(),
        acked_by: row.get(9),
    }
}

/// Acknowledges exceptions; says how many.
pub(super) fn acknowledge(
    transaction: &mut Transaction<'_>,
    names: &StateNames,
    selection: &Selection,
    by: &str,
) -> Result<u64, Error> {
    let update = names.sql(&format!("UPDATE {{exception}} SET acked_by = $5, acked_at = now() WHERE {SELECTED}"));
    let values = Values::of(selection);
    let [uid, day, stage, acked] = values.all();
    transaction.execute(&update, &[uid, day, stage, acked, &by])
}

/// Opens the days of exceptions again, for moving or for cleaning up; says how many.
pub(super) fn retry(
    transaction: &mut Transaction<'_>,
    names: &StateNames,
    selection: &Selection,
) -> Result<u64, Error> {
    let values = Values::of(selection);
    let move_again = names.sql(&format!(
        "UPDATE {{day}} SET state = 'open', worker = NULL, lease_until = NULL WHERE state IN ('blocked', 'finished') \
         AND day IN (SELECT day FROM {{exception}} WHERE stage = 'migrate' AND {SELECTED})"
    ));
    let moved = transaction.execute(&move_again, &values.all())?;
    let clean_again = names.sql(&format!(
        "DELETE FROM {{cleanup}} WHERE state = 'done' \
         AND day IN (SELECT day FROM {{exception}} WHERE stage = 'cleanup' AND {SELECTED})"
    ));
    let cleaned = transaction.execute(&clean_again, &values.all())?;
    // They come again where they are still true.
    let forget = names.sql(&format!("DELETE FROM {{exception}} WHERE stage IN ('cleanup', 'sweep') AND {SELECTED}"));
    transaction.execute(&forget, &values.all())?;
    Ok(moved.saturating_add(cleaned))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_server_would_refuse_is_made_storable() {
        assert_eq!(storable("a\0b"), "a\u{fffd}b");
        let long = "\u{e9}".repeat(4_000);
        assert!(storable(&long).len() <= TEXT_BYTES_MAX && long.starts_with(&storable(&long)));
    }
}
