//! Adopted archives of the ancestor: what is deleted from them goes, and their shards become shards of the current version.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use des_tests::{Corpus, Mount, Outcome, command, contents, des_pack, eventually, golden, run, scratch};
use serde_json::Value;
use tempfile::TempDir;

use super::stage::{Stage, json, while_reading};

/// An archive of the ancestor that was adopted.
struct Adopted {
    archive: PathBuf,
    files: BTreeMap<PathBuf, Vec<u8>>,
    directory: TempDir,
}

impl Adopted {
    /// Adopts what `fill` puts into a directory.
    fn of(bits: &str, fill: impl FnOnce(&Path, &Path)) -> Self {
        let directory = scratch();
        let archive = directory.path().join("archive");
        fill(&archive, directory.path());
        run(command("des-verify").arg("--archive").arg(&archive).args(["--n-bits", bits, "--adopt"])).success();
        let files = contents(Mount::new(&archive, "").path());
        Self { archive, files, directory }
    }

    /// A day of a hundred files in sixteen shards.
    fn day() -> Self {
        Self::of("4", |archive, place| {
            let mut corpus = Corpus::new(&place.join("source"));
            for number in 0..100 {
                corpus.add("20240301", &format!("{number}"), format!("content {number}"));
            }
            let mut pack = des_pack(archive);
            run(pack.args(["--format", "2", "--n-bits", "4", "--input-json"]).arg(corpus.manifest("all"))).success();
        })
    }

    /// A shard that names large contents beside it.
    fn with_big_files() -> Self {
        Self::of("0", |archive, _| {
            run(command("cp").arg("-a").arg(golden("v2-bigfiles")).arg(archive)).success();
            fs::remove_file(archive.join("manifest.json")).unwrap();
            fs::rename(archive.join("shard.des"), archive.join("20240301_0_0000.des")).unwrap();
        })
    }

    fn program(&self, name: &str) -> Command {
        let mut program = command(name);
        program.arg("--archive").arg(&self.archive);
        program
    }

    fn delete(&self, files: impl IntoIterator<Item = PathBuf>) {
        let mount = Mount::new(&self.archive, "");
        for path in files {
            fs::remove_file(mount.path().join(path)).unwrap();
        }
        mount.unmount();
    }

    fn repack(&self) -> Outcome {
        run(self.program("des-repack").args(["--max-age", "0s", "--json"]))
    }

    /// Collects until nothing waits. What is held back: object and reason.
    fn collect(&self) -> Vec<(String, String)> {
        let mut gc = self.program("des-repack");
        gc.args(["gc", "--yes", "--grace", "1s", "--unsafe-short-grace", "--json"]);
        let mut report = Value::Null;
        eventually(Duration::from_mins(1), "nothing waits to be collected", || {
            report = json(&run(&mut gc).stdout);
            report["waiting"] == 0 && report["purged"] == 0
        });
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        report["held_back"].as_array().unwrap().iter().map(|one| (text(&one[0]), text(&one[1]))).collect()
    }

    fn flat_shards(&self) -> usize {
        let entries = fs::read_dir(&self.archive).unwrap().map(|entry| entry.unwrap().path());
        entries.filter(|path| path.extension().is_some_and(|one| one == "des")).count()
    }

    fn big_files(&self) -> usize {
        fs::read_dir(self.archive.join("_bigFiles")).map_or(0, Iterator::count)
    }

    fn assert_sound(&self) {
        run(self.program("des-verify").args(["--level", "content"])).success();
    }

    fn shown(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        contents(Mount::new(&self.archive, "").path())
    }
}

#[test]
fn what_is_deleted_from_an_adopted_archive_is_proven_to_be_gone() {
    let adopted = Adopted::day();
    let mut later = Corpus::new(&adopted.directory.path().join("later"));
    for number in 0..5 {
        // All of one group.
        later.add("20240301", &format!("{}", 1_000 + 16 * number), format!("packed later, {number}"));
    }
    run(adopted.program("des-pack").arg("--input-json").arg(later.manifest("more"))).success();
    adopted.delete(["20240301/17".into(), "20240301/1016".into()]);
    let before = adopted.shown();

    let report = json(&adopted.repack().success().stdout);

    let outcomes: Vec<_> = report["jobs"].as_array().unwrap().iter().map(|job| &job["outcome"]).collect();
    assert_eq!(outcomes, ["swapped", "swapped"], "{report}");
    assert_eq!(adopted.shown(), before);
    adopted.assert_sound();
    assert_eq!(adopted.collect(), []);
    assert_eq!(adopted.flat_shards(), 15);
    for uid in ["17", "1016"] {
        let status = run(adopted.program("des-tombstones").args(["status", uid, "20240301", "--json"])).success();
        assert!(status.stdout.contains("gone"), "{}", status.stdout);
    }
    assert_eq!(adopted.shown(), before);
    // What was in a flat shard can be packed again now: it is known to be the same.
    let mut again = Corpus::new(&adopted.directory.path().join("again"));
    again.add("20240301", "1", "content 1");
    let packed = run(adopted.program("des-pack").arg("--input-json").arg(again.manifest("again"))).success();
    assert!(packed.stdout.contains("1 present") || packed.stdout.contains("present    1"), "{}", packed.stdout);
}

#[test]
fn what_is_deleted_from_an_adopted_archive_in_a_bucket_is_in_no_version_of_any_object() {
    let doomed = |number: usize| number % 10 == 3;
    let stage = Stage::adopted_bucket(300, doomed);
    let gone: BTreeSet<usize> = (0..300).filter(|number| doomed(*number)).collect();
    let mount = stage.mount("");
    for number in &gone {
        let file = &stage.corpus.files[*number];
        fs::remove_file(mount.file(&file.day, &file.uid)).unwrap();
    }
    assert!(stage.search().has_phrase);

    let dropped = while_reading(&mount, stage.corpus.files.iter().skip(4).step_by(10), || stage.repack_all());
    assert_eq!(dropped, 30);
    stage.collect_all();

    stage.assert_erased(&gone);
    assert!(!stage.search().has_phrase);
}

#[test]
fn a_shard_of_the_ancestor_goes_when_all_of_its_files_are_deleted() {
    let adopted = Adopted::day();
    assert_eq!(adopted.flat_shards(), 16);
    // All of bucket 3.
    adopted.delete((0..100).filter(|number| number % 16 == 3).map(|number| format!("20240301/{number}").into()));

    let report = json(&adopted.repack().success().stdout);
    assert_eq!((&report["jobs"][0]["outcome"], &report["jobs"][0]["reason"]), (&"dropped".into(), &"empty".into()));
    assert_eq!(adopted.collect(), []);

    assert_eq!(adopted.flat_shards(), 15);
    assert_eq!(adopted.shown().len(), 100 - 7);
    adopted.assert_sound();
    // What is proven to be gone is a hash by now.
    let status = run(adopted.program("des-tombstones").args(["status", "3", "20240301", "--json"])).success();
    assert!(status.stdout.contains("gone"), "{}", status.stdout);
}

#[test]
fn all_are_converted_under_the_eyes_of_a_program_that_reads_on() {
    let adopted = Adopted::of("8", |archive, _| {
        run(command("cp").arg("-a").arg(golden("pack-nbits08")).arg(archive)).success();
        fs::remove_file(archive.join("manifest.json")).unwrap();
    });
    let flat = adopted.flat_shards();
    assert!(flat > 3, "{flat} flat shards");
    let mount = Mount::new(&adopted.archive, "");
    let (path, content) = adopted.files.iter().max_by_key(|(_, content)| content.len()).unwrap();
    let mut open = File::open(mount.path().join(path)).unwrap();

    let plan = run(adopted.program("des-repack").args(["--convert", "--dry-run"])).success();
    assert!(plan.stdout.contains("for convert") && adopted.flat_shards() == flat, "{}", plan.stdout);
    run(adopted.program("des-repack").arg("--convert")).success();

    assert_eq!(contents(mount.path()), adopted.files);
    assert_eq!(adopted.shown(), adopted.files);
    run(command("sh").arg("-c").arg(format!("kill -HUP {}", mount.daemon().as_raw_nonzero()))).success();
    let mut read = Vec::new();
    open.seek(SeekFrom::Start(0)).unwrap();
    open.read_to_end(&mut read).unwrap();
    assert!(read == *content, "what is open is read on");
    drop(open);
    mount.unmount();
    assert_eq!(adopted.collect(), []);
    assert_eq!(adopted.flat_shards(), 0);
    assert_eq!(adopted.shown(), adopted.files);
    adopted.assert_sound();
}

#[test]
fn what_the_ancestor_kept_beside_its_shards_goes_with_the_last_that_names_it() {
    let adopted = Adopted::with_big_files();
    let big = adopted.big_files();
    assert!(big > 0 && adopted.files.len() > big, "{big} of {}", adopted.files.len());
    let doomed = adopted.files.iter().max_by_key(|(_, content)| content.len()).unwrap().0.clone();
    adopted.delete([doomed.clone()]);
    let before = adopted.shown();

    adopted.repack().success();
    assert_eq!((adopted.shown(), adopted.big_files()), (before.clone(), big));
    assert_eq!(adopted.collect(), []);

    assert_eq!((adopted.flat_shards(), adopted.big_files()), (0, 0));
    assert_eq!(adopted.shown(), before);
    adopted.assert_sound();
}
