//! The changes that a manifest can go through, each decided by what the manifest says at the moment of the commit.

use std::sync::Arc;

use desfmt::document::{CondemnedObject, Manifest, ManifestShard, RetiredObject};
use desfmt::{Birth, ObjectKey, ShardId, Timestamp, Uid};

use crate::archive::ArchiveError;
use crate::rules::{Rule, keeps};

/// What a commit came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    /// It is done; for a new shard, with this birth serial.
    Committed(u32),
    /// Another live shard holds some of its uids; the object is condemned.
    Overlap,
    /// Some of its uids were deleted meanwhile.
    Deleted,
    /// Its key was retired or condemned by somebody else, or its numbers are used up; it needs another name.
    Terminal,
    /// Its group has live shards that it was not compared with yet.
    Recompare,
    /// What it was based on is no longer so.
    Stale,
}

impl Decision {
    /// True when the next manifest has the change.
    pub(crate) const fn is_committed(self) -> bool {
        matches!(self, Self::Committed(_))
    }
}

/// One change of a manifest.
#[derive(Debug)]
pub(crate) enum Change {
    /// A new shard.
    Add(Box<NewShard>),
    /// Objects that never become live.
    Condemn(Vec<CondemnedObject>),
    /// Live shards give way to others that hold the same files but for deleted ones, if they still are what was read.
    Swap {
        /// What goes, by key and identity.
        old: Vec<(ObjectKey, ShardId)>,
        /// What comes; nothing where all files of the old ones are deleted. One without serials gets one that was never used.
        new: Vec<ManifestShard>,
    },
    /// Retired and condemned objects that are proven gone.
    Forget(Vec<(ObjectKey, Numbers)>),
}

/// A shard that was never live.
#[derive(Debug)]
pub(crate) struct NewShard {
    pub(crate) listed: ManifestShard,
    /// The shards of its group that were proven to hold none of its uids.
    pub(crate) known: Vec<ObjectKey>,
    pub(crate) uids: Arc<[Uid]>,
}

/// The numbers that a key has used up: bucket, split and repack; none for a key without any.
pub(crate) type Numbers = Option<(u16, u32, u32)>;

impl Change {
    /// The shards that will be live by this change.
    pub(crate) fn added(&self) -> &[ManifestShard] {
        match self {
            Self::Add(new) => std::slice::from_ref(&new.listed),
            Self::Swap { new, .. } => new,
            Self::Condemn(_) | Self::Forget(_) => &[],
        }
    }

    /// Makes the change, or says why not.
    pub(crate) fn apply(&self, manifest: &mut Manifest, now: Timestamp) -> Result<Decision, ArchiveError> {
        match self {
            Self::Add(new) => add(manifest, &new.listed, &new.known),
            Self::Condemn(objects) => Ok(condemn(manifest, objects)),
            Self::Swap { old, new } => swap(manifest, old, new, now),
            Self::Forget(keys) => Ok(forget(manifest, keys)),
        }
    }
}

fn add(manifest: &mut Manifest, shard: &ManifestShard, known: &[ObjectKey]) -> Result<Decision, ArchiveError> {
    // An earlier run of ours has adopted and committed the same object.
    if let Some(listed) = manifest.shards.iter().find(|listed| listed.key == shard.key) {
        return Ok(listed.serials.first().map_or(Decision::Terminal, |serial| Decision::Committed(*serial)));
    }
    if is_spent(manifest, shard) {
        return Ok(Decision::Terminal);
    }
    if manifest.shards.iter().any(|listed| listed.bucket == shard.bucket && !known.contains(&listed.key)) {
        return Ok(Decision::Recompare);
    }
    let serial = take_serials(manifest, 1)?.start;
    let numbers = manifest.numbers.entry(shard.bucket).or_default();
    numbers.split_max = numbers.split_max.max(shard.split);
    manifest.shards.push(ManifestShard { serials: vec![serial], ..ManifestShard::clone(shard) });
    Ok(Decision::Committed(serial))
}

/// Gives out serials that were never used.
fn take_serials(manifest: &mut Manifest, count: usize) -> Result<std::ops::Range<u32>, ArchiveError> {
    let first = manifest.next_serial;
    let end = first.saturating_add(u32::try_from(count).unwrap_or(u32::MAX));
    if end.saturating_sub(1) > Birth::SERIAL_MAX {
        let reason = format!("the day {} has used up all {} serials; repack it", manifest.date, Birth::SERIAL_MAX);
        return Err(ArchiveError::refused(reason));
    }
    manifest.next_serial = end;
    Ok(first..end)
}

/// True when the key of a shard can no longer become live.
fn is_spent(manifest: &Manifest, shard: &ManifestShard) -> bool {
    if !keeps(Rule::RollbackCopies) {
        return false;
    }
    (keeps(Rule::TerminalStays) && manifest.is_terminal(&shard.key))
        || manifest.is_used_up(shard.bucket, shard.split, shard.repack)
}

fn condemn(manifest: &mut Manifest, objects: &[CondemnedObject]) -> Decision {
    if keeps(Rule::LiveIsNotCondemned)
        && objects.iter().any(|object| manifest.shards.iter().any(|shard| shard.key == object.key))
    {
        return Decision::Stale;
    }
    for object in objects {
        if !manifest.is_terminal(&object.key) {
            manifest.condemned.push(object.clone());
        }
    }
    Decision::Committed(0)
}

fn swap(
    manifest: &mut Manifest,
    old: &[(ObjectKey, ShardId)],
    new: &[ManifestShard],
    now: Timestamp,
) -> Result<Decision, ArchiveError> {
    let is_live = |key: &ObjectKey, id: ShardId, manifest: &Manifest| {
        manifest.shards.iter().any(|shard| shard.key == *key && shard.shard == id)
    };
    // An earlier run of ours has adopted and committed the same objects.
    let has_gone = |(key, _): &(ObjectKey, ShardId)| manifest.is_terminal(key);
    if !new.is_empty() && new.iter().all(|shard| is_live(&shard.key, shard.shard, manifest)) {
        return Ok(if old.iter().all(has_gone) { Decision::Committed(0) } else { Decision::Stale });
    }
    let needs_old = keeps(Rule::SwapNeedsOld);
    if old.is_empty() || (needs_old && !old.iter().all(|(key, id)| is_live(key, *id, manifest))) {
        return Ok(Decision::Stale);
    }
    if new.iter().any(|shard| is_spent(manifest, shard) || manifest.shards.iter().any(|live| live.key == shard.key)) {
        return Ok(Decision::Terminal);
    }
    let stays = |shard: &ManifestShard| !old.iter().any(|(key, _)| *key == shard.key);
    let serial_is_taken =
        |serial: &u32| manifest.shards.iter().filter(|shard| stays(shard)).any(|shard| shard.serials.contains(serial));
    if needs_old && new.iter().flat_map(|shard| &shard.serials).any(serial_is_taken) {
        return Ok(Decision::Stale);
    }
    let fresh = new.iter().filter(|shard| shard.serials.is_empty()).count();
    let mut serials = take_serials(manifest, fresh)?;
    let generation = manifest.generation.saturating_add(1);
    let (staying, going): (Vec<_>, Vec<_>) = std::mem::take(&mut manifest.shards).into_iter().partition(stays);
    manifest.shards = staying;
    let going = if keeps(Rule::SwapRetires) { going } else { Vec::new() };
    manifest.retired.extend(going.into_iter().map(|shard| RetiredObject {
        key: shard.key.clone(),
        shard: shard.shard,
        generation,
        at: now,
        entry: Some(Box::new(shard)),
    }));
    for shard in new {
        manifest.use_up(shard.bucket, shard.split, shard.repack);
        let mut shard = shard.clone();
        if shard.serials.is_empty() {
            shard.serials.extend(serials.next());
        }
        manifest.shards.push(shard);
    }
    manifest.shards.sort_by(|a, b| a.key.cmp(&b.key));
    Ok(Decision::Committed(0))
}

fn forget(manifest: &mut Manifest, keys: &[(ObjectKey, Numbers)]) -> Decision {
    let mut forgot = false;
    for (key, numbers) in keys.iter().filter(|(key, _)| manifest.is_terminal(key)).collect::<Vec<_>>() {
        manifest.retired.retain(|object| object.key != *key);
        manifest.condemned.retain(|object| object.key != *key);
        if let Some((bucket, split, repack)) = numbers
            && keeps(Rule::ForgottenIsUsedUp)
        {
            manifest.use_up(*bucket, *split, *repack);
        }
        forgot = true;
    }
    if forgot { Decision::Committed(0) } else { Decision::Stale }
}

#[cfg(test)]
mod tests {
    use desfmt::{Bucket, BucketBits, Group, ShardName, layout};

    use super::*;

    fn shard(split: u32, repack: u32, serials: &[u32]) -> ManifestShard {
        let bits = BucketBits::new(0).unwrap();
        let group = Group { date: "20240115".parse().unwrap(), bucket: Bucket::new(0, bits).unwrap(), bits };
        let mut id = [0; 16];
        id[0] = u8::try_from(split).unwrap();
        id[1] = u8::try_from(repack).unwrap();
        ManifestShard {
            bucket: 0,
            split,
            repack,
            key: layout::shard(&ShardName { group, split, repack }),
            shard: ShardId::from_bytes(id),
            len: 1_000,
            tail_len: 500,
            blake3: String::new(),
            entries: 1,
            plain_len: 1,
            uid_min: None,
            uid_max: None,
            serials: serials.to_vec(),
        }
    }

    fn day(shards: Vec<ManifestShard>) -> Manifest {
        Manifest { next_serial: 10, shards, ..Manifest::empty("20240115".parse().unwrap()) }
    }

    fn identity(shard: &ManifestShard) -> (ObjectKey, ShardId) {
        (shard.key.clone(), shard.shard)
    }

    const NOW: Timestamp = Timestamp::from_micros(7);

    #[test]
    fn a_swap_retires_the_old_with_its_time_and_all_that_was_known_of_it() {
        let (a, b, merged) = (shard(0, 0, &[1]), shard(1, 0, &[2]), shard(0, 1, &[1, 2]));
        let mut manifest = day(vec![a.clone(), b.clone(), shard(2, 0, &[3])]);

        let change = Change::Swap { old: vec![identity(&a), identity(&b)], new: vec![merged.clone()] };
        assert_eq!(change.apply(&mut manifest, NOW).unwrap(), Decision::Committed(0));

        assert_eq!(manifest.shards, [merged, shard(2, 0, &[3])]);
        let retired: Vec<_> = manifest.retired.iter().map(|object| (object.generation, object.at)).collect();
        assert_eq!(retired, [(2, NOW), (2, NOW)]);
        assert_eq!(manifest.retired[0].entry.as_deref(), Some(&a));
        // Whoever lost the answer asks again and learns that it is done.
        assert_eq!(change.apply(&mut manifest, NOW).unwrap(), Decision::Committed(0));
        assert_eq!(manifest.retired.len(), 2);
    }

    #[test]
    fn a_swap_of_what_has_changed_meanwhile_does_nothing() {
        let (a, b) = (shard(0, 0, &[1]), shard(0, 1, &[1]));
        let mut manifest = day(vec![shard(1, 0, &[2])]);
        let before = manifest.clone();

        let gone = Change::Swap { old: vec![identity(&a)], new: vec![b] };
        assert_eq!(gone.apply(&mut manifest, NOW).unwrap(), Decision::Stale);
        let other = (shard(1, 0, &[2]).key, shard(9, 9, &[]).shard);
        let other = Change::Swap { old: vec![other], new: vec![shard(1, 1, &[2])] };
        assert_eq!(other.apply(&mut manifest, NOW).unwrap(), Decision::Stale);
        assert_eq!(manifest, before);
    }

    #[test]
    fn a_shard_without_serials_gets_one_that_was_never_used() {
        let mut manifest = day(vec![shard(0, 0, &[1]), shard(1, 0, &[2])]);
        let old = vec![identity(&shard(0, 0, &[1]))];

        let change = Change::Swap { old, new: vec![shard(0, 1, &[])] };
        assert_eq!(change.apply(&mut manifest, NOW).unwrap(), Decision::Committed(0));

        assert_eq!((&manifest.shards[0].serials, manifest.next_serial), (&vec![10], 11));
        assert_eq!(
            change.apply(&mut manifest, NOW).unwrap(),
            Decision::Committed(0),
            "and asking again changes nothing"
        );
        assert_eq!(manifest.next_serial, 11);
        manifest.next_serial = Birth::SERIAL_MAX + 1;
        let last = Change::Swap { old: vec![identity(&shard(1, 0, &[2]))], new: vec![shard(1, 1, &[])] };
        let refused = last.apply(&mut manifest, NOW).unwrap_err();
        assert!(refused.to_string().contains("used up all"), "{refused}");
    }

    #[test]
    fn a_swap_without_a_successor_drops_the_shard() {
        let mut manifest = day(vec![shard(0, 0, &[1])]);

        let change = Change::Swap { old: vec![identity(&shard(0, 0, &[1]))], new: Vec::new() };
        assert_eq!(change.apply(&mut manifest, NOW).unwrap(), Decision::Committed(0));

        assert_eq!((manifest.shards.len(), manifest.retired.len()), (0, 1));
    }

    #[test]
    fn a_key_that_was_forgotten_does_not_come_back() {
        let (a, b) = (shard(0, 0, &[1]), shard(0, 1, &[1]));
        let mut manifest = day(vec![a.clone()]);
        Change::Swap { old: vec![identity(&a)], new: vec![b.clone()] }.apply(&mut manifest, NOW).unwrap();
        Change::Swap { old: vec![identity(&b)], new: Vec::new() }.apply(&mut manifest, NOW).unwrap();
        let forget = Change::Forget(vec![(a.key.clone(), Some((0, 0, 0))), (b.key.clone(), Some((0, 0, 1)))]);
        assert_eq!(forget.apply(&mut manifest, NOW).unwrap(), Decision::Committed(0));
        assert!(manifest.retired.is_empty());

        let again = Change::Add(Box::new(NewShard { listed: a, known: Vec::new(), uids: Arc::new([]) }));
        assert_eq!(again.apply(&mut manifest, NOW).unwrap(), Decision::Terminal);
        manifest.shards.push(shard(1, 0, &[2]));
        let again = Change::Swap { old: vec![identity(&shard(1, 0, &[2]))], new: vec![b] };
        assert_eq!(again.apply(&mut manifest, NOW).unwrap(), Decision::Terminal);
    }

    #[test]
    fn what_is_live_is_not_condemned() {
        let mut manifest = day(vec![shard(0, 0, &[1])]);
        let condemned = |key| vec![CondemnedObject { key, reason: "a test".to_owned(), at: NOW }];

        let live = Change::Condemn(condemned(shard(0, 0, &[]).key));
        assert_eq!(live.apply(&mut manifest, NOW).unwrap(), Decision::Stale);
        let orphan = Change::Condemn(condemned(shard(1, 0, &[]).key));
        assert_eq!(orphan.apply(&mut manifest, NOW).unwrap(), Decision::Committed(0));

        assert_eq!(manifest.condemned.len(), 1);
    }
}
