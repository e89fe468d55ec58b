//! `add` and `expire`: what deletes, with the question before much is deleted.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, IsTerminal, Write};
use std::sync::Arc;

use desfmt::{Date, Uid};
use desstore::{ArchiveWriter, ObjectStore, SystemRandom};
use packer::erase::{Age, Plan, RequestError, doubt_of_expiry, read_requests};
use serde_json::json;

use crate::cli::{AddArgs, FoldArgs, Order};
use crate::{End, Failure, Opened};

/// How many uids that are not there are named.
const ABSENT_SHOWN: usize = 20;

pub(crate) async fn add(opened: &Opened, asked: &AddArgs, out: &mut (dyn Write + Send)) -> Result<End, Failure> {
    if let Some(age) = asked.delete_older_than {
        return expire(opened, age, &asked.order, out).await;
    }
    let plan = Plan::new(&opened.archive, requests(asked)?).await?;
    let tally = plan.tally();
    for (date, uid) in plan.absent().take(ABSENT_SHOWN) {
        drop(writeln!(io::stderr(), "des-tombstones: {date} {uid:?}: there is no such file"));
    }
    if asked.order.dry_run {
        if opened.json {
            writeln!(out, "{}", json!({"dry_run": true, "asked": tally, "needs_yes": plan.doubt().is_some()}))?;
        } else {
            writeln!(out, "would delete     {}", tally.visible)?;
            writeln!(out, "already deleted  {}", tally.already_deleted)?;
            writeln!(out, "not there        {}", tally.absent)?;
            writeln!(out, "dry run: nothing was written")?;
        }
        return Ok(End::Well);
    }
    ask(plan.doubt(), &asked.order)?;
    let done = plan.execute(&opened.archive, &asked.order.deletion(), asked.always).await?;
    if opened.json {
        writeln!(out, "{}", json!(done))?;
    } else {
        writeln!(out, "deleted          {}", tally.visible)?;
        writeln!(out, "already deleted  {}", tally.already_deleted)?;
        writeln!(out, "not there        {}", tally.absent)?;
        writeln!(out, "records          {} in {} writes", done.recorded, done.writes)?;
    }
    Ok(End::Well)
}

fn requests(asked: &AddArgs) -> Result<BTreeMap<Date, Vec<Uid>>, Failure> {
    if let (Some(uid), Some(day)) = (&asked.uid, asked.day) {
        let uid = Uid::new(uid).map_err(|error| Failure::Misuse(format!("the uid {uid:?}: {error}")))?;
        return Ok(BTreeMap::from([(day, vec![uid])]));
    }
    let Some(path) = &asked.from_file else { return Ok(BTreeMap::new()) };
    let failed = |source: RequestError| Failure::Order { file: path.display().to_string(), source };
    if path.as_os_str() == "-" {
        return read_requests(io::stdin().lock(), asked.date).map_err(failed);
    }
    let file = File::open(path).map_err(|source| failed(source.into()))?;
    read_requests(BufReader::new(file), asked.date).map_err(failed)
}

/// Asks before much is deleted.
fn ask(doubt: Option<String>, order: &Order) -> Result<(), Failure> {
    let Some(doubt) = doubt.filter(|_| !order.yes) else { return Ok(()) };
    let mut stderr = io::stderr();
    if !(io::stdin().is_terminal() && stderr.is_terminal()) {
        return Err(Failure::Misuse(format!("this would delete {doubt}; nothing was deleted, repeat it with --yes")));
    }
    write!(stderr, "This deletes {doubt}, for ever. Type yes to go on: ")?;
    stderr.flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    if answer.trim() == "yes" { Ok(()) } else { Err(Failure::Misuse("nothing was deleted".to_owned())) }
}

async fn writer(opened: &Opened) -> Result<ArchiveWriter, Failure> {
    let store: Arc<dyn ObjectStore> = Arc::clone(&opened.store);
    let writer = ArchiveWriter::open(store, Arc::clone(&opened.clock), Arc::new(SystemRandom)).await?;
    writer.ok_or_else(|| Failure::Misuse("the archive has gone meanwhile".to_owned()))
}

/// Folds the records of each day.
pub(crate) async fn fold(opened: &Opened, asked: &FoldArgs, out: &mut (dyn Write + Send)) -> Result<End, Failure> {
    let writer = writer(opened).await?;
    let days = match asked.date {
        Some(date) => vec![date],
        None => opened.archive.days_with_deletions().await?,
    };
    let (mut taken_in, mut removed) = (0_u64, 0_u64);
    for date in &days {
        let folded = writer.fold(*date).await?;
        taken_in = taken_in.saturating_add(folded.taken_in);
        removed = removed.saturating_add(folded.removed);
    }
    if opened.json {
        writeln!(out, "{}", json!({"days": days.len(), "taken_in": taken_in, "removed": removed}))?;
    } else {
        writeln!(out, "folded {taken_in} records of {} days, removed {removed} that were folded before", days.len())?;
    }
    Ok(End::Well)
}

pub(crate) async fn expire(
    opened: &Opened,
    age: Age,
    order: &Order,
    out: &mut (dyn Write + Send),
) -> Result<End, Failure> {
    let writer = writer(opened).await?;
    let now = opened.store.time().await.map_err(packer::PackError::from)?;
    let before = Date::of(now)
        .and_then(|today| age.before(today))
        .ok_or_else(|| Failure::Misuse("there is no day so long ago".to_owned()))?;
    let days = writer.expiring(before).await?;
    let total = |of: fn(&desstore::ExpiringDay) -> u64| days.iter().map(of).sum::<u64>();
    let (shards, files, bytes) = (total(|day| day.shards), total(|day| day.files), total(|day| day.stored_bytes));
    let mut done = 0_u64;
    if !order.dry_run {
        ask(doubt_of_expiry(&days, opened.archive.totals().await?.files), order)?;
        let deletion = order.deletion();
        for day in &days {
            done = done.saturating_add(writer.expire(day.date, &deletion).await?);
        }
    }
    if opened.json {
        let days: Vec<_> = days.iter().map(|day| day.date.to_string()).collect();
        let summary = json!({
            "before": before.to_string(), "dry_run": order.dry_run, "days": days, "shards": shards, "files": files,
            "stored_bytes": bytes, "recorded": done,
        });
        writeln!(out, "{summary}")?;
        return Ok(End::Well);
    }
    let verb = if order.dry_run { "would delete" } else { "deleted" };
    for day in &days {
        writeln!(out, "{verb} {}: {} shards, {} files, {} bytes", day.date, day.shards, day.files, day.stored_bytes)?;
    }
    writeln!(out, "{verb} {} days before {before}: {shards} shards, {files} files, {bytes} bytes", days.len())?;
    if order.dry_run {
        writeln!(out, "dry run: nothing was written")?;
    }
    Ok(End::Well)
}
