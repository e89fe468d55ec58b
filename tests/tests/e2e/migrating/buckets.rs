//! Migrations into buckets, out of buckets, and into several zones.

use std::fs;

use des_tests::{ChaosProxy, Fault, Kind, Rule, S3Place, Script, desfs, objects_below, run, s3_server, seed};
use desfmt::ObjectKey;
use desstore::{ObjectStore, Payload, S3Store};

use super::stage::{Stage, options_of};

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap()
}

/// Asserts that an archive in a bucket is sound and holds so many files, each once.
#[track_caller]
fn assert_sound(place: &S3Place, files: usize) {
    let checked = run(desfs().args(["check", &place.uri, "-o", &place.options()])).success();
    let summary = checked.stdout.lines().last().unwrap();
    assert!(summary.contains("sound") && summary.contains(&format!(" {files} files")), "{summary}");
}

#[test]
fn an_archive_in_a_bucket_that_a_file_names_is_filled_and_lets_sources_go() {
    let place = s3_server().place();
    let mut stage = Stage::of(71, 600).with_archive_at(&place);
    let archive = stage.place().join("archive.toml");
    fs::write(&archive, format!("archive = '{}'\nstore = {}\n", place.uri, options_of(&place))).unwrap();
    stage.archive_lines =
        format!("config = '{}'\nspool = '{}'", archive.display(), stage.place().join("spool").display());
    let textfile = stage.place().join("migrate.prom");

    run(stage.migrate("--quiet").arg("--textfile").arg(&textfile)).success();

    stage.assert_all_archived();
    stage.assert_shown(&[]);
    assert_sound(&place, 600);
    let told = fs::read_to_string(&textfile).unwrap();
    for line in ["des_migration_files_total 600", "des_migration_shards_total 10", "des_shard_files_total 600"] {
        assert!(told.contains(line), "{line}: {told}");
    }
    assert!(told.contains(r#"operation="put_if_absent",outcome="ok""#), "{told}");
    let again = run(&mut stage.migrate("--quiet")).success();
    assert!(again.stdout.contains("moved      0 files, 0 B, of 0 days"), "{}", again.stdout);
    let cleaned = run(&mut stage.migrate("cleanup --quiet")).success();
    assert!(cleaned.stdout.contains("removed    600 sources"), "{}", cleaned.stdout);
    assert!(stage.files.iter().all(|file| !file.path.try_exists().unwrap()));
    stage.assert_shown(&[]);
    assert!(fs::read_to_string(stage.config("")).unwrap().contains("archive.toml"));
}

/// What a bucket on a bad day does.
fn bad_day(seed: u64) -> Script {
    let rules = vec![
        Rule::percent(3, Fault::Status(503, None)),
        Rule::percent(2, Fault::Close),
        Rule::percent(5, Fault::LoseAnswer).on(&[Kind::Put]),
        Rule::percent(2, Fault::CloseInBody).on(&[Kind::Get, Kind::GetRange]),
        Rule::percent(2, Fault::FlipByte).on(&[Kind::GetRange]),
        Rule::percent(1, Fault::ShortBody).on(&[Kind::GetRange]),
    ];
    Script { seed, rules, ..Script::default() }
}

/// Runs until all is well, a few times at most; says how often it was not.
#[track_caller]
fn run_until_well(stage: &Stage, arguments: &str) -> usize {
    let mut reasons = Vec::new();
    for failures in 0..10 {
        let outcome = run(&mut stage.migrate(arguments));
        if outcome.code() == 0 {
            return failures;
        }
        reasons.push(outcome.stderr);
    }
    panic!("{arguments}: {reasons:#?}");
}

#[test]
fn faults_of_the_bucket_in_the_middle_lose_nothing_and_double_nothing() {
    let seed = seed();
    let place = s3_server().place();
    let proxy = ChaosProxy::start(s3_server().endpoint(), bad_day(seed));
    let stage = Stage::of(seed, 1_000).with_archive_at(&place.through(&proxy.endpoint()));

    let mut failures = run_until_well(&stage, "--quiet");

    // The bucket is away for a moment, right after the next run has begun.
    proxy.follow(Script { rules: vec![Rule::always(Fault::Close).times(30)], ..Script::default() });
    failures += run_until_well(&stage, "sweep --quiet");
    proxy.follow(bad_day(seed.wrapping_add(1)));
    failures += run_until_well(&stage, "cleanup --quiet");

    println!("seed {seed}: {failures} runs failed");
    let requests = proxy.take_seen();
    assert!(requests.iter().filter(|one| one.fault.is_some()).count() > 40, "too few faults of {}", requests.len());
    proxy.follow(Script::default());
    stage.assert_all_archived();
    assert_eq!(stage.ask("SELECT count(*) FROM des_migration_exception"), "0", "seed {seed}");
    assert!(stage.files.iter().all(|file| !file.path.try_exists().unwrap()), "seed {seed}");
    stage.assert_shown(&[]);
    assert_sound(&place, 1_000);
}

/// Moves the sources of a table into a bucket; the table and the configuration follow.
fn move_sources(stage: &mut Stage, place: &S3Place) -> S3Store {
    let sources = stage.sources();
    let store = runtime().block_on(async {
        let store = place.store().await;
        for file in &stage.files {
            let key = file.path.strip_prefix(&sources).unwrap().to_str().unwrap();
            let payload = Payload::Bytes(file.bytes.clone().into());
            store.put(&ObjectKey::new(key).unwrap(), payload).await.unwrap();
            fs::remove_file(&file.path).unwrap();
        }
        store
    });
    stage.sql(&format!("UPDATE files SET path = replace(path, '{}', '{}')", sources.display(), place.uri));
    stage.source_lines =
        format!("roots = ['{}', '{}/000']\noptions = {}", sources.display(), place.uri, options_of(place));
    store
}

#[test]
fn sources_in_a_bucket_are_moved_compared_and_removed_as_files_are() {
    let mut stage = Stage::of(73, 80);
    let place = s3_server().place();
    let runtime = runtime();
    let sources = stage.sources();
    let store = move_sources(&mut stage, &place);
    let key = |stage: &Stage, number: usize| {
        ObjectKey::new(stage.files[number].path.strip_prefix(&sources).unwrap().to_str().unwrap()).unwrap()
    };
    let put = |key: &ObjectKey, bytes: Vec<u8>| {
        runtime.block_on(store.put(key, Payload::Bytes(bytes.into()))).unwrap();
    };
    let broken: Vec<String> = stage.files[10..15].iter().map(|file| file.uid.clone()).collect();
    runtime.block_on(store.delete(&key(&stage, 10))).unwrap();
    put(&key(&stage, 11), b"not as long as its row says".to_vec());
    let set = |number: usize, what: &str| {
        stage.sql(&format!("UPDATE files SET {what} WHERE uid = '{}'", stage.files[number].uid));
    };
    // Outside of the root, by a name that begins like it; in another bucket; with another checksum.
    put(&ObjectKey::new("0001/secret").unwrap(), vec![7; 7]);
    set(12, &format!("path = '{}/0001/secret', size = 7", place.uri));
    set(13, "path = 's3://another-bucket/000/13.dat'");
    set(14, &format!("sha256 = '{}'", "ab".repeat(32)));

    let first = run(&mut stage.migrate("--quiet")).exits(1);

    assert!(first.stdout.contains("moved      75 files"), "{}", first.stdout);
    let told = run(&mut stage.migrate("exceptions list")).success().stdout;
    for reason in ["does not exist", "has 27 bytes", "beneath none of the roots", "has another"] {
        assert!(told.contains(reason), "{reason}: {told}");
    }
    assert_eq!((told.matches("beneath none").count(), told.matches(" file ").count()), (2, 5), "{told}");
    run(&mut stage.migrate("exceptions ack --all --by tester")).success();
    stage.assert_all_archived();
    stage.assert_shown(&broken.iter().map(String::as_str).collect::<Vec<_>>());

    // One is written anew meanwhile, as long as it was.
    let mut other = stage.files[20].bytes.clone();
    other[0] ^= 1;
    put(&key(&stage, 20), other);
    let cleaned = run(&mut stage.migrate("cleanup --quiet")).exits(1);

    assert!(cleaned.stdout.contains("removed    74 sources"), "{}", cleaned.stdout);
    assert!(cleaned.stdout.contains("kept       1"), "{}", cleaned.stdout);
    for number in 0..stage.files.len() {
        let is_there = runtime.block_on(store.head(&key(&stage, number))).is_ok();
        assert_eq!(is_there, [11, 12, 13, 14, 20].contains(&number), "{number}");
    }
    // The marks are lost, the sources are gone, and the archive has them.
    stage.sql(
        "DELETE FROM des_cleanup; DELETE FROM des_migration_exception; DELETE FROM des_migration_day;
         UPDATE des_archive_config SET archived_until = NULL, planned_until = NULL",
    );
    let again = run(&mut stage.migrate("--quiet")).exits(1);
    assert!(again.stdout.contains("present    74\n"), "{}", again.stdout);
    assert!(again.stdout.contains("exceptions 6 now"), "{}", again.stdout);
}

#[test]
fn buckets_that_no_root_names_are_not_read() {
    let stage = Stage::of(74, 10);
    stage.sql("UPDATE files SET path = 's3://des-tests/x'");

    let outcome = run(&mut stage.migrate("--quiet")).exits(1);

    assert!(outcome.stdout.contains("exceptions 10 now"), "{}", outcome.stdout);
    let told = run(&mut stage.migrate("exceptions list")).success().stdout;
    assert_eq!(told.matches("in a bucket, and sources.roots names none").count(), 10, "{told}");
}

#[test]
fn an_archive_in_two_zones_is_filled_in_both() {
    let mut stage = Stage::of(75, 300);
    let (a, b) = (stage.place().join("a"), stage.place().join("b"));
    let archive = stage.place().join("zones.yaml");
    let zones = format!(
        "zones:\n- {{name: a, archive: {}, range: {{from: 0, to: 0.5}}, copies: [b]}}\n\
         - {{name: b, archive: {}, range: {{from: 0.5, to: 1}}, copies: [a]}}\n",
        a.display(),
        b.display()
    );
    fs::write(&archive, zones).unwrap();
    stage.archive_lines =
        format!("config = '{}'\nspool = '{}'", archive.display(), stage.place().join("spool").display());
    stage.mounted = (archive, String::new());

    stage.moved();

    stage.assert_all_archived();
    stage.assert_shown(&[]);
    for part in ["shards", "manifests"] {
        assert!(!objects_below(&a, part).is_empty());
        assert_eq!(objects_below(&a, part), objects_below(&b, part), "{part}");
    }
    let cleaned = run(&mut stage.migrate("cleanup --quiet")).success();
    assert!(cleaned.stdout.contains("removed    300 sources"), "{}", cleaned.stdout);
}
