//! `des-repack` beside others: another one, a packer, a slow reader, and itself after a long sleep.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use des_tests::{assert_each_file_is_in_one_live_shard, eventually, files_below, seed};
use desstore::{Randomness, SeededRandom};
use rustix::process::{Pid, Signal, kill_process};

use super::stage::{Place, Stage};

const FILES: usize = 900;

/// Deletes every third file.
fn delete_some(stage: &Stage) -> BTreeSet<usize> {
    let gone: BTreeSet<usize> = (0..FILES).filter(|number| number % 3 == 1).collect();
    let mount = stage.mount("");
    for number in &gone {
        let file = &stage.corpus.files[*number];
        fs::remove_file(mount.file(&file.day, &file.uid)).unwrap();
    }
    mount.unmount();
    gone
}

fn start(program: &mut Command) -> Child {
    program.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn ends_well(child: Child) {
    let outcome = child.wait_with_output().unwrap();
    assert!(outcome.status.success(), "{:?}", String::from_utf8_lossy(&outcome.stderr));
}

fn assert_all_in_one_live_shard(stage: &Stage, files: usize) {
    if let Place::Directory(archive) = &stage.place {
        assert_each_file_is_in_one_live_shard(archive, files);
    }
}

#[test]
fn two_at_once_swap_each_shard_once() {
    let stage = Stage::local(FILES, |_| false, &["--n-bits", "3"]);
    let gone = delete_some(&stage);

    let both = [start(&mut stage.repack()), start(&mut stage.repack())];
    for child in both {
        ends_well(child);
    }

    // Both make the same object of a shard, so that one finds done what it was about to do.
    let second: Vec<_> =
        stage.objects().into_iter().map(|(name, _)| name).filter(|name| name.contains("_R002")).collect();
    assert!(second.is_empty(), "{second:?}");
    stage.assert_shown_in(stage.mount("").path(), &gone);
    stage.collect_all();
    stage.assert_erased(&gone);
    assert_all_in_one_live_shard(&stage, FILES - gone.len());
}

#[test]
fn a_packer_beside_it_loses_nothing() {
    let mut stage = Stage::local(FILES, |_| false, &["--n-bits", "1"]);
    let gone = delete_some(&stage);
    let before = stage.corpus.files.len();
    for number in 0..200 {
        let (day, mark) = (["20240302", "20240303"][number % 2], des_tests::mark(before + number));
        stage.corpus.add(
            day,
            &format!("later-{number:04}"),
            format!("{mark} packed beside a repack").repeat(1 + number),
        );
    }
    let parts: Vec<_> = (0..4).map(|part| stage.corpus.part(before + part * 50..before + part * 50 + 50)).collect();
    let manifests: Vec<_> =
        parts.iter().zip(0..).map(|(part, number)| part.manifest(&format!("part-{number}"))).collect();

    let mut running = vec![start(&mut stage.repack())];
    for manifest in &manifests {
        running.push(start(stage.program("des-pack").arg("--input-json").arg(manifest)));
        running.push(start(&mut stage.repack()));
    }
    for child in running {
        ends_well(child);
    }

    stage.assert_shown_in(stage.mount("").path(), &gone);
    stage.repack_all();
    stage.collect_all();
    stage.assert_erased(&gone);
    assert_all_in_one_live_shard(&stage, before + 200 - gone.len());
}

#[test]
fn a_slow_reader_reads_on_over_a_swap_and_its_collection_or_is_told_that_it_is_stale() {
    for stage in [
        Stage::local(FILES, |_| false, &["--codec", "none", "--n-bits", "0"]),
        Stage::bucket(FILES, |_| false, &["--codec", "none", "--n-bits", "0"]),
    ] {
        // The largest file that stays, the largest that goes: each several frames long.
        let is_large = |number: &usize| number % 500 == 7;
        let [kept, lost] = [(0..FILES).find(is_large).unwrap(), (0..FILES).rfind(is_large).unwrap()];
        let mount = stage.mount("");
        let open = |number: usize| {
            let file = &stage.corpus.files[number];
            let mut open = File::open(mount.file(&file.day, &file.uid)).unwrap();
            let mut head = vec![0; 1_000];
            open.read_exact(&mut head).unwrap();
            assert_eq!(head, file.bytes[..1_000]);
            open
        };
        let (keeps, loses) = (open(kept), open(lost));
        let gone: BTreeSet<usize> =
            (0..FILES).filter(|number| number % 3 == 1 && *number != kept).chain([lost]).collect();
        for number in &gone {
            let file = &stage.corpus.files[*number];
            fs::remove_file(mount.file(&file.day, &file.uid)).unwrap();
        }

        stage.repack_all();
        stage.collect_all();

        // The end of the file: the kernel has not read so far ahead.
        let rest = |open: &File, number: usize| {
            let bytes = &stage.corpus.files[number].bytes;
            let mut read = vec![0; bytes.len() - 300_000];
            open.read_exact_at(&mut read, 300_000).map(|()| assert!(read == bytes[300_000..], "other bytes"))
        };
        rest(&keeps, kept).unwrap();
        let stale = rest(&loses, lost);
        assert!(stale.as_ref().is_ok() || stale.as_ref().unwrap_err().raw_os_error() == Some(116), "{stale:?}");
        stage.assert_shown_in(mount.path(), &gone);
        drop((keeps, loses));
        stage.assert_erased(&gone);
    }
}

#[test]
fn one_that_sleeps_past_the_grace_period_does_no_harm_when_it_wakes_up() {
    let random = SeededRandom::new(seed());
    for round in 0..3 {
        // In a bucket, where nobody holds a lock in his sleep.
        let stage = Stage::bucket(FILES, |_| false, &["--codec", "none", "--n-bits", "1"]);
        let gone = delete_some(&stage);
        // It is slow, so that it falls asleep amid a shard.
        let mut sleeper = stage.repack();
        sleeper.args(["--rate", "3M", "--jobs", "1"]);
        let sleeper = start(&mut sleeper);
        let pid = Pid::from_child(&sleeper);
        eventually(Duration::from_secs(30), "it has begun", || {
            let spooled = files_below(&stage.spool());
            spooled.iter().any(|name| name.extension().is_some_and(|one| one == "des"))
        });
        std::thread::sleep(Duration::from_millis(random.next() % 400));
        kill_process(pid, Signal::STOP).unwrap();

        stage.repack_all();
        stage.collect_all();
        stage.assert_shown_in(stage.mount("").path(), &gone);
        kill_process(pid, Signal::CONT).unwrap();

        // Others have come before it, or it had done its part. Where the shard that it was reading is gone it says so.
        let outcome = sleeper.wait_with_output().unwrap();
        let told = String::from_utf8_lossy(&outcome.stderr);
        assert!(matches!(outcome.status.code(), Some(0 | 1)), "round {round}: {told}");
        stage.assert_shown_in(stage.mount("").path(), &gone);
        stage.repack_all();
        stage.collect_all();
        stage.assert_erased(&gone);
    }
}

#[test]
fn a_collection_that_sleeps_between_proof_and_deletion_does_no_harm_when_it_wakes_up() {
    let random = SeededRandom::new(seed());
    for _ in 0..3 {
        let stage = Stage::bucket(FILES, |_| false, &["--codec", "none", "--n-bits", "3"]);
        let gone = delete_some(&stage);
        stage.repack_all();
        std::thread::sleep(Duration::from_millis(2_100));
        let sleeper = start(&mut stage.gc());
        let pid = Pid::from_child(&sleeper);
        std::thread::sleep(Duration::from_micros(random.next() % 400_000));
        kill_process(pid, Signal::STOP).unwrap();

        stage.repack_all();
        stage.collect_all();
        kill_process(pid, Signal::CONT).unwrap();

        // A request that was under way has timed out in its sleep, perhaps.
        let outcome = sleeper.wait_with_output().unwrap();
        let told = String::from_utf8_lossy(&outcome.stderr);
        assert!(matches!(outcome.status.code(), Some(0 | 1)), "{told}");
        stage.assert_shown_in(stage.mount("").path(), &gone);
        stage.collect_all();
        stage.assert_erased(&gone);
    }
}
