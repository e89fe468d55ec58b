//! What becomes of rows when nothing dies.

use std::fs;
use std::sync::Arc;

use desstore::{Archive, Deletion, ReadOptions, SystemClock, SystemRandom};

use super::fakes::{World, horizon, memory, shown};
use crate::cleanup::CleanupPlan;
use crate::error::MigrateError;
use crate::state::{Claims, Selection, StateStore};

const DAYS: [&str; 3] = ["20240301", "20240302", "20240305"];
const CLEANUP: CleanupPlan = CleanupPlan { delay: std::time::Duration::ZERO, remove_deleted: false };

#[tokio::test(flavor = "multi_thread")]
async fn all_rows_are_moved_and_a_second_cycle_does_nothing() {
    let (world, store) = (World::new(&DAYS, 5), memory());
    let migrator = world.migrator(&store);

    let first = migrator.cycle().await.unwrap();
    let second = migrator.cycle().await.unwrap();

    assert_eq!((first.tally.packed, first.days, first.exceptions), (15, 3, 0));
    assert_eq!(first.archived_until, Some(horizon()));
    assert_eq!((second.tally.rows, second.days), (0, 0));
    assert_eq!(shown(&store).await, world.contents);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_larger_than_a_batch_is_moved_in_parts_and_marked_once() {
    let (world, store) = (World::new(&DAYS[..1], 11), memory());
    let mut migrator = world.migrator(&store);
    migrator.plan.batch_rows = 3;

    let report = migrator.cycle().await.unwrap();

    assert_eq!((report.tally.rows, report.tally.packed, report.days), (11, 11, 1));
    assert_eq!(shown(&store).await, world.contents);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_file_holds_the_cutoff_until_it_is_acknowledged_and_nothing_else() {
    let (world, store) = (World::new(&DAYS, 4), memory());
    fs::remove_file(world.source("20240302-1")).unwrap();
    let migrator = world.migrator(&store);

    let report = migrator.cycle().await.unwrap();

    assert_eq!((report.tally.packed, report.tally.exceptions), (11, 1));
    assert_eq!(report.archived_until, Some("20240302".parse::<desfmt::Date>().unwrap().start()));
    world.state.acknowledge(&Selection::default(), "me").unwrap();
    assert_eq!(world.state.archived_until(), Some(horizon()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mark_that_was_lost_after_the_sources_went_is_set_again_without_exceptions() {
    let (world, store) = (World::new(&DAYS, 4), memory());
    let migrator = world.migrator(&store);
    migrator.cycle().await.unwrap();
    assert_eq!(migrator.cleanup(CLEANUP).await.unwrap().removed, 12);
    world.state.set_back("20240302".parse().unwrap());

    let report = migrator.cycle().await.unwrap();

    assert_eq!((report.tally.present, report.tally.packed, report.tally.exceptions), (8, 0, 0));
    assert_eq!(report.archived_until, Some(horizon()));
    assert_eq!(shown(&store).await, world.contents);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_deleted_from_the_archive_does_not_come_back_and_keeps_its_source() {
    let (world, store) = (World::new(&DAYS[..1], 3), memory());
    let migrator = world.migrator(&store);
    migrator.cycle().await.unwrap();
    let (clock, random) = (Arc::new(SystemClock::new()), Arc::new(SystemRandom));
    let archive = Archive::open(Arc::clone(&store), ReadOptions::default(), clock, random).await.unwrap();
    let (day, uid) = (DAYS[0].parse().unwrap(), desfmt::Uid::new("20240301-1").unwrap());
    archive.delete(day, &uid, &Deletion::default()).await.unwrap();
    world.state.set_back(day);

    let report = migrator.cycle().await.unwrap();
    let cleaned = migrator.cleanup(CLEANUP).await.unwrap();

    assert_eq!((report.tally.present, report.tally.deleted, report.tally.exceptions), (2, 1, 0));
    assert_eq!((cleaned.removed, cleaned.kept), (2, 1));
    assert!(world.source("20240301-1").try_exists().unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_marked_once_they_are_proven_and_cleaned_up_all_the_same() {
    let (world, store) = (World::new(&DAYS, 4), memory());
    fs::remove_file(world.source("20240302-1")).unwrap();
    let mut migrator = world.migrator(&store);
    migrator.plan.mark_archived = true;

    migrator.cycle().await.unwrap();
    world.state.acknowledge(&Selection::default(), "me").unwrap();
    let marked = world.rows.archived.lock().unwrap().clone();
    let cleaned = migrator.cleanup(CLEANUP).await.unwrap();

    assert_eq!((marked.len(), marked.contains("20240302-1")), (11, false));
    assert_eq!((cleaned.removed, cleaned.kept), (11, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn late_rows_are_moved_by_a_sweep_and_by_nothing_else() {
    let (mut world, store) = (World::new(&DAYS, 3), memory());
    let migrator = world.migrator(&store);
    migrator.cycle().await.unwrap();
    world.add("20240302", "late", "late");
    assert_eq!(migrator.cycle().await.unwrap().tally.rows, 0);

    let report = migrator.sweep().await.unwrap();

    assert_eq!((report.late.packed, report.late.exceptions), (1, 0));
    assert_eq!(shown(&store).await, world.contents);
    assert_eq!(migrator.sweep().await.unwrap().late.packed, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_was_lost_marks_nothing() {
    let (world, store) = (World::new(&DAYS[..2], 3), memory());
    let migrator = world.migrator(&store);
    let now = horizon();
    world.state.plan(&[DAYS[0].parse().unwrap(), DAYS[1].parse().unwrap()], now).unwrap();
    let Claims::Taken(claims) = world.state.claim("test", None, 2, migrator.plan.lease).unwrap() else { panic!() };
    world.state.steal();

    let outcome = migrator.batch(&claims).await;

    assert!(matches!(outcome, Err(MigrateError::Overtaken { .. })), "{outcome:?}");
    assert_eq!(world.state.archived_until(), Some("20240301".parse::<desfmt::Date>().unwrap().start()));
    // What was packed is not packed again.
    let report = migrator.cycle().await.unwrap();
    assert_eq!((report.tally.packed, report.tally.present), (0, 6));
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_of_another_archive_are_refused() {
    let (world, store) = (World::new(&DAYS, 1), memory());
    world.migrator(&store).cycle().await.unwrap();

    let other = memory();
    let elsewhere = World::new(&DAYS, 1);
    elsewhere.migrator(&other).cycle().await.unwrap();

    let refused = world.migrator(&other).cycle().await.unwrap_err().to_string();
    assert!(refused.contains("another archive"), "{refused}");
}
