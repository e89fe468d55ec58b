//! `unlink=journal`: deletions that are durable on this host first.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use des_tests::{Mount, Packed, contents, daemons_on, eventually, objects_below};
use rustix::process::{Signal, kill_process};

const LIMIT: Duration = Duration::from_secs(20);

/// So many small files of one day.
fn day_of(count: usize) -> Packed {
    Packed::of(|corpus| {
        for number in 0..count {
            corpus.add("20240301", &format!("INV-{number:05}"), format!("invoice {number}"));
        }
    })
}

fn mounted(packed: &Packed, journal: &Path) -> Mount {
    packed.mount(&format!("unlink=journal,journal={}", journal.display()))
}

fn journals(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn a_stream_of_deletions_costs_a_write_a_second_and_one_a_group() {
    let packed = day_of(5_000);
    let journal = packed.place().join("journal");
    let mount = mounted(&packed, &journal);
    let day = mount.path().join("20240301");
    let names: Vec<_> = fs::read_dir(&day).unwrap().map(|entry| entry.unwrap().path()).collect();

    let began = Instant::now();
    for path in &names[..4_000] {
        fs::remove_file(path).unwrap();
    }

    assert_eq!(fs::read_dir(&day).unwrap().count(), 1_000, "gone here at once");
    File::open(&day).unwrap().sync_all().unwrap();
    let writes = objects_below(&packed.archive(), "tombstones").len();
    // One for each of 16 groups, and one more for each time that a flush cuts one: about every second.
    let flushes = usize::try_from(began.elapsed().as_millis() / 900).unwrap() + 2;
    assert!((1..=16 + flushes).contains(&writes), "{writes} writes for 4,000 deletions, {flushes} flushes");
    assert_eq!(contents(packed.mount("").path()).len(), 1_000, "after fsync of the directory elsewhere too");
    mount.unmount();
    assert!(journals(&journal).is_empty(), "nothing is left behind");
}

#[test]
fn deletions_reach_the_store_by_themselves_and_when_the_mount_ends() {
    let packed = day_of(30);
    let journal = packed.place().join("journal");
    let mount = mounted(&packed, &journal);
    fs::remove_file(mount.file("20240301", "INV-00001")).unwrap();
    let written = || objects_below(&packed.archive(), "tombstones").len() == 1;
    eventually(LIMIT, "the deletion is in the store", written);

    fs::remove_file(mount.file("20240301", "INV-00002")).unwrap();
    mount.unmount();

    assert_eq!(contents(packed.mount("").path()).len(), 28);
}

#[test]
fn what_a_killed_mount_had_taken_is_hidden_by_the_next_and_reaches_the_store() {
    let packed = day_of(200);
    let journal = packed.place().join("journal");
    let mount = mounted(&packed, &journal);
    let point = mount.path().to_path_buf();
    for number in 0..100 {
        fs::remove_file(mount.file("20240301", &format!("INV-{number:05}"))).unwrap();
    }
    kill_process(mount.daemon(), Signal::KILL).unwrap();
    eventually(LIMIT, "the daemon is gone", || daemons_on(&point).is_empty());
    let left = 100 - deleted_in_store(&packed);
    drop(mount);

    let again = mounted(&packed, &journal);

    assert_eq!(contents(again.path()).len(), 100, "{left} deletions were in the journal only");
    eventually(LIMIT, "all of them are in the store", || deleted_in_store(&packed) == 100);
    assert_eq!(contents(packed.mount("").path()).len(), 100);
    again.unmount();
    assert!(journals(&journal).is_empty());
}

/// How many files another host would not see.
fn deleted_in_store(packed: &Packed) -> usize {
    200 - contents(packed.mount("ro").path()).len()
}

#[test]
fn a_journal_that_cannot_be_written_refuses_the_mount_in_words() {
    let packed = day_of(3);
    let file = packed.place().join("file");
    fs::write(&file, "").unwrap();
    let point = des_tests::mount_point();
    let options = format!("unlink=journal,journal={}", file.join("x").display());
    let refused = des_tests::run(&mut Mount::command(&packed.archive(), point.path(), &options)).exits(32);
    assert!(refused.stderr.contains("journal=DIRECTORY names another place"), "{}", refused.stderr);
}
