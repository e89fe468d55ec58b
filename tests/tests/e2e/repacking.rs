//! From `rm` to the last byte: what was deleted is searched for wherever bytes can hide, while all else reads right.

mod converting;
mod costs;
mod killing;
mod racing;
mod refusing;
mod stage;
mod zones;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use des_tests::{Mount, command, eventually, files_below, has_dictionary, run};
use stage::{PHRASE, Place, Stage, amount, day_of, holds, while_reading};

/// `DES_ERASED_FILES=20000` searches among as many.
fn files() -> usize {
    amount("DES_ERASED_FILES", 5_000)
}

/// The first day goes as a whole; of the others some twentieths go that are scattered: 30 % of all files.
fn is_doomed(number: usize) -> bool {
    day_of(number, files()) == "20240301" || number % 9 < 2
}

fn doomed() -> BTreeSet<usize> {
    (0..files()).filter(|number| is_doomed(*number)).collect()
}

/// Deletes the first day by `rm -r`, and the rest by an order.
fn delete_all(stage: &Stage, mount: &Mount) {
    run(command("rm").arg("-r").arg(mount.path().join("20240301"))).success();
    let order = stage.scratch().join("order");
    let lines: Vec<_> = doomed()
        .into_iter()
        .map(|number| &stage.corpus.files[number])
        .filter(|file| file.day != "20240301")
        .map(|file| format!("{} {}", file.uid, file.day))
        .collect();
    fs::write(&order, lines.join("\n")).unwrap();
    let mut add = stage.program("des-tombstones");
    run(add.arg("add").arg("--from-file").arg(&order).args(["--yes", "--reason", "art. 17"])).success();
}

/// Deletes, repacks, collects, and searches. What a mount's cache on disk holds is searched too, if there is one.
fn erase(stage: &Stage, mount: &Mount, cache: Option<&Path>) {
    let (gone, before) = (doomed(), stage.shard_bytes());
    stage.assert_shown_in(mount.path(), &BTreeSet::new());
    assert!(stage.search().has_phrase);
    let holds_in = |cache: &Path, what: &[u8]| {
        files_below(cache).iter().any(|name| holds(&fs::read(cache.join(name)).unwrap(), what))
    };
    if let Some(cache) = cache {
        // Written beside the reads.
        eventually(Duration::from_secs(30), "the cache on disk is used", || holds_in(cache, PHRASE.as_bytes()));
    }
    let live = || stage.corpus.files.iter().enumerate().filter(|(number, _)| !is_doomed(*number)).map(|(_, file)| file);

    while_reading(mount, live(), || {
        delete_all(stage, mount);
        let dropped = stage.repack_all();
        assert_eq!(dropped, u64::try_from(gone.len()).unwrap(), "files taken out");
        assert!(stage.collect_all() > 0);
    });

    stage.assert_shown_in(mount.path(), &gone);
    stage.assert_erased(&gone);
    assert!(!stage.search().has_phrase, "it is in a dictionary, or in a frame");
    let after = stage.shard_bytes();
    assert!(after < before * 85 / 100, "{before} bytes before, {after} after");
    if let Some(cache) = cache {
        let is_clean = || !holds_in(cache, PHRASE.as_bytes());
        eventually(Duration::from_secs(30), "nothing deleted is left in the cache on disk", is_clean);
    }
}

#[test]
fn nothing_deleted_is_left_in_a_directory_of_stored_frames() {
    let stage = Stage::local(files(), is_doomed, &["--codec", "none", "--n-bits", "2"]);
    erase(&stage, &stage.mount(""), None);
}

#[test]
fn nothing_deleted_is_left_in_a_directory_in_frames_or_dictionaries() {
    let stage = Stage::local(files(), is_doomed, &["--codec", "zstd", "--n-bits", "0", "--frame-size", "0"]);
    assert!(stage.objects().iter().any(|(_, object)| has_dictionary(object)));
    erase(&stage, &stage.mount(""), None);
}

#[test]
fn nothing_deleted_is_left_in_any_version_of_an_object_in_a_bucket_nor_in_the_cache_of_a_mount() {
    let stage = Stage::bucket(files(), is_doomed, &["--codec", "none", "--n-bits", "2"]);
    let cache = stage.scratch().join("cache");
    fs::create_dir(&cache).unwrap();
    let mount = stage.mount(&format!(",cache_dir={}", cache.display()));
    erase(&stage, &mount, Some(&cache));
    // Of shards that are gone not even a marker of their deletion is kept.
    let Place::Bucket(bucket) = &stage.place else { unreachable!() };
    let markers: Vec<_> = bucket.kept().markers.into_iter().filter(|key| key.contains("shards/")).collect();
    assert!(markers.is_empty(), "{markers:?}");
}

#[test]
fn nothing_deleted_is_left_in_a_bucket_in_frames_or_dictionaries() {
    let stage = Stage::bucket(files(), is_doomed, &["--codec", "zstd", "--n-bits", "0", "--frame-size", "0"]);
    assert!(stage.objects().iter().any(|(_, object)| has_dictionary(object)));
    erase(&stage, &stage.mount(""), None);
}

#[test]
fn a_restored_copy_of_yesterday_with_the_tombstones_of_today_shows_no_deleted_file() {
    let stage = Stage::local(600, |number| number % 3 == 0, &["--n-bits", "1"]);
    let Place::Directory(archive) = &stage.place else { unreachable!() };
    let copy = stage.scratch().join("yesterday");
    run(command("cp").arg("-a").arg(archive).arg(&copy)).success();
    let gone: BTreeSet<usize> = (0..600).filter(|number| number % 3 == 0).collect();
    let mount = stage.mount("");
    for number in &gone {
        let file = &stage.corpus.files[*number];
        fs::remove_file(mount.file(&file.day, &file.uid)).unwrap();
    }
    mount.unmount();
    stage.repack_all();
    stage.collect_all();
    // Some records have shrunk to hashes by now; these must do too.
    stage.assert_erased(&gone);

    run(command("cp").arg("-a").arg(archive.join("tombstones")).arg(&copy)).success();

    stage.assert_shown_in(Mount::new(&copy, "").path(), &gone);
    let mut verify = command("des-verify");
    run(verify.arg("--archive").arg(&copy).args(["--level", "content"])).success();
    let mut pack = command("des-pack");
    pack.arg("--archive").arg(&copy).arg("--input-json").arg(stage.corpus.manifest("again"));
    run(&mut pack).exits(1);
    stage.assert_shown_in(Mount::new(&copy, "").path(), &gone);
}

#[test]
fn what_lies_in_the_spool_of_a_living_run_counts_until_it_is_gone() {
    let stage = Stage::local(50, |_| false, &["--n-bits", "0"]);
    let (run_directory, textfile) = (stage.spool().join("run-9"), stage.scratch().join("des.prom"));
    fs::create_dir_all(&run_directory).unwrap();
    let alive = File::create(run_directory.join("lock")).unwrap();
    alive.lock().unwrap();
    let spooled = File::create(run_directory.join("0.des")).unwrap();
    spooled.set_modified(SystemTime::now() - Duration::from_hours(50)).unwrap();
    let oldest_hours = |program: &mut Command| {
        run(program.arg("--textfile").arg(&textfile)).success();
        let text = fs::read_to_string(&textfile).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("des_erasure_oldest_seconds ")).unwrap();
        line.parse::<f64>().unwrap() / 3_600.0
    };

    for mut program in [stage.repack(), stage.gc()] {
        let hours = oldest_hours(&mut program);
        assert!((49.9..51.0).contains(&hours), "{hours}");
    }
    drop(alive);
    assert!(oldest_hours(&mut stage.gc()) < 1.0);
    assert!(!run_directory.try_exists().unwrap());
}
