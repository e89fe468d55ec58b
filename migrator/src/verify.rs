//! The proof: every row of a batch is looked up and read back from the store, by a reader of its own, and compared with what
//! was read from its source.
//!
//! It goes on beside the packing, shard by shard as they are published. What cannot be proven then is looked at once more
//! when everything is packed, by a reader that knows nothing; only that decides against a row.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use desfmt::{Date, Digest, Group, Timestamp, Uid};
use desstore::{
    Archive, ArchiveError, ArchiveWriter, Clock, FileEntry, ObjectStore, Randomness, ReadOptions, UidState,
};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::error::MigrateError;
use crate::found::Found;
use crate::ledger::{Account, Claimed, Ledger};
use crate::migrator::{Migrator, blocking};
use crate::rows::Key;
use crate::state::{Exception, Kind, Stage};

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
    pub(crate) store_is_near: bool,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) random: Arc<dyn Randomness>,
}

impl Reading {
    /// A reader that has seen nothing yet.
    pub(crate) async fn open(&self) -> Result<Arc<Archive>, ArchiveError> {
        let store_is_near = self.store_is_near;
        let options = ReadOptions { memory_bytes: READER_BYTES, store_is_near, ..ReadOptions::default() };
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

/// Where exceptions go, a few at a time, however many there are.
pub(crate) type Exceptions = mpsc::Sender<Vec<Exception>>;

/// Proves the rows of a ledger, and marks them in the source table where that is wanted.
#[derive(Debug, Clone)]
pub(crate) struct Verifier {
    pub(crate) migrator: Migrator,
    pub(crate) exceptions: Exceptions,
    pub(crate) stage: Stage,
}

impl Verifier {
    /// Proves what can be proven while the ledger is being written, until it ends. The rest goes into another ledger.
    pub(crate) async fn prove(self, ledger: Arc<Ledger>, rest: Arc<Ledger>) -> Result<Found, MigrateError> {
        self.go_through(&ledger, Some(rest)).await
    }

    /// Decides what is true of every row of a ledger that has ended.
    pub(crate) async fn decide(self, ledger: Arc<Ledger>) -> Result<Found, MigrateError> {
        self.go_through(&ledger, None).await
    }

    async fn go_through(self, ledger: &Arc<Ledger>, rest: Option<Arc<Ledger>>) -> Result<Found, MigrateError> {
        let (chunks, wanted) = mpsc::channel::<Vec<Account>>(CHUNKS_AHEAD);
        let mut accounts = ledger.read().map_err(MigrateError::disk("reading the ledger"))?;
        let reader = tokio::task::spawn_blocking(move || {
            loop {
                let chunk = accounts.next_chunk(CHUNK_ROWS)?;
                if chunk.is_empty() || chunks.blocking_send(chunk).is_err() {
                    return Ok(());
                }
            }
        });
        let wanted = Arc::new(tokio::sync::Mutex::new(wanted));
        let archive = Arc::new(FreshArchive::new(self.migrator.reading()));
        let provers = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let mut tasks: JoinSet<Result<Found, MigrateError>> = JoinSet::new();
        for _ in 0..provers {
            let prover = Prover { verifier: self.clone(), archive: Arc::clone(&archive), rest: rest.clone() };
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
}

/// An archive that is opened when it is there, and forgets what it knows whenever there is a shard that it cannot know.
#[derive(Debug)]
struct FreshArchive {
    reading: Reading,
    opened: tokio::sync::Mutex<Option<Arc<Archive>>>,
    shards: Mutex<BTreeSet<String>>,
}

impl FreshArchive {
    fn new(reading: Reading) -> Self {
        Self { reading, opened: tokio::sync::Mutex::default(), shards: Mutex::default() }
    }

    /// The archive with at least those shards that some rows are said to be in; none where nothing was packed, ever.
    async fn with(&self, rows: &[Account]) -> Result<Option<Arc<Archive>>, ArchiveError> {
        let has_more = {
            let mut shards = self.shards.lock().unwrap_or_else(PoisonError::into_inner);
            let before = shards.len();
            for row in rows {
                if let Claimed::Packed(_, shard) = &row.claimed
                    && !shards.contains(shard)
                {
                    shards.insert(shard.clone());
                }
            }
            shards.len() > before
        };
        let mut opened = self.opened.lock().await;
        match &*opened {
            Some(archive) => {
                if has_more {
                    archive.drop_caches();
                }
            }
            None => match self.reading.open().await {
                Ok(archive) => *opened = Some(archive),
                Err(ArchiveError::Refused { .. }) => {}
                Err(error) => return Err(error),
            },
        }
        Ok(opened.clone())
    }
}

/// Proves chunks of rows.
struct Prover {
    verifier: Verifier,
    archive: Arc<FreshArchive>,
    /// Where rows go that are not proven now; none where that is decided now.
    rest: Option<Arc<Ledger>>,
}

/// What is true of a row.
enum Truth {
    /// It is readable, with this content.
    Proven(Digest),
    Deleted,
    Exception(Kind, String),
    /// It is to be looked at again.
    Open,
}

impl Prover {
    async fn run(self, wanted: Arc<tokio::sync::Mutex<mpsc::Receiver<Vec<Account>>>>) -> Result<Found, MigrateError> {
        let mut found = Found::default();
        loop {
            let chunk = wanted.lock().await.recv().await;
            let Some(chunk) = chunk else { return Ok(found) };
            let archive = self.archive.with(&chunk).await?;
            let (mut proven, mut exceptions) = (Vec::new(), Vec::new());
            for account in chunk {
                let truth = self.truth(archive.as_deref(), &account).await?;
                let day = found.days.entry(account.day).or_default();
                match truth {
                    Truth::Proven(digest) => {
                        day.prove(&account, &digest);
                        if self.verifier.migrator.plan.mark_archived {
                            proven.push(Key { created_at: account.created_at, uid: account.uid });
                        }
                    }
                    Truth::Deleted => day.tally.deleted += 1,
                    Truth::Exception(kind, reason) => {
                        day.tally.exceptions += 1;
                        exceptions.push(self.verifier.exception(account, kind, reason));
                    }
                    Truth::Open => {}
                }
            }
            if !proven.is_empty() {
                self.verifier.migrator.ask_source(move |source| source.mark_archived(&proven)).await?;
            }
            if !exceptions.is_empty() && self.verifier.exceptions.send(exceptions).await.is_err() {
                // Whoever takes them has failed, and tells why.
                return Ok(found);
            }
        }
    }

    async fn truth(&self, archive: Option<&Archive>, account: &Account) -> Result<Truth, MigrateError> {
        let Some(rest) = &self.rest else { return self.verifier.decide_one(archive, account).await };
        if let Claimed::Packed(digest, _) | Claimed::Present(digest) = &account.claimed
            && content(archive, account).await? == Some(*digest)
        {
            return Ok(Truth::Proven(*digest));
        }
        rest.push(account).map_err(MigrateError::disk("noting a row in the spool"))?;
        Ok(Truth::Open)
    }
}

impl Verifier {
    /// What is true of a row, once and for all.
    async fn decide_one(&self, archive: Option<&Archive>, account: &Account) -> Result<Truth, MigrateError> {
        match &account.claimed {
            Claimed::Packed(digest, _) | Claimed::Present(digest) => match content(archive, account).await? {
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
                    && self.is_missing(&account.source).await?
                    && let Some(digest) = content(archive, account).await?
                {
                    // Its source was removed after it had been moved, and the mark was lost.
                    return Ok(Truth::Proven(digest));
                }
                Ok(Truth::Exception(*kind, reason.clone()))
            }
        }
    }

    fn exception(&self, account: Account, kind: Kind, reason: String) -> Exception {
        let (uid, source, stage) = (account.uid, account.source, self.stage);
        let (created_at, day) = (Some(account.created_at), Some(account.day));
        Exception { uid, created_at, day, stage, kind, reason, source, rows: 1 }
    }

    async fn is_missing(&self, source: &str) -> Result<bool, MigrateError> {
        let (sources, source) = (self.migrator.sources.clone(), PathBuf::from(source));
        blocking(move || sources.is_missing(&source)).await
    }

    async fn is_deleted(&self, account: &Account) -> Result<bool, MigrateError> {
        let Ok(uid) = Uid::new(account.uid.as_str()) else { return Ok(false) };
        Ok(self.migrator.reading().is_deleted(account.day, &uid).await?)
    }
}

/// The content of a row's file as the archive gives it, where it has one of that length.
async fn content(archive: Option<&Archive>, account: &Account) -> Result<Option<Digest>, MigrateError> {
    let Some(archive) = archive else { return Ok(None) };
    let Ok(uid) = Uid::new(account.uid.as_str()) else { return Ok(None) };
    let Some(file) = archive.lookup(account.day, &uid).await? else { return Ok(None) };
    if account.len.is_some_and(|len| len != file.len) {
        return Ok(None);
    }
    Ok(Some(read_back(archive, account.day, &file).await?))
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
