//! Migrations whose programs, servers, connections and disks die in the middle.

use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use des_tests::{Postgres, PostgresProxy, run, seed};
use desstore::{Randomness, SeededRandom};
use rustix::process::{Pid, Signal, kill_process};

use super::stage::{DAYS, Stage};

/// Rounds of random kills; `DES_TEST_KILLS` asks for more.
fn kills() -> usize {
    std::env::var("DES_TEST_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(10)
}

/// How long a run takes when nothing disturbs it.
fn whole(seed: u64, count: usize) -> Duration {
    let stage = Stage::of(seed, count);
    let began = Instant::now();
    stage.moved();
    began.elapsed()
}

#[test]
fn kills_at_random_moments_lose_nothing_and_double_nothing() {
    let seed = seed();
    let random = SeededRandom::new(seed);
    let micros = u64::try_from(whole(seed, 1_500).as_micros()).unwrap();
    let mut kills_left = kills();
    while kills_left > 0 {
        let stage = Stage::of(seed, 1_500);
        for _ in 0..5 {
            let mut migrate = stage.migrate("--quiet");
            let mut migrate = migrate.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            std::thread::sleep(Duration::from_micros(random.next() % micros));
            if migrate.try_wait().unwrap().is_none() {
                kill_process(Pid::from_child(&migrate), Signal::KILL).unwrap();
                kills_left = kills_left.saturating_sub(1);
            }
            migrate.wait().unwrap();
            // Whatever was marked can be read.
            let marked = stage.ask("SELECT coalesce(sum(files), 0) FROM des_migration_day WHERE state = 'finished'");
            assert!(marked == "0" || stage.archive().try_exists().unwrap(), "{marked} rows are marked");
        }

        stage.moved();

        stage.assert_all_archived();
        stage.assert_shown(&[]);
        stage.assert_nothing_twice(1_500);
        kill_cleanup(&stage, &random);
    }
}

/// What a migrator does to the disk, and says to the database: each is a step that it may die at.
const STEPS: [&str; 4] = ["linkat", "fsync,fdatasync", "unlink,unlinkat,rename,renameat,renameat2", "sendto"];

/// How many calls of each kind a thread gets through at most before it dies.
const CALLS: usize = 6;

#[test]
fn kills_at_the_first_calls_of_each_kind_lose_nothing_and_double_nothing() {
    let stage = Stage::of(66, 40);
    let mut kills = 0;
    for step in STEPS {
        for call in 1..=CALLS {
            let migrate = stage.migrate("--quiet");
            let mut strace = des_tests::command("strace");
            strace.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={step}")]);
            strace.args(["-e", &format!("inject={step}:signal=KILL:when={call}"), "--"]);
            strace.arg(migrate.get_program()).args(migrate.get_args()).env_remove("DES_WORKER");
            if run(&mut strace).code() == 0 {
                break;
            }
            kills += 1;

            stage.moved();

            stage.assert_all_archived();
            stage.assert_shown(&[]);
            stage.assert_nothing_twice(40);
            stage.begin_anew();
        }
    }
    assert!(kills > STEPS.len(), "only {kills} kills");
}

/// Kills a cleanup a few times, then lets it end.
fn kill_cleanup(stage: &Stage, random: &SeededRandom) {
    for _ in 0..3 {
        let mut cleanup = stage.migrate("cleanup --quiet");
        let mut cleanup = cleanup.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_micros(random.next() % 1_000_000));
        drop(cleanup.kill());
        cleanup.wait().unwrap();
    }
    run(&mut stage.migrate("cleanup --quiet")).success();
    assert!(stage.files.iter().all(|file| !file.path.try_exists().unwrap()));
    stage.assert_shown(&[]);
}

#[test]
fn days_that_the_server_still_holds_for_a_dead_process_are_waited_for() {
    let stage = Stage::of(67, 40);
    let days: Vec<String> = DAYS.iter().map(|day| format!("('{day}')")).collect();
    stage.sql(&format!("INSERT INTO des_migration_day (day) VALUES {}", days.join(",")));
    while_rows_are_held(&stage, "des_migration_day", "--quiet");
    stage.assert_all_archived();

    stage.sql("INSERT INTO des_cleanup (day) SELECT day FROM des_migration_day");
    while_rows_are_held(&stage, "des_cleanup", "cleanup --quiet");
    assert!(stage.files.iter().all(|file| !file.path.try_exists().unwrap()));
}

/// Runs `des-migrate` while another session holds all rows of a table, as one does whose client has died in a commit.
fn while_rows_are_held(stage: &Stage, table: &str, arguments: &str) {
    let mut client = stage.server.connect();
    let mut held = client.transaction().unwrap();
    held.execute(&format!("SELECT 1 FROM {table} FOR UPDATE"), &[]).unwrap();
    let migrate = stage.migrate(arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_secs(2));
    held.commit().unwrap();
    let ended = migrate.wait_with_output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
}

#[test]
fn a_server_that_loses_its_power_in_the_middle_is_waited_for() {
    let seed = seed();
    let random = SeededRandom::new(seed);
    let micros = u64::try_from(whole(seed, 1_500).as_micros()).unwrap();
    let stage = Stage::of(seed, 1_500);
    let mut migrate = stage.migrate("--quiet");
    let migrate = migrate.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    for _ in 0..3 {
        std::thread::sleep(Duration::from_micros(random.next() % (micros / 3)));
        stage.server.stop("immediate");
        std::thread::sleep(Duration::from_millis(random.next() % 500));
        stage.server.begin();
    }

    let ended = migrate.wait_with_output().unwrap();

    assert!(ended.status.success(), "seed {seed}: {}", String::from_utf8_lossy(&ended.stderr));
    stage.assert_all_archived();
    stage.assert_shown(&[]);
    stage.assert_nothing_twice(1_500);
}

#[test]
fn a_mark_whose_acknowledgement_is_lost_is_set_once() {
    let mut stage = Stage::of(63, 400);
    let proxy = PostgresProxy::before(stage.server.port());
    // The connection is cut after the commit of each mark, three times.
    proxy.cut_after_commit_of("finished_at = now()", 3);
    stage.port = proxy.port();

    let outcome = stage.moved();

    assert!(proxy.cuts() >= 1, "no connection was cut");
    assert!(outcome.stderr.contains("trying again"), "{}", outcome.stderr);
    stage.assert_all_archived();
    stage.assert_shown(&[]);
    stage.assert_nothing_twice(400);
    assert_eq!(stage.ask("SELECT max(epoch) FROM des_migration_day"), "1", "no day was moved again");
    assert_eq!(stage.ask("SELECT count(*) FROM des_migration_receipt"), "5");
}

#[test]
fn a_promoted_standby_that_lost_the_last_marks_costs_nothing() {
    let mut stage = Stage::of(64, 400);
    run(&mut stage.migrate("--quiet --until 2024-03-02")).success();
    let standby = Postgres::follow(&stage.server);
    // From here on it hears nothing any more.
    standby.connect().batch_execute("ALTER SYSTEM SET primary_conninfo = ''").unwrap();
    standby.stop("fast");
    standby.begin();
    stage.moved();
    run(&mut stage.migrate("cleanup --quiet")).success();
    assert!(stage.files.iter().all(|file| !file.path.try_exists().unwrap()));

    stage.server.stop("immediate");
    standby.promote();
    stage.port = standby.port();
    stage.server = standby;
    assert_eq!(stage.ask("SELECT archived_until = '2024-03-03 00:00+00' FROM des_archive_config"), "true");
    let outcome = stage.moved();

    // Their sources are gone and the archive has them: no exceptions.
    assert!(outcome.stdout.contains("moved      0 files"), "{}", outcome.stdout);
    assert!(outcome.stdout.contains("exceptions 0 now, 0"), "{}", outcome.stdout);
    stage.assert_all_archived();
    stage.assert_shown(&[]);
    stage.assert_nothing_twice(400);
}

#[test]
fn a_spool_that_is_full_ends_the_run_and_harms_nothing() {
    let stage = Stage::of(65, 6_000);
    let spool = stage.place().join("small");
    fs::create_dir(&spool).unwrap();
    run(des_tests::command("mount").args(["-t", "tmpfs", "-o", "size=1m", "none"]).arg(&spool)).success();
    let mut more = stage.migrate("--quiet");
    let config = stage.place().join("full.toml");
    let text = fs::read_to_string(stage.config("")).unwrap();
    fs::write(&config, text.replace("n_bits = 1", &format!("n_bits = 1\nspool = '{}'", spool.display()))).unwrap();
    let mut migrate = des_tests::command("des-migrate");
    let outcome = run(migrate.arg("--config").arg(&config).arg("--quiet"));
    run(des_tests::command("umount").arg(&spool)).success();

    assert_eq!(outcome.code(), 1, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("spool") && outcome.stderr.contains("No space left"), "{}", outcome.stderr);
    assert!(stage.files.iter().all(|file| file.path.try_exists().unwrap()));
    assert_eq!(stage.ask("SELECT count(*) FROM des_migration_day WHERE state = 'finished'"), "0");
    run(&mut more).success();
    stage.assert_all_archived();
    stage.assert_shown(&[]);
}
