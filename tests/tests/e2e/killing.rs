//! `des-pack` killed at any moment and run again: nothing lost, nothing twice, nothing left over.

use std::time::{Duration, Instant};

use des_tests::{Corpus, Mount, Packed, assert_each_file_is_in_one_live_shard, des_pack, run, scratch, seed};
use desstore::{Randomness, SeededRandom};
use rustix::process::{Pid, Signal, kill_process};

const KILLS: usize = 50;

#[test]
fn fifty_kills_at_random_moments_lose_nothing_and_double_nothing() {
    let seed = seed();
    let random = SeededRandom::new(seed);
    let packed = Packed::random(seed, 1_500);
    let manifest = packed.corpus.manifest("kill");
    let began = Instant::now();
    run(des_pack(&packed.place().join("timed")).arg("--input-json").arg(&manifest)).success();
    let whole = began.elapsed();

    let mut kills = 0;
    while kills < KILLS {
        let archive = packed.place().join(format!("killed-{kills}"));
        // Several kills in a row leave more behind than one.
        for _ in 0..5 {
            let mut pack = des_pack(&archive);
            pack.arg("--input-json").arg(&manifest).args(["--jobs", "2"]);
            let mut pack =
                pack.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap();
            let micros = u64::try_from(whole.as_micros()).unwrap();
            std::thread::sleep(Duration::from_micros(random.next() % micros));
            // It may have ended by itself; that is no kill.
            if pack.try_wait().unwrap().is_none() {
                kill_process(Pid::from_child(&pack), Signal::KILL).unwrap();
                kills += 1;
            }
            pack.wait().unwrap();
        }

        run(des_pack(&archive).arg("--input-json").arg(&manifest)).success();

        let spool = std::fs::read_dir(archive.join(".spool")).unwrap();
        let left: Vec<_> = spool.map(|entry| entry.unwrap().file_name()).filter(|name| name != "lock").collect();
        assert!(left.is_empty(), "{left:?}");
        packed.assert_shown_in(Mount::new(&archive, "").path(), &[]);
        assert_each_file_is_in_one_live_shard(&archive, 1_500);
    }
}

#[test]
fn a_source_that_changed_after_a_kill_is_packed_as_it_is_now() {
    let place = scratch();
    let mut corpus = Corpus::new(&place.path().join("source"));
    corpus.add_random(71, 400);
    let archive = place.path().join("archive");
    let mut pack = des_pack(&archive);
    pack.arg("--input-json").arg(corpus.manifest("before"));
    let mut pack = pack.stderr(std::process::Stdio::null()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(30));
    kill_process(Pid::from_child(&pack), Signal::KILL).unwrap();
    pack.wait().unwrap();
    let last = corpus.files.last_mut().unwrap();
    last.bytes = b"changed meanwhile".to_vec();
    std::fs::write(&last.path, &last.bytes).unwrap();
    let last = last.clone();

    let outcome = run(des_pack(&archive).arg("--input-json").arg(corpus.manifest("after")));

    // Either the first run got as far as the old content, which then stays and is a conflict, or the new one is packed.
    let found = std::fs::read(Mount::new(&archive, "").file(&last.day, &last.uid)).unwrap();
    assert_eq!(outcome.code() == 0, found == last.bytes, "{outcome:?}");
    assert_each_file_is_in_one_live_shard(&archive, 400);
}
