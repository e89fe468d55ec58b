//! `des-migrate` on a real PostgreSQL server: whole runs, exceptions, late rows, cleaning up.

mod buckets;
mod columns;
mod faults;
mod stage;
mod tls;
mod together;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write as _};
use std::os::unix::fs::symlink;

use des_tests::{Mount, command, run, shown_name};
use rustix::fs::{CWD, FileType, Mode, mknodat};

use stage::Stage;

/// Breaks rows and files in ten ways, some of each; gives the uids.
fn break_some(stage: &Stage, of_each: usize) -> BTreeMap<String, &'static str> {
    let mut broken = BTreeMap::new();
    let mut sql = Vec::new();
    for (number, file) in stage.files.iter().step_by(stage.files.len() / (of_each * 10)).take(of_each * 10).enumerate()
    {
        let (uid, path) = (&file.uid, &file.path);
        let gone = || fs::remove_file(path).unwrap();
        let mut set = |what: &str| sql.push(format!("UPDATE files SET {what} WHERE uid = '{uid}'"));
        let kind = match number % 10 {
            0 => {
                gone();
                "file"
            }
            1 => {
                fs::write(path, b"longer than its row says, or shorter").unwrap();
                "file"
            }
            2 => {
                gone();
                symlink("/etc/hostname", path).unwrap();
                "file"
            }
            3 => {
                gone();
                fs::create_dir(path).unwrap();
                "file"
            }
            4 => {
                gone();
                mknodat(CWD, path, FileType::Fifo, Mode::RUSR, 0).unwrap();
                "file"
            }
            5 => {
                set("path = '/etc/hostname'");
                "file"
            }
            6 => {
                set("path = NULL");
                "row"
            }
            7 => {
                set(&format!("sha256 = '{}'", "ab".repeat(32)));
                "file"
            }
            8 => {
                set("size = -1");
                "row"
            }
            _ => {
                set("sha256 = 'none'");
                "row"
            }
        };
        broken.insert(uid.clone(), kind);
    }
    stage.sql(&sql.join(";\n"));
    broken
}

#[test]
fn fifty_thousand_rows_are_moved_and_the_broken_ones_told() {
    let mut stage = Stage::new();
    stage.add(41, 50_000);
    let broken = break_some(&stage, 20);
    run(&mut stage.migrate("init")).success();

    let first = run(&mut stage.migrate("--quiet")).exits(1);

    assert!(first.stdout.contains("moved      49800 files"), "{}", first.stdout);
    assert!(first.stdout.contains("exceptions 200 now, 200 not acknowledged"), "{}", first.stdout);
    let told = run(&mut stage.migrate("exceptions list --json")).success().stdout;
    let told: BTreeMap<String, String> = told
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|one| (one["uid"].as_str().unwrap().to_owned(), one["kind"].as_str().unwrap().to_owned()))
        .collect();
    let expected: BTreeMap<String, String> =
        broken.iter().map(|(uid, kind)| (uid.clone(), (*kind).to_owned())).collect();
    assert_eq!(told, expected);
    // The cutoff stays before the first exception.
    assert_eq!(stage.ask("SELECT archived_until <= '2024-03-01 00:00+00' FROM des_archive_config"), "true");

    run(&mut stage.migrate("exceptions ack --all --by tester")).success();

    stage.assert_all_archived();
    let second = run(&mut stage.migrate("--quiet")).success();
    assert!(second.stdout.contains("moved      0 files, 0 B, of 0 days"), "{}", second.stdout);
    let without: Vec<&str> = broken.keys().map(String::as_str).collect();
    stage.assert_shown(&without);
    stage.assert_nothing_twice(49_800);

    let cleaned = run(&mut stage.migrate("cleanup --quiet")).success();

    assert!(cleaned.stdout.contains("removed    49800 sources"), "{}", cleaned.stdout);
    for file in &stage.files {
        let is_there = file.path.symlink_metadata().is_ok();
        let was_broken = broken.contains_key(&file.uid);
        // The first kind of broken ones has no file.
        assert!(was_broken || !is_there, "{} is still there", file.path.display());
    }
    let left = run(command("find").arg(stage.sources()).args(["-mindepth", "2"])).success().stdout;
    assert_eq!(left.lines().count(), 180, "all that is broken and there stays");
    stage.assert_shown(&without);
}

#[test]
fn an_exception_that_is_healed_is_moved_by_a_retry() {
    let stage = Stage::of(43, 300);
    let file = &stage.files[7];
    fs::remove_file(&file.path).unwrap();
    run(&mut stage.migrate("--quiet")).exits(1);
    assert_eq!(stage.ask("SELECT state FROM des_migration_day WHERE day = '2024-03-03'"), "blocked");
    // The day itself is moved, its other files can be read.
    stage.assert_shown(&[file.uid.as_str()]);
    assert_eq!(stage.ask("SELECT archived_until = '2024-03-03 00:00+00' FROM des_archive_config"), "true");

    fs::write(&file.path, &file.bytes).unwrap();
    run(&mut stage.migrate("exceptions retry --all")).success();
    stage.moved();

    stage.assert_shown(&[]);
    stage.assert_all_archived();
    assert_eq!(stage.ask("SELECT count(*) FROM des_migration_exception"), "0");
}

#[test]
fn rows_without_uid_or_time_are_exceptions() {
    let stage = Stage::of(44, 100);
    stage.sql(
        "INSERT INTO files SELECT NULL, '2024-03-02 12:00+00', '/x', 1 FROM generate_series(1, 3);
         INSERT INTO files SELECT 'u' || n, NULL, '/x', 1 FROM generate_series(1, 5) AS n;
         INSERT INTO files VALUES ('far', 'infinity', '/x', 1);",
    );

    let outcome = run(&mut stage.migrate("--quiet")).exits(1);

    assert!(outcome.stdout.contains("9 not acknowledged"), "{}", outcome.stdout);
    assert_eq!(stage.ask("SELECT string_agg(n_rows::text, ' ' ORDER BY n_rows) FROM des_migration_exception"), "3 6");
    run(&mut stage.migrate("exceptions ack --all --by tester")).success();
    stage.assert_all_archived();
    stage.assert_shown(&[]);
}

#[test]
fn late_rows_are_found_by_a_sweep() {
    let mut stage = Stage::of(45, 300);
    stage.moved();
    let before = stage.files.len();
    stage.add(46, 40);
    let late = stage.files.len() - before;
    // A run looks at no day twice.
    assert!(stage.moved().stdout.contains("moved      0 files"));

    let swept = run(&mut stage.migrate("sweep --quiet")).success();

    assert!(swept.stdout.contains(&format!("late       {late} files, 0 exceptions")), "{}", swept.stdout);
    assert!(swept.stderr.contains("late rows"), "{}", swept.stderr);
    stage.assert_shown(&[]);
    stage.assert_nothing_twice(stage.files.len());
    let again = run(&mut stage.migrate("sweep --quiet")).success();
    assert!(again.stdout.contains("late       0 files"), "{}", again.stdout);
}

#[test]
fn only_what_is_proven_is_removed_and_the_rest_is_told() {
    let stage = Stage::of(47, 200);
    stage.moved();
    let (changed, deleted, exchanged) = (&stage.files[3], &stage.files[11], &stage.files[19]);
    // The same length, so that only the content tells.
    let mut other = changed.bytes.clone();
    other[0] ^= 1;
    fs::write(&changed.path, &other).unwrap();
    fs::remove_file(&exchanged.path).unwrap();
    symlink(&changed.path, &exchanged.path).unwrap();
    let mount = Mount::new(&stage.archive(), "");
    fs::remove_file(mount.path().join(deleted.day).join(shown_name(&deleted.uid))).unwrap();
    drop(mount);

    let early = run(&mut stage.migrate_with("[cleanup]\ndelay = '1h'\n", "cleanup --quiet")).success();
    assert!(early.stdout.contains("removed    0 sources"), "{}", early.stdout);
    let cleaned = run(&mut stage.migrate("cleanup --quiet")).exits(1);

    assert!(cleaned.stdout.contains("removed    197 sources"), "{}", cleaned.stdout);
    assert!(cleaned.stdout.contains("kept       3"), "{}", cleaned.stdout);
    assert_eq!(fs::read(&changed.path).unwrap(), other);
    assert!(deleted.path.try_exists().unwrap() && exchanged.path.symlink_metadata().is_ok());
    let told = run(&mut stage.migrate("exceptions list --stage cleanup")).success().stdout;
    assert_eq!(told.matches("source_changed").count(), 2, "{told}");
    assert_eq!(told.matches("source_of_deleted").count(), 1, "{told}");
    assert!(stage.sources().join("000").try_exists().unwrap(), "directories stay");

    run(&mut stage.migrate("exceptions retry --stage cleanup")).success();
    let again = run(&mut stage.migrate("cleanup --quiet --remove-deleted")).exits(1);

    assert!(again.stdout.contains("removed    1 sources"), "{}", again.stdout);
    assert!(!deleted.path.try_exists().unwrap() && changed.path.try_exists().unwrap());
}

#[test]
fn a_dry_run_and_statistics_tell_what_would_be_moved_and_change_nothing() {
    let stage = Stage::of(48, 500);
    let bytes: usize = stage.files.iter().map(|file| file.bytes.len()).sum();

    let dry = run(&mut stage.migrate("--dry-run --json")).success().stdout;
    let table = run(&mut stage.migrate("--dry-run")).success().stdout;
    let mut stats = command("des-stats");
    stats.arg("--config").arg(stage.config("")).arg("--json");
    let stats = run(&mut stats).success().stdout;
    let mut ancestor = command("des-stats");
    ancestor.args(["--db-url", &stage.server.url(), "--table", "files", "--cutoff", "2024-03-03"]);
    ancestor.args(["--file-location-column", "path", "--size-bytes-column", "size"]);
    let ancestor = run(&mut ancestor).success().stdout;

    for text in [&dry, &stats] {
        let scope: serde_json::Value = serde_json::from_str(text).unwrap();
        assert_eq!((scope["files"].as_u64(), scope["bytes"].as_u64()), (Some(500), u64::try_from(bytes).ok()));
        assert_eq!(scope["days"].as_array().unwrap().len(), 5);
        assert_eq!(scope["shards"], 10);
        assert!(scope["before"]["writing"].as_f64() > scope["after"]["writing"].as_f64());
    }
    assert!(table.contains("dry run: nothing was written"), "{table}");
    assert!(ancestor.contains("files      200,"), "{ancestor}");
    assert!(!stage.archive().try_exists().unwrap());
    assert_eq!(stage.ask("SELECT count(*) FROM des_migration_day"), "0");
}

#[test]
fn a_last_day_is_the_last_one_that_is_moved() {
    let stage = Stage::of(49, 200);

    run(&mut stage.migrate("--quiet --until 2024-03-02")).success();

    assert_eq!(stage.ask("SELECT count(*) FROM des_migration_day"), "2");
    assert_eq!(stage.ask("SELECT archived_until = '2024-03-03 00:00+00' FROM des_archive_config"), "true");
    stage.moved();
    stage.assert_all_archived();
    stage.assert_shown(&[]);
}

#[test]
fn sigterm_ends_a_continuous_run_and_metrics_tell_what_it_did() {
    let stage = Stage::of(50, 200);
    let textfile = stage.place().join("migrate.prom");
    let port = des_tests::free_port();
    let mut migrate = stage.migrate(&format!("--continuous --interval 1h --quiet --http 127.0.0.1:{port}"));
    migrate.arg("--textfile").arg(&textfile);
    let mut running = migrate.stdout(std::process::Stdio::null()).spawn().unwrap();
    let scraped = || {
        let mut answer = String::new();
        if let Ok(mut connection) = std::net::TcpStream::connect(("127.0.0.1", port)) {
            connection.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
            connection.read_to_string(&mut answer).unwrap();
        }
        answer
    };
    des_tests::eventually(std::time::Duration::from_mins(2), "a cycle", || {
        scraped().contains("des_migration_cycles_total{status=\"success\"} 1")
    });
    assert!(scraped().contains("des_migration_files_total 200"), "{}", scraped());

    let asked = std::time::Instant::now();
    rustix::process::kill_process(rustix::process::Pid::from_child(&running), rustix::process::Signal::TERM).unwrap();
    assert!(running.wait().unwrap().success());

    assert!(asked.elapsed() < std::time::Duration::from_secs(30), "it slept through the signal");
    let told = fs::read_to_string(&textfile).unwrap();
    for name in ["des_packer_lag_seconds", "des_migration_duration_seconds_count 1", "des_migration_exceptions 0"] {
        assert!(told.contains(name), "{name}: {told}");
    }
}

#[test]
fn it_runs_under_its_own_name_with_few_heaps_or_as_many_as_are_asked_for() {
    let stage = Stage::of(51, 5);
    for (asked, heaps) in [(None, "2"), (Some("3"), "3")] {
        let mut migrate = stage.migrate("--continuous --interval 1h --quiet");
        migrate.env_remove("MALLOC_ARENA_MAX").stdout(std::process::Stdio::null());
        if let Some(asked) = asked {
            migrate.env("MALLOC_ARENA_MAX", asked);
        }
        let mut running = migrate.spawn().unwrap();
        let of_process = |what: &str| fs::read_to_string(format!("/proc/{}/{what}", running.id())).unwrap();
        des_tests::eventually(std::time::Duration::from_mins(1), "a process with few heaps", || {
            of_process("environ").split('\0').any(|one| one == format!("MALLOC_ARENA_MAX={heaps}"))
        });
        assert_eq!(of_process("comm"), "des-migrate\n");
        running.kill().unwrap();
        running.wait().unwrap();
    }
}
