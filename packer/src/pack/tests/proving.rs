//! A store that is still being tried when packing begins.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use desstore::{ArchiveError, Clock, Depth, ObjectStore, StoreError, StoreErrorKind, SystemClock, list_all};

use crate::error::PackError;
use crate::pack::testing::{World, memory, visible};
use crate::proof::Proof;

async fn keys(store: &Arc<dyn ObjectStore>) -> Vec<String> {
    let all = list_all(store.as_ref(), "", Depth::Recursive, 1_000).await.unwrap();
    all.iter().map(|object| object.key.to_string()).collect()
}

/// A store with an archive in it.
async fn archive() -> (World, Arc<dyn ObjectStore>) {
    let (mut world, store) = (World::new(), memory());
    world.add("20240301", "first", b"there before");
    world.pack(&store).await.unwrap();
    (world, store)
}

fn refusal() -> ArchiveError {
    StoreError::new(StoreErrorKind::Unsupported, "probe", "the store").into()
}

#[tokio::test]
async fn nothing_is_published_before_the_store_is_proven() {
    let (mut world, store) = archive().await;
    world.add("20240301", "second", b"new");
    let before = keys(&store).await;
    let (prove, proven) = tokio::sync::oneshot::channel();
    let proof = Proof::of(async move { proven.await.map_err(|_| refusal()) });

    let packing = world.pack_when(proof, world.config(), &store);
    let watching = async {
        // Long enough for all that a run of one file does, and much more.
        for _ in 0..20 {
            SystemClock::new().sleep(Duration::from_millis(10)).await;
            assert_eq!(keys(&store).await, before);
        }
        prove.send(()).unwrap();
    };
    let (packed, ()) = tokio::join!(packing, watching);

    assert_eq!(packed.unwrap().files, 1);
    assert_eq!(visible(&store).await.len(), 2);
}

#[tokio::test]
async fn a_store_that_is_not_proven_stops_the_run_and_is_left_as_it_was() {
    let (mut world, store) = archive().await;
    world.add("20240301", "second", b"new");
    let before = keys(&store).await;

    let refused = world.pack_when(Proof::of(async { Err(refusal()) }), world.config(), &store).await;

    assert!(matches!(refused, Err(PackError::Archive { .. })), "{refused:?}");
    assert_eq!(keys(&store).await, before);
}

#[tokio::test]
async fn a_store_that_is_not_proven_gets_no_archive() {
    let (mut world, store) = (World::new(), memory());
    world.add("20240301", "first", b"new");
    let proof = Proof::of(async {
        SystemClock::new().sleep(Duration::from_millis(300)).await;
        Err(refusal())
    });

    let refused = world.pack_when(proof, world.config(), &store).await;

    assert!(matches!(refused, Err(PackError::Archive { .. })), "{refused:?}");
    assert_eq!(keys(&store).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_run_with_nothing_to_publish_waits_for_the_proof_too() {
    let (world, store) = archive().await;
    let is_tried = Arc::new(AtomicBool::new(false));
    let tried = Arc::clone(&is_tried);
    let proof = Proof::of(async move {
        SystemClock::new().sleep(Duration::from_millis(300)).await;
        tried.store(true, Ordering::Relaxed);
        Err(refusal())
    });

    let outcome = world.pack_when(proof, world.config(), &store).await;

    assert!(outcome.is_err() && is_tried.load(Ordering::Relaxed), "{outcome:?}");
}
