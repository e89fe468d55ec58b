//! Comparing zones: whatever a home holds must be in the copies, byte for byte, or a debt says that it is not; and what it
//! no longer holds must be gone from them.
//!
//! Others write meanwhile, so what looks wrong at first is only suspected. It is looked at again when everything else is
//! done, and is a finding if it has stayed so in every round and no debt speaks of it.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use desfmt::document::{DebtTask, ManifestShard};
use desfmt::{Date, ObjectKey, layout};

use super::debts::{Debt, YOUNG, debts};
use super::write::generation;
use super::{Class, ZoneStore};
use crate::archive::{
    ArchiveError, CheckEvent, CheckOptions, Checked, Finding, FindingKind, Tell, Throttle, Verdict, in_words,
};
use crate::error::{StoreError, StoreErrorKind};
use crate::inventory::ReadManifest;
use crate::store::{Depth, list_all};

/// How often a suspicion is looked into before it is a finding.
const ROUNDS: u32 = 3;

/// The time between two rounds.
const ROUND_PAUSE: Duration = Duration::from_secs(1);

/// More suspicions are not kept; some will do to know that a zone is behind.
const SUSPICIONS_MAX: usize = 100_000;

/// More objects of a day are not listed in one zone.
const LISTED_MAX: usize = 4_000_000;

/// How much of a shard is read at a time.
const WINDOW_BYTES: u64 = 8 << 20;

/// Objects as a listing shows them, with their lengths.
type Listed = BTreeMap<ObjectKey, u64>;

/// Something that may be wrong in a zone.
#[derive(Debug, Clone)]
struct Suspicion {
    zone: usize,
    key: ObjectKey,
    about: About,
}

#[derive(Debug, Clone)]
enum About {
    /// A document must be as it is at home.
    Document,
    /// A live shard must be what the manifest of its day says.
    Shard(Date, Box<ManifestShard>),
    /// A shard must not be there without being at home.
    Surplus,
    /// A shard must not be there at all.
    Astray,
}

/// What is wrong, and in words.
type Wrong = (FindingKind, String);

struct Comparison<'a> {
    zones: &'a ZoneStore,
    options: &'a CheckOptions,
    throttle: Throttle,
    tell: Tell<'a>,
    checked: Checked,
    /// Zones that did not answer, which is told once.
    away: HashSet<usize>,
    suspicions: Vec<Suspicion>,
}

/// Compares all zones, and tells what they are owed. Every copy of every live shard is read once, the one at home too; of
/// documents every copy. Changes nothing.
pub async fn compare(zones: &ZoneStore, options: &CheckOptions, tell: Tell<'_>) -> Checked {
    let throttle = Throttle::new(Arc::clone(&zones.clock), options.bytes_per_second);
    let mut comparison = Comparison {
        zones,
        options,
        throttle,
        tell,
        checked: Checked::default(),
        away: HashSet::new(),
        suspicions: Vec::new(),
    };
    comparison.tell_debts().await;
    comparison.document(&layout::identity()).await;
    for date in comparison.days().await {
        comparison.day(date).await;
    }
    comparison.judge().await;
    comparison.checked
}

impl Comparison<'_> {
    /// Tells what zones are owed. What is young may be the intent of a writer that is at it.
    async fn tell_debts(&mut self) {
        let (owed, now) = match (debts(self.zones).await, self.zones.store(self.zones.home())) {
            (Ok(owed), Some(home)) => match home.time().await {
                Ok(now) => (owed, now),
                Err(error) => return self.fail(layout::DEBTS, &error.into()),
            },
            (Err(error), _) => return self.fail(layout::DEBTS, &error),
            (Ok(_), None) => return,
        };
        for debt in owed {
            let Debt { zone, key, task, since, .. } = debt;
            let age = now.since(since);
            let task = match task {
                DebtTask::Copy => "is owed a copy of it",
                DebtTask::Remove => "has still to lose it",
            };
            let problem = format!("zone {zone} {task}, for {} s; des-repack pays debts", age.as_secs());
            let verdict = if age < YOUNG { Verdict::Harmless } else { Verdict::Wrong };
            self.find(&Finding { object: key.to_string(), problem, verdict, kind: FindingKind::Owed });
        }
    }

    /// The days that any zone has a manifest of.
    async fn days(&mut self) -> BTreeSet<Date> {
        let mut days = BTreeSet::new();
        for zone in 0..self.zones.zones.len() {
            let listed = self.listed(zone, layout::MANIFESTS, Depth::Direct).await.unwrap_or_default();
            days.extend(listed.keys().filter_map(|key| layout::parse_manifest(key.as_str())));
        }
        days.into_iter().filter(|date| self.options.since.is_none_or(|since| *date >= since)).collect()
    }

    async fn day(&mut self, date: Date) {
        self.checked.days = self.checked.days.saturating_add(1);
        let mut documents = BTreeSet::from([layout::manifest(date)]);
        for zone in 0..self.zones.zones.len() {
            let listed = self.listed(zone, &layout::tombstones_prefix(date), Depth::Recursive).await;
            documents.extend(listed.unwrap_or_default().into_keys());
        }
        for key in &documents {
            self.document(key).await;
        }
        let home = self.zones.home();
        let Some(store) = self.zones.store(home) else { return };
        let read = match ReadManifest::read(store.as_ref(), date).await {
            Ok(read) => read,
            Err(error) => return self.fail(layout::manifest(date).as_str(), &error),
        };
        let live = read.map(|read| read.manifest.shards).unwrap_or_default();
        for shard in &live {
            self.live(date, shard).await;
        }
        self.surplus(date, &live).await;
    }

    /// Looks at a document in every copy.
    async fn document(&mut self, key: &ObjectKey) {
        for zone in self.zones.copies().collect::<Vec<_>>() {
            self.look_at(Suspicion { zone, key: key.clone(), about: About::Document }).await;
        }
    }

    /// Looks at a live shard in every zone of its range.
    async fn live(&mut self, date: Date, shard: &ManifestShard) {
        self.checked.shards = self.checked.shards.saturating_add(1);
        self.checked.files = self.checked.files.saturating_add(u64::from(shard.entries));
        self.checked.stored_bytes = self.checked.stored_bytes.saturating_add(shard.len);
        self.checked.examined = self.checked.examined.saturating_add(1);
        for zone in self.zones_of(&shard.key) {
            let about = About::Shard(date, Box::new(shard.clone()));
            self.look_at(Suspicion { zone, key: shard.key.clone(), about }).await;
        }
    }

    /// Looks for shards that are where they should not be: bytes that are taken for deleted may be in them.
    async fn surplus(&mut self, date: Date, live: &[ManifestShard]) {
        let live: HashSet<&ObjectKey> = live.iter().map(|shard| &shard.key).collect();
        let mut homes: BTreeMap<usize, Listed> = BTreeMap::new();
        for zone in 0..self.zones.zones.len() {
            if let Some(listed) = self.listed(zone, &layout::shards_prefix(date), Depth::Recursive).await {
                homes.insert(zone, listed);
            }
        }
        for (zone, listed) in &homes {
            for key in listed.keys() {
                let zones = self.zones_of(key);
                let is_at_home =
                    || zones.first().and_then(|home| homes.get(home)).is_some_and(|at| at.contains_key(key));
                let about = if !zones.contains(zone) {
                    About::Astray
                } else if live.contains(key) || is_at_home() {
                    continue;
                } else {
                    About::Surplus
                };
                self.look_at(Suspicion { zone: *zone, key: key.clone(), about }).await;
            }
        }
    }

    fn zones_of(&self, key: &ObjectKey) -> Vec<usize> {
        match self.zones.class(key.as_str()) {
            Class::Shard(zones) | Class::Flat(zones) => zones.to_vec(),
            Class::Anywhere | Class::Identity | Class::Replaced(_) | Class::Once(_) | Class::Home => Vec::new(),
        }
    }

    /// What a zone lists below a prefix; nothing where it is away.
    async fn listed(&mut self, zone: usize, prefix: &str, depth: Depth) -> Option<Listed> {
        if self.away.contains(&zone) {
            return None;
        }
        let store = Arc::clone(self.zones.store(zone)?);
        match list_all(store.as_ref(), prefix, depth, LISTED_MAX).await {
            Ok(listed) => Some(listed.into_iter().map(|object| (object.key, object.len)).collect()),
            Err(error) => {
                self.note_away(zone, &error.into());
                None
            }
        }
    }

    /// Looks for the first time.
    async fn look_at(&mut self, suspicion: Suspicion) {
        if self.away.contains(&suspicion.zone) {
            return;
        }
        match self.look(&suspicion).await {
            Ok(None) => {}
            Ok(Some(_)) if self.suspicions.len() < SUSPICIONS_MAX => self.suspicions.push(suspicion),
            Ok(Some(_)) => self.checked.left_out = self.checked.left_out.saturating_add(1),
            Err(error) => self.note_away(suspicion.zone, &error),
        }
    }

    /// Looks again at all that is suspected, and tells what has stayed wrong without a debt.
    async fn judge(&mut self) {
        let mut left: Vec<(Suspicion, Wrong)> = Vec::new();
        for round in 0..ROUNDS {
            let suspicions: Vec<Suspicion> = if round == 0 {
                std::mem::take(&mut self.suspicions)
            } else {
                std::mem::take(&mut left).into_iter().map(|(suspicion, _)| suspicion).collect()
            };
            if suspicions.is_empty() {
                return;
            }
            if round > 0 {
                self.zones.clock.sleep(ROUND_PAUSE).await;
            }
            // Those that stay when they are known are told by then; those that a writer has left since are not wrong.
            let owed: HashSet<(String, ObjectKey)> = match debts(self.zones).await {
                Ok(owed) => owed.into_iter().map(|debt| (debt.zone, debt.key)).collect(),
                Err(error) => return self.fail(layout::DEBTS, &error),
            };
            for suspicion in suspicions {
                if owed.contains(&(self.zones.name(suspicion.zone).to_owned(), suspicion.key.clone())) {
                    continue;
                }
                match self.look(&suspicion).await {
                    Ok(None) => {}
                    Ok(Some(wrong)) => left.push((suspicion, wrong)),
                    Err(error) => self.note_away(suspicion.zone, &error),
                }
            }
        }
        for (suspicion, (kind, problem)) in left {
            let is_shard = matches!(suspicion.about, About::Shard(..));
            self.checked.damaged = self.checked.damaged.saturating_add(u64::from(is_shard));
            self.find(&Finding { object: suspicion.key.to_string(), problem, verdict: Verdict::Wrong, kind });
        }
    }

    /// What is wrong there now.
    async fn look(&mut self, suspicion: &Suspicion) -> Result<Option<Wrong>, ArchiveError> {
        let Suspicion { zone, key, about } = suspicion;
        match about {
            About::Document => self.look_at_document(*zone, key).await,
            About::Shard(date, shard) => {
                let Some(wrong) = self.look_at_shard(*zone, shard).await? else { return Ok(None) };
                // A repack may have replaced it meanwhile.
                let Some(home) = self.zones.store(self.zones.home()) else { return Ok(None) };
                let read = ReadManifest::read(home.as_ref(), *date).await?;
                let is_live = read.is_some_and(|read| read.manifest.shards.contains(shard));
                Ok(is_live.then_some(wrong))
            }
            About::Surplus => {
                let home = self.zones_of(key).first().copied().unwrap_or_else(|| self.zones.home());
                if !self.has(*zone, key).await? || self.has(home, key).await? {
                    return Ok(None);
                }
                let (zone, home) = (self.zones.name(*zone), self.zones.name(home));
                let problem = format!(
                    "zone {zone} holds it and its home {home} does not, and nobody has left word to remove it: deleted \
                     files may be in it; delete it there, unless {home} has lost it"
                );
                Ok(Some((FindingKind::Orphan, problem)))
            }
            About::Astray => {
                let is_there = self.has(*zone, key).await?;
                let zone = self.zones.name(*zone);
                let problem =
                    format!("zone {zone} holds it, and it does not belong there by the ranges; delete it there");
                Ok(is_there.then_some((FindingKind::Orphan, problem)))
            }
        }
    }

    async fn look_at_document(&self, zone: usize, key: &ObjectKey) -> Result<Option<Wrong>, ArchiveError> {
        let (own, copy) = (self.zones.get_at(self.zones.home(), key).await?, self.zones.get_at(zone, key).await?);
        let (name, home) = (self.zones.name(zone), self.zones.name(self.zones.home()));
        let wrong = match (own, copy) {
            (Some(own), Some(copy)) if own == copy => return Ok(None),
            (None, None) => return Ok(None),
            // A deletion goes to the copies first. One whose writer died before it was at home was never acknowledged.
            (None, Some(_)) if matches!(self.zones.class(key.as_str()), Class::Once(_)) => return Ok(None),
            (Some(_), None) => (FindingKind::Missing, format!("zone {name} has no copy of it")),
            (None, Some(_)) => {
                let problem = format!("zone {name} holds it and its home {home} does not; restore it there");
                (FindingKind::Missing, problem)
            }
            (Some(own), Some(copy)) => {
                let told = |bytes: &[u8]| generation(key, bytes).map(|number| format!(" (generation {number})"));
                let (own, copy) = (told(&own).unwrap_or_default(), told(&copy).unwrap_or_default());
                (FindingKind::Mismatch, format!("zone {name} holds another one{copy} than its home {home}{own}"))
            }
        };
        Ok(Some(wrong))
    }

    /// Reads a shard in a zone and compares it with what its manifest says.
    async fn look_at_shard(&mut self, zone: usize, shard: &ManifestShard) -> Result<Option<Wrong>, ArchiveError> {
        let name = self.zones.name(zone);
        let Some(store) = self.zones.store(zone) else { return Ok(None) };
        let meta = match store.head(&shard.key).await {
            Ok(meta) => meta,
            Err(error) if error.kind == StoreErrorKind::NotFound => {
                let problem = format!("zone {name} has no copy of it, with {} files", shard.entries);
                return Ok(Some((FindingKind::Missing, problem)));
            }
            Err(error) => return Err(error.into()),
        };
        if meta.len != shard.len {
            let problem = format!("in zone {name} it has {} bytes, its manifest says {}", meta.len, shard.len);
            return Ok(Some((FindingKind::Mismatch, problem)));
        }
        let (mut hasher, mut at) = (blake3::Hasher::new(), 0);
        while at < meta.len {
            let end = at.saturating_add(WINDOW_BYTES).min(meta.len);
            self.throttle.take(end.saturating_sub(at)).await;
            hasher.update(&store.get_range(&shard.key, at..end, Some(&meta.etag)).await?);
            self.checked.bytes_read = self.checked.bytes_read.saturating_add(end.saturating_sub(at));
            at = end;
        }
        let is_same = hasher.finalize().to_hex().as_str() == shard.blake3;
        let problem = || format!("in zone {name} its digest is not the one that its manifest lists");
        Ok((!is_same).then(|| (FindingKind::Damaged, problem())))
    }

    async fn has(&self, zone: usize, key: &ObjectKey) -> Result<bool, StoreError> {
        let store = self.zones.store(zone).ok_or_else(|| ZoneStore::no_zone("head", key.as_str()))?;
        match store.head(key).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind == StoreErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Tells once that a zone does not answer, and asks it no more.
    fn note_away(&mut self, zone: usize, error: &ArchiveError) {
        if self.away.insert(zone) {
            let problem = format!("it could not be compared: {}", in_words(error));
            let (object, verdict) = (format!("zone {}", self.zones.name(zone)), Verdict::Unchecked);
            self.find(&Finding { object, problem, verdict, kind: FindingKind::Unreachable });
        }
    }

    fn fail(&mut self, object: &str, error: &ArchiveError) {
        self.find(&Finding::of(object, error));
    }

    fn find(&mut self, finding: &Finding) {
        self.checked.count(finding.verdict);
        (self.tell)(CheckEvent::Found(finding));
    }
}
