//! The bytes of files: which frames hold them, from where, and that they are right.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use desfmt::{Birth, Date, Digest, ObjectKey, Timestamp, v3};

use crate::archive::entries::{Content, Located, Place, settled};
use crate::archive::error::ArchiveError;
use crate::archive::shard::Index;
use crate::archive::{Archive, CacheKey, Cached, OpenShard};

/// How many stored bytes are asked for in one request at most.
const REQUEST_BYTES_MAX: u64 = 8 << 20;

/// Frames up to this size that a near store has as they are, are read again rather than kept: reading and proving so
/// many bytes costs no more than keeping them, which takes memory from what has to be decoded.
const FRAME_READ_AGAIN_MAX: u64 = 64 << 10;

/// What is known of a file beyond its attributes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Details {
    /// The object that holds it.
    pub key: ObjectKey,
    /// The codec of its shard: `none`, `zstd` or `lz4`.
    pub codec: String,
    /// The stored size of the frames that hold it; they may hold others too.
    pub stored_len: u64,
    /// Its size in bytes.
    pub len: u64,
    /// BLAKE3 of its content; none for shards of the ancestor.
    pub digest: Option<Digest>,
    /// When it was created.
    pub created_at: Timestamp,
    /// Its metadata, a JSON object.
    pub metadata: Option<String>,
}

impl Archive {
    /// Reads up to `size` bytes of a file from `offset`; fewer only at its end. With the index cached and the bytes in
    /// one frame, one request or none.
    ///
    /// A deleted file can be read as long as its bytes are there, so that what is open reads on.
    pub async fn read(&self, date: Date, birth: Birth, offset: u64, size: usize) -> Result<Bytes, ArchiveError> {
        settled!(self, date, self.read_once(date, birth, offset, size))
    }

    async fn read_once(&self, date: Date, birth: Birth, offset: u64, size: usize) -> Result<Bytes, ArchiveError> {
        let Some(Place { shard, len, content }) = self.locate_content(date, birth).await? else {
            return Err(ArchiveError::Gone { object: format!("{date} {}/{}", birth.serial, birth.ordinal) });
        };
        let size = len.saturating_sub(offset).min(u64::try_from(size).unwrap_or(u64::MAX));
        if size == 0 {
            return Ok(Bytes::new());
        }
        match (&content, &shard.index) {
            (Content::Stream { offset: start, .. }, Index::Paged(index)) => {
                let start = start.saturating_add(offset);
                self.read_stream(&shard, index, start..start.saturating_add(size)).await
            }
            (Content::Legacy(file), _) => self.read_legacy(&shard, file, offset, size).await,
            (Content::Stream { .. }, Index::Legacy(_)) => {
                Err(ArchiveError::inconsistent(&shard.key, "a stream range in a shard of the ancestor"))
            }
        }
    }

    /// Reads a range of a shard's stream.
    async fn read_stream(
        &self,
        shard: &OpenShard,
        index: &v3::ShardIndex,
        range: std::ops::Range<u64>,
    ) -> Result<Bytes, ArchiveError> {
        let (start, end) = (range.start, range.end);
        let size = end.saturating_sub(start);
        let frames = self.frames_of(shard, index, start..end).await?;
        if let [frame] = frames.as_slice() {
            let plain = self.frame(shard, index, frame, size).await?;
            return slice(shard, frame, &plain, start, end);
        }
        let mut joined = BytesMut::with_capacity(usize::try_from(size).unwrap_or_default());
        for run in runs(&frames) {
            for (frame, plain) in run.iter().zip(self.run_of_frames(shard, index, run).await?) {
                let from = start.max(frame.plain.start);
                joined.extend_from_slice(&slice(shard, frame, &plain, from, end.min(frame.plain.end))?);
            }
        }
        Ok(joined.freeze())
    }

    /// The frames that hold a range of the stream, in order and without a gap.
    async fn frames_of(
        &self,
        shard: &OpenShard,
        index: &v3::ShardIndex,
        range: std::ops::Range<u64>,
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

    /// The plain content of one frame, of which `used` bytes are asked for now.
    async fn frame(
        &self,
        shard: &OpenShard,
        index: &v3::ShardIndex,
        frame: &v3::FrameRef,
        used: u64,
    ) -> Result<Bytes, ArchiveError> {
        let cache_key = CacheKey::Frame(shard.id, frame.number);
        let stored_len = frame.stored.end.saturating_sub(frame.stored.start);
        let is_cheap = self.options.store_is_near && stored_len <= FRAME_READ_AGAIN_MAX;
        // In a shard without a codec no frame is compressed, so that no small one has ever been kept.
        let is_never_kept = is_cheap && index.footer().codec == v3::Codec::Stored;
        if !is_never_kept && let Some(Cached::Frame(plain)) = self.cache.get(&cache_key) {
            return Ok(plain);
        }
        let stored = self.shard_bytes(shard, frame.stored.clone()).await?;
        let plain = index.decode_frame_in_place(frame, &stored).map_err(|error| shard.damaged(error))?;
        // Who takes all of a frame keeps it: the kernel, in a mount.
        let is_used_up = used >= u64::try_from(plain.len()).unwrap_or(u64::MAX);
        let is_stored = stored.as_ptr_range().contains(&plain.as_ptr());
        let is_worth_keeping = !(is_used_up || is_cheap && is_stored);
        if is_worth_keeping {
            self.cache.insert(cache_key, Cached::Frame(plain.clone()), plain.len());
        }
        Ok(plain)
    }

    /// The plain contents of adjacent frames, those that are not cached by one request.
    async fn run_of_frames(
        &self,
        shard: &OpenShard,
        index: &v3::ShardIndex,
        run: &[v3::FrameRef],
    ) -> Result<Vec<Bytes>, ArchiveError> {
        let known = |frame: &v3::FrameRef| match self.cache.get(&CacheKey::Frame(shard.id, frame.number)) {
            Some(Cached::Frame(plain)) => Some(plain),
            _ => None,
        };
        let cached: Vec<Option<Bytes>> = run.iter().map(known).collect();
        let missing = |(frame, known): (&v3::FrameRef, &Option<Bytes>)| known.is_none().then(|| frame.stored.clone());
        let mut ranges = run.iter().zip(&cached).filter_map(missing);
        let fetched = match ranges.next() {
            None => None,
            Some(first) => {
                let end = ranges.last().map_or(first.end, |last| last.end);
                Some((first.start, self.shard_bytes(shard, first.start..end).await?))
            }
        };
        run.iter()
            .zip(cached)
            .map(|(frame, known)| match (known, &fetched) {
                (Some(plain), _) => Ok(plain),
                (None, Some((base, bytes))) => {
                    let within =
                        |at: u64| usize::try_from(at.saturating_sub(*base)).unwrap_or(usize::MAX).min(bytes.len());
                    let stored = bytes.slice(within(frame.stored.start)..within(frame.stored.end));
                    // Copied even where it is stored as it is: a slice would keep the whole run in memory.
                    let plain = index.decode_frame(frame, &stored).map_err(|error| shard.damaged(error))?;
                    self.cache.insert(
                        CacheKey::Frame(shard.id, frame.number),
                        Cached::Frame(plain.clone()),
                        plain.len(),
                    );
                    Ok(plain)
                }
                (None, None) => Err(ArchiveError::inconsistent(&shard.key, "a frame was neither cached nor read")),
            })
            .collect()
    }

    /// Everything that is known of a file. Two requests when its attributes are cached.
    pub async fn details(&self, date: Date, birth: Birth) -> Result<Option<Details>, ArchiveError> {
        settled!(self, date, self.details_once(date, birth))
    }

    async fn details_once(&self, date: Date, birth: Birth) -> Result<Option<Details>, ArchiveError> {
        match self.locate(date, birth).await? {
            Some(located) => self.details_of(&located).await.map(Some),
            None => Ok(None),
        }
    }

    /// Everything that is known of an entry that was just found.
    pub(crate) async fn details_of(&self, located: &Located) -> Result<Details, ArchiveError> {
        let shard = &located.shard;
        let (offset, position, index) = match (&located.content, &shard.index) {
            (Content::Stream { offset, position }, Index::Paged(index)) => (*offset, *position, index),
            (Content::Legacy(file), _) => return Ok(file.details(shard, &located.file)),
            (Content::Stream { .. }, Index::Legacy(_)) => {
                return Err(ArchiveError::inconsistent(&shard.key, "a stream range in a shard of the ancestor"));
            }
        };
        let frames = self.frames_of(shard, index, offset..offset.saturating_add(located.file.len)).await?;
        let stored_len = frames.iter().map(|frame| frame.stored.end.saturating_sub(frame.stored.start)).sum();
        let (digest, metadata) = self.cold(shard, index, position).await?;
        Ok(Details {
            key: shard.key.clone(),
            codec: index.footer().codec.to_string(),
            stored_len,
            len: located.file.len,
            digest: Some(digest),
            created_at: located.file.created_at,
            metadata,
        })
    }

    /// The digest and metadata of the entry at a position.
    pub(crate) async fn cold(
        &self,
        shard: &Arc<OpenShard>,
        index: &v3::ShardIndex,
        position: u32,
    ) -> Result<(Digest, Option<String>), ArchiveError> {
        let unlisted = || ArchiveError::inconsistent(&shard.key, format!("no page holds position {position}"));
        let number = index.page_of_position(position).ok_or_else(unlisted)?;
        let first = self.index_page(shard, index, number).await?.first_position();
        let page = self.cold_page(shard, index, number).await?;
        let at = usize::try_from(position.saturating_sub(first)).unwrap_or(usize::MAX);
        let digest = page.digest(at).ok_or_else(unlisted)?;
        Ok((digest, page.metadata(at).map(str::to_owned)))
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
