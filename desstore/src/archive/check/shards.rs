//! The levels below manifests: the index of each live shard, and every byte of it.

use std::sync::Arc;

use desfmt::document::{Manifest, ManifestShard};
use desfmt::legacy::Location;
use desfmt::{Date, ShardId, bucket_of, layout, v3};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;

use super::source::{Ask, Remote};
use super::throttle::Throttle;
use super::{Check, CheckEvent, CheckLevel, CheckOptions, Finding, FindingKind, Verdict};
use crate::archive::error::ArchiveError;
use crate::archive::shard::Index;
use crate::archive::{Archive, DayShard, OpenShard};
use crate::clock::{Randomness, SeededRandom};
use crate::error::{StoreError, StoreErrorKind};
use crate::inventory::ReadManifest;

/// How much of a shard of the ancestor is hashed at a time.
const HASH_BYTES: u64 = 8 << 20;

/// How many damaged files of a shard are named.
const FILES_NAMED_MAX: usize = 20;

/// A shard that is to be examined.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target {
    pub(super) date: Date,
    pub(super) id: ShardId,
}

/// What came of examining a shard.
struct Examined {
    id: ShardId,
    /// None when the shard is no longer live.
    findings: Option<Vec<Finding>>,
    bytes_read: u64,
}

/// Examines one shard after the other; several at once.
struct Examiner<'a> {
    archive: &'a Archive,
    options: &'a CheckOptions,
    throttle: &'a Throttle,
    /// The manifest that was read last: shards of a day are examined one after the other.
    manifest: tokio::sync::Mutex<Option<Arc<Manifest>>>,
}

impl Check<'_> {
    /// Examines what the manifests list, those first that were not found sound for the longest time.
    pub(super) async fn examine_shards(&mut self) {
        let targets = chosen(std::mem::take(&mut self.targets), self.options);
        let (archive, options) = (self.archive, self.options);
        let throttle = std::mem::replace(&mut self.throttle, Throttle::new(Arc::clone(&archive.clock), None));
        let examiner = Examiner { archive, options, throttle: &throttle, manifest: tokio::sync::Mutex::default() };
        let mut under_way = FuturesUnordered::new();
        let mut waiting = targets.into_iter();
        loop {
            let is_time_up = options.until.is_some_and(|until| archive.clock.monotonic() >= until);
            if under_way.len() < options.jobs.get()
                && !is_time_up
                && let Some(target) = waiting.next()
            {
                under_way.push(examiner.examine(target));
                continue;
            }
            match under_way.next().await {
                Some(done) => self.note(&done),
                None => break,
            }
        }
        self.checked.left_out = u64::try_from(waiting.count()).unwrap_or(u64::MAX);
    }

    fn note(&mut self, done: &Examined) {
        self.checked.bytes_read = self.checked.bytes_read.saturating_add(done.bytes_read);
        let Some(findings) = &done.findings else { return };
        self.checked.examined = self.checked.examined.saturating_add(1);
        let is_wrong = findings.iter().any(|finding| finding.verdict == Verdict::Wrong);
        self.checked.damaged = self.checked.damaged.saturating_add(u64::from(is_wrong));
        for finding in findings {
            self.find(finding);
        }
        if is_wrong || findings.is_empty() {
            (self.tell)(CheckEvent::Examined(done.id, !is_wrong));
        }
    }
}

/// What is asked for of all shards, in the order in which it is examined.
fn chosen(mut targets: Vec<Target>, options: &CheckOptions) -> Vec<Target> {
    let checked_at = |target: &Target| options.checked_before.get(&target.id).copied();
    let is_due = |target: &Target| match (checked_at(target), options.leave_out_since) {
        (Some(at), Some(since)) => at < since,
        (None, _) | (_, None) => true,
    };
    targets.retain(is_due);
    if let Some(sample) = options.sample {
        let lot = |target: &Target| {
            let [head @ .., _, _, _, _, _, _, _, _] = *target.id.bytes();
            SeededRandom::new(sample.seed ^ u64::from_le_bytes(head)).next() % 1_000_000
        };
        // Where it would be none at all, it is one.
        let least = targets.iter().map(lot).min().unwrap_or(0);
        targets.retain(|target| lot(target) < u64::from(sample.millionths).max(least.saturating_add(1)));
    }
    targets.sort_by_key(|target| (checked_at(target), target.date, target.id));
    targets
}

impl Examiner<'_> {
    async fn examine(&self, target: Target) -> Examined {
        let mut examined = Examined { id: target.id, findings: None, bytes_read: 0 };
        let shard = match self.listed(target, false).await {
            Ok(Some(shard)) => shard,
            Ok(None) => return examined,
            Err(error) => {
                let object = layout::manifest(target.date).to_string();
                examined.findings = Some(vec![Finding::of(&object, &error)]);
                return examined;
            }
        };
        let findings = self.shard(target.date, &shard, &mut examined.bytes_read).await;
        let is_wrong = findings.iter().any(|finding| finding.verdict == Verdict::Wrong);
        // What a repack has replaced meanwhile may be gone.
        let is_live = !is_wrong || !matches!(self.listed(target, true).await, Ok(None));
        examined.findings = is_live.then_some(findings);
        examined
    }

    /// What the manifest says of a shard, if it is still live.
    async fn listed(&self, target: Target, afresh: bool) -> Result<Option<ManifestShard>, ArchiveError> {
        let find = |manifest: &Manifest| manifest.shards.iter().find(|shard| shard.shard == target.id).cloned();
        let mut known = self.manifest.lock().await;
        if let Some(manifest) = known.as_ref().filter(|manifest| !afresh && manifest.date == target.date)
            && let Some(shard) = find(manifest)
        {
            return Ok(Some(shard));
        }
        let read = ReadManifest::read(self.archive.store.as_ref(), target.date).await?;
        *known = read.map(|read| Arc::new(read.manifest));
        Ok(known.as_ref().and_then(|manifest| find(manifest)))
    }

    async fn shard(&self, date: Date, shard: &ManifestShard, bytes_read: &mut u64) -> Vec<Finding> {
        let archive = self.archive;
        if layout::is_flat(&shard.key) {
            return self.flat_shard(shard, bytes_read).await;
        }
        self.throttle.take(shard.tail_len).await;
        *bytes_read = bytes_read.saturating_add(shard.tail_len);
        let open = match archive.open_paged_shard(&DayShard::of(shard)).await {
            Ok((open, _)) => open,
            Err(error) => return vec![Finding::of(shard.key.as_str(), &error)],
        };
        let OpenShard { key, etag, index, .. } = open;
        let Index::Paged(index) = index else { return Vec::new() };
        let mut findings: Vec<Finding> = disagreements(date, shard, &index, archive)
            .into_iter()
            .map(|problem| wrong(shard, FindingKind::Mismatch, problem))
            .collect();
        let is_deep = self.options.level == CheckLevel::Content;
        let (ask, mut asked) = mpsc::channel::<Ask>(1);
        let source = Remote::new(ask, key.to_string(), shard.len, is_deep);
        let (bits, listed) = (archive.bits(), shard.clone());
        let walk = tokio::task::spawn_blocking(move || walk(&index, source, is_deep, &listed, bits));
        while let Some((range, reply)) = asked.recv().await {
            let len = range.end.saturating_sub(range.start);
            self.throttle.take(len).await;
            *bytes_read = bytes_read.saturating_add(len);
            let fetched = archive.store.get_range(&key, range, Some(&etag)).await;
            // Whoever asked may have given up; then it asks no more.
            drop(reply.send(fetched.map_err(ArchiveError::from)));
        }
        match walk.await {
            Ok(found) => findings.extend(found),
            Err(error) => {
                let died = StoreError::new(StoreErrorKind::Unavailable, "check", &key).caused_by(error);
                findings.push(Finding::of(key.as_str(), &died.into()));
            }
        }
        findings
    }
}

impl Examiner<'_> {
    /// A shard of the ancestor that was adopted: its manifest knows the digest that it lacks itself.
    async fn flat_shard(&self, shard: &ManifestShard, bytes_read: &mut u64) -> Vec<Finding> {
        match self.flat_problem(shard, bytes_read).await {
            Ok(None) => Vec::new(),
            Ok(Some((kind, problem))) => vec![wrong(shard, kind, problem)],
            Err(error) => vec![Finding::of(shard.key.as_str(), &error)],
        }
    }

    async fn flat_problem(
        &self,
        shard: &ManifestShard,
        bytes_read: &mut u64,
    ) -> Result<Option<(FindingKind, String)>, ArchiveError> {
        let archive = self.archive;
        let (open, _) = archive.open_legacy_shard(&DayShard::of(shard)).await?;
        let Index::Legacy(legacy) = &open.index else { return Ok(None) };
        let index = legacy.index();
        if u32::try_from(index.len()).ok() != Some(shard.entries) {
            let problem = format!("it holds {} files, its manifest says {}", index.len(), shard.entries);
            return Ok(Some((FindingKind::Mismatch, problem)));
        }
        if self.options.level < CheckLevel::Content {
            return Ok(None);
        }
        let (mut hasher, mut at) = (blake3::Hasher::new(), 0);
        while at < shard.len {
            let end = at.saturating_add(HASH_BYTES).min(shard.len);
            self.throttle.take(end.saturating_sub(at)).await;
            hasher.update(&archive.store.get_range(&shard.key, at..end, Some(&open.etag)).await?);
            *bytes_read = bytes_read.saturating_add(end.saturating_sub(at));
            at = end;
        }
        if hasher.finalize().to_hex().as_str() != shard.blake3 {
            return Ok(Some((FindingKind::Damaged, "its digest is not the one that its manifest lists".to_owned())));
        }
        for entry in index.iter() {
            if let Location::BigFile { hash, len } = entry.location {
                self.throttle.take(len).await;
                archive.prove_big_file(&shard.key, hash, len).await?;
                *bytes_read = bytes_read.saturating_add(len);
            }
        }
        Ok(None)
    }
}

fn wrong(shard: &ManifestShard, kind: FindingKind, problem: String) -> Finding {
    Finding { object: shard.key.to_string(), problem, verdict: Verdict::Wrong, kind }
}

/// Where a shard says something else of itself than its manifest does.
fn disagreements(date: Date, shard: &ManifestShard, index: &v3::ShardIndex, archive: &Archive) -> Vec<String> {
    let footer = index.footer();
    let mut found = Vec::new();
    let mut compare = |what: &str, own: String, listed: String| {
        if own != listed {
            found.push(format!("its {what} is {own}, its manifest says {listed}"));
        }
    };
    let name = shard.name(date, archive.bits()).map(|name| name.to_string());
    compare("name", footer.name.to_string(), name.unwrap_or_default());
    compare("number of files", footer.entries.to_string(), shard.entries.to_string());
    compare("plain size", footer.content_len.to_string(), shard.plain_len.to_string());
    compare("tail", footer.tail_len.to_string(), shard.tail_len.to_string());
    let lineage = index.lineage();
    if lineage.is_fresh() {
        compare("number of serials", "1".to_owned(), shard.serials.len().to_string());
    } else {
        compare("list of serials", format!("{:?}", lineage.serials), format!("{:?}", shard.serials));
    }
    for (what, own, listed) in [
        ("smallest uid", index.first_uid(), &shard.uid_min),
        ("largest uid", index.last_uid().cloned(), &shard.uid_max),
    ] {
        if let (Some(own), Some(listed)) = (own, listed) {
            compare(what, format!("{:?}", own.as_str()), format!("{listed:?}"));
        }
    }
    found
}

/// Walks through a shard on a thread of its own.
fn walk(
    index: &v3::ShardIndex,
    mut source: Remote,
    is_deep: bool,
    shard: &ManifestShard,
    bits: desfmt::BucketBits,
) -> Vec<Finding> {
    let depth = if is_deep { v3::CheckDepth::Content } else { v3::CheckDepth::Index };
    let (mut findings, mut unnamed, mut astray) = (Vec::new(), 0_u64, None);
    let mut see = |seen: v3::Seen<'_>| match seen {
        v3::Seen::Entry(entry, _) => {
            let bucket = bucket_of(entry.uid.as_str(), bits);
            if !bucket.is_ok_and(|bucket| bucket.number() == shard.bucket) {
                astray.get_or_insert_with(|| entry.uid.clone());
            }
        }
        v3::Seen::Damaged(entry, error) if findings.len() < FILES_NAMED_MAX => {
            let problem = format!("the file {:?} is damaged: {error}", entry.uid.as_str());
            findings.push(wrong(shard, FindingKind::Damaged, problem));
        }
        v3::Seen::Damaged(..) => unnamed = unnamed.saturating_add(1),
    };
    let walked = v3::check_shard(index, &mut source, depth, &mut see);
    if unnamed > 0 {
        findings.push(wrong(shard, FindingKind::Damaged, format!("{unnamed} more files are damaged")));
    }
    if let Some(uid) = astray {
        findings.push(wrong(
            shard,
            FindingKind::Mismatch,
            format!("it holds {:?}, which belongs to another group", uid.as_str()),
        ));
    }
    match walked {
        Ok(_) if is_deep => findings.extend(compare_digests(source, index, shard)),
        Ok(_) => {}
        Err(v3::CheckError::Damaged(error)) => {
            findings.push(Finding::of(shard.key.as_str(), &ArchiveError::damaged(&shard.key, error)));
        }
        Err(v3::CheckError::Source(error)) => findings.push(Finding::of(shard.key.as_str(), &error)),
    }
    findings
}

/// The digests of the object as a whole and of its body.
fn compare_digests(source: Remote, index: &v3::ShardIndex, shard: &ManifestShard) -> Vec<Finding> {
    let (whole, body) = match source.finish() {
        Ok(digests) => digests,
        Err(error) => return vec![Finding::of(shard.key.as_str(), &error)],
    };
    let mut findings = Vec::new();
    if body != index.footer().body_digest {
        findings.push(wrong(shard, FindingKind::Damaged, "the digest of its body is wrong".to_owned()));
    }
    if whole.to_hex().as_str() != shard.blake3 {
        let problem = "its digest is not the one that its manifest lists".to_owned();
        findings.push(wrong(shard, FindingKind::Damaged, problem));
    }
    findings
}
