//! The level of manifests: what each day's manifest says against what the store lists.

use std::collections::{HashMap, HashSet};

use desfmt::document::ManifestShard;
use desfmt::legacy::LegacyName;
use desfmt::{Date, layout, v3};

use super::shards::Target;
use super::{Check, CheckEvent, CheckLevel, Finding, FindingKind, Verdict};
use crate::archive::DAYS_MAX;
use crate::archive::error::ArchiveError;
use crate::archive::tombstones::TombstoneSet;
use crate::inventory::{Held, Inventory, State};
use crate::store::{Depth, ObjectMeta, list_all};

impl Check<'_> {
    pub(super) async fn days(&mut self) {
        let store = self.archive.store.as_ref();
        let listed = match list_all(store, layout::MANIFESTS, Depth::Direct, DAYS_MAX).await {
            Ok(listed) => listed,
            Err(error) => return self.fail(layout::MANIFESTS, &error.into()),
        };
        let manifests: Vec<(Date, &ObjectMeta)> =
            listed.iter().filter_map(|object| Some((layout::parse_manifest(object.key.as_str())?, object))).collect();
        let days: HashSet<Date> = manifests.iter().map(|(date, _)| *date).collect();
        for (date, object) in self.chosen(&manifests, |(date, _)| *date) {
            self.day(*date, object).await;
        }
        if self.checked.days_left_out == 0 {
            self.days_without_manifest(&days).await;
        }
    }

    async fn day(&mut self, date: Date, object: &ObjectMeta) {
        self.checked.days = self.checked.days.saturating_add(1);
        let (store, bits) = (self.archive.store.as_ref(), self.archive.bits());
        match Inventory::take(store, bits, date).await {
            Ok(inventory) => self.inventory(&inventory).await,
            Err(error) => self.fail(&object.key, &error),
        }
        if let Err(error) = TombstoneSet::default().refresh(store, date, bits).await {
            self.fail(&layout::tombstones_prefix(date), &error);
        }
    }

    async fn inventory(&mut self, inventory: &Inventory) {
        let Some(read) = &inventory.manifest else { return };
        let mut states: HashMap<_, _> = inventory.objects.iter().map(|held| (&held.key, held)).collect();
        for shard in &read.manifest.shards {
            self.checked.shards = self.checked.shards.saturating_add(1);
            self.checked.files = self.checked.files.saturating_add(u64::from(shard.entries));
            self.checked.stored_bytes = self.checked.stored_bytes.saturating_add(shard.len);
            (self.tell)(CheckEvent::Listed(shard.shard));
            if let Some(held) = states.remove(&shard.key) {
                self.live(inventory.date, shard, held);
            }
        }
        for held in &inventory.objects {
            match held.state {
                State::Orphan | State::Foreign => self.orphan(held).await,
                State::Current
                | State::Mismatched { .. }
                | State::Retired
                | State::Dropped
                | State::Condemned
                | State::Missing
                | State::Gone => {}
            }
        }
    }

    fn live(&mut self, date: Date, shard: &ManifestShard, held: &Held) {
        let bits = self.archive.bits();
        if shard.name(date, bits).is_none() {
            let detail = format!("bucket {} is beyond the {} bits of the archive", shard.bucket, bits.get());
            self.wrong(&shard.key, FindingKind::Mismatch, detail);
        }
        match (&held.meta, held.state) {
            (None, _) => {
                let detail = format!("it is missing, with {} files; restore it", shard.entries);
                self.wrong(&shard.key, FindingKind::Missing, detail);
            }
            (Some(meta), State::Mismatched { expected }) => {
                let detail = format!("it has {} bytes, its manifest says {expected}", meta.len);
                self.wrong(&shard.key, FindingKind::Mismatch, detail);
            }
            (Some(_), _) if self.options.level > CheckLevel::Manifest => {
                self.targets.push(Target { date, id: shard.shard });
            }
            (Some(_), _) => {}
        }
    }

    /// What no manifest knows. One that was just written and looks like a shard of the day is left to the run that wrote it.
    async fn orphan(&mut self, held: &Held) {
        self.checked.unlisted = self.checked.unlisted.saturating_add(1);
        let (Some(least), Some(meta)) = (self.options.orphans_older_than, &held.meta) else { return };
        let age = match self.archive.store.time().await {
            Ok(now) => now.since(meta.modified),
            Err(error) => return self.fail(&held.key, &error.into()),
        };
        if age < least {
            match self.is_sound_upload(held).await {
                Ok(true) => {
                    let problem =
                        format!("no manifest lists it yet; it is {} s old, and a run may be under way", age.as_secs());
                    let (object, verdict) = (held.key.to_string(), Verdict::Harmless);
                    return self.find(&Finding { object, problem, verdict, kind: FindingKind::Orphan });
                }
                Ok(false) => {}
                Err(error) => return self.fail(&held.key, &error),
            }
        }
        let problem = if held.state == State::Foreign {
            "no manifest lists it, and it is no shard by its name; move it away".to_owned()
        } else {
            "no manifest lists it: left by a run that died; des-repack gc takes it away".to_owned()
        };
        self.wrong(&held.key, FindingKind::Orphan, problem);
    }

    /// True for an object that ends as a shard of its name does.
    async fn is_sound_upload(&self, held: &Held) -> Result<bool, ArchiveError> {
        let footer_len = u64::try_from(v3::FOOTER_LEN).unwrap_or(u64::MAX);
        let tail = self.archive.store.get_tail(&held.key, footer_len).await?;
        let Ok(footer) = v3::Footer::decode(&tail.bytes) else { return Ok(false) };
        let is_ours = footer.archive == self.archive.identity.archive && footer.object_len == tail.meta.len;
        Ok(is_ours && held.name == Some(footer.name))
    }

    /// Days that are lost with their manifest: whoever packs makes the manifest before the first shard.
    async fn days_without_manifest(&mut self, known: &HashSet<Date>) {
        let mut lost = HashMap::<Date, u64>::new();
        self.count_unlisted(layout::SHARDS, Depth::Recursive, known, &mut lost).await;
        if self.archive.identity.is_adopted() {
            self.count_unlisted("", Depth::Direct, known, &mut lost).await;
        }
        let mut lost: Vec<_> = lost.into_iter().collect();
        lost.sort_unstable();
        for (date, count) in lost {
            let detail = format!("it is missing, though {count} shards are there; restore it");
            self.wrong(&layout::manifest(date), FindingKind::Missing, detail);
        }
    }

    /// Counts the shards below a prefix whose day has no manifest.
    async fn count_unlisted(
        &mut self,
        prefix: &str,
        depth: Depth,
        known: &HashSet<Date>,
        lost: &mut HashMap<Date, u64>,
    ) {
        let (store, bits) = (self.archive.store.as_ref(), self.archive.bits());
        let date_of = |key: &str| {
            let name = layout::parse_shard(key, bits).map(|name| name.group.date);
            name.or_else(|| LegacyName::parse(key, bits).ok().map(|name| name.group.date))
        };
        let mut token: Option<String> = None;
        loop {
            let page = match store.list(prefix, depth, token.as_deref()).await {
                Ok(page) => page,
                Err(error) => return self.fail(prefix, &error.into()),
            };
            for object in &page.objects {
                if let Some(date) = date_of(object.key.as_str()).filter(|date| !known.contains(date)) {
                    let count = lost.entry(date).or_default();
                    *count = count.saturating_add(1);
                }
            }
            token = page.next;
            if token.is_none() {
                return;
            }
        }
    }
}
