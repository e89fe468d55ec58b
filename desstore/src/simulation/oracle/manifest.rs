//! The manifest: only what is proven becomes live, nothing live is lost, and what has left never comes back.

use std::collections::BTreeMap;

use bytes::Bytes;
use desfmt::document::{self, Manifest, ManifestShard};
use desfmt::{Birth, ObjectKey, Timestamp};

use super::shards::ShardFile;
use super::{Oracle, Seen, Spent};

impl Oracle {
    pub(super) fn manifest_written(&mut self, bytes: &Bytes, at: Timestamp) -> Result<(), String> {
        let next: Manifest = document::decode(bytes)
            .map_err(|error| format!("a manifest was written that breaks its rules: {error}"))?;
        let before = self.manifest.take().unwrap_or_else(|| Manifest { generation: 0, ..Manifest::empty(next.date) });
        if next.generation != before.generation + 1 {
            return Err(format!("generation {} followed generation {}", next.generation, before.generation));
        }
        self.reached.commits += 1;
        for shard in &next.shards {
            self.check_live(shard, before.shards.iter().any(|listed| listed.key == shard.key))?;
        }
        self.check_new(&before, &next)?;
        self.note_spent(&before, &next, at)?;
        self.check_forgotten(&before, &next)?;
        let live = self.files_of_live(&next, at)?;
        if let Some(uid) = self.live.keys().find(|uid| !live.contains_key(*uid) && !self.is_deleted(uid)) {
            return Err(format!("C-1: {uid} is in no live shard any more, and nobody has deleted it"));
        }
        self.live = live;
        self.manifest = Some(next);
        Ok(())
    }

    /// What is listed as live was never spent, and is what the manifest says.
    fn check_live(&mut self, shard: &ManifestShard, was_live: bool) -> Result<(), String> {
        let key = &shard.key;
        if self.spent.contains_key(key) {
            return Err(format!("C-6: {key} is live again after it was retired or condemned"));
        }
        if was_live {
            return Ok(());
        }
        let Some(held) = self.shards.get(key) else {
            return Err(format!("A1: {key} became live and is not there"));
        };
        if held.digest.to_hex().as_str() != shard.blake3 || held.len != shard.len {
            return Err(format!("A1: {key} became live and is not what was uploaded"));
        }
        self.contents.insert(key.clone(), held.files.clone());
        Ok(())
    }

    /// A shard that was packed just now holds nothing that was live before, was deleted and has been dropped.
    fn check_new(&self, before: &Manifest, next: &Manifest) -> Result<(), String> {
        let is_new = |shard: &&ManifestShard| shard.serials.iter().any(|serial| *serial >= before.next_serial);
        for shard in next.shards.iter().filter(is_new) {
            let mut files = self.contents.get(&shard.key).into_iter().flatten().flat_map(|files| files.iter());
            let is_back = |file: &&ShardFile| {
                let was_live = self.files.contains_key(&file.uid) && !self.live.contains_key(&file.uid);
                was_live && self.deleted.contains(&file.hash)
            };
            if let Some(file) = files.find(is_back) {
                return Err(format!("P6: {} publishes {}, which was deleted and dropped", shard.key, file.uid));
            }
        }
        Ok(())
    }

    /// What leaves the live shards is retired in the same commit.
    fn note_spent(&mut self, before: &Manifest, next: &Manifest, at: Timestamp) -> Result<(), String> {
        let leaving = |shard: &&ManifestShard| !next.shards.iter().any(|live| live.key == shard.key);
        let left = before.shards.iter().filter(leaving).count();
        if let Some(shard) = before.shards.iter().filter(leaving).find(|shard| !next.is_terminal(&shard.key)) {
            return Err(format!("G6b: {} is neither live nor retired", shard.key));
        }
        self.reached.swaps += u64::from(left > 0);
        self.reached.merges += u64::from(left > 1);
        let operation = self.operation;
        let retired = next.retired.iter().map(|object| (&object.key, true));
        for (key, was_live) in retired.chain(next.condemned.iter().map(|object| (&object.key, false))) {
            if !self.spent.contains_key(key) {
                self.reached.condemned += u64::from(!was_live);
                self.spent.insert(key.clone(), Spent { operation, at, was_live });
            }
        }
        Ok(())
    }

    /// What the manifest forgets is gone, unless a late upload has brought it since.
    fn check_forgotten(&self, before: &Manifest, next: &Manifest) -> Result<(), String> {
        let known = before.retired.iter().map(|object| &object.key).chain(before.condemned.iter().map(|one| &one.key));
        for key in known.filter(|key| !next.is_terminal(key)) {
            let spent = self.spent.get(key).map_or(0, |spent| spent.operation);
            if self.shards.get(key).is_some_and(|held| held.created < spent) {
                return Err(format!("G6b: the manifest has forgotten {key}, which is still there"));
            }
        }
        Ok(())
    }

    /// The files of all live shards: each once, with the birth and the content that it always had.
    fn files_of_live(&mut self, next: &Manifest, at: Timestamp) -> Result<BTreeMap<String, ObjectKey>, String> {
        let mut live = BTreeMap::new();
        for shard in &next.shards {
            let files = self.contents.get(&shard.key).cloned().flatten();
            let files = files.ok_or_else(|| format!("A1: {} is live and cannot be read", shard.key))?;
            for file in files.iter() {
                let uid = &file.uid;
                let serial = shard.serials.get(usize::from(file.origin)).copied();
                let serial = serial.ok_or_else(|| format!("{} does not list the origin of {uid}", shard.key))?;
                let birth = Birth { serial, ordinal: file.ordinal };
                if let Some(other) = live.insert(uid.clone(), shard.key.clone()) {
                    return Err(format!("A2: {uid} is in {other} and in {}", shard.key));
                }
                let new = Seen { digest: file.digest, birth, since: at };
                let seen = *self.files.entry(uid.clone()).or_insert(new);
                // One that was deleted may be published once more by who had looked before; nobody sees it.
                let is_same = seen.digest == new.digest && seen.birth == new.birth;
                if !is_same && !self.deleted.contains(&file.hash) {
                    return Err(format!("{uid} was born {:?} and is {birth:?} now, or has other content", seen.birth));
                }
            }
        }
        Ok(live)
    }
}
