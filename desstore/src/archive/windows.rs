//! What is fetched and decoded ahead of a reader: which frames of which shard, when, and what becomes of them when they have
//! arrived.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use desfmt::{Birth, layout, v3};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::archive::ahead::{Decoded, Pace, Step, Wish};
use crate::archive::error::ArchiveError;
use crate::archive::frames::{StreamRead, span, stored_len};
use crate::archive::shard::{Index, part};
use crate::archive::{Archive, CacheKey, Cached, OpenShard};
use crate::disk_cache;

/// What is left of a shard after a window is taken with it, if it is no longer than this.
const WINDOW_REST_MAX: u64 = 1 << 20;

impl Archive {
    /// Notes where a reader is, and fetches and decodes what comes next if it walks forwards. From a store that is near
    /// nothing is fetched.
    pub(crate) async fn read_ahead(
        &self,
        shard: &Arc<OpenShard>,
        index: &v3::ShardIndex,
        read: &StreamRead,
        frames: &[v3::FrameRef],
    ) {
        let (Some(first), Some(last)) = (frames.first(), frames.last()) else { return };
        let missing = frames.iter().find(|frame| !self.has_frame(shard, frame));
        let end = last.number.saturating_add(1);
        let file_end = read.start.saturating_add(read.len).div_ceil(v3::limits::SLOT_LEN);
        let step = Step {
            shard: shard.id,
            birth: read.birth,
            range: read.range.clone(),
            len: read.len,
            is_large: read.is_large(),
            frames: first.number..end,
            missing: missing.map_or(end, |frame| frame.number),
            file_end: u32::try_from(file_end).unwrap_or(u32::MAX),
            shard_end: index.footer().frames,
            is_listed: shard.is_listed.load(Ordering::Relaxed),
        };
        let mut wish = self.ahead.step(&step);
        if self.options.store_is_near {
            return self.decode_ahead(shard, index).await;
        }
        while let Some(wanted) = wish {
            if !self.begin_window(shard, index, &wanted).await {
                return;
            }
            wish = self.ahead.next_wish(&wanted).filter(|next| next.from > wanted.from);
        }
        self.decode_ahead(shard, index).await;
        if let Some(pace) = self.ahead.leaving(shard.id) {
            self.enter_next(shard, read.birth, pace).await;
        }
    }

    /// Decodes what comes next for who was in a shard last, beside what he is taking in.
    async fn decode_ahead(&self, shard: &Arc<OpenShard>, index: &v3::ShardIndex) {
        let Some(next) = self.ahead.frames_to_decode(shard.id) else { return };
        for number in next.frames {
            let Ok(Some(frame)) = self.frame_of_number(shard, index, number).await else { return };
            if !is_compressed(index, &frame) || self.has_frame(shard, &frame) {
                continue;
            }
            let range = frame.stored.clone();
            let work = if self.options.store_is_near {
                let fetch = self.fetch(shard, &span(std::slice::from_ref(&frame)));
                decoded(Arc::clone(shard), frame, async move { fetch.await.ok() }.boxed())
            } else if let Some(piece) = self.ahead.peek(shard.id, number) {
                let stored = async move { Some(piece.slice(&piece.bytes().await.ok()?, &range)) };
                decoded(Arc::clone(shard), frame, stored.boxed())
            } else {
                continue;
            };
            self.ahead.decode(next.walk, number, work.boxed());
        }
    }

    /// Fetches the beginning of the shard that a listing shows next, for a reader who takes one file after the other. Only
    /// with what is at hand: a guess costs no request of its own.
    async fn enter_next(&self, shard: &OpenShard, birth: Birth, pace: Pace) {
        let Some(name) = layout::parse_shard(shard.key.as_str(), self.bits()) else { return };
        let Some(day) = self.day_at_hand(name.group.date) else { return };
        let Some((next, birth)) = day.shard_after(birth.serial) else { return };
        let Some(Cached::Shard(next)) = self.cache.get(&CacheKey::Shard(next.id)) else { return };
        let Index::Paged(index) = &next.index else { return };
        if !next.is_listed.load(Ordering::Relaxed) {
            return;
        }
        if let Some(wish) = self.ahead.enter((next.id, birth), index.footer().frames, pace) {
            self.begin_window(&next, index, &wish).await;
        }
    }

    /// Fetches a window, unless all of it is at hand. False where it has no frames that can be found.
    async fn begin_window(&self, shard: &OpenShard, index: &v3::ShardIndex, wish: &Wish) -> bool {
        // What is wrong with the table of frames, whoever reads those frames learns.
        let Ok(frames) = self.window(shard, index, wish).await else { return false };
        if frames.is_empty() {
            return false;
        }
        let span = span(&frames);
        if frames.iter().all(|frame| self.has_frame(shard, frame) || self.is_on_disk(shard, frame.number)) {
            self.ahead.skip(wish, span.frames.end);
        } else {
            let keep = self.keep_later(shard, &frames);
            self.ahead.begin(wish, span.clone(), self.fetch(shard, &span), keep);
        }
        true
    }

    /// The frames of a window.
    async fn window(
        &self,
        shard: &OpenShard,
        index: &v3::ShardIndex,
        wish: &Wish,
    ) -> Result<Vec<v3::FrameRef>, ArchiveError> {
        let mut frames: Vec<v3::FrameRef> = Vec::new();
        // How many of them fit, when a rest follows that is short enough to go with them.
        let mut fitting = None;
        for number in wish.from..wish.end {
            let Some(frame) = self.frame_of_number(shard, index, number).await? else { break };
            let start = frames.first().map_or(frame.stored.start, |first| first.stored.start);
            let bytes = frame.stored.end.saturating_sub(start);
            if bytes > wish.bytes && !frames.is_empty() {
                let fitting = *fitting.get_or_insert(frames.len());
                if bytes > wish.bytes.saturating_add(WINDOW_REST_MAX) {
                    frames.truncate(fitting);
                    break;
                }
            }
            frames.push(frame);
        }
        Ok(frames)
    }

    async fn frame_of_number(
        &self,
        shard: &OpenShard,
        index: &v3::ShardIndex,
        number: u32,
    ) -> Result<Option<v3::FrameRef>, ArchiveError> {
        let address = u64::from(number).saturating_mul(v3::limits::SLOT_LEN);
        let Some(page) = index.frame_page_of(address) else { return Ok(None) };
        Ok(self.frame_page(shard, index, page).await?.find(address))
    }

    /// What is to be done with a window when it has arrived: the cache on disk gets its frames.
    fn keep_later(&self, shard: &OpenShard, frames: &[v3::FrameRef]) -> impl FnOnce(Bytes) + Send + use<> {
        let start = frames.first().map_or(0, |first| first.stored.start);
        let kept: Vec<v3::FrameRef> = self.frames_to_keep(shard, frames).into_iter().cloned().collect();
        let (disk, id, etag) = (self.options.disk_cache.clone(), shard.id, shard.etag.clone());
        move |bytes: Bytes| {
            if let Some(disk) = disk.filter(|_| !kept.is_empty()) {
                let kept = kept
                    .iter()
                    .map(|frame| (disk_cache::Piece::Frame(frame.number), part(&bytes, start, &frame.stored)));
                disk.put(id, &etag, kept.collect());
            }
        }
    }
}

/// False for a frame that is stored as it is, as far as can be told without it. To prove such a one takes less time than to
/// have another processor do it.
fn is_compressed(index: &v3::ShardIndex, frame: &v3::FrameRef) -> bool {
    index.footer().codec != v3::Codec::Stored && stored_len(frame) < v3::limits::SLOT_LEN
}

/// Decodes a frame when its stored bytes are there.
async fn decoded(shard: Arc<OpenShard>, frame: v3::FrameRef, stored: BoxFuture<'static, Option<Bytes>>) -> Decoded {
    let stored = stored.await?;
    let Index::Paged(index) = &shard.index else { return None };
    // Not in place: it would keep all that the stored bytes are a part of.
    index.decode_frame(&frame, &stored).ok()
}
