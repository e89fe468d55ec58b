//! Taking days to work at. Rows that other sessions hold are passed over, so that workers do not wait for each other; where
//! nothing else is left, that is told apart from the end of the work.

use desfmt::Date;
use postgres::types::ToSql;
use postgres::{Error, Transaction};

use super::ddl::StateNames;
use super::values::SqlDay;
use crate::state::{Claim, Claims};

/// Takes some of the days that are not moved.
pub(super) fn days(
    transaction: &mut Transaction<'_>,
    names: &StateNames,
    worker: &str,
    last: Option<Date>,
    (count, lease): (u32, f64),
) -> Result<Claims, Error> {
    let last = SqlDay(last.or_else(|| Date::from_number(Date::NUMBER_MAX)).unwrap_or_else(crate::days::first_day));
    let count = i64::from(count);
    let free = "state <> 'finished' AND day <= $2 AND (state = 'open' OR \
                (state = 'claimed' AND (worker = $1 OR lease_until < clock_timestamp())))";
    let claim = format!(
        "UPDATE {{day}} AS mine SET state = 'claimed', worker = $1, epoch = epoch + 1, \
                lease_until = clock_timestamp() + make_interval(secs => $4) \
         WHERE day IN (SELECT day FROM {{day}} WHERE {free} \
             ORDER BY day LIMIT greatest(1, least($3, (SELECT count(*) FROM {{day}} \
                 WHERE state <> 'finished' AND state = 'open' AND day <= $2) / 4)) \
             FOR UPDATE SKIP LOCKED) \
         RETURNING day, epoch"
    );
    let taken = take(transaction, &names.sql(&claim), &[&worker, &last, &count, &lease])?;
    let held = format!("SELECT EXISTS (SELECT 1 FROM {{day}} WHERE {free})");
    or_held(taken, || Ok(transaction.query_one(&names.sql(&held), &[&worker, &last])?.get(0)))
}

/// Takes the oldest day whose sources may go.
pub(super) fn cleanup(
    transaction: &mut Transaction<'_>,
    names: &StateNames,
    worker: &str,
    (delay, lease): (f64, f64),
) -> Result<Claims, Error> {
    let list = "\
        INSERT INTO {cleanup} (day) SELECT day FROM {day} \
        WHERE state = 'finished' AND finished_at <= clock_timestamp() - make_interval(secs => $1) \
        ON CONFLICT (day) DO NOTHING";
    transaction.execute(&names.sql(list), &[&delay])?;
    let free = "SELECT c.day FROM {cleanup} AS c JOIN {day} AS d ON d.day = c.day \
                WHERE d.state = 'finished' AND (c.state = 'open' OR \
                      (c.state = 'claimed' AND (c.worker = $1 OR c.lease_until < clock_timestamp())))";
    let claim = format!(
        "UPDATE {{cleanup}} SET state = 'claimed', worker = $1, epoch = epoch + 1, \
                lease_until = clock_timestamp() + make_interval(secs => $2) \
         WHERE day IN ({free} ORDER BY c.day LIMIT 1 FOR UPDATE OF c SKIP LOCKED) \
         RETURNING day, epoch"
    );
    let taken = take(transaction, &names.sql(&claim), &[&worker, &lease])?;
    let held = format!("SELECT EXISTS ({free})");
    or_held(taken, || Ok(transaction.query_one(&names.sql(&held), &[&worker])?.get(0)))
}

fn take(transaction: &mut Transaction<'_>, claim: &str, values: &[&(dyn ToSql + Sync)]) -> Result<Vec<Claim>, Error> {
    let rows = transaction.query(claim, values)?;
    let claim = |row: &postgres::Row| Claim { day: row.get::<_, SqlDay>(0).0, epoch: row.get(1) };
    let mut claims: Vec<Claim> = rows.iter().map(claim).collect();
    claims.sort_unstable_by_key(|claim| claim.day);
    Ok(claims)
}

fn or_held(taken: Vec<Claim>, is_any_free: impl FnOnce() -> Result<bool, Error>) -> Result<Claims, Error> {
    Ok(match taken.is_empty() {
        false => Claims::Taken(taken),
        true if is_any_free()? => Claims::Held,
        true => Claims::None,
    })
}
