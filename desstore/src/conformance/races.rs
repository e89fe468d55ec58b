//! Several at once.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::{Checked, Fault, Ground, ensure, key, payload};
use crate::error::{StoreError, StoreErrorKind};
use crate::store::{ETag, ObjectStore, Receipt};

const RACERS: u8 = 8;
const ROUNDS: u8 = 12;

/// What a racer writes: no two the same, in no two rounds.
fn entry(racer: u8, round: u8) -> Vec<u8> {
    let mut entry = vec![racer; 1_000];
    entry.push(round);
    entry
}

/// Lets all racers write their number and gives the receipt of the only winner.
async fn race(
    store: &Arc<dyn ObjectStore>,
    (text, round): (&str, u8),
    replaced: Option<&ETag>,
    loss: StoreErrorKind,
) -> Result<(u8, Receipt), Fault> {
    let mut racers = JoinSet::new();
    for racer in 0..RACERS {
        let (store, key, replaced) = (Arc::clone(store), key(text)?, replaced.cloned());
        racers.spawn(async move {
            let payload = payload(entry(racer, round));
            let outcome = match replaced {
                Some(etag) => store.put_if_match(&key, &etag, payload).await,
                None => store.put_if_absent(&key, payload).await,
            };
            (racer, outcome)
        });
    }
    let mut winners = Vec::new();
    while let Some(finished) = racers.join_next().await {
        let (racer, outcome): (u8, Result<Receipt, StoreError>) =
            finished.map_err(|error| Fault(error.to_string(), None))?;
        match outcome {
            Ok(receipt) => winners.push((racer, receipt)),
            Err(error) if error.kind == loss => {}
            Err(error) => return Err(Fault(format!("racer {racer} lost otherwise"), Some(error))),
        }
    }
    let count = winners.len();
    let winner = winners.pop().filter(|_| count == 1);
    winner.ok_or_else(|| Fault(format!("{text}: {count} winners"), None))
}

async fn check_winner(
    store: &Arc<dyn ObjectStore>,
    (text, round): (&str, u8),
    winner: u8,
    receipt: &Receipt,
) -> Checked {
    let fetched = store.get(&key(text)?, 10_000).await?;
    ensure!(fetched.bytes == entry(winner, round), "{text}: the content is not the winner's");
    ensure!(fetched.meta.etag == receipt.etag, "{text}: the version is not the winner's");
    Ok(())
}

pub(super) async fn one_of_eight_creators_wins(ground: Ground) -> Checked {
    for round in 0..ROUNDS {
        let text = format!("races/created/{round}");
        let (winner, receipt) = race(&ground.store, (&text, round), None, StoreErrorKind::AlreadyExists).await?;
        check_winner(&ground.store, (&text, round), winner, &receipt).await?;
    }
    Ok(())
}

pub(super) async fn one_of_eight_replacers_wins(ground: Ground) -> Checked {
    let text = "races/replaced";
    let mut etag = ground.create(text, "start").await?.etag;
    for round in 0..ROUNDS {
        let (winner, receipt) =
            race(&ground.store, (text, round), Some(&etag), StoreErrorKind::PreconditionFailed).await?;
        check_winner(&ground.store, (text, round), winner, &receipt).await?;
        ensure!(receipt.etag != etag, "the version did not change");
        etag = receipt.etag;
    }
    Ok(())
}

pub(super) async fn readers_never_see_part_of_an_object(ground: Ground) -> Checked {
    const LEN: usize = 200_000;
    let text = "races/whole";
    ground.create(text, vec![0; LEN]).await?;
    let mut tasks = JoinSet::new();
    for writer in 1..4_u8 {
        let (store, key) = (Arc::clone(&ground.store), key(text)?);
        tasks.spawn(async move {
            for round in 0..ROUNDS {
                let byte = writer.wrapping_mul(50).wrapping_add(round);
                store.put(&key, payload(vec![byte; LEN])).await?;
            }
            Ok::<(), Fault>(())
        });
    }
    for _ in 0..3 {
        let (store, key) = (Arc::clone(&ground.store), key(text)?);
        tasks.spawn(async move {
            for _ in 0..100 {
                for bytes in [store.get(&key, 1_000_000).await?.bytes, store.get_tail(&key, 1_000_000).await?.bytes] {
                    let is_whole = bytes.len() == LEN && bytes.iter().all(|byte| Some(byte) == bytes.first());
                    ensure!(is_whole, "a mixture of {} bytes", bytes.len());
                }
                tokio::task::yield_now().await;
            }
            Ok(())
        });
    }
    while let Some(finished) = tasks.join_next().await {
        finished.map_err(|error| Fault(error.to_string(), None))??;
    }
    Ok(())
}
