//! Several `des-pack` at once on one archive, with input that overlaps.

use std::path::PathBuf;
use std::process::Stdio;

use des_tests::{Corpus, Mount, Packed, assert_each_file_is_in_one_live_shard, des_pack, run, scratch};

/// Files of all inputs together.
const FILES: usize = 2_000;

fn race(inputs: &[std::ops::Range<usize>], seed: u64) {
    // The first archive is only there to know the corpus.
    let mut packed = Packed::of(|corpus| {
        corpus.add("20240301", "first", "first");
    });
    packed.corpus.add_random(seed, FILES - 1);
    let archive = packed.place().join("raced");
    let manifest = |(number, range): (usize, &std::ops::Range<usize>)| -> PathBuf {
        packed.corpus.part(range.clone()).manifest(&format!("part-{number}"))
    };
    let manifests: Vec<_> = inputs.iter().enumerate().map(manifest).collect();
    let start = |manifest: &PathBuf| {
        let mut pack = des_pack(&archive);
        pack.arg("--input-json").arg(manifest).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        pack.spawn().unwrap()
    };

    let racers: Vec<_> = manifests.iter().map(start).collect();

    for racer in racers {
        let outcome = racer.wait_with_output().unwrap();
        assert!(outcome.status.success(), "{:?}", String::from_utf8_lossy(&outcome.stderr));
    }
    packed.assert_shown_in(Mount::new(&archive, "").path(), &[]);
    // One more run, as after any interrupted one, cleans up what lost a race.
    for manifest in &manifests {
        run(des_pack(&archive).arg("--input-json").arg(manifest)).success();
    }
    packed.assert_shown_in(Mount::new(&archive, "").path(), &[]);
    assert_each_file_is_in_one_live_shard(&archive, FILES);
}

#[test]
fn two_at_once_pack_each_file_once() {
    for seed in 81..84 {
        race(&[0..1_400, 600..FILES], seed);
    }
}

#[test]
fn four_at_once_pack_each_file_once() {
    for seed in 85..87 {
        race(&[0..1_200, 300..1_500, 800..FILES, 0..FILES], seed);
    }
}

#[test]
fn workers_share_the_work_and_leave_nothing_out() {
    let place = scratch();
    let mut corpus = Corpus::new(&place.path().join("source"));
    corpus.add_random(88, 600);
    let manifest = corpus.manifest("all");
    let archive = place.path().join("archive");
    for worker in ["1/3", "2/3", "3/3"] {
        run(des_pack(&archive).args(["--n-bits", "6", "--worker", worker, "--input-json"]).arg(&manifest)).success();
    }

    assert_each_file_is_in_one_live_shard(&archive, 600);
    let mount = Mount::new(&archive, "");
    for file in &corpus.files {
        assert_eq!(std::fs::read(mount.file(&file.day, &file.uid)).unwrap(), file.bytes, "{}", file.uid);
    }
}

#[test]
fn a_dry_run_changes_nothing() {
    let place = scratch();
    let mut corpus = Corpus::new(&place.path().join("source"));
    corpus.add_random(89, 50);
    let archive = place.path().join("archive");

    let plan = run(des_pack(&archive).arg("--dry-run").arg("--input-json").arg(corpus.manifest("all"))).success();

    assert!(plan.stdout.contains("50"), "{plan:?}");
    assert!(!archive.join("des.json").try_exists().unwrap());
    assert!(des_tests::objects_below(&archive, "").is_empty());
}
