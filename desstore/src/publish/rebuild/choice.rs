//! Which of the objects of a group are live, when no manifest says it.

use std::collections::{BTreeSet, HashMap, HashSet};

use desfmt::{Digest, ShardId, ShardName, Uid, UidHasher};

use crate::archive::{ProvenShard, TombstoneSet};

/// The objects of a group.
pub(super) struct Group<'a> {
    tombstones: &'a TombstoneSet,
    hasher: &'a UidHasher,
    oldest_wins: bool,
    proven: Vec<ProvenShard>,
    damaged: Vec<ShardName>,
}

/// What became of them.
#[derive(Debug, Default)]
pub(super) struct Chosen {
    pub(super) live: Vec<ProvenShard>,
    pub(super) retired: Vec<ProvenShard>,
    pub(super) condemned: Vec<(ProvenShard, String)>,
    /// Damaged objects that may hold what nothing else holds.
    pub(super) lost: Vec<ShardName>,
}

impl<'a> Group<'a> {
    pub(super) const fn new(tombstones: &'a TombstoneSet, hasher: &'a UidHasher, oldest_wins: bool) -> Self {
        Self { tombstones, hasher, oldest_wins, proven: Vec::new(), damaged: Vec::new() }
    }

    pub(super) fn add(&mut self, proven: ProvenShard) {
        self.proven.push(proven);
    }

    pub(super) fn add_damaged(&mut self, name: ShardName) {
        self.damaged.push(name);
    }

    fn is_deleted(&self, uid: &Uid) -> bool {
        self.tombstones.holds(self.hasher.hash(uid.as_str()))
    }

    /// Decides. Fails where it cannot be known what was visible.
    pub(super) fn choose(mut self) -> Result<Chosen, String> {
        let mut chosen = Chosen::default();
        let proven = std::mem::take(&mut self.proven);
        // By split, the highest version first: the order in which a doubt is decided.
        let mut candidates = Vec::new();
        for shard in proven {
            if self.tombstones.holds_shard(shard.listed.shard) {
                chosen.condemned.push((shard, "everything in it was deleted".to_owned()));
            } else {
                candidates.push(shard);
            }
        }
        candidates.sort_by_key(|shard| (shard.listed.split, shard.listed.repack));
        let replaced = self.replaced(&candidates)?;
        let (old, mut candidates): (Vec<_>, Vec<_>) =
            candidates.into_iter().partition(|shard| replaced.contains(&shard.listed.shard));
        chosen.retired = old;
        self.take_out_redundant(&mut candidates, &mut chosen);
        self.refuse_contradictions(&candidates)?;
        // A damaged version is no loss where a sound one of the same split replaces it or was replaced by it.
        let splits: HashSet<u32> =
            candidates.iter().filter(|shard| shard.listed.repack > 0).map(|shard| shard.listed.split).collect();
        chosen.lost = self.damaged.iter().filter(|name| !splits.contains(&name.split)).copied().collect();
        chosen.live = candidates;
        Ok(chosen)
    }

    /// The identities that sound shards replace. A shard replaces its parents if what it left out of them is deleted.
    fn replaced(&self, shards: &[ProvenShard]) -> Result<BTreeSet<ShardId>, String> {
        let mut replaced = BTreeSet::new();
        let by_id: HashMap<ShardId, &ProvenShard> = shards.iter().map(|shard| (shard.listed.shard, shard)).collect();
        for child in shards {
            let kept: HashSet<&Uid> = child.files.iter().map(|(uid, _)| uid).collect();
            for parent in child.lineage.parents.iter().filter_map(|parent| by_id.get(&parent.shard)) {
                let left_out = parent.files.iter().find(|(uid, _)| !kept.contains(uid) && !self.is_deleted(uid));
                if let Some((uid, _)) = left_out {
                    return Err(format!(
                        "{} replaces {}, but holds no {:?}, which nothing deletes",
                        child.listed.key,
                        parent.listed.key,
                        uid.as_str()
                    ));
                }
                replaced.insert(parent.listed.shard);
            }
        }
        Ok(replaced)
    }

    /// Condemns shards whose visible files others hold with the same content: uploads that lost a race.
    fn take_out_redundant(&self, candidates: &mut Vec<ProvenShard>, chosen: &mut Chosen) {
        loop {
            let mut holders = HashMap::<&Uid, Vec<(usize, Digest)>>::new();
            for (at, shard) in candidates.iter().enumerate() {
                for (uid, digest) in shard.files.iter().filter(|(uid, _)| !self.is_deleted(uid)) {
                    holders.entry(uid).or_default().push((at, *digest));
                }
            }
            let mut overlapping = vec![BTreeSet::new(); candidates.len()];
            let mut is_needed = vec![false; candidates.len()];
            for held in holders.values() {
                for (at, digest) in held {
                    let others = || held.iter().filter(|(other, _)| other != at);
                    if let Some(set) = overlapping.get_mut(*at) {
                        set.extend(others().map(|(other, _)| *other));
                    }
                    if !others().any(|(_, other)| other == digest)
                        && let Some(needed) = is_needed.get_mut(*at)
                    {
                        *needed = true;
                    }
                }
            }
            // Who overlaps with the most others: without it the fewest files are held twice. Of equals an older version, then
            // a later split.
            let redundant = candidates
                .iter()
                .enumerate()
                .filter(|(at, _)| !is_needed.get(*at).copied().unwrap_or(true))
                .filter(|(at, _)| overlapping.get(*at).is_some_and(|others| !others.is_empty()))
                .max_by_key(|(at, shard)| {
                    let others = overlapping.get(*at).map_or(0, BTreeSet::len);
                    (others, std::cmp::Reverse(shard.listed.repack), shard.listed.split)
                })
                .map(|(at, _)| at);
            drop(holders);
            let Some(at) = redundant else { return };
            let shard = candidates.remove(at);
            chosen.condemned.push((shard, "other shards hold all of its files".to_owned()));
        }
    }

    /// Two contents for one uid: only the lost manifest knew which shard was live.
    fn refuse_contradictions(&self, candidates: &[ProvenShard]) -> Result<(), String> {
        if self.oldest_wins {
            return Ok(());
        }
        let mut seen = HashMap::<&Uid, (&ProvenShard, Digest)>::new();
        for shard in candidates {
            for (uid, digest) in shard.files.iter().filter(|(uid, _)| !self.is_deleted(uid)) {
                match seen.insert(uid, (shard, *digest)) {
                    Some((other, held)) if held != *digest => {
                        return Err(format!(
                            "{:?} has one content in {} and another in {}; say which counts",
                            uid.as_str(),
                            other.listed.key,
                            shard.listed.key
                        ));
                    }
                    Some(_) | None => {}
                }
            }
        }
        Ok(())
    }
}
