//! Comparing a rebuilt shard with those it replaces, through the reader's code: every entry, every byte.

use std::fs::File;

use desfmt::Digest;
use desfmt::v3::{Entry, PageNumber};

use crate::archive::ArchiveError;
use crate::repack::local::{LocalShard, spool_error};
use crate::repack::merge::{Item, Liveness, Merge};
use crate::repack::rebuild::{RebuiltShard, each_part};
use crate::repack::source::Source;

/// The new shard and the old ones. What stays and what is dropped must be what was, and whatever is dropped is deleted.
#[derive(Debug)]
pub(super) struct Verification<'a> {
    pub(super) sources: &'a [Source],
    pub(super) liveness: &'a Liveness,
    pub(super) rebuilt: &'a RebuiltShard,
    pub(super) threads: usize,
}

impl Verification<'_> {
    pub(super) fn run(&self, dropped: u64) -> Result<(), ArchiveError> {
        let path = self.rebuilt.file.path();
        let file = File::open(path).map_err(|error| spool_error(path, error))?;
        let shard = LocalShard::open(file, path.display().to_string())?;
        self.compare_entries(&shard, dropped)?;
        compare_contents(&shard, self.threads.max(1))
    }

    /// Walks old and new side by side. What is dropped is judged anew by the deletions.
    fn compare_entries(&self, shard: &LocalShard, dropped: u64) -> Result<(), ArchiveError> {
        let wrong = |detail: String| shard.inconsistent(format!("rebuilt wrongly, so it is given up: {detail}"));
        let serials = &shard.index().lineage().serials;
        let mut old = Merge::new(self.sources.len());
        let mut found_dropped = 0_u64;
        let mut next_live = || -> Result<Option<Item>, ArchiveError> {
            while let Some(item) = old.next(self.sources)? {
                let id = self.sources.get(item.source).map(|source| source.listed.shard);
                if id.is_some_and(|id| self.liveness.is_live(id, item.entry.uid.as_str())) {
                    return Ok(Some(item));
                }
                found_dropped = found_dropped.saturating_add(1);
            }
            Ok(None)
        };
        for page in (0..shard.index().index_pages()).map(PageNumber) {
            let (entries, cold) = (shard.index_page(page)?, shard.cold_page(page)?);
            for (place, new) in entries.entries().enumerate() {
                let Some(item) = next_live()? else { return Err(wrong(format!("{:?} came from nowhere", new.uid))) };
                let serial = serials.get(usize::from(new.origin)).copied();
                let is_same = self.serial_of(&item) == serial
                    && is_same_file(&item.entry, &new)
                    && cold.digest(place) == Some(item.digest)
                    && cold.metadata(place) == item.metadata.as_deref();
                if !is_same {
                    return Err(wrong(format!("{:?} where {:?} was", new.uid, item.entry.uid)));
                }
            }
        }
        if let Some(item) = next_live()? {
            return Err(wrong(format!("{:?} is missing", item.entry.uid)));
        }
        if found_dropped != dropped {
            return Err(wrong(format!("{dropped} files were dropped and {found_dropped} are deleted")));
        }
        Ok(())
    }

    fn serial_of(&self, item: &Item) -> Option<u32> {
        self.sources.get(item.source)?.listed.serials.get(usize::from(item.entry.origin)).copied()
    }
}

fn is_same_file(old: &Entry, new: &Entry) -> bool {
    (&old.uid, old.len, old.created_at, old.mtime, old.ordinal)
        == (&new.uid, new.len, new.created_at, new.mtime, new.ordinal)
}

/// Reads every content of a shard and compares its digest, by several threads.
pub(super) fn compare_contents(shard: &LocalShard, threads: usize) -> Result<(), ArchiveError> {
    let pages = shard.index().index_pages();
    let threads = threads.min(usize::try_from(pages).unwrap_or(usize::MAX)).max(1);
    let step = u32::try_from(threads).unwrap_or(1);
    if threads == 1 {
        return (0..pages).try_for_each(|page| compare_page(&mut shard.reopen()?, PageNumber(page)));
    }
    std::thread::scope(|scope| {
        let parts = (0..step).map(|first| {
            scope.spawn(move || {
                let mut own = shard.reopen()?;
                let mut page = first;
                while page < pages {
                    compare_page(&mut own, PageNumber(page))?;
                    page = page.saturating_add(step);
                }
                Ok(())
            })
        });
        let parts: Vec<_> = parts.collect();
        parts.into_iter().try_for_each(|part| {
            part.join().unwrap_or_else(|_| Err(ArchiveError::refused("a thread that verified a shard died")))
        })
    })
}

fn compare_page(shard: &mut LocalShard, number: PageNumber) -> Result<(), ArchiveError> {
    let (entries, cold) = (shard.index_page(number)?, shard.cold_page(number)?);
    for (place, entry) in entries.entries().enumerate() {
        let digest = digest_of(shard, &entry)?;
        if cold.digest(place) != Some(digest) {
            return Err(shard.inconsistent(format!("the content of {:?} is not what it was", entry.uid)));
        }
    }
    Ok(())
}

fn digest_of(shard: &mut LocalShard, entry: &Entry) -> Result<Digest, ArchiveError> {
    let mut hasher = blake3::Hasher::new();
    each_part(shard, entry.offset, entry.len, &mut |part| {
        hasher.update(part);
        Ok(())
    })?;
    Ok(hasher.finalize())
}
