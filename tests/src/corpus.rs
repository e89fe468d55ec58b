//! Small sets of files to pack, made for one test from a seed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use desstore::{Randomness, SeededRandom, SystemRandom};
use serde_json::json;

use crate::{contents, shown_name};

/// One file to pack.
#[derive(Debug, Clone)]
pub struct SourceFile {
    /// Its name within its day.
    pub uid: String,
    /// Its day, `YYYYMMDD`.
    pub day: String,
    /// What is in it.
    pub bytes: Vec<u8>,
    /// Where it lies.
    pub path: PathBuf,
}

/// Files on disk, and what is in them.
#[derive(Debug, Clone)]
pub struct Corpus {
    directory: PathBuf,
    /// The files.
    pub files: Vec<SourceFile>,
}

impl Corpus {
    /// An empty corpus in a directory, which is made.
    pub fn new(directory: &Path) -> Self {
        fs::create_dir_all(directory).expect("directory of a corpus");
        Self { directory: directory.to_path_buf(), files: Vec::new() }
    }

    /// Adds one file.
    pub fn add(&mut self, day: &str, uid: &str, bytes: impl Into<Vec<u8>>) -> &SourceFile {
        let path = self.directory.join(format!("{:06}", self.files.len()));
        let file = SourceFile { uid: uid.to_owned(), day: day.to_owned(), bytes: bytes.into(), path };
        fs::write(&file.path, &file.bytes).expect("file of a corpus");
        self.files.push(file);
        self.files.last().expect("just added")
    }

    /// Adds files of text and noise, empty to some 20 KiB, over three days.
    pub fn add_random(&mut self, seed: u64, count: usize) {
        let random = SeededRandom::new(seed);
        for number in self.files.len()..self.files.len() + count {
            let day = ["20240301", "20240302", "20240303"][below(&random, 3)];
            let uid = match below(&random, 3) {
                0 => format!("{}", 10_000_000 + number * 7),
                1 => format!("{:016x}-{number}", random.next()),
                _ => format!("inbox/{day}/mail-{number:06}.txt"),
            };
            let len = [0, 40, 600, 4_000, 20_000][below(&random, 5)];
            let len = if len == 0 { 0 } else { below(&random, len) };
            let mut bytes = vec![0; len];
            if below(&random, 3) == 0 {
                random.fill(&mut bytes);
            } else {
                for (index, byte) in bytes.iter_mut().enumerate() {
                    *byte = b"invoice number date total amount due \n"[(index * 7 + index / 11 + number) % 38];
                }
            }
            self.add(day, &uid, bytes);
        }
    }

    /// Some of its files, for a manifest of their own.
    pub fn part(&self, range: std::ops::Range<usize>) -> Self {
        Self { directory: self.directory.clone(), files: self.files[range].to_vec() }
    }

    /// Writes a manifest, a JSON array as the ancestor's.
    pub fn manifest(&self, name: &str) -> PathBuf {
        let rows: Vec<_> = self.files.iter().map(SourceFile::row).collect();
        let path = self.directory.join(format!("{name}.json"));
        fs::write(&path, serde_json::to_vec(&rows).expect("rows of a manifest")).expect("manifest");
        path
    }

    /// What must be found in an archive, by day and uid.
    pub fn expected(&self) -> BTreeMap<(String, String), Vec<u8>> {
        self.files.iter().map(|file| ((file.day.clone(), file.uid.clone()), file.bytes.clone())).collect()
    }

    /// Asserts that a mount shows the corpus, all of it and nothing else, but for files that are gone.
    #[track_caller]
    pub fn assert_shown_in(&self, mount: &Path, gone: &[(&str, &str)]) {
        let mut expected = BTreeMap::new();
        for ((day, uid), bytes) in self.expected() {
            if !gone.contains(&(day.as_str(), uid.as_str())) {
                expected.insert(Path::new(&day).join(shown_name(&uid)), bytes);
            }
        }
        let found = contents(mount);
        let missing: Vec<_> = expected.keys().filter(|path| !found.contains_key(*path)).collect();
        let surplus: Vec<_> = found.keys().filter(|path| !expected.contains_key(*path)).collect();
        assert!(missing.is_empty() && surplus.is_empty(), "missing: {missing:?}\nnot expected: {surplus:?}");
        let different: Vec<_> = expected.iter().filter(|(path, bytes)| found[*path] != **bytes).collect();
        assert!(
            different.is_empty(),
            "wrong bytes in {:?}",
            different.iter().map(|(path, _)| path).collect::<Vec<_>>()
        );
    }
}

impl SourceFile {
    /// The time that it is said to be from: noon of its day.
    pub fn created_at(&self) -> String {
        let (year, month, day) = (&self.day[..4], &self.day[4..6], &self.day[6..]);
        format!("{year}-{month}-{day}T12:00:00Z")
    }

    /// Its row in a manifest.
    pub fn row(&self) -> serde_json::Value {
        json!({
            "uid": self.uid,
            "created_at": self.created_at(),
            "size_bytes": self.bytes.len(),
            "source_path": self.path,
        })
    }
}

/// The seed of a random test: a new one for every run, printed, or the one in `DES_TEST_SEED`.
pub fn seed() -> u64 {
    let given = std::env::var("DES_TEST_SEED").ok().and_then(|text| text.parse().ok());
    let seed = given.unwrap_or_else(|| SystemRandom.next() % 1_000_000_000);
    println!("seed {seed}; DES_TEST_SEED={seed} draws the same again");
    seed
}

/// A number below a bound.
fn below(random: &SeededRandom, bound: usize) -> usize {
    let bound = u64::try_from(bound).expect("a small number");
    usize::try_from(random.next() % bound).expect("a small number")
}
