//! Creating, replacing and removing.

use super::{Checked, Fault, Ground, ensure, key, pattern, payload, refused};
use crate::error::StoreErrorKind;
use crate::store::Payload;

pub(super) async fn an_object_is_created_once(ground: Ground) -> Checked {
    let (store, key) = (&ground.store, key("writes/once")?);

    let receipt = store.put_if_absent(&key, payload("first")).await?;
    let again = store.put_if_absent(&key, payload("second")).await;
    let same = store.put_if_absent(&key, payload("first")).await;

    refused(again, StoreErrorKind::AlreadyExists, "creating over other content")?;
    refused(same, StoreErrorKind::AlreadyExists, "creating over equal content")?;
    let fetched = store.get(&key, 100).await?;
    ensure!(fetched.bytes == "first", "the second creation changed the content");
    ensure!(fetched.meta.etag == receipt.etag, "the receipt names another version");
    // A write is acknowledged a moment after it was done.
    let (written, told) = (fetched.meta.modified, receipt.at);
    let late = std::time::Duration::from_secs(2);
    ensure!(
        told <= written.saturating_add(late) && written <= told.saturating_add(late),
        "the receipt names another time: {told:?}, not {written:?}"
    );
    Ok(())
}

pub(super) async fn an_object_is_replaced_only_in_the_version_named(ground: Ground) -> Checked {
    let (store, key) = (&ground.store, key("writes/replaced")?);
    let first = ground.create("writes/replaced", "first").await?;

    let second = store.put_if_match(&key, &first.etag, payload("second")).await?;
    let stale = store.put_if_match(&key, &first.etag, payload("third")).await;

    ensure!(second.etag != first.etag, "the version did not change");
    refused(stale, StoreErrorKind::PreconditionFailed, "replacing a version of the past")?;
    let fetched = store.get(&key, 100).await?;
    ensure!(fetched.bytes == "second" && fetched.meta.etag == second.etag, "the second content is not there");
    Ok(())
}

pub(super) async fn an_absent_object_is_not_replaced(ground: Ground) -> Checked {
    let (store, key) = (&ground.store, key("writes/absent")?);
    let receipt = ground.create("writes/absent", "x").await?;
    store.delete(&key).await?;

    let replaced = store.put_if_match(&key, &receipt.etag, payload("y")).await;

    refused(replaced, StoreErrorKind::PreconditionFailed, "replacing what is gone")?;
    refused(store.head(&key).await, StoreErrorKind::NotFound, "head afterwards")
}

pub(super) async fn equal_content_is_another_version(ground: Ground) -> Checked {
    let (store, key) = (&ground.store, key("writes/equal")?);
    let mut etags = vec![ground.create("writes/equal", "same").await?.etag];

    for _ in 0..20 {
        let Some(last) = etags.last() else { break };
        let next = store.put_if_match(&key, last, payload("same")).await?.etag;
        ensure!(!etags.contains(&next), "version {next:?} was there before");
        etags.push(next);
    }
    Ok(())
}

pub(super) async fn a_recreated_object_is_another_version(ground: Ground) -> Checked {
    let (store, key) = (&ground.store, key("writes/recreated")?);
    let mut etags = Vec::new();

    for _ in 0..20 {
        let etag = ground.create("writes/recreated", "same").await?.etag;
        ensure!(!etags.contains(&etag), "version {etag:?} was there before");
        etags.push(etag);
        store.delete(&key).await?;
    }
    Ok(())
}

pub(super) async fn an_unconditional_put_creates_and_replaces(ground: Ground) -> Checked {
    let (store, key) = (&ground.store, key("writes/unconditional")?);

    let first = store.put(&key, payload("first")).await?;
    let second = store.put(&key, payload("second!")).await?;

    ensure!(first.etag != second.etag, "the version did not change");
    let fetched = store.get(&key, 100).await?;
    ensure!(fetched.bytes == "second!" && fetched.meta.etag == second.etag, "the second content is not there");
    Ok(())
}

pub(super) async fn removing_twice_succeeds(ground: Ground) -> Checked {
    let (store, key) = (&ground.store, key("writes/deep/below/removed")?);
    store.delete(&key).await?;
    ground.create("writes/deep/below/removed", "x").await?;

    store.delete(&key).await?;
    store.delete(&key).await?;

    refused(store.head(&key).await, StoreErrorKind::NotFound, "head")?;
    refused(store.get(&key, 100).await, StoreErrorKind::NotFound, "get")?;
    refused(store.get_range(&key, 0..1, None).await, StoreErrorKind::NotFound, "get_range")
}

pub(super) async fn what_is_purged_is_gone(ground: Ground) -> Checked {
    let (store, key) = (&ground.store, key("writes/purged")?);
    store.purge(&key).await?;
    ground.create("writes/purged", "x").await?;
    store.put(&key, payload("y")).await?;

    store.purge(&key).await?;

    refused(store.head(&key).await, StoreErrorKind::NotFound, "head")?;
    let page = store.list("writes/purged", crate::store::Depth::Recursive, None).await?;
    ensure!(page.objects.is_empty(), "it is still listed");
    Ok(())
}

pub(super) async fn the_store_tells_the_time_of_its_writes(ground: Ground) -> Checked {
    let before = ground.store.time().await?;
    let written = ground.create("writes/dated", "x").await?.at;
    let after = ground.store.time().await?;

    // A store may tell times in whole seconds.
    let second = std::time::Duration::from_secs(1);
    ensure!(before <= written.saturating_add(second), "written at {written:?}, before {before:?}");
    ensure!(written <= after.saturating_add(second), "written at {written:?}, after {after:?}");
    Ok(())
}

pub(super) async fn a_large_file_becomes_an_object(ground: Ground) -> Checked {
    let content = pattern(9_000_001);
    for (name, is_conditional) in [("writes/file", true), ("writes/file again", false)] {
        let (store, key) = (&ground.store, key(name)?);
        let path = ground.scratch.join("payload");
        std::fs::write(&path, &content)?;

        let file = Payload::File(path.clone());
        let receipt =
            if is_conditional { store.put_if_absent(&key, file).await? } else { store.put(&key, file).await? };
        std::fs::remove_file(&path)?;

        let fetched = store.get(&key, 10_000_000).await?;
        ensure!(fetched.bytes == content, "{name} reads back otherwise");
        ensure!(fetched.meta.etag == receipt.etag, "{name}: the receipt names another version");
        let middle = store.get_range(&key, 8_000_000..8_000_100, Some(&receipt.etag)).await?;
        ensure!(content.get(8_000_000..8_000_100) == Some(&middle), "a range of {name} reads back otherwise");
    }
    Ok(())
}

pub(super) async fn a_payload_that_cannot_be_read_writes_nothing(ground: Ground) -> Checked {
    let (store, key) = (&ground.store, key("writes/unreadable")?);
    let missing = Payload::File(ground.scratch.join("there is no such file"));

    let created = store.put_if_absent(&key, missing).await;

    let Err(error) = created else { return Err(Fault("an object out of nothing".to_owned(), None)) };
    ensure!(error.kind != StoreErrorKind::NotFound, "the object is said to be missing, not the file");
    refused(store.head(&key).await, StoreErrorKind::NotFound, "head")
}

pub(super) async fn unusual_keys_are_kept_apart(ground: Ground) -> Checked {
    let keys = [
        "unusual/a b",
        "unusual/a%20b",
        "unusual/a+b",
        "unusual/a%2Fb",
        "unusual/a/b",
        "unusual/a&b=c?d#e",
        "unusual/'quoted\" <text>",
        "unusual/stra\u{df}e \u{1f600} \u{65e5}\u{672c}",
        "unusual/STRA\u{df}E",
        "unusual/composed \u{e9}",
        "unusual/composed e\u{301}",
        "unusual/a:b*c|d~e!$(x)[y]{z}@,;=^`",
    ];
    for text in keys {
        ground.create(text, text.to_owned()).await?;
    }
    for text in keys {
        let fetched = ground.store.get(&key(text)?, 1_000).await?;
        ensure!(fetched.bytes == text.as_bytes() && fetched.meta.key.as_str() == text, "{text} is another object");
    }
    let listed = crate::store::list_all(&*ground.store, "unusual/", crate::store::Depth::Recursive, 1_000).await?;
    let mut expected = keys.to_vec();
    expected.sort_unstable();
    let listed: Vec<&str> = listed.iter().map(|meta| meta.key.as_str()).collect();
    ensure!(listed == expected, "listed {listed:?}");
    Ok(())
}
