//! Several migrators at once.

use std::process::Stdio;

use des_tests::{run, seed};

use super::stage::Stage;

fn run_together(stage: &Stage, workers: usize) {
    let mut running = Vec::new();
    for worker in 0..workers {
        let mut migrate = stage.migrate(&format!("--quiet --worker w{worker}"));
        migrate.stdout(Stdio::piped()).stderr(Stdio::piped());
        running.push(migrate.spawn().unwrap());
    }
    for one in running {
        let out = one.wait_with_output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    }
}

#[test]
fn two_and_four_workers_do_what_one_does() {
    let seed = seed();
    for workers in [2, 4] {
        let stage = Stage::of(seed, 2_000);

        run_together(&stage, workers);

        // Whoever ended first may have left a day to another that was still at it.
        stage.assert_all_archived();
        stage.assert_shown(&[]);
        stage.assert_nothing_twice(2_000);
        assert_eq!(stage.ask("SELECT sum(files) || ' ' || sum(packed) FROM des_migration_day"), "2000 2000");
        let cleaned = run(&mut stage.migrate("cleanup --quiet")).success();
        assert!(cleaned.stdout.contains("removed    2000 sources"), "{}", cleaned.stdout);
    }
}

#[test]
fn two_workers_of_one_name_are_refused() {
    let stage = Stage::of(62, 20);
    let mut first = stage.migrate("--continuous --interval 1h --quiet --worker same");
    let mut first = first.stdout(Stdio::null()).spawn().unwrap();
    des_tests::eventually(std::time::Duration::from_mins(1), "the first worker", || {
        stage.ask("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == "1"
    });

    let second = run(&mut stage.migrate("--quiet --worker same")).exits(1);

    assert!(second.stderr.contains("running already; --worker"), "{}", second.stderr);
    first.kill().unwrap();
    first.wait().unwrap();
    run(&mut stage.migrate("--quiet --worker same")).success();
}
