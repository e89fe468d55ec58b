//! Listing.

use std::num::NonZeroUsize;
use std::sync::Arc;

use tokio::task::JoinSet;

use super::{Checked, Fault, Ground, ensure, key, payload};
use crate::store::{Depth, list_all};

/// Keys around each other's prefixes, with characters before and after the slash.
const KEYS: [&str; 12] = [
    "lists/20240115.json",
    "lists/20240115/3F.json",
    "lists/20240115/3F/a.json",
    "lists/20240115/3F/b.json",
    "lists/20240115/40.json",
    "lists/20240116.json",
    "lists/20240116/00.json",
    "lists/a!",
    "lists/a-b",
    "lists/a/b/c/d/e",
    "lists/a0",
    "lists0",
];

const PREFIXES: [&str; 14] = [
    "",
    "lists/",
    "lists",
    "lists/2024",
    "lists/20240115",
    "lists/20240115/",
    "lists/20240115/3F",
    "lists/20240115/3F/",
    "lists/a",
    "lists/a/b/c/",
    "lists/a/b/c/d/e",
    "lists/nothing",
    "lists/20240115.json/",
    "nothing/at/all",
];

async fn check_listings(ground: &Ground, depth: Depth) -> Checked {
    for text in KEYS {
        ground.create(text, text).await?;
    }
    for prefix in PREFIXES {
        let matches =
            |key: &&str| key.strip_prefix(prefix).is_some_and(|rest| depth == Depth::Recursive || !rest.contains('/'));
        let mut expected: Vec<&str> = KEYS.into_iter().filter(matches).collect();
        expected.sort_unstable();
        let found = list_all(&*ground.store, prefix, depth, 1_000).await?;
        let found: Vec<&str> = found.iter().map(|meta| meta.key.as_str()).collect();
        ensure!(found == expected, "prefix {prefix:?}: {found:?} instead of {expected:?}");
    }
    Ok(())
}

pub(super) async fn a_listing_has_all_keys_with_the_prefix(ground: Ground) -> Checked {
    check_listings(&ground, Depth::Recursive).await
}

pub(super) async fn a_direct_listing_stops_at_the_next_slash(ground: Ground) -> Checked {
    check_listings(&ground, Depth::Direct).await
}

pub(super) async fn a_listing_tells_what_head_tells(ground: Ground) -> Checked {
    for len in 0..5 {
        ground.create(&format!("told/{len}"), vec![b'x'; len]).await?;
    }
    let listed = list_all(&*ground.store, "told/", Depth::Direct, 100).await?;
    ensure!(listed.len() == 5, "{} keys instead of 5", listed.len());
    for meta in listed {
        let head = ground.store.head(&meta.key).await?;
        ensure!(meta == head, "listed {meta:?}, head {head:?}");
    }
    Ok(())
}

/// More keys than any store lists at once.
const MANY: usize = 2_300;

const WRITERS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(15);

pub(super) async fn pages_hold_every_key_once(ground: Ground) -> Checked {
    let mut expected: Vec<String> = (0..MANY)
        .map(|number| match number.checked_rem(4) {
            Some(0) => format!("many/{number:x}"),
            Some(1) => format!("many/{number:x}/below"),
            Some(2) => format!("many/deep/{number:x}"),
            _ => format!("many/deep.{number:x}"),
        })
        .collect();
    let mut writers = JoinSet::new();
    for keys in expected.chunks(MANY.div_ceil(WRITERS.get())) {
        let (ground, keys) = (ground.clone(), keys.to_vec());
        writers.spawn(async move {
            for key in keys {
                ground.create(&key, "").await?;
            }
            Ok::<(), Fault>(())
        });
    }
    while let Some(written) = writers.join_next().await {
        written.map_err(|error| Fault(error.to_string(), None))??;
    }
    expected.sort_unstable();

    let mut found = Vec::new();
    let mut token: Option<String> = None;
    loop {
        let page = ground.store.list("many/", Depth::Recursive, token.as_deref()).await?;
        found.extend(page.objects.into_iter().map(|meta| meta.key.to_string()));
        ensure!(found.len() <= MANY, "more keys than there are");
        token = page.next;
        if token.is_none() {
            break;
        }
    }

    found.sort_unstable();
    ensure!(found == expected, "{} keys listed, {MANY} written", found.len());
    Ok(())
}

pub(super) async fn writes_are_listed_at_once(ground: Ground) -> Checked {
    let store = Arc::clone(&ground.store);
    for round in 0..5 {
        let key = key(&format!("at once/{round}/key"))?;
        let receipt = store.put_if_absent(&key, payload("x")).await?;
        let listed = list_all(&*store, "at once/", Depth::Recursive, 100).await?;
        ensure!(listed.iter().any(|meta| meta.key == key && meta.etag == receipt.etag), "{key} is listed late");
        if round > 2 {
            store.delete(&key).await?;
            let listed = list_all(&*store, "at once/", Depth::Recursive, 100).await?;
            ensure!(listed.iter().all(|meta| meta.key != key), "{key} is listed after its end");
        }
    }
    Ok(())
}
