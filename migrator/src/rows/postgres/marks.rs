//! The one transaction that says that days are moved, and what goes with it.

use postgres::{Error, Transaction};

use super::ddl::StateNames;
use super::values::SqlDay;
use crate::state::{Claim, Cleaned, DayMark, Marked, Receipt};

/// Marks days and moves the cutoff. The caller commits, or takes all back where a claim is lost.
pub(super) fn mark(
    transaction: &mut Transaction<'_>,
    names: &StateNames,
    worker: &str,
    marks: &[DayMark],
) -> Result<Marked, Error> {
    // One marker after the other: the cutoff is computed from what all others have committed.
    transaction.execute(&names.sql("SELECT 1 FROM {config} FOR UPDATE"), &[])?;
    for day in marks {
        if is_marked(transaction, names, worker, day.claim)? {
            // The acknowledgement of an earlier attempt was lost.
            continue;
        }
        if let Some(receipt) = &day.receipt {
            self::receipt(transaction, names, receipt)?;
        }
        heal(transaction, names, day.claim)?;
        let (files, packed) = (signed(day.tally.rows), signed(day.tally.packed));
        let (present, deleted) = (signed(day.tally.present), signed(day.tally.deleted));
        let (exceptions, bytes) = (signed(day.tally.exceptions), signed(day.tally.bytes));
        let update = "\
            UPDATE {day} SET files = $4, packed = $5, present = $6, deleted = $7, exceptions = $8, bytes = $9, \
                   lease_until = NULL, finished_at = now(), \
                   state = CASE WHEN EXISTS (SELECT 1 FROM {exception} AS e \
                       WHERE e.day = $1 AND e.stage = 'migrate' AND e.acked_by IS NULL) \
                       THEN 'blocked' ELSE 'finished' END \
            WHERE day = $1 AND epoch = $2 AND worker = $3 AND state = 'claimed'";
        let changed = transaction.execute(
            &names.sql(update),
            &[
                &SqlDay(day.claim.day),
                &day.claim.epoch,
                &worker,
                &files,
                &packed,
                &present,
                &deleted,
                &exceptions,
                &bytes,
            ],
        )?;
        if changed != 1 {
            return Ok(Marked::Overtaken(day.claim.day));
        }
        if day.tally.packed > 0 {
            forget_cleanup(transaction, names, day.claim.day)?;
        }
    }
    advance(transaction, names)?;
    Ok(Marked::Done)
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn is_marked(transaction: &mut Transaction<'_>, names: &StateNames, worker: &str, claim: Claim) -> Result<bool, Error> {
    let select =
        "SELECT 1 FROM {day} WHERE day = $1 AND epoch = $2 AND worker = $3 AND state IN ('blocked', 'finished')";
    let found = transaction.query_opt(&names.sql(select), &[&SqlDay(claim.day), &claim.epoch, &worker])?;
    Ok(found.is_some())
}

/// Forgets exceptions of the day that were not seen under this claim: they are none any more.
fn heal(transaction: &mut Transaction<'_>, names: &StateNames, claim: Claim) -> Result<(), Error> {
    let delete = "DELETE FROM {exception} WHERE day = $1 AND stage = 'migrate' AND epoch < $2";
    transaction.execute(&names.sql(delete), &[&SqlDay(claim.day), &claim.epoch]).map(drop)
}

/// Notes what was proven.
pub(super) fn receipt(transaction: &mut Transaction<'_>, names: &StateNames, receipt: &Receipt) -> Result<(), Error> {
    let insert = "\
        INSERT INTO {receipt} (day, input_hash, shards, n_files, bytes, uid_digest) \
        VALUES ($1, $2, to_jsonb($3::text[]), $4, $5, $6) \
        ON CONFLICT (day, input_hash) DO UPDATE SET verified_at = now()";
    let shards: Vec<&str> = receipt.shards.iter().map(String::as_str).collect();
    let (files, bytes) = (signed(receipt.files), signed(receipt.bytes));
    let (input_hash, uid_digest) = (receipt.input_hash.as_slice(), receipt.uid_digest.as_slice());
    let values: [&(dyn postgres::types::ToSql + Sync); 6] =
        [&SqlDay(receipt.day), &input_hash, &shards, &files, &bytes, &uid_digest];
    transaction.execute(&names.sql(insert), &values).map(drop)
}

/// Lets the sources of a day be looked at again, since there are new ones.
pub(super) fn forget_cleanup(
    transaction: &mut Transaction<'_>,
    names: &StateNames,
    day: desfmt::Date,
) -> Result<(), Error> {
    let delete = "DELETE FROM {cleanup} WHERE day = $1 AND state = 'done'";
    transaction.execute(&names.sql(delete), &[&SqlDay(day)]).map(drop)
}

/// Moves the cutoff to the first day that is not finished, or to the end of what is listed. Only forward.
pub(super) fn advance(transaction: &mut Transaction<'_>, names: &StateNames) -> Result<(), Error> {
    let update = "\
        UPDATE {config} SET archived_until = found.until FROM ( \
            SELECT least(c.planned_until, (SELECT min(day)::timestamp AT TIME ZONE 'UTC' FROM {day} \
                WHERE state <> 'finished')) AS until FROM {config} AS c) AS found \
        WHERE found.until > coalesce(archived_until, '-infinity')";
    transaction.execute(&names.sql(update), &[]).map(drop)
}

/// Finishes days that nothing blocks any more.
pub(super) fn unblock(transaction: &mut Transaction<'_>, names: &StateNames) -> Result<(), Error> {
    transaction.execute(&names.sql("SELECT 1 FROM {config} FOR UPDATE"), &[])?;
    let update = "\
        UPDATE {day} AS d SET state = 'finished' WHERE state = 'blocked' AND NOT EXISTS ( \
            SELECT 1 FROM {exception} AS e WHERE e.day = d.day AND e.stage = 'migrate' AND e.acked_by IS NULL)";
    transaction.execute(&names.sql(update), &[]).map(drop)
}

/// Ends the cleanup of a day.
pub(super) fn mark_cleaned(
    transaction: &mut Transaction<'_>,
    names: &StateNames,
    worker: &str,
    (claim, cleaned): (Claim, &Cleaned),
) -> Result<bool, Error> {
    let update = "\
        UPDATE {cleanup} SET state = 'done', lease_until = NULL, at = now(), \
               n = n + $4, bytes = bytes + $5, kept = $6 \
        WHERE day = $1 AND epoch = $2 AND worker = $3 AND state = 'claimed'";
    let (n, bytes, kept) = (signed(cleaned.removed), signed(cleaned.bytes), signed(cleaned.kept));
    let values: [&(dyn postgres::types::ToSql + Sync); 6] =
        [&SqlDay(claim.day), &claim.epoch, &worker, &n, &bytes, &kept];
    Ok(transaction.execute(&names.sql(update), &values)? == 1)
}
