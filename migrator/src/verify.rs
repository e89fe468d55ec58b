//! The proof: every row of a batch is looked up and read back from the store, by a reader that has cached nothing, and
//! compared with what was read from its source.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use desfmt::{Date, Digest, Group, Timestamp, Uid};
use desstore::{
    Archive, ArchiveError, ArchiveWriter, Clock, FileEntry, ObjectStore, Randomness, ReadOptions, UidState,
};
use packer::{BeneathError, Sources};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::error::MigrateError;
use crate::ledger::{Account, Claimed, Ledger};
use crate::state::{Exception, Kind, Receipt, Stage, Tally};

/// Rows that are proven in one go.
const CHUNK_ROWS: usize = 1_024;

/// Chunks that wait for a prover.
const CHUNKS_AHEAD: usize = 2;

/// The most that is read at once.
const PIECE_BYTES: usize = 1 << 20;

/// What the reader may keep, in bytes.
const READER_BYTES: u64 = 32 << 20;

/// What is needed to read an archive.
#[derive(Debug, Clone)]
pub(crate) struct Reading {
    pub(crate) store: Arc<dyn ObjectStore>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) random: Arc<dyn Randomness>,
}

impl Reading {
    /// A reader that has seen nothing yet.
    pub(crate) async fn open(&self) -> Result<Arc<Archive>, ArchiveError> {
        let options = ReadOptions { memory_bytes: READER_BYTES, ..ReadOptions::default() };
        let (clock, random) = (Arc::clone(&self.clock), Arc::clone(&self.random));
        Archive::open(Arc::clone(&self.store), options, clock, random).await
    }

    /// True where a uid that is not visible was deleted.
    pub(crate) async fn is_deleted(&self, day: Date, uid: &Uid) -> Result<bool, ArchiveError> {
        let (clock, random) = (Arc::clone(&self.clock), Arc::clone(&self.random));
        let Some(writer) = ArchiveWriter::open(Arc::clone(&self.store), clock, random).await? else {
            return Ok(false);
        };
        let Ok(group) = Group::of(day, uid.as_str(), writer.identity().bits()) else { return Ok(false) };
        let survey = writer.survey(&group, std::slice::from_ref(uid)).await?;
        Ok(survey.states.first() == Some(&UidState::Deleted))
    }
}

/// The digest of a file as the archive gives it.
pub(crate) async fn read_back(archive: &Archive, day: Date, file: &FileEntry) -> Result<Digest, ArchiveError> {
    let mut hasher = blake3::Hasher::new();
    let mut offset = 0;
    while offset < file.len {
        let piece = archive.read(day, file.birth, offset, PIECE_BYTES).await?;
        if piece.is_empty() {
            break;
        }
        hasher.update(&piece);
        offset += u64::try_from(piece.len()).unwrap_or(u64::MAX);
    }
    Ok(hasher.finalize())
}

/// What was found of the rows of a day.
#[derive(Debug, Default)]
pub(crate) struct DayFound {
    pub(crate) tally: Tally,
    sums: Sums,
    shards: BTreeSet<String>,
}

/// Sums of hashes, so that the order of rows does not matter.
#[derive(Debug, Default, Clone, Copy)]
struct Sums {
    input: [u64; 4],
    uids: [u64; 4],
}

fn add_hash(sum: &mut [u64; 4], hash: &Digest) {
    let (words, _) = hash.as_bytes().as_chunks::<8>();
    for (sum, word) in sum.iter_mut().zip(words) {
        *sum = sum.wrapping_add(u64::from_le_bytes(*word));
    }
}

fn of_sum(sum: &[u64; 4]) -> [u8; 32] {
    let bytes: Vec<u8> = sum.iter().flat_map(|word| word.to_le_bytes()).collect();
    *blake3::hash(&bytes).as_bytes()
}

impl DayFound {
    fn prove(&mut self, account: &Account, digest: &Digest) {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&account.created_at.micros().to_le_bytes());
        hasher.update(&account.len.unwrap_or(0).to_le_bytes());
        hasher.update(digest.as_bytes());
        hasher.update(account.uid.as_bytes());
        add_hash(&mut self.sums.input, &hasher.finalize());
        add_hash(&mut self.sums.uids, &blake3::hash(account.uid.as_bytes()));
    }

    /// Adds what was found of other rows of the day.
    pub(crate) fn merge(&mut self, other: Self) {
        self.tally.add(&other.tally);
        for (sum, more) in [(&mut self.sums.input, other.sums.input), (&mut self.sums.uids, other.sums.uids)] {
            for (sum, more) in sum.iter_mut().zip(more) {
                *sum = sum.wrapping_add(more);
            }
        }
        self.shards.extend(other.shards);
    }

    /// The receipt, where something was proven.
    pub(crate) fn receipt(&self, day: Date) -> Option<Receipt> {
        let files = self.tally.packed.saturating_add(self.tally.present);
        (files > 0).then(|| Receipt {
            day,
            input_hash: of_sum(&self.sums.input),
            shards: self.shards.clone(),
            files,
            bytes: self.tally.bytes,
            uid_digest: of_sum(&self.sums.uids),
        })
    }
}

/// What was found of all rows.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) days: BTreeMap<Date, DayFound>,
}

impl Found {
    fn merge(&mut self, other: Self) {
        for (day, found) in other.days {
            self.days.entry(day).or_default().merge(found);
        }
    }

    /// Rows that have an account.
    pub(crate) fn accounted(&self) -> u64 {
        self.days.values().map(|day| day.tally.accounted()).sum()
    }
}

/// Where exceptions go, a few at a time, however many there are.
pub(crate) type Exceptions = mpsc::Sender<Vec<Exception>>;

/// Proves all rows of a ledger.
pub(crate) async fn verify(
    reading: &Reading,
    sources: &Sources,
    ledger: &Arc<Ledger>,
    exceptions: &Exceptions,
    stage: Stage,
) -> Result<Found, MigrateError> {
    let (chunks, wanted) = mpsc::channel::<Vec<Account>>(CHUNKS_AHEAD);
    let ledger = Arc::clone(ledger);
    let reader = tokio::task::spawn_blocking(move || {
        let mut accounts = ledger.read()?;
        loop {
            let chunk = accounts.next_chunk(CHUNK_ROWS)?;
            if chunk.is_empty() || chunks.blocking_send(chunk).is_err() {
                return Ok(());
            }
        }
    });
    let wanted = Arc::new(tokio::sync::Mutex::new(wanted));
    let provers = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let archive = match reading.open().await {
        Ok(archive) => Some(archive),
        // Nothing was packed, ever.
        Err(ArchiveError::Refused { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    let mut tasks: JoinSet<Result<Found, MigrateError>> = JoinSet::new();
    for _ in 0..provers {
        let prover = Prover {
            reading: reading.clone(),
            archive: archive.clone(),
            sources: sources.clone(),
            exceptions: exceptions.clone(),
            stage,
        };
        tasks.spawn(prover.run(Arc::clone(&wanted)));
    }
    drop(wanted);
    let mut found = Found::default();
    while let Some(ended) = tasks.join_next().await {
        found.merge(ended.map_err(MigrateError::died)??);
    }
    let read: Result<(), std::io::Error> = reader.await.map_err(MigrateError::died)?;
    read.map_err(MigrateError::disk("reading the ledger"))?;
    Ok(found)
}

/// Proves chunks of rows.
struct Prover {
    reading: Reading,
    archive: Option<Arc<Archive>>,
    sources: Sources,
    exceptions: Exceptions,
    stage: Stage,
}

/// What is true of a row.
enum Truth {
    /// It is readable, with this content.
    Proven(Digest),
    Deleted,
    Exception(Kind, String),
}

impl Prover {
    async fn run(self, wanted: Arc<tokio::sync::Mutex<mpsc::Receiver<Vec<Account>>>>) -> Result<Found, MigrateError> {
        let mut found = Found::default();
        loop {
            let chunk = wanted.lock().await.recv().await;
            let Some(chunk) = chunk else { return Ok(found) };
            let mut exceptions = Vec::new();
            for account in chunk {
                let truth = self.truth(&account).await?;
                let day = found.days.entry(account.day).or_default();
                match truth {
                    Truth::Proven(digest) => {
                        day.prove(&account, &digest);
                        if let Claimed::Packed(_, shard) = &account.claimed {
                            day.tally.packed += 1;
                            day.tally.bytes = day.tally.bytes.saturating_add(account.len.unwrap_or(0));
                            if !day.shards.contains(shard) {
                                day.shards.insert(shard.clone());
                            }
                        } else {
                            day.tally.present += 1;
                        }
                    }
                    Truth::Deleted => day.tally.deleted += 1,
                    Truth::Exception(kind, reason) => {
                        day.tally.exceptions += 1;
                        exceptions.push(self.exception(account, kind, reason));
                    }
                }
            }
            if !exceptions.is_empty() && self.exceptions.send(exceptions).await.is_err() {
                // Whoever takes them has failed, and tells why.
                return Ok(found);
            }
        }
    }

    fn exception(&self, account: Account, kind: Kind, reason: String) -> Exception {
        let (uid, source, stage) = (account.uid, account.source, self.stage);
        let (created_at, day) = (Some(account.created_at), Some(account.day));
        Exception { uid, created_at, day, stage, kind, reason, source, rows: 1 }
    }

    async fn truth(&self, account: &Account) -> Result<Truth, MigrateError> {
        match &account.claimed {
            Claimed::Packed(digest, _) | Claimed::Present(digest) => match self.content(account).await? {
                Some(found) if found == *digest => Ok(Truth::Proven(found)),
                Some(_) => {
                    let reason = "it reads back with other content than its source had".to_owned();
                    Ok(Truth::Exception(Kind::Unproven, reason))
                }
                None if self.is_deleted(account).await? => Ok(Truth::Deleted),
                None => {
                    let reason = "it was packed and is not found".to_owned();
                    Ok(Truth::Exception(Kind::Unproven, reason))
                }
            },
            Claimed::Deleted => Ok(Truth::Deleted),
            Claimed::Failed(kind, reason) => {
                if *kind == Kind::File
                    && self.is_missing(&account.source)
                    && let Some(digest) = self.content(account).await?
                {
                    // Its source was removed after it had been moved, and the mark was lost.
                    return Ok(Truth::Proven(digest));
                }
                Ok(Truth::Exception(*kind, reason.clone()))
            }
        }
    }

    fn is_missing(&self, source: &str) -> bool {
        match &self.sources.roots {
            Some(roots) => matches!(roots.open_file(Path::new(source)), Err(BeneathError::Missing)),
            None => matches!(Path::new(source).try_exists(), Ok(false)),
        }
    }

    /// The content of a row's file as the archive gives it, where it has one of that length.
    async fn content(&self, account: &Account) -> Result<Option<Digest>, MigrateError> {
        let Some(archive) = &self.archive else { return Ok(None) };
        let Ok(uid) = Uid::new(account.uid.as_str()) else { return Ok(None) };
        let Some(file) = archive.lookup(account.day, &uid).await? else { return Ok(None) };
        if account.len.is_some_and(|len| len != file.len) {
            return Ok(None);
        }
        Ok(Some(read_back(archive, account.day, &file).await?))
    }

    async fn is_deleted(&self, account: &Account) -> Result<bool, MigrateError> {
        let Ok(uid) = Uid::new(account.uid.as_str()) else { return Ok(false) };
        Ok(self.reading.is_deleted(account.day, &uid).await?)
    }
}

/// An exception that stands for rows that nobody can name.
pub(crate) fn unnamed(created_at: Option<Timestamp>, rows: u64, reason: String) -> Exception {
    Exception {
        uid: String::new(),
        created_at,
        day: created_at.and_then(Date::of),
        stage: Stage::Migrate,
        kind: Kind::Row,
        reason,
        source: String::new(),
        rows,
    }
}
