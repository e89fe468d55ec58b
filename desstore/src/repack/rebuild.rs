//! Building the successor of one or several shards in a local file.

use std::sync::Arc;

use desfmt::v3::limits::{SLOT_BITS, SLOT_LEN};
use desfmt::v3::{self, Body, BodySettings, BodyWriter, EncodedFrame, FrameCutter, FrameEncoder};
use desfmt::{ArchiveId, BucketBits, Date, ShardName, Uid, UidHasher};

use crate::archive::ArchiveError;
use crate::deletions::Deletions;
use crate::repack::body_file::{BodyFile, Trouble, refused};
use crate::repack::encode::FrameQueue;
use crate::repack::files::{Files, LiveFiles};
use crate::repack::local::{LocalShard, SpoolFile};
use crate::repack::merge::{Item, Liveness, Merge};
use crate::repack::placing::{Ground, frames_of};
use crate::repack::source::Source;
use crate::repack::verify::Verification;
use crate::repack::{Chosen, Done, RepackSettings};
use crate::rules::{Rule, keeps};

/// All that is needed to build.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) archive: ArchiveId,
    pub(super) bits: BucketBits,
    pub(super) date: Date,
    pub(super) sources: Vec<Source>,
    pub(super) deletions: Arc<Deletions>,
    pub(super) hasher: UidHasher,
    pub(super) settings: RepackSettings,
    /// A name for a file in the spool.
    pub(super) spool_name: String,
}

/// What came of it.
#[derive(Debug)]
pub(super) enum Rebuilt {
    /// Nothing is deleted, and nothing else was asked for.
    Nothing,
    /// Everything is deleted.
    Empty(Done),
    /// A shard, proven to hold what it should.
    Shard(Box<RebuiltShard>, Done),
}

/// A finished shard that waits for its name.
#[derive(Debug)]
pub(super) struct RebuiltShard {
    pub(super) file: SpoolFile,
    pub(super) body: Body,
    /// The name that it was built for; the repack number may rise.
    pub(super) name: ShardName,
    pub(super) serials: Vec<u32>,
    pub(super) plain_len: u64,
    pub(super) uid_min: Option<Uid>,
    pub(super) uid_max: Option<Uid>,
}

/// The live files of shards that were surveyed.
#[derive(Debug)]
struct Surveyed<'a> {
    sources: &'a mut [Source],
    grounds: &'a [Ground],
}

impl Files for Surveyed<'_> {
    fn bytes(&self) -> u64 {
        self.grounds.iter().map(|ground| ground.bytes_live).fold(0, u64::saturating_add)
    }

    fn for_each(
        &mut self,
        want: &mut dyn FnMut(u64) -> u64,
        take: &mut dyn FnMut(Vec<u8>),
    ) -> Result<(), ArchiveError> {
        let mut merge = Merge::new(self.sources.len());
        while let Some(item) = merge.next(self.sources)? {
            let is_live = self.grounds.get(item.source).is_some_and(|ground| ground.is_live(item.entry.position));
            let len = if is_live { want(item.entry.len).min(item.entry.len) } else { 0 };
            if len == 0 {
                continue;
            }
            let Some(source) = self.sources.get_mut(item.source) else { continue };
            let mut head = Vec::new();
            each_part(&mut source.shard, item.entry.offset, len, &mut |part| {
                head.extend_from_slice(part);
                Ok(())
            })?;
            take(head);
        }
        Ok(())
    }
}

/// Reads a content frame by frame.
pub(super) fn each_part(
    shard: &mut LocalShard,
    offset: u64,
    len: u64,
    take: &mut dyn FnMut(&[u8]) -> Result<(), ArchiveError>,
) -> Result<(), ArchiveError> {
    let (mut address, mut left) = (offset, len);
    while left > 0 {
        let within = address & (SLOT_LEN - 1);
        let frame = shard.frame(u32::try_from(address >> SLOT_BITS).unwrap_or(u32::MAX))?;
        let wanted = left.min(SLOT_LEN.saturating_sub(within));
        let from = usize::try_from(within).unwrap_or(usize::MAX);
        let to = from.saturating_add(usize::try_from(wanted).unwrap_or(usize::MAX));
        let part =
            frame.get(from..to).ok_or_else(|| shard.inconsistent("a content lies beyond the end of its frame"))?;
        take(part)?;
        address = address.saturating_add(wanted);
        left = left.saturating_sub(wanted);
    }
    Ok(())
}

impl Task {
    /// Builds and verifies. Blocks. Memory: some 40 bytes an entry, and a few MiB of frames.
    pub(super) fn run(mut self) -> Result<Rebuilt, ArchiveError> {
        let liveness = Liveness { deletions: Arc::clone(&self.deletions), hasher: self.hasher.clone() };
        let surveyed = self.sources.iter().map(|source| Ground::survey(source, &liveness));
        let mut grounds = surveyed.collect::<Result<Vec<_>, _>>()?;
        let live = grounds.iter().map(|ground| ground.entries_live).fold(0, u64::saturating_add);
        let dead = grounds.iter().map(|ground| ground.entries_dead).fold(0, u64::saturating_add);
        let mut done = Done { files_dropped: dead, files_kept: live, ..Done::default() };
        if live == 0 {
            return Ok(Rebuilt::Empty(done));
        }
        if dead == 0 && self.sources.len() == 1 && !self.settings.recompress {
            return Ok(Rebuilt::Nothing);
        }
        let (chosen, copies) = self.choose(&grounds)?;
        let (rebuilt, counts) = self.build(&mut grounds, &chosen, copies)?;
        done.frames_copied = counts.0;
        done.frames_encoded = counts.1;
        drop(grounds);
        if keeps(Rule::OnlyDeadAreDropped) && keeps(Rule::BirthsSurvive) {
            self.verify(&liveness, &rebuilt, dead)?;
        }
        Ok(Rebuilt::Shard(Box::new(rebuilt), done))
    }

    /// Compares old and new. What becomes an object by a second name is written to the disk meanwhile: that takes no less
    /// time, and the upload then finds it done.
    fn verify(&self, liveness: &Liveness, rebuilt: &RebuiltShard, dead: u64) -> Result<(), ArchiveError> {
        let (sources, threads) = (self.sources.as_slice(), self.settings.threads);
        let verification = Verification { sources, liveness, rebuilt, threads };
        if self.settings.directory.is_none() {
            return verification.run(dead);
        }
        std::thread::scope(|scope| {
            let writing = scope.spawn(|| rebuilt.file.sync());
            verification.run(dead)?;
            let died = |_| Err(ArchiveError::refused("a thread that wrote a shard to the disk died"));
            writing.join().unwrap_or_else(died)
        })
    }

    /// What the new shard is compressed with, and whether frames are taken over as they are.
    fn choose(&mut self, grounds: &[Ground]) -> Result<(Chosen, bool), ArchiveError> {
        let has_dictionary = self.sources.iter().any(|source| source.shard.index().dictionary().is_some());
        let codec = self.sources.first().map(|source| source.shard.index().footer().codec).unwrap_or_default();
        let is_one_codec = self.sources.iter().all(|source| source.shard.index().footer().codec == codec);
        if !has_dictionary && is_one_codec && !self.settings.recompress {
            let (level, frame_size) = (self.settings.level, self.settings.frame_size);
            return Ok((Chosen { codec, level, dictionary: None, frame_size }, true));
        }
        // The old dictionary may hold snippets of deleted files; the new one is made of nothing but what stays.
        let mut files = Surveyed { sources: &mut self.sources, grounds };
        Ok((self.settings.chooser.choose(&mut LiveFiles(&mut files))?, false))
    }

    fn lineage(&self, grounds: &[Ground]) -> (v3::Lineage, Vec<Vec<u16>>) {
        let mut lineage = v3::Lineage::default();
        let mut origins = Vec::new();
        for (source, ground) in self.sources.iter().zip(grounds) {
            let footer = source.shard.index().footer();
            lineage.parents.push(v3::Parent { shard: footer.shard_id, body_digest: footer.body_digest });
            let mut map = Vec::new();
            for (serial, is_needed) in source.listed.serials.iter().zip(&ground.origins) {
                map.push(u16::try_from(lineage.serials.len()).unwrap_or(u16::MAX));
                if *is_needed {
                    lineage.serials.push(*serial);
                }
            }
            origins.push(map);
        }
        (lineage, origins)
    }

    fn build(
        &mut self,
        grounds: &mut [Ground],
        chosen: &Chosen,
        copies: bool,
    ) -> Result<(RebuiltShard, (u64, u64)), ArchiveError> {
        let name = self.name()?;
        let (lineage, origins) = self.lineage(grounds);
        let serials = lineage.serials.clone();
        let encoder = FrameEncoder::new(chosen.codec, chosen.level, chosen.dictionary.as_ref()).map_err(refused)?;
        let settings = BodySettings { archive: self.archive, codec: chosen.codec };
        let body = BodyWriter::new(settings, chosen.dictionary.as_ref(), lineage).map_err(refused)?;
        let mut build = Build {
            cutter: FrameCutter::new(chosen.frame_size),
            queue: FrameQueue::new(encoder, self.settings.threads),
            out: BodyFile::begin(body, &self.settings.spool, &self.spool_name)?,
            frames: Vec::new(),
            copies,
            copied: 0,
        };
        let (mut merge, mut plain_len) = (Merge::new(self.sources.len()), 0_u64);
        let (mut first, mut last, mut fresh_ordinal) = (None, None, 0_u32);
        while let Some(item) = merge.next(&self.sources)? {
            let (Some(ground), Some(source)) = (grounds.get_mut(item.source), self.sources.get_mut(item.source)) else {
                continue;
            };
            if !ground.is_live(item.entry.position) {
                continue;
            }
            let offset = build.place(&item, ground, &mut source.shard)?;
            let origin = origins.get(item.source).and_then(|map| map.get(usize::from(item.entry.origin)));
            let ordinal = if keeps(Rule::BirthsSurvive) { item.entry.ordinal } else { fresh_ordinal };
            fresh_ordinal = fresh_ordinal.saturating_add(1);
            let birth = (origin.copied().unwrap_or(u16::MAX), ordinal);
            build.out.push(v3::NewEntry {
                uid: &item.entry.uid,
                created_at: item.entry.created_at,
                mtime: item.entry.mtime,
                offset,
                len: item.entry.len,
                digest: item.digest,
                metadata: item.metadata.as_deref(),
                birth: Some(birth),
            })?;
            plain_len = plain_len.saturating_add(item.entry.len);
            first.get_or_insert_with(|| item.entry.uid.clone());
            last = Some(item.entry.uid);
        }
        let taken_over = build.copied;
        let (file, body) = build.finish(&name)?;
        let compressed = u64::from(body.frames()).saturating_sub(taken_over);
        let rebuilt = RebuiltShard { file, body, name, serials, plain_len, uid_min: first, uid_max: last };
        Ok((rebuilt, (taken_over, compressed)))
    }

    /// The lowest split of the old shards, one version on.
    fn name(&self) -> Result<ShardName, ArchiveError> {
        let oldest = self.sources.iter().min_by_key(|source| source.listed.split);
        let name = oldest.and_then(|source| source.listed.name(self.date, self.bits));
        let name = name.ok_or_else(|| ArchiveError::refused("a job without shards"))?;
        Ok(ShardName { repack: name.repack.saturating_add(1), ..name })
    }
}

/// A shard under construction.
struct Build {
    cutter: FrameCutter,
    queue: FrameQueue,
    out: BodyFile,
    frames: Vec<Vec<u8>>,
    copies: bool,
    copied: u64,
}

impl Build {
    /// Puts the content of an entry into the new shard, unless it is there; its address.
    fn place(&mut self, item: &Item, ground: &mut Ground, shard: &mut LocalShard) -> Result<u64, ArchiveError> {
        let (offset, len) = (item.entry.offset, item.entry.len);
        if len == 0 {
            return Ok(0);
        }
        if let Some(address) = ground.placed(offset, len) {
            return Ok(address);
        }
        let taken_over = if self.copies { self.take_over(offset, len, ground, shard)? } else { None };
        let address = if let Some(address) = taken_over {
            address
        } else {
            let (cutter, frames, queue, out) = (&mut self.cutter, &mut self.frames, &mut self.queue, &mut self.out);
            each_part(shard, offset, len, &mut |part| {
                cutter.push(part, frames).map_err(refused)?;
                queue.push_plain(frames).map_err(refused)?;
                queue.take(false, &mut |frame| out.write_frame(frame)).map_err(Trouble::into_inner)
            })?;
            self.end_content()?
        };
        ground.place(offset, len, address);
        Ok(address)
    }

    fn end_content(&mut self) -> Result<u64, ArchiveError> {
        let placement = self.cutter.end_file(&mut self.frames).map_err(refused)?;
        self.send()?;
        Ok(placement.offset)
    }

    /// Takes over the frames that a content lies in, as they are stored. Of a content that fills frames to its tail, which
    /// it shares with a deleted file, all but the tail.
    fn take_over(
        &mut self,
        offset: u64,
        len: u64,
        ground: &mut Ground,
        shard: &mut LocalShard,
    ) -> Result<Option<u64>, ArchiveError> {
        let frames = frames_of(offset, len);
        let (first, last) = (*frames.start(), *frames.end());
        let within = offset & (SLOT_LEN - 1);
        if let Some(new) = ground.copied(first) {
            // A file of a frame that came along with another one.
            let came_along = first == last;
            return Ok(came_along.then(|| (new << SLOT_BITS).saturating_add(within)));
        }
        if (first..last).any(|frame| !ground.is_clean(frame, SLOT_LEN)) {
            return Ok(None);
        }
        let tail = if ground.may_be_clean(last) { shard.copy_frame(narrow(last))? } else { None };
        let tail = tail.filter(|frame| ground.is_clean(last, u64::from(frame.plain_len())));
        if tail.is_none() && first == last {
            return Ok(None);
        }
        self.cutter.finish(&mut self.frames).map_err(refused)?;
        self.send()?;
        let new = self.cutter.position() >> SLOT_BITS;
        for frame in first..last {
            let Some(copy) = shard.copy_frame(narrow(frame))? else {
                return Err(shard.inconsistent("a frame could be copied before and cannot now"));
            };
            self.push_copied(copy, frame, ground)?;
        }
        if let Some(tail) = tail {
            self.push_copied(tail, last, ground)?;
        } else {
            let start = last << SLOT_BITS;
            let rest = offset.saturating_add(len).saturating_sub(start);
            let (cutter, frames) = (&mut self.cutter, &mut self.frames);
            each_part(shard, start, rest, &mut |part| cutter.push(part, frames).map_err(refused))?;
            self.end_content()?;
        }
        Ok(Some((new << SLOT_BITS).saturating_add(within)))
    }

    fn push_copied(&mut self, copy: EncodedFrame, frame: u64, ground: &mut Ground) -> Result<(), ArchiveError> {
        ground.copy(frame, self.cutter.position() >> SLOT_BITS);
        self.cutter.skip_frames(1).map_err(refused)?;
        self.copied = self.copied.saturating_add(1);
        self.queue.push_copied(copy).map_err(refused)?;
        self.send()
    }

    fn send(&mut self) -> Result<(), ArchiveError> {
        self.queue.push_plain(&mut self.frames).map_err(refused)?;
        let out = &mut self.out;
        self.queue.take(false, &mut |frame| out.write_frame(frame)).map_err(Trouble::into_inner)
    }

    fn finish(mut self, name: &ShardName) -> Result<(SpoolFile, Body), ArchiveError> {
        self.cutter.finish(&mut self.frames).map_err(refused)?;
        self.queue.push_plain(&mut self.frames).map_err(refused)?;
        let mut out = self.out;
        self.queue.take(true, &mut |frame| out.write_frame(frame)).map_err(Trouble::into_inner)?;
        out.finish(name)
    }
}

fn narrow(frame: u64) -> u32 {
    u32::try_from(frame).unwrap_or(u32::MAX)
}
