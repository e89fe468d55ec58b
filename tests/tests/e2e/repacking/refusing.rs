//! What `des-repack` refuses: stores without conditions, and what it cannot rewrite.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use des_tests::{
    ChaosProxy, Corpus, Fault, Kind, Mount, Outcome, Rule, Script, command, contents, des_pack, eventually, golden,
    run, s3_server, scratch,
};
use serde_json::Value;
use tempfile::TempDir;

use super::stage::json;

#[test]
fn a_bucket_that_ignores_conditions_is_neither_repacked_nor_collected_from() {
    let (place, directory) = (s3_server().place(), scratch());
    let mut corpus = Corpus::new(&directory.path().join("source"));
    for number in 0..20 {
        corpus.add("20240301", &format!("INV-{number}"), format!("content {number}"));
    }
    run(place.program("des-pack").arg("--input-json").arg(corpus.manifest("all")).args(["--n-bits", "0"])).success();
    run(place.program("des-tombstones").args(["add", "INV-3", "20240301", "--yes"])).success();
    let proxy = ChaosProxy::start(s3_server().endpoint(), Script::default());
    let through = place.through(&proxy.endpoint());
    for kinds in [&[Kind::Put][..], &[Kind::Put, Kind::CompleteUpload]] {
        proxy.follow(Script { rules: vec![Rule::always(Fault::IgnoreCondition).on(kinds)], ..Script::default() });
        for words in
            [&["--max-age", "0s"][..], &["gc", "--yes"], &["--rollback", "shards/20240301/20240301_0_0000.des"]]
        {
            proxy.take_seen();

            let refused = run(through.program("des-repack").args(words).arg("--spool").arg(directory.path())).exits(1);

            let reason = refused.one_line_of_reason();
            assert!(reason.contains("does not honour conditional writes") && reason.contains("nothing was changed"));
            let writes = |kind| matches!(kind, Kind::Put | Kind::Delete | Kind::DeleteMany | Kind::Part);
            let seen = proxy.take_seen();
            let touched: Vec<_> =
                seen.iter().filter(|seen| writes(seen.asked.kind)).map(|seen| &seen.asked.path).collect();
            assert!(touched.iter().all(|path| path.contains("/probe/")), "{touched:?}");
        }
    }
    // What only looks is let through, and what vouches for being alone does not exist here.
    let plan = run(through.program("des-repack").args(["--max-age", "0s", "--dry-run"])).success();
    assert!(plan.stdout.contains("would repack 1 shards"), "{}", plan.stdout);
    run(through.program("des-repack").arg("--single-writer")).exits(2);
}

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

    fn shown(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        contents(Mount::new(&self.archive, "").path())
    }
}

#[test]
fn a_shard_of_the_ancestor_is_not_rewritten_and_what_to_do_is_said() {
    let adopted = Adopted::day();
    let mut later = Corpus::new(&adopted.directory.path().join("later"));
    for number in 0..5 {
        // All of one group.
        later.add("20240301", &format!("{}", 1_000 + 16 * number), format!("packed later, {number}"));
    }
    run(adopted.program("des-pack").arg("--input-json").arg(later.manifest("more"))).success();
    adopted.delete(["20240301/17".into(), "20240301/1016".into()]);

    let refused = adopted.repack().exits(1);

    let told: Vec<_> = refused.stderr.lines().filter(|line| line.contains("shard of the ancestor")).collect();
    assert_eq!(told.len(), 1, "{}", refused.stderr);
    assert!(told[0].contains("1 of its") && told[0].contains("into a new archive"), "{told:?}");
    // It holds up nothing else: what was packed later is taken out.
    let report = json(&refused.stdout);
    assert_eq!(report["jobs"].as_array().unwrap().len(), 1, "{report}");
    assert_eq!(report["jobs"][0]["outcome"], "swapped", "{report}");
    assert_eq!(adopted.shown().len(), 100 + 5 - 2);
    run(adopted.program("des-verify").args(["--level", "content"])).success();
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
    run(adopted.program("des-verify").args(["--level", "content"])).success();
    // What is proven to be gone is a hash by now.
    let status = run(adopted.program("des-tombstones").args(["status", "3", "20240301", "--json"])).success();
    assert!(status.stdout.contains("gone"), "{}", status.stdout);
}

#[test]
fn contents_that_other_shards_may_share_are_named_until_somebody_has_taken_them_away() {
    let adopted = Adopted::with_big_files();
    adopted.delete(adopted.files.keys().cloned());
    adopted.repack().success();

    let held = adopted.collect();
    assert_eq!(held.len(), 1, "{held:?}");
    assert!(held[0].0 == "20240301_0_0000.des" && held[0].1.contains("is in _bigFiles/"), "{held:?}");
    assert_eq!(adopted.flat_shards(), 1);

    fs::remove_dir_all(adopted.archive.join("_bigFiles")).unwrap();
    assert_eq!(adopted.collect(), []);
    assert_eq!(adopted.flat_shards(), 0);
}
