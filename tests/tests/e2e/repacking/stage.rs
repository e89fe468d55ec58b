//! An archive of files with marks in them, in a directory or in a bucket that keeps versions, and what the tests do to it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use des_tests::{
    Corpus, Mount, SourceFile, VersionedBucket, command, des_pack, eventually, files_below, hiding_places, mark,
    marks_in, run, s3_server, scratch,
};
use serde_json::Value;
use tempfile::TempDir;

/// What stands in every file that is going to be deleted, and in no other.
pub(super) const PHRASE: &str = "the phrase that all who are to be forgotten have in common";

/// Where an archive lies.
pub(super) enum Place {
    Directory(PathBuf),
    Bucket(Box<VersionedBucket>),
}

/// An archive, and the files that were packed into it. File `N` has the uid `INV-N` and the mark `N`.
pub(super) struct Stage {
    pub(super) place: Place,
    pub(super) corpus: Corpus,
    directory: TempDir,
}

/// What a search has found.
pub(super) struct Found {
    pub(super) marks: BTreeSet<usize>,
    pub(super) has_phrase: bool,
}

impl Stage {
    /// Packs files into a directory. `doomed` says which are going to be deleted.
    pub(super) fn local(count: usize, doomed: impl Fn(usize) -> bool, pack: &[&str]) -> Self {
        let directory = scratch();
        let place = Place::Directory(directory.path().join("archive"));
        Self::packed(directory, place, (count, &doomed), pack)
    }

    /// The same in a bucket that keeps versions.
    pub(super) fn bucket(count: usize, doomed: impl Fn(usize) -> bool, pack: &[&str]) -> Self {
        Self::packed(scratch(), new_bucket(), (count, &doomed), pack)
    }

    /// The same as flat, uncompressed shards of the ancestor that were adopted.
    pub(super) fn adopted_bucket(count: usize, doomed: impl Fn(usize) -> bool) -> Self {
        let stage = Self::unpacked(scratch(), new_bucket(), (count, &doomed));
        let (flat, manifest) = (stage.scratch().join("flat"), stage.corpus.manifest("all"));
        let options = ["--format", "2", "--n-bits", "4", "--codec", "none", "--input-json"];
        run(des_pack(&flat).args(options).arg(manifest)).success();
        let Place::Bucket(bucket) = &stage.place else { panic!("it is a bucket") };
        bucket.place().fill(&flat);
        run(stage.program("des-verify").args(["--n-bits", "4", "--adopt"])).success();
        stage
    }

    fn unpacked(directory: TempDir, place: Place, (count, doomed): (usize, &dyn Fn(usize) -> bool)) -> Self {
        let mut corpus = Corpus::new(&directory.path().join("source"));
        for number in 0..count {
            let bytes = content(number, doomed(number));
            corpus.add(day_of(number, count), &format!("INV-{number:06}"), bytes);
        }
        let stage = Self { place, corpus, directory };
        fs::create_dir(stage.spool()).unwrap();
        stage
    }

    fn packed(directory: TempDir, place: Place, files: (usize, &dyn Fn(usize) -> bool), options: &[&str]) -> Self {
        let stage = Self::unpacked(directory, place, files);
        run(stage.program("des-pack").arg("--input-json").arg(stage.corpus.manifest("all")).args(options)).success();
        stage
    }

    /// A directory for whatever a test needs.
    pub(super) fn scratch(&self) -> &Path {
        self.directory.path()
    }

    /// A program on the archive.
    pub(super) fn program(&self, name: &str) -> Command {
        match &self.place {
            Place::Directory(path) => {
                let mut program = command(name);
                program.arg("--archive").arg(path);
                program
            }
            Place::Bucket(bucket) => bucket.place().program(name),
        }
    }

    /// `des-repack` of everything with a deletion in it, with a short grace period.
    pub(super) fn repack(&self) -> Command {
        let mut repack = self.program("des-repack");
        repack
            .args(["--max-age", "0s", "--grace", "1s", "--unsafe-short-grace", "--json", "--spool"])
            .arg(self.spool());
        repack
    }

    /// `des-repack gc` with a short grace period.
    pub(super) fn gc(&self) -> Command {
        let mut gc = self.program("des-repack");
        gc.args(["gc", "--yes", "--grace", "1s", "--unsafe-short-grace", "--json", "--spool"]).arg(self.spool());
        gc
    }

    pub(super) fn spool(&self) -> PathBuf {
        self.directory.path().join("spool")
    }

    /// Mounts it; deletions elsewhere are seen within a second.
    pub(super) fn mount(&self, more: &str) -> Mount {
        let options = format!("ttl=1s{more}");
        match &self.place {
            Place::Directory(path) => Mount::new(path, &options),
            Place::Bucket(bucket) => {
                Mount::new(Path::new(&bucket.place().uri), &format!("{},{options}", bucket.place().options()))
            }
        }
    }

    /// Repacks until nothing is left to be done, and says how many files were taken out.
    pub(super) fn repack_all(&self) -> u64 {
        let report = json(&run(&mut self.repack()).success().stdout);
        let jobs = report["jobs"].as_array().unwrap();
        jobs.iter().map(|job| job["files_dropped"].as_u64().unwrap()).sum()
    }

    /// Collects until nothing waits any more, and says how many objects went.
    pub(super) fn collect_all(&self) -> u64 {
        let mut purged = 0;
        eventually(Duration::from_mins(2), "nothing waits to be collected", || {
            let report = json(&run(&mut self.gc()).success().stdout);
            let count = |name: &str| report[name].as_u64().unwrap();
            purged += count("purged");
            count("waiting") + count("condemned") + count("purged") == 0
        });
        purged
    }

    /// Every object of the archive with its name: in a bucket every version of each.
    pub(super) fn objects(&self) -> Vec<(String, Bytes)> {
        match &self.place {
            Place::Directory(path) => {
                let read = |name: PathBuf| (name.display().to_string(), fs::read(path.join(&name)).unwrap().into());
                files_below(path).into_iter().map(read).collect()
            }
            Place::Bucket(bucket) => bucket.kept().versions,
        }
    }

    /// Searches every byte of the archive, and of the spool.
    pub(super) fn search(&self) -> Found {
        let spooled =
            files_below(&self.spool()).into_iter().map(|name| fs::read(self.spool().join(name)).unwrap().into());
        let objects = self.objects().into_iter().map(|(_, bytes)| bytes).chain(spooled);
        let mut found = Found { marks: BTreeSet::new(), has_phrase: false };
        for place in objects.flat_map(|object| hiding_places(&object)) {
            found.marks.extend(marks_in(&place));
            found.has_phrase |= holds(&place, PHRASE.as_bytes());
        }
        found
    }

    /// How many bytes all shards take, every version of each.
    pub(super) fn shard_bytes(&self) -> usize {
        let shards = self.objects().into_iter().filter(|(name, _)| name.contains("shards/"));
        shards.map(|(_, bytes)| bytes.len()).sum()
    }

    /// Asserts that the archive is sound, that a mount shows all files but some and nothing else, and that nothing of those
    /// is anywhere in it.
    #[track_caller]
    pub(super) fn assert_erased(&self, gone: &BTreeSet<usize>) {
        run(self.program("des-verify").args(["--level", "content"])).success();
        self.assert_shown_in(self.mount("").path(), gone);
        let found = self.search();
        let expected: BTreeSet<usize> = (0..self.corpus.files.len()).filter(|number| !gone.contains(number)).collect();
        let left: Vec<_> = found.marks.difference(&expected).collect();
        assert!(left.is_empty(), "contents of deleted files are left: {left:?}");
        assert_eq!(found.marks, expected);
    }

    /// Asserts that a mount shows all files but some, and nothing else.
    #[track_caller]
    pub(super) fn assert_shown_in(&self, mount: &Path, gone: &BTreeSet<usize>) {
        let gone: Vec<_> = gone.iter().map(|number| &self.corpus.files[*number]).collect();
        let gone: Vec<_> = gone.iter().map(|file| (file.day.as_str(), file.uid.as_str())).collect();
        self.corpus.assert_shown_in(mount, &gone);
    }
}

fn new_bucket() -> Place {
    static BUCKETS: AtomicU64 = AtomicU64::new(0);
    let name = format!("versioned-{}", BUCKETS.fetch_add(1, Ordering::Relaxed));
    Place::Bucket(Box::new(VersionedBucket::create(s3_server(), &name)))
}

/// Reads files again and again while something else is done, and compares each.
pub(super) fn while_reading<'f, T>(
    mount: &Mount,
    files: impl Iterator<Item = &'f SourceFile> + Clone + Send,
    act: impl FnOnce() -> T,
) -> T {
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            for file in files.cycle() {
                let read =
                    fs::read(mount.file(&file.day, &file.uid)).unwrap_or_else(|error| panic!("{}: {error}", file.uid));
                assert!(read == file.bytes, "{} reads wrong", file.uid);
                if is_over.load(Ordering::Relaxed) {
                    return;
                }
            }
        });
        let over = Over(&is_over);
        let outcome = act();
        drop(over);
        reader.join().unwrap();
        outcome
    })
}

/// Ends the readers, also when a test fails meanwhile.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The last report in what a program has said.
pub(super) fn json(stdout: &str) -> Value {
    serde_json::from_str(stdout.lines().last().unwrap()).unwrap()
}

pub(super) fn holds(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// A tenth of the files are of a day of their own.
pub(super) fn day_of(number: usize, count: usize) -> &'static str {
    match number * 10 / count.max(1) {
        0 => "20240301",
        1..=5 => "20240302",
        _ => "20240303",
    }
}

/// Text with the file's mark all over it. A few files are larger than a frame.
fn content(number: usize, is_doomed: bool) -> Vec<u8> {
    let own = if is_doomed { PHRASE } else { "a sentence of those who stay as long as the archive is there" };
    let line =
        format!("{} invoice {number} of a customer, {own}, {}\n", mark(number), number.wrapping_mul(2_654_435_761));
    let lines = if number % 500 == 7 { 12_000 } else { 1 + number * 7 % 60 };
    line.repeat(lines).into_bytes()
}

/// How much a test does: a number from the environment, or one for every day.
pub(super) fn amount(variable: &str, usual: usize) -> usize {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}
