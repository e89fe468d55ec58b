//! A table, tables of state and a world of files, all in memory or in a temporary directory, that fail when told to.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use desfmt::{BucketBits, Date, Timestamp};
use desstore::fault::Phase;
use desstore::observe::Registry;
use desstore::{Archive, Clock, MemoryStore, ObjectStore, ReadOptions, SystemClock, SystemRandom};
use packer::{CodecChoice, Compression, Framing, Roots, ShardLimits, Sources, limits};

use crate::days::{Window, end_of};
use crate::error::DatabaseError;
use crate::migrator::{Migrator, PackSettings, Plan};
use crate::rows::{DayVolume, Key, Nameless, RowSource, SourceRow, TakePage, Which};
use crate::state::{
    Claim, Claims, Cleaned, Cutoff, DayMark, Exception, ListedException, Marked, Receipt, Selection, Stage, StateStore,
};
use crate::{MigrationMetrics, Progress};

/// A clock on which short waits are over at once, and long ones never.
#[derive(Debug)]
struct QuickClock(SystemClock);

#[async_trait::async_trait]
impl Clock for QuickClock {
    fn now(&self) -> Timestamp {
        self.0.now()
    }

    fn monotonic(&self) -> Duration {
        self.0.monotonic()
    }

    async fn sleep(&self, duration: Duration) {
        if duration >= Duration::from_mins(1) {
            std::future::pending::<()>().await;
        }
        tokio::task::yield_now().await;
    }
}

/// Rows in memory.
#[derive(Debug)]
pub(super) struct FakeRows {
    pub(super) rows: Mutex<Vec<SourceRow>>,
    /// The uids of those that are marked.
    pub(super) archived: Mutex<BTreeSet<String>>,
    now: Timestamp,
}

impl RowSource for FakeRows {
    fn now(&self) -> Result<Timestamp, DatabaseError> {
        Ok(self.now)
    }

    fn first(&self, window: Window) -> Result<Option<Timestamp>, DatabaseError> {
        let rows = self.rows.lock().unwrap();
        Ok(rows.iter().map(|row| row.created_at).filter(|time| window.has(*time)).min())
    }

    fn scan(&self, window: Window, which: Which, after: Option<Key>, take: TakePage<'_>) -> Result<(), DatabaseError> {
        let mut rows = self.rows.lock().unwrap().clone();
        rows.sort_by(|a, b| (a.created_at, &a.uid).cmp(&(b.created_at, &b.uid)));
        rows.retain(|row| window.has(row.created_at));
        let archived = self.archived.lock().unwrap().clone();
        rows.retain(|row| which == Which::All || !archived.contains(&row.uid));
        rows.retain(|row| after.as_ref().is_none_or(|key| (row.created_at, &row.uid) > (key.created_at, &key.uid)));
        for page in rows.chunks(2) {
            if take(page.to_vec()) == ControlFlow::Break(()) {
                break;
            }
        }
        Ok(())
    }

    fn nameless(&self, _window: Window) -> Result<Vec<Nameless>, DatabaseError> {
        Ok(Vec::new())
    }

    fn undated(&self) -> Result<u64, DatabaseError> {
        Ok(0)
    }

    fn estimate(&self, _window: Window) -> Result<u64, DatabaseError> {
        Ok(0)
    }

    fn volumes(&self, _window: Window, _bounds: &[u64]) -> Result<Vec<DayVolume>, DatabaseError> {
        Ok(Vec::new())
    }

    fn mark_archived(&self, rows: &[Key]) -> Result<(), DatabaseError> {
        self.archived.lock().unwrap().extend(rows.iter().map(|key| key.uid.clone()));
        Ok(())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DayState {
    Open,
    Claimed,
    Blocked,
    Finished,
}

/// What an exception is about: a row, and where it went wrong.
type Subject = (String, Option<Timestamp>, Stage);

#[derive(Debug, Clone, Default)]
struct Tables {
    archived_until: Option<Timestamp>,
    planned_until: Option<Timestamp>,
    archive: Option<String>,
    days: BTreeMap<Date, (Option<DayState>, i64)>,
    exceptions: BTreeMap<Subject, (Exception, i64, bool)>,
    receipts: Vec<Receipt>,
    cleaned: BTreeMap<Date, Option<Cleaned>>,
    calls: u64,
    crash: Option<(u64, Phase)>,
    is_dead: bool,
}

/// State in memory. Claims need no names here: a process that died is followed by the next one.
#[derive(Debug, Default)]
pub(super) struct FakeState(Mutex<Tables>);

impl FakeState {
    pub(super) fn crash_at(&self, call: u64, phase: Phase) {
        self.0.lock().unwrap().crash = Some((call, phase));
    }

    pub(super) fn revive(&self) {
        let mut tables = self.0.lock().unwrap();
        tables.crash = None;
        tables.is_dead = false;
    }

    pub(super) fn kill(&self) {
        self.0.lock().unwrap().is_dead = true;
    }

    pub(super) fn calls(&self) -> u64 {
        self.0.lock().unwrap().calls
    }

    pub(super) fn archived_until(&self) -> Option<Timestamp> {
        self.0.lock().unwrap().archived_until
    }

    /// Forgets the last marks, as a standby that lost its tail.
    pub(super) fn set_back(&self, to: Date) {
        let mut tables = self.0.lock().unwrap();
        tables.archived_until = Some(to.start());
        tables.planned_until = Some(to.start());
        tables.days.retain(|day, _| *day < to);
        tables.receipts.retain(|receipt| receipt.day < to);
    }

    /// Another worker takes all days.
    pub(super) fn steal(&self) {
        for (state, epoch) in self.0.lock().unwrap().days.values_mut() {
            if *state == Some(DayState::Claimed) {
                *epoch += 1;
            }
        }
    }

    pub(super) fn excepted_uids(&self) -> BTreeSet<String> {
        self.0.lock().unwrap().exceptions.keys().map(|(uid, ..)| uid.clone()).collect()
    }

    fn call<T>(&self, run: impl FnOnce(&mut Tables) -> T) -> Result<T, DatabaseError> {
        let mut tables = self.0.lock().unwrap();
        let refused = || DatabaseError::Refused { doing: "a call of a dead process", source: "dead".into() };
        if tables.is_dead {
            return Err(refused());
        }
        let number = tables.calls;
        tables.calls += 1;
        match tables.crash.filter(|(at, _)| *at == number) {
            None => Ok(run(&mut tables)),
            Some((_, Phase::Before)) => {
                tables.is_dead = true;
                Err(refused())
            }
            Some((_, Phase::After)) => {
                drop(run(&mut tables));
                tables.is_dead = true;
                Err(refused())
            }
            Some((_, Phase::AckLost)) => {
                drop(run(&mut tables));
                Err(DatabaseError::Away { doing: "a commit", source: "the acknowledgement is lost".into() })
            }
        }
    }
}

impl Tables {
    fn advance(&mut self) {
        let unfinished = |(_, (state, _)): &(&Date, &(Option<DayState>, i64))| *state != Some(DayState::Finished);
        let first = self.days.iter().find(unfinished).map(|(day, _)| day.start());
        let until = self.planned_until.map(|planned| first.map_or(planned, |first| first.min(planned)));
        self.archived_until = self.archived_until.max(until);
    }

    fn is_blocked(&self, day: Date) -> bool {
        self.exceptions.values().any(|(one, _, acked)| one.day == Some(day) && one.stage == Stage::Migrate && !acked)
    }
}

impl StateStore for FakeState {
    fn cutoff(&self) -> Result<Cutoff, DatabaseError> {
        self.call(|tables| Cutoff {
            archived_until: tables.archived_until,
            planned_until: tables.planned_until,
            lag_days: 7,
            archive: tables.archive.clone(),
        })
    }

    fn bind(&self, archive: &str) -> Result<bool, DatabaseError> {
        self.call(|tables| tables.archive.get_or_insert_with(|| archive.to_owned()) == archive)
    }

    fn hold_name(&self, _worker: &str) -> Result<bool, DatabaseError> {
        self.call(|_| true)
    }

    fn plan(&self, days: &[Date], planned_until: Timestamp) -> Result<(), DatabaseError> {
        self.call(|tables| {
            for day in days {
                tables.days.entry(*day).or_insert((Some(DayState::Open), 0));
            }
            tables.planned_until = tables.planned_until.max(Some(planned_until));
            tables.advance();
        })
    }

    fn claim(&self, _worker: &str, last: Option<Date>, count: u32, _lease: Duration) -> Result<Claims, DatabaseError> {
        self.call(|tables| {
            let mut claims = Vec::new();
            for (day, (state, epoch)) in &mut tables.days {
                let is_free = matches!(state, Some(DayState::Open | DayState::Claimed));
                if is_free && last.is_none_or(|last| *day <= last) && claims.len() < usize::try_from(count).unwrap() {
                    *state = Some(DayState::Claimed);
                    *epoch += 1;
                    claims.push(Claim { day: *day, epoch: *epoch });
                }
            }
            if claims.is_empty() { Claims::None } else { Claims::Taken(claims) }
        })
    }

    fn renew(&self, _worker: &str, _claims: &[Claim], _lease: Duration) -> Result<bool, DatabaseError> {
        self.call(|_| true)
    }

    fn release(&self, _worker: &str, claims: &[Claim]) -> Result<(), DatabaseError> {
        self.call(|tables| {
            for claim in claims {
                let day = tables.days.entry(claim.day).or_default();
                if *day == (Some(DayState::Claimed), claim.epoch) {
                    day.0 = Some(DayState::Open);
                }
            }
        })
    }

    fn note(&self, exceptions: &[Exception], epoch: i64) -> Result<(), DatabaseError> {
        self.call(|tables| {
            for one in exceptions {
                let key = (one.uid.clone(), one.created_at, one.stage);
                let acked = tables.exceptions.get(&key).is_some_and(|(_, _, acked)| *acked);
                tables.exceptions.insert(key, (one.clone(), epoch, acked));
            }
        })
    }

    fn mark(&self, _worker: &str, marks: &[DayMark]) -> Result<Marked, DatabaseError> {
        self.call(|tables| {
            let before = tables.clone();
            for mark in marks {
                let Claim { day, epoch } = mark.claim;
                match tables.days.get(&day) {
                    Some((Some(DayState::Blocked | DayState::Finished), at)) if *at == epoch => continue,
                    Some((Some(DayState::Claimed), at)) if *at == epoch => {}
                    _ => {
                        let calls = tables.calls;
                        *tables = Tables { calls, ..before };
                        return Marked::Overtaken(day);
                    }
                }
                tables.receipts.extend(mark.receipt.clone());
                tables
                    .exceptions
                    .retain(|_, (one, seen, _)| one.day != Some(day) || one.stage != Stage::Migrate || *seen >= epoch);
                let blocked = tables.is_blocked(day);
                let state = if blocked { DayState::Blocked } else { DayState::Finished };
                tables.days.insert(day, (Some(state), epoch));
            }
            tables.advance();
            Marked::Done
        })
    }

    fn add_receipts(&self, receipts: &[Receipt]) -> Result<(), DatabaseError> {
        self.call(|tables| tables.receipts.extend(receipts.to_vec()))
    }

    fn open_exceptions(&self) -> Result<u64, DatabaseError> {
        self.call(|tables| {
            let open = tables.exceptions.values().filter(|(_, _, acked)| !acked).count();
            u64::try_from(open).unwrap()
        })
    }

    fn excepted(&self, day: Date, stage: Stage) -> Result<BTreeSet<String>, DatabaseError> {
        self.call(|tables| {
            let of = tables.exceptions.values().map(|(one, ..)| one);
            of.filter(|one| one.day == Some(day) && one.stage == stage).map(|one| one.uid.clone()).collect()
        })
    }

    fn list(&self, _selection: &Selection, _count: u32) -> Result<Vec<ListedException>, DatabaseError> {
        self.call(|_| Vec::new())
    }

    fn acknowledge(&self, _selection: &Selection, _by: &str) -> Result<u64, DatabaseError> {
        self.call(|tables| {
            for (_, _, acked) in tables.exceptions.values_mut() {
                *acked = true;
            }
            for (state, _) in tables.days.values_mut() {
                if *state == Some(DayState::Blocked) {
                    *state = Some(DayState::Finished);
                }
            }
            tables.advance();
            u64::try_from(tables.exceptions.len()).unwrap()
        })
    }

    fn retry(&self, _selection: &Selection) -> Result<u64, DatabaseError> {
        self.call(|_| 0)
    }

    fn claim_cleanup(&self, _: &str, _: Duration, _: Duration) -> Result<Claims, DatabaseError> {
        self.call(|tables| {
            let mut finished = tables.days.iter().filter(|(_, (state, _))| *state == Some(DayState::Finished));
            let day = finished.find(|(day, _)| !matches!(tables.cleaned.get(day), Some(Some(_)))).map(|(day, _)| *day);
            day.map_or(Claims::None, |day| {
                tables.cleaned.insert(day, None);
                Claims::Taken(vec![Claim { day, epoch: 1 }])
            })
        })
    }

    fn mark_cleaned(&self, _worker: &str, claim: Claim, cleaned: &Cleaned) -> Result<bool, DatabaseError> {
        self.call(|tables| tables.cleaned.insert(claim.day, Some(*cleaned)).is_some())
    }
}

/// Files, their rows, and all that a migration needs.
#[derive(Debug)]
pub(super) struct World {
    place: tempfile::TempDir,
    pub(super) rows: Arc<FakeRows>,
    pub(super) state: Arc<FakeState>,
    /// What is in the files, by day and uid.
    pub(super) contents: BTreeMap<(Date, String), Vec<u8>>,
}

/// The day after which nothing is due.
pub(super) fn horizon() -> Timestamp {
    end_of("20240310".parse().unwrap())
}

impl World {
    /// Some files on some days.
    pub(super) fn new(days: &[&str], files: usize) -> Self {
        let place = tempfile::tempdir().unwrap();
        fs::create_dir(place.path().join("sources")).unwrap();
        let now = Timestamp::from_micros(horizon().micros() + 7 * 86_400_000_000);
        let mut world = Self {
            place,
            rows: Arc::new(FakeRows { rows: Mutex::default(), archived: Mutex::default(), now }),
            state: Arc::default(),
            contents: BTreeMap::new(),
        };
        for day in days {
            for number in 0..files {
                world.add(day, &format!("{day}-{number}"), format!("content {number} of {day}").repeat(number + 1));
            }
        }
        world
    }

    /// Adds a file and its row.
    pub(super) fn add(&mut self, day: &str, uid: &str, content: impl Into<Vec<u8>>) {
        let (day, content): (Date, Vec<u8>) = (day.parse().unwrap(), content.into());
        let path = self.source(uid);
        fs::write(&path, &content).unwrap();
        let row = SourceRow {
            uid: uid.to_owned(),
            created_at: Timestamp::from_micros(day.start().micros() + 3_600_000_000),
            location: Some(path.to_str().unwrap().to_owned()),
            len: Ok(Some(u64::try_from(content.len()).unwrap())),
            checksum: Ok(None),
        };
        self.rows.rows.lock().unwrap().push(row);
        self.contents.insert((day, uid.to_owned()), content);
    }

    pub(super) fn source(&self, uid: &str) -> PathBuf {
        self.place.path().join("sources").join(uid)
    }

    /// A migrator over a store.
    pub(super) fn migrator(&self, store: &Arc<dyn ObjectStore>) -> Migrator {
        let roots = Roots::open(&[self.place.path().join("sources")], false).unwrap();
        Migrator {
            source: Arc::<FakeRows>::clone(&self.rows),
            state: Arc::<FakeState>::clone(&self.state),
            store: Arc::clone(store),
            store_is_near: false,
            clock: Arc::new(QuickClock(SystemClock::new())),
            random: Arc::new(SystemRandom),
            sources: Sources { roots: Some(Arc::new(roots)), buckets: None },
            packing: PackSettings {
                compression: Compression { choice: CodecChoice::Auto, level: 1 },
                framing: Framing::default(),
                shard_limits: ShardLimits { bytes: limits::SHARD_BYTES, entries: limits::SHARD_ENTRIES },
                bits: BucketBits::new(0),
                jobs: NonZeroUsize::MIN,
                spool: self.place.path().join("spool"),
            },
            plan: Plan {
                worker: "test".to_owned(),
                last: None,
                batch_days: 2,
                batch_rows: 1_000,
                lease: Duration::from_hours(1),
                mark_archived: false,
                patience: Duration::from_secs(5),
            },
            metrics: Arc::new(MigrationMetrics::register(&Registry::new()).unwrap()),
            progress: Arc::new(Progress::default()),
            stop: Arc::new(AtomicBool::new(false)),
        }
    }

    /// Asserts that the archive shows exactly the files of some days, or at least those before the cutoff.
    pub(super) async fn assert_shown(&self, store: &Arc<dyn ObjectStore>, what: &str) {
        let shown = shown(store).await;
        let excepted = self.state.excepted_uids();
        for ((day, uid), content) in &self.contents {
            let is_due = self.state.archived_until().is_some_and(|until| end_of(*day) <= until);
            let found = shown.get(&(*day, uid.clone()));
            // Whatever is shown is right, and whatever lies before the cutoff is shown.
            assert!(found.is_none_or(|found| found == content), "{what}: wrong content of {uid}");
            assert!(found.is_some() || !is_due || excepted.contains(uid), "{what}: {uid} is lost");
        }
        assert!(shown.keys().all(|key| self.contents.contains_key(key)), "{what}: more than there is");
    }
}

/// An empty store.
pub(super) fn memory() -> Arc<dyn ObjectStore> {
    Arc::new(MemoryStore::new(Arc::new(SystemClock::new())))
}

/// All that an archive shows.
pub(super) async fn shown(store: &Arc<dyn ObjectStore>) -> BTreeMap<(Date, String), Vec<u8>> {
    let mut shown = BTreeMap::new();
    let (clock, random) = (Arc::new(SystemClock::new()), Arc::new(SystemRandom));
    let Ok(archive) = Archive::open(Arc::clone(store), ReadOptions::default(), clock, random).await else {
        return shown;
    };
    for day in archive.days().await.unwrap().iter().copied() {
        for file in archive.list(day, None, 10_000).await.unwrap() {
            let len = usize::try_from(file.len).unwrap();
            let content = archive.read(day, file.birth, 0, len).await.unwrap();
            let again = shown.insert((day, file.uid.to_string()), content.to_vec());
            assert_eq!(again, None, "{} twice", file.uid);
        }
    }
    shown
}
