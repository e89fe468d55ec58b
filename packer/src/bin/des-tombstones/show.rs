//! `list`, `status` and `stats`: what only reads.

use std::io::Write;

use desfmt::document::{Tombstone, WholeShard};
use desfmt::{Date, Timestamp, Uid};
use desstore::{DeletionRecord, ErasureReceipt, ErasureState, Role};
use serde_json::{Value, json};

use crate::cli::{ListArgs, StatusArgs};
use crate::{End, Failure, Opened};

/// How many files are looked for in the objects of their groups at once.
const STATES_AT_ONCE: usize = 10_000;

pub(crate) async fn list(opened: &Opened, asked: &ListArgs, out: &mut (dyn Write + Send)) -> Result<End, Failure> {
    let now = opened.store.time().await.map_err(packer::PackError::from)?;
    let days = match asked.date {
        Some(date) => vec![date],
        None => opened.archive.days_with_deletions().await?,
    };
    let is_asked = |date: &Date| asked.from.is_none_or(|from| *date >= from) && asked.to.is_none_or(|to| *date <= to);
    for date in days.into_iter().filter(is_asked) {
        let mut records = Vec::new();
        let is_of_age = |at: Timestamp| {
            let age = now.since(at);
            asked.older_than.is_none_or(|least| age >= least) && asked.newer_than.is_none_or(|most| age <= most)
        };
        opened
            .archive
            .deletions(date, &mut |record| {
                let at = match &record {
                    DeletionRecord::File { tombstone, .. } => Some(tombstone.at),
                    DeletionRecord::Shard { record, .. } => Some(record.at),
                    DeletionRecord::Erased { .. } => None,
                };
                if at.is_none_or(is_of_age) && (at.is_some() || asked.older_than.or(asked.newer_than).is_none()) {
                    records.push(record);
                }
            })
            .await?;
        for chunk in records.chunks(STATES_AT_ONCE) {
            let states = match asked.state {
                Some(_) => states_of(opened, date, chunk).await?,
                None => vec![None; chunk.len()],
            };
            for (record, state) in chunk.iter().zip(states) {
                if asked.state.is_none_or(|wanted| state == Some(wanted.state())) {
                    writeln!(
                        out,
                        "{}",
                        if opened.json { json_of(record, state).to_string() } else { line_of(record, state) }
                    )?;
                }
            }
        }
    }
    Ok(End::Well)
}

/// How far each of some deletions has come; none for shards deleted whole.
async fn states_of(
    opened: &Opened,
    date: Date,
    records: &[DeletionRecord],
) -> Result<Vec<Option<ErasureState>>, Failure> {
    let files: Vec<(Uid, Timestamp)> = records
        .iter()
        .filter_map(|record| match record {
            DeletionRecord::File { tombstone, .. } => Some((tombstone.uid.clone(), tombstone.at)),
            DeletionRecord::Shard { .. } | DeletionRecord::Erased { .. } => None,
        })
        .collect();
    let mut found = opened.archive.erasure_states(date, &files).await?.into_iter();
    let state = |record: &DeletionRecord| match record {
        DeletionRecord::File { .. } => found.next(),
        DeletionRecord::Shard { .. } => None,
        DeletionRecord::Erased { .. } => Some(ErasureState::Gone),
    };
    Ok(records.iter().map(state).collect())
}

fn line_of(record: &DeletionRecord, state: Option<ErasureState>) -> String {
    let state = state.map(|state| format!("  {}", word(state))).unwrap_or_default();
    let why = |actor: &str, reason: &str, ticket: Option<&str>| {
        let ticket = ticket.map(|ticket| format!(", ticket {}", plain(ticket))).unwrap_or_default();
        format!("by {}: {}{ticket}", plain(actor), plain(reason))
    };
    match record {
        DeletionRecord::File { tombstone, .. } => {
            let Tombstone { date, uid, at, actor, reason, ticket, .. } = tombstone;
            format!("{date}  {}  {at}{state}  {}", plain(uid.as_str()), why(actor, reason, ticket.as_deref()))
        }
        DeletionRecord::Shard { date, record, .. } => {
            let WholeShard { shard, at, actor, reason, .. } = record;
            format!("{date}  (shard {shard})  {at}{state}  {}", why(actor, reason, None))
        }
        DeletionRecord::Erased { date, uid_hash } => format!("{date}  (hash {uid_hash})  {state}  erased, proven"),
    }
}

/// A text that takes one line, whatever is in it.
fn plain(text: &str) -> String {
    let shown = |one: char| if one.is_control() { one.escape_default().to_string() } else { one.to_string() };
    text.chars().map(shown).collect()
}

fn json_of(record: &DeletionRecord, state: Option<ErasureState>) -> Value {
    let (mut value, date) = match record {
        DeletionRecord::File { tombstone, folded } => {
            let value = json_of_request(tombstone);
            (with(with(value, "uid", json!(tombstone.uid)), "folded", json!(folded)), tombstone.date)
        }
        DeletionRecord::Shard { date, record, folded } => (with(json_of_shard(record), "folded", json!(folded)), *date),
        DeletionRecord::Erased { date, uid_hash } => (json!({"uid_hash": uid_hash}), *date),
    };
    if let Some(state) = state {
        value = with(value, "state", json!(word(state)));
    }
    with(value, "date", json!(date.to_string()))
}

/// An object with one value more.
fn with(mut object: Value, name: &str, value: Value) -> Value {
    if let Some(members) = object.as_object_mut() {
        members.insert(name.to_owned(), value);
    }
    object
}

fn json_of_request(tombstone: &Tombstone) -> Value {
    json!({
        "at": tombstone.at.to_string(), "actor": tombstone.actor, "reason": tombstone.reason,
        "ticket": tombstone.ticket, "operation": tombstone.operation,
    })
}

fn json_of_shard(record: &WholeShard) -> Value {
    json!({
        "shard": record.shard, "at": record.at.to_string(), "actor": record.actor, "reason": record.reason,
        "operation": record.operation,
    })
}

const fn word(state: ErasureState) -> &'static str {
    match state {
        ErasureState::NotRequested => "not requested",
        ErasureState::Requested => "requested",
        ErasureState::Hidden => "hidden",
        ErasureState::Rewritten => "rewritten",
        ErasureState::Gone => "gone",
    }
}

const fn role(role: Role) -> &'static str {
    match role {
        Role::Live => "live",
        Role::Retired => "retired",
        Role::Condemned => "condemned",
        Role::Unlisted => "unlisted",
    }
}

pub(crate) async fn status(opened: &Opened, asked: &StatusArgs, out: &mut (dyn Write + Send)) -> Result<End, Failure> {
    let uid = Uid::new(&asked.uid).map_err(|error| Failure::Misuse(format!("the uid {:?}: {error}", asked.uid)))?;
    let receipt = opened.archive.erasure(asked.day, &uid).await?;
    if opened.json {
        writeln!(out, "{}", json_of_receipt(opened, &receipt))?;
    } else {
        write_receipt(opened, &receipt, out)?;
    }
    let is_far_enough = asked.expect.is_none_or(|least| receipt.state >= least.state());
    Ok(if is_far_enough { End::Well } else { End::Badly })
}

fn json_of_receipt(opened: &Opened, receipt: &ErasureReceipt) -> Value {
    let holders = receipt.holders.iter().map(|holder| {
        let since = holder.since.map(|since| since.to_string());
        json!({"object": holder.key, "role": role(holder.role), "since": since})
    });
    let unexamined = receipt.unexamined.iter().map(|(object, reason)| json!({"object": object, "reason": reason}));
    json!({
        "archive": opened.archive.identity().archive,
        "date": receipt.date.to_string(),
        "uid": receipt.uid,
        "uid_hash": receipt.uid_hash,
        "at": receipt.at.to_string(),
        "state": word(receipt.state),
        "requested": receipt.state >= ErasureState::Requested,
        "hidden": receipt.state >= ErasureState::Hidden,
        "rewritten": receipt.state >= ErasureState::Rewritten,
        "old_versions_gone": receipt.state >= ErasureState::Gone,
        "requests": receipt.requests.iter().map(json_of_request).collect::<Vec<_>>(),
        "whole_shards": receipt.whole_shards.iter().map(json_of_shard).collect::<Vec<_>>(),
        "reduced_to_hash": receipt.is_reduced,
        "objects_examined": receipt.examined,
        "holders": holders.collect::<Vec<_>>(),
        "unexamined": unexamined.collect::<Vec<_>>(),
    })
}

fn write_receipt(opened: &Opened, receipt: &ErasureReceipt, out: &mut (dyn Write + Send)) -> std::io::Result<()> {
    writeln!(out, "archive    {}", opened.archive.identity().archive)?;
    writeln!(out, "file       {} {}", receipt.date, plain(receipt.uid.as_str()))?;
    writeln!(out, "hash       {}", receipt.uid_hash)?;
    writeln!(out, "looked at  {}, {} objects", receipt.at, receipt.examined)?;
    writeln!(out, "state      {}", word(receipt.state))?;
    for request in &receipt.requests {
        let ticket = request.ticket.as_deref().map(|ticket| format!(", ticket {}", plain(ticket))).unwrap_or_default();
        let (actor, reason) = (plain(&request.actor), plain(&request.reason));
        writeln!(out, "requested  {} by {actor}: {reason}{ticket}", request.at)?;
    }
    for shard in &receipt.whole_shards {
        let (actor, reason) = (plain(&shard.actor), plain(&shard.reason));
        writeln!(out, "requested  {} with all of shard {} by {actor}: {reason}", shard.at, shard.shard)?;
    }
    if receipt.is_reduced {
        writeln!(out, "requested  the record is reduced to its hash")?;
    }
    let yes = |done: bool| if done { "yes" } else { "no" };
    writeln!(out, "hidden     {}", yes(receipt.state >= ErasureState::Hidden))?;
    writeln!(out, "rewritten  {}", yes(receipt.state >= ErasureState::Rewritten))?;
    writeln!(out, "gone       {}", yes(receipt.state >= ErasureState::Gone))?;
    for holder in &receipt.holders {
        let since = holder.since.map(|since| format!(" since {since}")).unwrap_or_default();
        writeln!(out, "held by    {} ({}{since})", holder.key, role(holder.role))?;
    }
    for (object, reason) in &receipt.unexamined {
        writeln!(out, "unknown    {object}: {}", plain(reason))?;
    }
    Ok(())
}

pub(crate) async fn stats(opened: &Opened, out: &mut (dyn Write + Send)) -> Result<End, Failure> {
    let now = opened.store.time().await.map_err(packer::PackError::from)?;
    let (mut files, mut shards, mut erased, mut unfolded) = (0_u64, 0_u64, 0_u64, 0_u64);
    let mut oldest: Option<Timestamp> = None;
    let days = opened.archive.days_with_deletions().await?;
    for date in &days {
        opened
            .archive
            .deletions(*date, &mut |record| {
                let (count, at, folded) = match &record {
                    DeletionRecord::File { tombstone, folded } => (&mut files, Some(tombstone.at), *folded),
                    DeletionRecord::Shard { record, folded, .. } => (&mut shards, Some(record.at), *folded),
                    DeletionRecord::Erased { .. } => (&mut erased, None, true),
                };
                *count = count.saturating_add(1);
                unfolded = unfolded.saturating_add(u64::from(!folded));
                oldest = oldest.into_iter().chain(at).min();
            })
            .await?;
    }
    let age = oldest.map(|at| now.since(at).as_secs());
    if opened.json {
        let summary = json!({
            "days": days.len(), "files": files, "whole_shards": shards, "erased": erased, "unfolded": unfolded,
            "oldest_seconds": age,
        });
        writeln!(out, "{summary}")?;
        return Ok(End::Well);
    }
    writeln!(out, "days          {}", days.len())?;
    writeln!(out, "files         {files}")?;
    writeln!(out, "whole shards  {shards}")?;
    writeln!(out, "erased        {erased} (proven, reduced to a hash)")?;
    writeln!(out, "not folded    {unfolded}")?;
    if let Some(age) = age {
        writeln!(out, "oldest        {age} s (of those that are not proven erased)")?;
    }
    Ok(End::Well)
}
