//! From a range of a shard's stream to plain bytes: which frames hold it, from where they come, that they are right, and
//! which of them are kept.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use desfmt::{Birth, v3};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::archive::ahead::{Fetched, Span};
use crate::archive::error::ArchiveError;
use crate::archive::shard::part;
use crate::archive::{Archive, CacheKey, Cached, OpenShard};
use crate::disk_cache;

/// How many stored bytes are asked for in one request at most.
const REQUEST_BYTES_MAX: u64 = 8 << 20;

/// Frames up to this size that a near store has as they are, are read again rather than kept: reading and proving so
/// many bytes costs no more than keeping them, which takes memory from what has to be decoded.
const FRAME_READ_AGAIN_MAX: u64 = 64 << 10;

/// A larger frame belongs to one file, and who has read its end has no use for it any more.
const FRAME_OF_MANY_MAX: u64 = 64 << 10;

/// A read of a file whose content is a range of a stream.
#[derive(Debug, Clone)]
pub(crate) struct StreamRead {
    pub(crate) birth: Birth,
    /// Where the content of the file begins in the stream, and how long it is.
    pub(crate) start: u64,
    pub(crate) len: u64,
    /// What is wanted of it.
    pub(crate) range: Range<u64>,
}

impl StreamRead {
    /// True when the file has frames of its own.
    pub(crate) const fn is_large(&self) -> bool {
        self.len > FRAME_OF_MANY_MAX
    }
}

/// What is wanted of a stream.
struct Wanted {
    range: Range<u64>,
    /// True when it is of a file with frames of its own, which may have been decoded ahead.
    is_of_large: bool,
}

impl Archive {
    /// Reads a range of a shard's stream.
    pub(crate) async fn read_stream(
        &self,
        shard: &Arc<OpenShard>,
        index: &v3::ShardIndex,
        read: &StreamRead,
    ) -> Result<Bytes, ArchiveError> {
        let range = read.start.saturating_add(read.range.start)..read.start.saturating_add(read.range.end);
        let frames = self.frames_of(shard, index, range.clone()).await?;
        if !self.options.store_is_near || read.is_large() {
            self.read_ahead(shard, index, read, &frames).await;
        }
        let wanted = Wanted { range, is_of_large: read.is_large() };
        let Range { start, end } = wanted.range;
        if let [frame] = frames.as_slice() {
            let plain = self.frame(shard, index, frame, &wanted).await?;
            return slice(shard, frame, &plain, start, end);
        }
        let size = end.saturating_sub(start);
        let mut joined = BytesMut::with_capacity(usize::try_from(size).unwrap_or_default());
        for run in runs(&frames) {
            for (frame, plain) in run.iter().zip(self.run_of_frames(shard, index, run, &wanted).await?) {
                let (from, to) = (start.max(frame.plain.start), end.min(frame.plain.end));
                joined.extend_from_slice(&slice(shard, frame, &plain, from, to)?);
            }
        }
        Ok(joined.freeze())
    }

    /// The frames that hold a range of the stream, in order and without a gap.
    pub(crate) async fn frames_of(
        &self,
        shard: &OpenShard,
        index: &v3::ShardIndex,
        range: Range<u64>,
    ) -> Result<Vec<v3::FrameRef>, ArchiveError> {
        let mut frames = Vec::with_capacity(1);
        let mut at = range.start;
        while at < range.end {
            let frame = match index.frame_page_of(at) {
                Some(page) => self.frame_page(shard, index, page).await?.find(at),
                None => None,
            };
            let Some(frame) = frame.filter(|frame| frame.plain.contains(&at)) else {
                return Err(ArchiveError::inconsistent(&shard.key, format!("no frame holds byte {at} of its stream")));
            };
            at = frame.plain.end;
            frames.push(frame);
        }
        Ok(frames)
    }

    /// The plain content of one frame.
    async fn frame(
        &self,
        shard: &OpenShard,
        index: &v3::ShardIndex,
        frame: &v3::FrameRef,
        wanted: &Wanted,
    ) -> Result<Bytes, ArchiveError> {
        let is_cheap = self.options.store_is_near && stored_len(frame) <= FRAME_READ_AGAIN_MAX;
        // In a shard without a codec no frame is compressed, so that no small one has ever been kept.
        let is_never_kept = is_cheap && index.footer().codec == v3::Codec::Stored;
        if !is_never_kept && let Some(plain) = self.known_frame(shard, frame) {
            self.let_go(shard, frame, &plain, wanted);
            return Ok(plain);
        }
        if let Some(plain) = self.decoded_ahead(shard, frame, wanted).await {
            return Ok(plain);
        }
        let found = self.stored_frames(shard, std::slice::from_ref(frame)).await?;
        let (stored, is_part) = (found.bytes, found.is_part);
        let plain = self.proven(shard, index, frame, &stored).await?;
        if found.is_new {
            self.keep_on_disk(shard, std::slice::from_ref(frame), &stored);
        }
        let is_stored = stored.as_ptr_range().contains(&plain.as_ptr());
        if !(is_cheap && is_stored || is_done_with(frame, &plain, wanted)) {
            self.keep(shard, frame, &plain, is_part && is_stored);
        }
        Ok(plain)
    }

    /// The plain contents of adjacent frames, those that are not at hand by one request.
    async fn run_of_frames(
        &self,
        shard: &OpenShard,
        index: &v3::ShardIndex,
        run: &[v3::FrameRef],
        wanted: &Wanted,
    ) -> Result<Vec<Bytes>, ArchiveError> {
        let mut plains = Vec::with_capacity(run.len());
        while let Some((frame, _)) = run.get(plains.len()..).and_then(<[_]>::split_first) {
            if let Some(plain) = self.known_frame(shard, frame) {
                self.let_go(shard, frame, &plain, wanted);
                plains.push(plain);
                continue;
            }
            if let Some(plain) = self.decoded_ahead(shard, frame, wanted).await {
                plains.push(plain);
                continue;
            }
            // Up to the last that is missing: a request costs more than bytes that are there already.
            let rest = run.get(plains.len()..).unwrap_or_default();
            let missing = rest.iter().rposition(|frame| !self.has_frame(shard, frame)).unwrap_or(0);
            let missing = rest.get(..=missing).unwrap_or_default();
            let found = self.stored_frames(shard, missing).await?;
            let base = frame.stored.start;
            let come = missing.get(..found.count).unwrap_or_default();
            for frame in come {
                let stored = part(&found.bytes, base, &frame.stored);
                let plain = self.proven(shard, index, frame, &stored).await?;
                if !is_done_with(frame, &plain, wanted) {
                    self.keep(shard, frame, &plain, stored.as_ptr_range().contains(&plain.as_ptr()));
                }
                plains.push(plain);
            }
            if found.is_new {
                self.keep_on_disk(shard, come, &found.bytes);
            }
        }
        Ok(plains)
    }

    /// The plain content of a frame that was decoded ahead of its reader.
    async fn decoded_ahead(&self, shard: &OpenShard, frame: &v3::FrameRef, wanted: &Wanted) -> Option<Bytes> {
        if !wanted.is_of_large {
            return None;
        }
        let plain = self.ahead.decoded(shard.id, frame.number).await?;
        if !is_done_with(frame, &plain, wanted) {
            self.keep(shard, frame, &plain, false);
        }
        Some(plain)
    }

    /// The stored bytes of the first of adjacent frames, and of as many more as come with it. From a store that is far:
    /// of what was read ahead, or of what somebody else is waiting for, or from the disk, or by one request for all.
    async fn stored_frames(&self, shard: &OpenShard, frames: &[v3::FrameRef]) -> Result<Found, ArchiveError> {
        let Some(first) = frames.first() else {
            return Err(ArchiveError::inconsistent(&shard.key, "no frame was asked for"));
        };
        if self.options.store_is_near {
            let bytes = self.shard_bytes(shard, span(frames).stored).await?;
            return Ok(Found { bytes, count: frames.len(), is_part: false, is_new: false });
        }
        // One that did not arrive is nobody's error: who needs it asks for it.
        while let Some(piece) = self.ahead.find(shard.id, first.number) {
            if let Ok(bytes) = piece.bytes().await {
                let bytes = piece.slice(&bytes, &first.stored);
                return Ok(Found { bytes, count: 1, is_part: true, is_new: false });
            }
        }
        if let Some(disk) = &self.options.disk_cache
            && let Some(bytes) = disk.get(shard.id, &shard.etag, disk_cache::Piece::Frame(first.number)).await
        {
            return Ok(Found { bytes, count: 1, is_part: false, is_new: false });
        }
        let is_missing = |frame: &&v3::FrameRef| {
            !self.is_on_disk(shard, frame.number) && self.ahead.find(shard.id, frame.number).is_none()
        };
        let count = frames.iter().skip(1).take_while(is_missing).count().saturating_add(1);
        let span = span(frames.get(..count).unwrap_or_default());
        let piece = self.ahead.demand(shard.id, span.clone(), self.fetch(shard, &span));
        Ok(Found { bytes: piece.bytes().await?, count, is_part: count > 1, is_new: true })
    }

    pub(crate) fn is_on_disk(&self, shard: &OpenShard, frame: u32) -> bool {
        let disk = self.options.disk_cache.as_ref();
        disk.is_some_and(|disk| disk.contains(shard.id, &shard.etag, disk_cache::Piece::Frame(frame)))
    }

    /// Hands adjacent frames to the cache on disk, but for those that hold a deleted file.
    fn keep_on_disk(&self, shard: &OpenShard, frames: &[v3::FrameRef], bytes: &Bytes) {
        let (Some(disk), Some(first)) = (&self.options.disk_cache, frames.first()) else { return };
        let kept = self
            .frames_to_keep(shard, frames)
            .into_iter()
            .map(|frame| (disk_cache::Piece::Frame(frame.number), part(bytes, first.stored.start, &frame.stored)));
        disk.put(shard.id, &shard.etag, kept.collect());
    }

    pub(crate) fn fetch(&self, shard: &OpenShard, span: &Span) -> BoxFuture<'static, Fetched> {
        let (store, key, etag) = (Arc::clone(&self.store), shard.key.clone(), shard.etag.clone());
        let stored = span.stored.clone();
        async move { store.get_range(&key, stored, Some(&etag)).await }.boxed()
    }

    pub(crate) fn has_frame(&self, shard: &OpenShard, frame: &v3::FrameRef) -> bool {
        self.cache.contains(&CacheKey::Frame(shard.id, frame.number))
    }

    fn known_frame(&self, shard: &OpenShard, frame: &v3::FrameRef) -> Option<Bytes> {
        match self.cache.get(&CacheKey::Frame(shard.id, frame.number)) {
            Some(Cached::Frame(plain)) => Some(plain),
            Some(_) | None => None,
        }
    }

    /// Keeps the plain content of a frame; a copy, where it would otherwise keep all of what it is a part of.
    fn keep(&self, shard: &OpenShard, frame: &v3::FrameRef, plain: &Bytes, is_part: bool) {
        let kept = if is_part { Bytes::copy_from_slice(plain) } else { plain.clone() };
        self.cache.insert(CacheKey::Frame(shard.id, frame.number), Cached::Frame(kept), plain.len());
    }

    /// Forgets a frame that a reader has just come to the end of.
    fn let_go(&self, shard: &OpenShard, frame: &v3::FrameRef, plain: &Bytes, wanted: &Wanted) {
        if is_of_one_file(plain) && is_done_with(frame, plain, wanted) {
            self.cache.remove(&CacheKey::Frame(shard.id, frame.number));
        }
    }

    /// Decodes a frame. If it is damaged, it is fetched once more: what was damaged on its way is whole then.
    async fn proven(
        &self,
        shard: &OpenShard,
        index: &v3::ShardIndex,
        frame: &v3::FrameRef,
        stored: &Bytes,
    ) -> Result<Bytes, ArchiveError> {
        let error = match index.decode_frame_in_place(frame, stored) {
            Ok(plain) => return Ok(plain),
            Err(error) => error,
        };
        self.fetched_again(&shard.key, &error);
        if let Some(disk) = &self.options.disk_cache {
            disk.discard(shard.id, &shard.etag, disk_cache::Piece::Frame(frame.number));
        }
        let again = self.shard_bytes(shard, frame.stored.clone()).await?;
        // Not in place: what is then kept may be a slice of the first.
        index.decode_frame(frame, &again).map_err(|error| shard.damaged(error))
    }
}

/// Stored bytes of the first of some frames, and how many of the others are among them.
struct Found {
    bytes: Bytes,
    count: usize,
    /// True when they are a slice of something larger.
    is_part: bool,
    /// True when they come from the store and nobody has seen them before.
    is_new: bool,
}

/// True when a read leaves nothing of a frame to be wanted: who takes all of it keeps it, as the kernel does in a mount, and
/// who has come to the end of a large one, which is of one file, goes on with the next.
fn is_done_with(frame: &v3::FrameRef, plain: &Bytes, wanted: &Wanted) -> bool {
    let end = frame.plain.start.saturating_add(u64::try_from(plain.len()).unwrap_or(u64::MAX));
    wanted.range.end >= end && (wanted.range.start <= frame.plain.start || is_of_one_file(plain))
}

fn is_of_one_file(plain: &Bytes) -> bool {
    u64::try_from(plain.len()).is_ok_and(|len| len > FRAME_OF_MANY_MAX)
}

pub(crate) const fn stored_len(frame: &v3::FrameRef) -> u64 {
    frame.stored.end.saturating_sub(frame.stored.start)
}

/// What adjacent frames are together.
pub(crate) fn span(frames: &[v3::FrameRef]) -> Span {
    match (frames.first(), frames.last()) {
        (Some(first), Some(last)) => Span {
            frames: first.number..last.number.saturating_add(1),
            stored: first.stored.start..last.stored.end.max(first.stored.start),
        },
        _ => Span { frames: 0..0, stored: 0..0 },
    }
}

/// The part of a frame's plain content that lies between two offsets of the stream.
fn slice(shard: &OpenShard, frame: &v3::FrameRef, plain: &Bytes, from: u64, to: u64) -> Result<Bytes, ArchiveError> {
    let within = |at: u64| usize::try_from(at.checked_sub(frame.plain.start)?).ok().filter(|at| *at <= plain.len());
    match (within(from), within(to)) {
        (Some(from), Some(to)) if from <= to => Ok(plain.slice(from..to)),
        _ => Err(ArchiveError::inconsistent(
            &shard.key,
            format!("frame {} is shorter than its table says", frame.number),
        )),
    }
}

/// Cuts frames into runs that lie side by side and fit into one request.
fn runs(frames: &[v3::FrameRef]) -> Vec<&[v3::FrameRef]> {
    let mut runs = Vec::new();
    let mut rest = frames;
    while let Some(first) = rest.first() {
        let mut end = first.stored.end;
        let follows = |frame: &&v3::FrameRef| {
            let fits =
                frame.stored.start == end && frame.stored.end.saturating_sub(first.stored.start) <= REQUEST_BYTES_MAX;
            end = frame.stored.end;
            fits
        };
        let count = rest.iter().skip(1).take_while(follows).count().saturating_add(1);
        let (run, after) = rest.split_at(count);
        runs.push(run);
        rest = after;
    }
    runs
}
