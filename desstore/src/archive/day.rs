//! What is known of a day: its live shards and its tombstones, looked at afresh at most every `ttl`.

use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use dashmap::DashMap;
use desfmt::document::{self, DOCUMENT_LEN_MAX, Manifest, ManifestShard};
use desfmt::legacy::LegacyName;
use desfmt::{Birth, Date, ObjectKey, ShardId, layout};
use futures_util::future;

use crate::archive::error::ArchiveError;
use crate::archive::tombstones::TombstoneSet;
use crate::archive::{Archive, CacheKey, Cached};
use crate::error::StoreErrorKind;
use crate::rules::{Rule, keeps};
use crate::store::{Depth, ETag, Fetched};

/// The most that a day weighs in the cache, in bytes.
const WEIGHT_MAX: usize = 8 << 20;

/// A shard as a lookup needs to know it before it is opened.
#[derive(Debug, Clone)]
pub(crate) struct DayShard {
    pub(crate) key: ObjectKey,
    pub(crate) id: ShardId,
    pub(crate) bucket: u16,
    pub(crate) len: u64,
    /// Zero where only the object itself can tell.
    pub(crate) tail_len: u64,
    pub(crate) entries: u32,
    pub(crate) uid_min: Option<String>,
    pub(crate) uid_max: Option<String>,
    pub(crate) serials: Vec<u32>,
}

impl DayShard {
    /// The shard that an entry of a manifest is about.
    pub(crate) fn of(shard: &ManifestShard) -> Self {
        Self {
            key: shard.key.clone(),
            id: shard.shard,
            bucket: shard.bucket,
            len: shard.len,
            tail_len: shard.tail_len,
            entries: shard.entries,
            uid_min: shard.uid_min.clone(),
            uid_max: shard.uid_max.clone(),
            serials: shard.serials.clone(),
        }
    }

    /// True unless its bounds prove that it does not hold the uid.
    pub(crate) fn may_hold(&self, uid: &str) -> bool {
        self.uid_min.as_deref().is_none_or(|min| min <= uid) && self.uid_max.as_deref().is_none_or(|max| uid <= max)
    }
}

/// A day that exists.
#[derive(Debug)]
pub(crate) struct Day {
    /// By bucket, then by key, so that the candidates of a group stand together, the oldest split first.
    pub(crate) shards: Vec<DayShard>,
    /// (serial, index into `shards`, origin within that shard), by serial.
    pub(crate) serials: Vec<(u32, usize, u16)>,
    pub(crate) tombstones: Arc<TombstoneSet>,
    /// The manifest this was made of; none in an archive of the ancestor.
    pub(crate) manifest: Option<(Manifest, ETag)>,
    /// When it was last known to be true, in microseconds of monotonic time.
    checked: AtomicU64,
}

impl Day {
    pub(crate) fn new(
        mut shards: Vec<DayShard>,
        tombstones: Arc<TombstoneSet>,
        manifest: Option<(Manifest, ETag)>,
        now: Duration,
    ) -> Self {
        // Split 10000 comes after split 9999; and flat shards before those of the current version, whose keys are longer.
        let place = |shard: &DayShard| (shard.bucket, shard.key.as_str().len());
        shards.sort_unstable_by(|a, b| place(a).cmp(&place(b)).then_with(|| a.key.cmp(&b.key)));
        let mut serials: Vec<_> = shards
            .iter()
            .enumerate()
            .flat_map(|(index, shard)| {
                let origins = shard.serials.iter().zip(0_u16..);
                origins.map(move |(serial, origin)| (*serial, index, origin))
            })
            .collect();
        serials.sort_unstable();
        Self { shards, serials, tombstones, manifest, checked: AtomicU64::new(micros(now)) }
    }

    /// The shards that may hold a uid of a bucket, the oldest split first.
    pub(crate) fn candidates<'a>(&'a self, bucket: u16, uid: &'a str) -> impl Iterator<Item = &'a DayShard> {
        self.group(bucket).iter().filter(move |shard| shard.may_hold(uid) && !self.is_deleted(shard))
    }

    /// The shards of a bucket.
    pub(crate) fn group(&self, bucket: u16) -> &[DayShard] {
        let from = self.shards.partition_point(|shard| shard.bucket < bucket);
        let to = self.shards.partition_point(|shard| shard.bucket <= bucket);
        self.shards.get(from..to).unwrap_or_default()
    }

    /// The shard that holds the entries born with a serial, and which of its origins that is.
    pub(crate) fn by_serial(&self, serial: u32) -> Option<(&DayShard, u16)> {
        let at = self.serials.binary_search_by_key(&serial, |(serial, ..)| *serial).ok()?;
        let (_, index, origin) = self.serials.get(at)?;
        Some((self.shards.get(*index)?, *origin))
    }

    /// The same for whoever has a file open: also a shard of the ancestor that was converted, for as long as it is known.
    pub(crate) fn holder(&self, serial: u32) -> Option<(Cow<'_, DayShard>, u16)> {
        if let Some((shard, origin)) = self.by_serial(serial) {
            return Some((Cow::Borrowed(shard), origin));
        }
        let (manifest, _) = self.manifest.as_ref()?;
        let replaced = manifest.retired.iter().filter_map(|object| object.entry.as_deref());
        let mut flat = replaced.filter(|entry| layout::is_flat(&entry.key));
        let found = flat.find(|entry| entry.serials.contains(&serial))?;
        Some((Cow::Owned(DayShard::of(found)), 0))
    }

    /// The shard that a listing comes to after the files of a serial, and the first birth number that may be in it; none where
    /// it stays in the same one.
    pub(crate) fn shard_after(&self, serial: u32) -> Option<(&DayShard, Birth)> {
        let (current, _) = self.by_serial(serial)?;
        let from = self.serials.partition_point(|(other, ..)| *other <= serial);
        let later = self.serials.get(from..)?.iter();
        let mut shown = later.filter_map(|(serial, index, _)| Some((*serial, self.shards.get(*index)?)));
        let (serial, next) = shown.find(|(_, shard)| shard.entries > 0 && !self.is_deleted(shard))?;
        (next.id != current.id).then_some((next, Birth { serial, ordinal: 0 }))
    }

    /// True when a tombstone names the whole shard.
    pub(crate) fn is_deleted(&self, shard: &DayShard) -> bool {
        self.tombstones.holds_shard(shard.id)
    }

    /// Roughly what it costs in memory, in bytes. Never more than the cache keeps in one piece: a day with millions of
    /// tombstones would otherwise be read again at every lookup.
    pub(crate) fn memory_bytes(&self) -> usize {
        let per_shard = if self.manifest.is_some() { 900 } else { 500 };
        let shards = self.shards.len().saturating_mul(per_shard);
        let tombstones = self.tombstones.len().saturating_mul(40);
        shards.saturating_add(tombstones).saturating_add(1_024).min(WEIGHT_MAX)
    }

    /// When it was last known to be true, in monotonic time.
    pub(crate) fn checked(&self) -> Duration {
        Duration::from_micros(self.checked.load(Ordering::Acquire))
    }

    fn is_fresh(&self, now: Duration, ttl: Duration) -> bool {
        micros(now).saturating_sub(self.checked.load(Ordering::Acquire)) < micros(ttl)
    }
}

/// What is known of a day without asking the store.
enum Known {
    Exists(Arc<Day>),
    Absent,
    Nothing,
}

/// What must outlive the cached view of a day.
#[derive(Debug)]
pub(crate) struct DayBook {
    /// The tombstone set that is shared by all who look at the day right now, so that a deletion that is being written
    /// cannot be missed by a look that began before it.
    sets: DashMap<Date, Weak<TombstoneSet>>,
    /// The newest generation seen of each manifest: going back is never believed.
    generations: DashMap<Date, u64>,
    /// Days in which nothing was visible, with the version of the manifest of which that is true: tombstones only add
    /// up, so it is true until that changes.
    empty: DashMap<Date, ETag>,
    /// One look at a time; days share locks.
    looking: [tokio::sync::Mutex<()>; LOOKS],
}

/// How many looks at different days can be under way at once, at least.
const LOOKS: usize = 256;

impl DayBook {
    pub(crate) fn new() -> Self {
        let looking = std::array::from_fn(|_| tokio::sync::Mutex::new(()));
        Self { sets: DashMap::new(), generations: DashMap::new(), empty: DashMap::new(), looking }
    }

    /// Takes note of the generation of a manifest; refuses one older than has been seen, which it names.
    fn admit(&self, date: Date, generation: u64) -> Result<(), u64> {
        let mut newest = self.generations.entry(date).or_insert(0);
        if generation < *newest {
            return Err(*newest);
        }
        *newest = generation;
        Ok(())
    }

    /// Notes that nothing of a day is visible.
    pub(crate) fn found_empty(&self, date: Date, day: &Day) {
        if let Some((_, etag)) = &day.manifest {
            self.empty.insert(date, etag.clone());
        }
    }

    /// True when nothing of the day can be visible as long as its manifest is in this version.
    pub(crate) fn is_known_empty(&self, date: Date, manifest: &ETag) -> bool {
        self.empty.get(&date).is_some_and(|known| known.value() == manifest)
    }

    fn set(&self, date: Date) -> Arc<TombstoneSet> {
        let mut slot = self.sets.entry(date).or_default();
        slot.upgrade().unwrap_or_else(|| {
            let set = Arc::new(TombstoneSet::default());
            *slot = Arc::downgrade(&set);
            set
        })
    }

    #[expect(clippy::indexing_slicing, reason = "the remainder is below the length")]
    fn looking(&self, date: Date) -> &tokio::sync::Mutex<()> {
        &self.looking[usize::try_from(date.number()).unwrap_or_default() % LOOKS]
    }
}

impl Archive {
    /// The day as it was at most `ttl` ago, or `None` if it does not exist.
    pub(crate) async fn day(&self, date: Date) -> Result<Option<Arc<Day>>, ArchiveError> {
        match self.known_day(date) {
            Known::Exists(day) => return Ok(Some(day)),
            Known::Absent => return Ok(None),
            Known::Nothing => {}
        }
        let _looking = self.days.looking(date).lock().await;
        // Whoever held the lock has looked meanwhile.
        match self.known_day(date) {
            Known::Exists(day) => Ok(Some(day)),
            Known::Absent => Ok(None),
            Known::Nothing => self.look_at_day(date).await,
        }
    }

    /// The day as it is now: by a look that begins after this call.
    pub(crate) async fn day_now(&self, date: Date) -> Result<Option<Arc<Day>>, ArchiveError> {
        let _looking = self.days.looking(date).lock().await;
        self.look_at_day(date).await
    }

    /// True when a look at the day would cost no request.
    pub(crate) fn knows_day(&self, date: Date) -> bool {
        matches!(self.known_day(date), Known::Exists(_) | Known::Absent)
    }

    /// The day, if a look at it costs no request.
    pub(crate) fn day_at_hand(&self, date: Date) -> Option<Arc<Day>> {
        if let Known::Exists(day) = self.known_day(date) { Some(day) } else { None }
    }

    /// What is cached of the day, if that is young enough.
    fn known_day(&self, date: Date) -> Known {
        let (now, ttl) = (self.clock.monotonic(), self.options.ttl);
        let cached = self.cache.get(&CacheKey::Day(date));
        if let Some(Cached::Day(day)) = cached {
            return if day.is_fresh(now, ttl) { Known::Exists(day) } else { Known::Nothing };
        }
        match cached {
            Some(Cached::NoDay(checked)) if now.saturating_sub(checked) < ttl => Known::Absent,
            Some(_) | None => Known::Nothing,
        }
    }

    async fn look_at_day(&self, date: Date) -> Result<Option<Arc<Day>>, ArchiveError> {
        let began = self.clock.monotonic();
        let day = if self.is_legacy() {
            self.load_legacy_day(date, began).await?
        } else {
            self.load_day(date, began).await?
        };
        match &day {
            Some(day) => self.cache.insert(CacheKey::Day(date), Cached::Day(Arc::clone(day)), day.memory_bytes()),
            None => self.cache.insert(CacheKey::Day(date), Cached::NoDay(began), 128),
        }
        Ok(day)
    }

    async fn load_day(&self, date: Date, began: Duration) -> Result<Option<Arc<Day>>, ArchiveError> {
        let key = layout::manifest(date);
        let known = if let Some(Cached::Day(day)) = self.cache.get(&CacheKey::Day(date)) { Some(day) } else { None };
        let set = self.tombstone_set(date);
        let store = self.store.as_ref();
        let etag = known.as_ref().and_then(|day| day.manifest.as_ref()).map(|(_, etag)| etag.clone());
        let manifest = async {
            let fetched = match &etag {
                Some(etag) => store.get_if_changed(&key, etag, DOCUMENT_LEN_MAX).await.map(Some),
                None => store.get(&key, DOCUMENT_LEN_MAX).await.map(|fetched| Some(Some(fetched))),
            };
            match fetched {
                Err(error) if error.kind == StoreErrorKind::NotFound => Ok(None),
                other => other.map_err(ArchiveError::from),
            }
        };
        let (fetched, news) = future::try_join(manifest, set.refresh(store, date, self.bits())).await?;
        let fetched = match (fetched, known.clone()) {
            (None, _) => return self.absent_day(date).await,
            (Some(None), Some(day)) => {
                day.checked.store(micros(began), Ordering::Release);
                self.forget_deleted(&day, &news).await;
                return Ok(Some(day));
            }
            (Some(None), None) => return Err(ArchiveError::inconsistent(&key, "the store says unchanged, of nothing")),
            (Some(Some(fetched)), _) => fetched,
        };
        let (manifest, etag) = self.proven_manifest(&key, fetched).await?;
        if manifest.date != date {
            return Err(ArchiveError::inconsistent(&key, format!("it is the manifest of {}", manifest.date)));
        }
        if let Err(newest) = self.days.admit(date, manifest.generation) {
            let detail =
                format!("generation {} after {newest} had been seen; the store goes back in time", manifest.generation);
            return Err(ArchiveError::inconsistent(&key, detail));
        }
        self.forget_replaced(known.as_deref(), &manifest);
        let shards = manifest.shards.iter().map(DayShard::of).collect();
        let day = Day::new(shards, set, Some((manifest, etag)), began);
        self.forget_deleted(&day, &news).await;
        Ok(Some(Arc::new(day)))
    }

    /// Reads a manifest that was fetched. If it is damaged, it is fetched once more: what was damaged on its way is whole then.
    async fn proven_manifest(&self, key: &ObjectKey, fetched: Fetched) -> Result<(Manifest, ETag), ArchiveError> {
        let error = match document::decode(&fetched.bytes) {
            Ok(manifest) => return Ok((manifest, fetched.meta.etag)),
            Err(error) => error,
        };
        self.fetched_again(key, &error);
        let again = self.store.get(key, DOCUMENT_LEN_MAX).await?;
        let manifest = document::decode(&again.bytes).map_err(|error| ArchiveError::damaged(key, error))?;
        Ok((manifest, again.meta.etag))
    }

    /// A day without manifest never was, unless objects of it are there: then the manifest is lost, or came after it had been
    /// asked for.
    async fn absent_day(&self, date: Date) -> Result<Option<Arc<Day>>, ArchiveError> {
        if !keeps(Rule::MissingIsNotEmpty) {
            return Ok(None);
        }
        let mut places = vec![(layout::shards_prefix(date), Depth::Recursive)];
        if self.identity.is_adopted() {
            places.push((LegacyName::day_prefix(date), Depth::Direct));
        }
        for (prefix, depth) in places {
            let page = self.store.list(&prefix, depth, None).await?;
            let Some(object) = page.objects.first() else { continue };
            let key = layout::manifest(date);
            return match self.store.head(&key).await {
                // A manifest is created before the first object, so this one is new. Once there it stays.
                Ok(_) => Box::pin(self.load_day(date, self.clock.monotonic())).await,
                Err(error) if error.kind == StoreErrorKind::NotFound => {
                    Err(ArchiveError::inconsistent(&object.key, format!("its manifest {key} is missing; restore it")))
                }
                Err(error) => Err(error.into()),
            };
        }
        Ok(None)
    }

    /// Forgets what is cached of a day, so that the next look goes to the store.
    ///
    /// Waits for a look that is under way: it may have begun before the change that the caller knows of, and would bring
    /// the old view back.
    pub(crate) async fn forget_day(&self, date: Date) {
        let _looking = self.days.looking(date).lock().await;
        self.cache.remove(&CacheKey::Day(date));
    }

    /// The set that everybody who looks at the day now shares.
    pub(crate) fn tombstone_set(&self, date: Date) -> Arc<TombstoneSet> {
        self.days.set(date)
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
