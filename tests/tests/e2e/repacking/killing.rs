//! `des-repack` and its collection killed at any moment, while a mount reads and deletes: nothing lost, nothing back.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use des_tests::{Mount, files_below, run, seed};
use desstore::{Randomness, SeededRandom};

use super::stage::{Stage, amount};

const FILES: usize = 1_200;

/// `DES_TEST_KILLS=50` kills as often.
fn kills() -> usize {
    amount("DES_TEST_KILLS", 10)
}

/// Reads at random, and now and then deletes, until told to stop. What was deleted.
fn read_and_delete(stage: &Stage, mount: &Mount, seed: u64, is_over: &AtomicBool) -> BTreeSet<usize> {
    let random = SeededRandom::new(seed);
    let mut gone = BTreeSet::new();
    while !is_over.load(Ordering::Relaxed) {
        let number = usize::try_from(random.next() % u64::try_from(FILES).unwrap()).unwrap();
        let file = &stage.corpus.files[number];
        let path = mount.file(&file.day, &file.uid);
        // Half of them stay whatever happens.
        if number % 2 == 1 && gone.len() < FILES / 2 && random.next().is_multiple_of(4) && !gone.contains(&number) {
            fs::remove_file(&path).unwrap();
            gone.insert(number);
        }
        match fs::read(&path) {
            Ok(bytes) => {
                assert!(!gone.contains(&number), "{} is back", file.uid);
                assert!(bytes == file.bytes, "{} reads wrong", file.uid);
            }
            Err(error) => {
                assert!(gone.contains(&number) && error.kind() == ErrorKind::NotFound, "{}: {error}", file.uid);
            }
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    gone
}

/// Runs a program, and kills it after a part of the time that it takes. False where it had ended by then.
fn killed(program: &mut Command, after: Duration) -> bool {
    let mut child = program.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(after);
    let is_alive = child.try_wait().unwrap().is_none();
    if is_alive {
        child.kill().unwrap();
    }
    child.wait().unwrap();
    is_alive
}

fn kill_and_go_on(stage: &Stage) {
    let seed = seed();
    let random = SeededRandom::new(seed);
    let mount = stage.mount("");
    let is_over = AtomicBool::new(false);
    let took = Mutex::new([Duration::from_millis(300); 2]);
    let gone = std::thread::scope(|scope| {
        let reader = scope.spawn(|| read_and_delete(stage, &mount, seed, &is_over));
        let killer = scope.spawn(|| {
            let (mut count, mut turn) = (0, 0);
            while count < kills() {
                turn += 1;
                let which = turn % 2;
                let program = || if which == 0 { stage.repack() } else { stage.gc() };
                // Now and then one ends by itself: that says how long they take, and lets the others have something to do.
                if turn % 7 < 2 {
                    let began = Instant::now();
                    run(&mut program()).success();
                    took.lock().unwrap()[which] = began.elapsed();
                    continue;
                }
                let micros = u64::try_from(took.lock().unwrap()[which].as_micros()).unwrap().max(1);
                count += usize::from(killed(&mut program(), Duration::from_micros(random.next() % micros)));
            }
        });
        let killer = killer.join();
        is_over.store(true, Ordering::Relaxed);
        let gone = reader.join();
        killer.and(gone).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    assert!(!gone.is_empty());

    stage.repack_all();
    stage.collect_all();

    stage.assert_shown_in(mount.path(), &gone);
    mount.unmount();
    stage.assert_erased(&gone);
    assert_eq!(files_below(&stage.spool()), [std::path::PathBuf::from("lock")], "nothing is left in the spool");
}

#[test]
fn kills_lose_nothing_and_bring_nothing_back_in_a_directory() {
    kill_and_go_on(&Stage::local(FILES, |_| false, &["--codec", "zstd", "--n-bits", "1"]));
}

#[test]
fn kills_lose_nothing_and_bring_nothing_back_in_a_bucket_that_keeps_versions() {
    kill_and_go_on(&Stage::bucket(FILES, |_| false, &["--codec", "none", "--n-bits", "1"]));
}
