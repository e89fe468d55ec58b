//! What decoding costs by itself: the frames that hold the files, decoded from memory by the library that a mount uses.

use std::collections::HashMap;
use std::path::Path;

use bytes::Bytes;
use desfmt::v3::{FrameRef, PageNumber, ShardIndex};
use desfmt::{Date, layout};

use crate::Load;
use crate::files::name;
use crate::numbers::Numbers;
use crate::outcome::{Failure, Outcome};
use crate::read::in_parallel;

/// A shard in memory.
struct Shard {
    object: Bytes,
    index: ShardIndex,
}

/// The frame of one file.
struct Task<'a> {
    shard: &'a Shard,
    frame: FrameRef,
}

/// Decodes the frame of each of the files that a reader with the same load reads.
pub(crate) fn many(archive: &Path, date: Date, load: &Load) -> Result<Outcome, Failure> {
    let shards = open_all(archive, date)?;
    let mut frames = HashMap::new();
    for shard in &shards {
        collect_frames(shard, &mut frames)?;
    }
    let chosen = Numbers::new(load.seed).distinct(load.files, load.operations);
    let tasks: Vec<Task<'_>> = chosen
        .into_iter()
        .map(|number| {
            let (shard, frame) =
                frames.remove(&name(number)).ok_or_else(|| format!("{} is not packed", name(number)))?;
            Ok(Task { shard, frame })
        })
        .collect::<Result<_, Failure>>()?;
    in_parallel(load.clients, &tasks, |task, _| {
        let place = usize::try_from(task.frame.stored.start)?..usize::try_from(task.frame.stored.end)?;
        let stored = task.shard.object.slice(place);
        Ok(task.shard.index.decode_frame_in_place(&task.frame, &stored)?.len())
    })
}

fn open_all(archive: &Path, date: Date) -> Result<Vec<Shard>, Failure> {
    let entries = std::fs::read_dir(archive.join(layout::shards_prefix(date)))?;
    entries
        .map(|entry| {
            let object = Bytes::from(std::fs::read(entry?.path())?);
            let len = u64::try_from(object.len())?;
            Ok(Shard { index: ShardIndex::open(object.clone(), len)?, object })
        })
        .collect()
}

fn collect_frames<'a>(shard: &'a Shard, frames: &mut HashMap<String, (&'a Shard, FrameRef)>) -> Result<(), Failure> {
    let index = &shard.index;
    let place = |range: Option<std::ops::Range<u64>>| {
        let range = range.ok_or("no such page")?;
        Ok::<_, Failure>(shard.object.slice(usize::try_from(range.start)?..usize::try_from(range.end)?))
    };
    for number in 0..index.index_pages() {
        let page = PageNumber(number);
        let decoded = index.decode_index_page(page, &place(index.index_page_range(page))?)?;
        for entry in decoded.entries() {
            let page = index.frame_page_of(entry.offset).ok_or("no frame holds a file")?;
            let table = index.decode_frame_page(page, &place(index.frame_page_range(page))?)?;
            let frame = table.find(entry.offset).ok_or("no frame holds a file")?;
            frames.insert(entry.uid.as_str().to_owned(), (shard, frame));
        }
    }
    Ok(())
}
