//! Reading.

use super::{Checked, Ground, ensure, key, pattern, payload, refused};
use crate::error::StoreErrorKind;

pub(super) async fn ranges_are_exact_or_refused(ground: Ground) -> Checked {
    let (store, key, content) = (&ground.store, key("reads/ranges")?, pattern(70_000));
    let etag = ground.create("reads/ranges", content.clone()).await?.etag;

    for (start, end) in [(0, 70_000), (0, 1), (69_999, 70_000), (12_345, 54_321), (5, 5), (0, 0), (70_000, 70_000)] {
        let wanted = content.get(start..end).unwrap_or_default();
        let (start, end) = (u64::try_from(start).unwrap_or(0), u64::try_from(end).unwrap_or(0));
        for etag in [None, Some(&etag)] {
            let bytes = store.get_range(&key, start..end, etag).await?;
            ensure!(bytes == wanted, "{start}..{end} gave {} other bytes", bytes.len());
        }
    }
    #[expect(clippy::reversed_empty_ranges, reason = "a store must refuse it")]
    let refused_ranges = [0..70_001, 69_999..70_001, 70_000..70_001, 70_001..70_001, 80_000..90_000, 0..u64::MAX, 9..3];
    for range in refused_ranges {
        let outcome = store.get_range(&key, range.clone(), None).await;
        refused(outcome, StoreErrorKind::Corrupt, &format!("range {range:?} of 70,000 bytes"))?;
    }
    Ok(())
}

pub(super) async fn tails_are_as_long_as_the_object_allows(ground: Ground) -> Checked {
    let (store, key, content) = (&ground.store, key("reads/tails")?, pattern(1_000));
    let receipt = ground.create("reads/tails", content.clone()).await?;

    for (len, start) in [(1, 999), (999, 1), (1_000, 0), (1_001, 0), (u64::MAX, 0)] {
        let fetched = store.get_tail(&key, len).await?;
        ensure!(Some(&*fetched.bytes) == content.get(start..), "the tail of {len} is another");
        ensure!(fetched.meta.len == 1_000, "the tail of {len} says that the object has {} bytes", fetched.meta.len);
        ensure!(fetched.meta.etag == receipt.etag, "the tail of {len} names another version");
    }
    Ok(())
}

pub(super) async fn an_empty_object_is_an_object(ground: Ground) -> Checked {
    let (store, key) = (&ground.store, key("reads/empty")?);
    let receipt = ground.create("reads/empty", "").await?;

    let whole = store.get(&key, 0).await?;
    let tail = store.get_tail(&key, 10).await?;
    let range = store.get_range(&key, 0..0, Some(&receipt.etag)).await?;

    ensure!(whole.bytes.is_empty() && tail.bytes.is_empty() && range.is_empty(), "bytes out of nothing");
    ensure!(whole.meta.len == 0 && tail.meta.len == 0, "a length out of nothing");
    refused(store.get_range(&key, 0..1, None).await, StoreErrorKind::Corrupt, "a byte of nothing")?;
    refused(store.put_if_absent(&key, payload("x")).await, StoreErrorKind::AlreadyExists, "creating over it")
}

pub(super) async fn a_whole_object_over_the_limit_is_refused(ground: Ground) -> Checked {
    let (store, key) = (&ground.store, key("reads/limit")?);
    let receipt = ground.create("reads/limit", pattern(100)).await?;

    ensure!(store.get(&key, 100).await?.bytes.len() == 100, "an object as long as the limit is cut");
    refused(store.get(&key, 99).await, StoreErrorKind::Corrupt, "an object over the limit")?;
    let newer = store.put(&key, payload(pattern(101))).await?;
    let changed = store.get_if_changed(&key, &receipt.etag, 100).await;
    refused(changed, StoreErrorKind::Corrupt, "a changed object over the limit")?;
    ensure!(store.get_if_changed(&key, &newer.etag, 100).await?.is_none(), "an unchanged one is read");
    Ok(())
}

pub(super) async fn an_unchanged_object_is_not_read_again(ground: Ground) -> Checked {
    let (store, key) = (&ground.store, key("reads/changed")?);
    let first = ground.create("reads/changed", "first").await?;

    let unchanged = store.get_if_changed(&key, &first.etag, 100).await?;
    let second = store.put(&key, payload("second")).await?;
    let changed = store.get_if_changed(&key, &first.etag, 100).await?;

    ensure!(unchanged.is_none(), "an unchanged object is read again");
    let is_second = changed.is_some_and(|it| it.bytes == "second" && it.meta.etag == second.etag);
    ensure!(is_second, "the change is not seen");
    store.delete(&key).await?;
    refused(store.get_if_changed(&key, &second.etag, 100).await, StoreErrorKind::NotFound, "a removed object")
}

pub(super) async fn a_missing_object_is_not_found(ground: Ground) -> Checked {
    ground.create("reads/there", "x").await?;
    let store = &ground.store;
    let etag = store.head(&key("reads/there")?).await?.etag;

    for text in ["reads/missing", "reads/missing/below", "reads", "reads/there/below", "reads/ther", "missing"] {
        let key = key(text)?;
        refused(store.get(&key, 10).await, StoreErrorKind::NotFound, text)?;
        refused(store.get_if_changed(&key, &etag, 10).await, StoreErrorKind::NotFound, text)?;
        refused(store.get_range(&key, 0..0, None).await, StoreErrorKind::NotFound, text)?;
        refused(store.get_tail(&key, 10).await, StoreErrorKind::NotFound, text)?;
        refused(store.head(&key).await, StoreErrorKind::NotFound, text)?;
    }
    Ok(())
}

pub(super) async fn a_range_of_another_version_is_refused(ground: Ground) -> Checked {
    let (store, key) = (&ground.store, key("reads/version")?);
    let first = ground.create("reads/version", "first").await?;
    ensure!(store.get_range(&key, 0..5, Some(&first.etag)).await? == "first", "the range is another");

    let second = store.put(&key, payload("other")).await?;

    let stale = store.get_range(&key, 0..5, Some(&first.etag)).await;
    refused(stale, StoreErrorKind::PreconditionFailed, "a range of a version of the past")?;
    ensure!(store.get_range(&key, 0..5, Some(&second.etag)).await? == "other", "the new range is another");
    ensure!(store.get_range(&key, 0..5, None).await? == "other", "the range is of the past");
    Ok(())
}

pub(super) async fn writes_are_seen_at_once(ground: Ground) -> Checked {
    let (store, key) = (&ground.store, key("reads/at once")?);
    for round in 0..10_u8 {
        let content = vec![round; 10];
        store.put(&key, payload(content.clone())).await?;
        ensure!(store.get(&key, 10).await?.bytes == content, "get is late in round {round}");
        ensure!(store.get_range(&key, 0..10, None).await? == content, "get_range is late in round {round}");
        ensure!(store.get_tail(&key, 10).await?.bytes == content, "get_tail is late in round {round}");
        if round % 3 == 2 {
            store.delete(&key).await?;
            refused(store.get_tail(&key, 10).await, StoreErrorKind::NotFound, "get_tail of a removed object")?;
        }
    }
    Ok(())
}
