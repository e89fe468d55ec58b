//! For tests: files that a test knows, manifests of them, and what an archive shows of them.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use desfmt::document::{self, DOCUMENT_LEN_MAX, Manifest};
use desfmt::layout;
use desfmt::v3::{PageNumber, ShardIndex};
use desstore::{
    Archive, Depth, MemoryStore, ObjectStore, Randomness, ReadOptions, SeededRandom, SystemClock, SystemRandom,
    list_all,
};

use crate::compression::{CodecChoice, Compression, Framing};
use crate::error::PackError;
use crate::input::Input;
use crate::limits;
use crate::pack::{Config, run};
use crate::plan::{ShardLimits, Share};
use crate::progress::Progress;
use crate::proof::Proof;
use crate::report::Report;
use crate::source::Sources;
use crate::source_time::TimeRules;

/// Day and uid, and the content.
pub(crate) type Contents = BTreeMap<(String, String), Vec<u8>>;

/// An empty store in memory.
pub(crate) fn memory() -> Arc<dyn ObjectStore> {
    Arc::new(MemoryStore::new(Arc::new(SystemClock::new())))
}

/// Bytes that nothing compresses.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    SeededRandom::new(seed).fill(&mut bytes);
    bytes
}

#[derive(Debug, Clone)]
struct KnownFile {
    day: String,
    uid: String,
    content: Vec<u8>,
    source: PathBuf,
}

/// Files in a directory of their own.
#[derive(Debug, Clone)]
pub(crate) struct World {
    place: Arc<tempfile::TempDir>,
    files: Vec<KnownFile>,
}

impl World {
    pub(crate) fn new() -> Self {
        Self { place: Arc::new(tempfile::tempdir().unwrap()), files: Vec::new() }
    }

    /// So many files of all kinds over three days.
    pub(crate) fn mixed(seed: u64, count: usize) -> Self {
        let random = SeededRandom::new(seed);
        let mut world = Self::new();
        for number in 0..count {
            let day = ["20240301", "20240302", "20240305"][usize::try_from(random.next() % 3).unwrap()];
            let uid = match random.next() % 4 {
                0 => format!("{}", 1_000 + number * 7),
                1 => format!("{:016x}", random.next()),
                2 => format!("invoices/2024/{number}.xml"),
                _ => format!("Ka\u{15b}ka {number} % ..\n"),
            };
            let len = usize::try_from(random.next() % 6_000).unwrap();
            let content = match random.next() % 4 {
                0 => noise(random.next(), len),
                1 => b"all the same".to_vec(),
                _ => format!("<invoice number=\"{number}\"><line/></invoice>\n").repeat(1 + len / 100).into_bytes(),
            };
            world.add(day, &uid, &content);
        }
        world
    }

    pub(crate) fn add(&mut self, day: &str, uid: &str, content: &[u8]) {
        let source = self.path(&format!("source-{}", self.files.len()));
        fs::write(&source, content).unwrap();
        self.files.push(KnownFile { day: day.to_owned(), uid: uid.to_owned(), content: content.to_vec(), source });
    }

    /// The same world with some of its files only.
    pub(crate) fn part(&self, range: Range<usize>) -> Self {
        Self { place: Arc::clone(&self.place), files: self.files[range].to_vec() }
    }

    pub(crate) fn count(&self) -> u64 {
        u64::try_from(self.files.len()).unwrap()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    /// Where the bytes of a uid come from.
    pub(crate) fn source(&self, uid: &str) -> PathBuf {
        self.files.iter().find(|file| file.uid == uid).unwrap().source.clone()
    }

    pub(crate) fn expected(&self) -> Contents {
        self.files.iter().map(|file| ((file.day.clone(), file.uid.clone()), file.content.clone())).collect()
    }

    /// Writes a manifest of all files.
    pub(crate) fn manifest(&self) -> PathBuf {
        let rows = self.files.iter().map(|file| {
            let (year, rest) = file.day.split_at(4);
            let (month, day) = rest.split_at(2);
            serde_json::json!({
                "uid": file.uid,
                "created_at": format!("{year}-{month}-{day}T12:00:00Z"),
                "size_bytes": file.content.len(),
                "source_path": file.source,
                "metadata": {"number": file.uid.len()},
            })
        });
        let rows: Vec<_> = rows.collect();
        let path = self.path(&format!("manifest-{:016x}.json", SystemRandom.next()));
        fs::write(&path, serde_json::to_vec(&rows).unwrap()).unwrap();
        path
    }

    pub(crate) fn config(&self) -> Config {
        Config {
            input: Input::Manifest { file: Some(self.manifest()) },
            times: TimeRules::default(),
            compression: Compression { choice: CodecChoice::Auto, level: 1 },
            framing: Framing::BySample,
            shard_limits: ShardLimits { bytes: limits::SHARD_BYTES, entries: limits::SHARD_ENTRIES },
            bits: None,
            share: Share::ALL,
            jobs: NonZeroUsize::new(2).unwrap(),
            dry_run: false,
            spool: self.path("spool"),
            report: None,
            spool_bytes: None,
            sources: Sources::default(),
            witness: None,
        }
    }

    pub(crate) async fn pack(&self, store: &Arc<dyn ObjectStore>) -> Result<Report, PackError> {
        self.pack_as(self.config(), store).await
    }

    pub(crate) async fn pack_as(&self, config: Config, store: &Arc<dyn ObjectStore>) -> Result<Report, PackError> {
        self.pack_when(Proof::given(), config, store).await
    }

    pub(crate) async fn pack_when(
        &self,
        proof: Proof,
        config: Config,
        store: &Arc<dyn ObjectStore>,
    ) -> Result<Report, PackError> {
        let (clock, random) = (Arc::new(SystemClock::new()), Arc::new(SystemRandom));
        Box::pin(run(config, (Arc::clone(store), proof), clock, random, Arc::new(Progress::default()))).await
    }

    pub(crate) async fn assert_one_live_shard_each(&self, store: &Arc<dyn ObjectStore>) {
        let mut shards: HashMap<(String, String), Vec<String>> = HashMap::new();
        for (name, shard) in entries(store).await {
            shards.entry(name).or_default().push(shard);
        }
        assert_eq!(shards.len(), self.files.len());
        let doubled: Vec<_> = shards.iter().filter(|(_, shards)| shards.len() != 1).collect();
        assert!(doubled.is_empty(), "{doubled:?}");
    }
}

/// All that an archive shows. Nothing where there is no archive.
pub(crate) async fn visible(store: &Arc<dyn ObjectStore>) -> Contents {
    if store.head(&layout::identity()).await.is_err() {
        return Contents::new();
    }
    shown(&*reader(store).await).await
}

/// A reader of an archive, with nothing cached.
pub(crate) async fn reader(store: &Arc<dyn ObjectStore>) -> Arc<Archive> {
    let (clock, random) = (Arc::new(SystemClock::new()), Arc::new(SystemRandom));
    Archive::open(Arc::clone(store), ReadOptions::default(), clock, random).await.unwrap()
}

/// All that an open archive shows.
pub(crate) async fn shown(archive: &Archive) -> Contents {
    let mut shown = Contents::new();
    for day in archive.days().await.unwrap().iter().copied() {
        let mut after = None;
        loop {
            let files = archive.list(day, after, 50).await.unwrap();
            let Some(last) = files.last() else { break };
            after = Some(last.birth);
            for file in files {
                let len = usize::try_from(file.len).unwrap();
                let content = archive.read(day, file.birth, 0, len).await.unwrap();
                assert_eq!(content.len(), len);
                shown.insert((day.to_string(), file.uid.to_string()), content.to_vec());
            }
        }
    }
    shown
}

/// Every entry of every live shard, with the key of the shard.
pub(crate) async fn entries(store: &Arc<dyn ObjectStore>) -> Vec<((String, String), String)> {
    let mut found = Vec::new();
    for object in list_all(store.as_ref(), layout::MANIFESTS, Depth::Recursive, 10_000).await.unwrap() {
        let manifest = store.get(&object.key, DOCUMENT_LEN_MAX).await.unwrap();
        let manifest: Manifest = document::decode(&manifest.bytes).unwrap();
        for shard in &manifest.shards {
            let object = store.get_tail(&shard.key, u64::MAX).await.unwrap();
            let index = ShardIndex::open(object.bytes.clone(), object.meta.len).unwrap();
            for number in (0..index.index_pages()).map(PageNumber) {
                let bytes: Bytes = index.resident_index_page(number).unwrap();
                let page = index.decode_index_page(number, &bytes).unwrap();
                let name = |uid: &str| (manifest.date.to_string(), uid.to_owned());
                found.extend(page.entries().map(|entry| (name(entry.uid.as_str()), shard.key.to_string())));
            }
        }
    }
    found.sort();
    found
}
