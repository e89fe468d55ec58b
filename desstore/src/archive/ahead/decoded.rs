//! Frames of large files that are decoded before they are wanted: while a reader takes in one, the next ones are made ready
//! beside it.
//!
//! A copy reads, waits and writes in turn, so that without this one processor decodes while the others have nothing to do.
//! Frames that hold several files take less time to decode than it takes to have another processor do it, alone or sixteen at
//! a time: both were measured (`docs/performance.md`).

use std::fmt;
use std::ops::Range;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use desfmt::ShardId;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use super::walk::Walk;
use super::{Ahead, State};

/// How many frames beyond the one being read are decoded at once: what takes longer to decode than to be read keeps two
/// processors at work.
pub(super) const FRAMES_DECODED_BEYOND: u32 = 2;

/// What comes of decoding a frame, its plain content: none where it did not arrive or is not right, which the reader finds
/// out by himself.
pub(crate) type Decoded = Option<Bytes>;

/// Frames that a walk wants to be decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Next {
    pub(crate) walk: u64,
    pub(crate) frames: Range<u32>,
}

/// A frame that was decoded for a walk, or is being decoded. Dropping it ends the task; who waits for it goes on himself.
pub(super) struct Decoding {
    pub(super) frame: u32,
    work: Shared<BoxFuture<'static, Decoded>>,
    task: AbortHandle,
}

impl fmt::Debug for Decoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decoding").field("frame", &self.frame).finish_non_exhaustive()
    }
}

impl Drop for Decoding {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Ahead {
    /// The frames that are to be decoded for who was in a shard last, if he walks through large files and there is room for
    /// them. Each is said once.
    pub(crate) fn frames_to_decode(&self, shard: ShardId) -> Option<Next> {
        let mut state = self.state();
        let room = self.frames_max.load(Ordering::Relaxed).saturating_sub(state.frames_decoded());
        let walk = state.latest_in(shard)?;
        let frames = walk.frames_to_decode(room);
        (!frames.is_empty()).then_some(Next { walk: walk.id(), frames })
    }

    /// Decodes a frame for a walk.
    pub(crate) fn decode(&self, walk: u64, frame: u32, work: BoxFuture<'static, Decoded>) {
        // Without a runtime nothing can go on by itself.
        let Ok(runtime) = Handle::try_current() else { return };
        let mut state = self.state();
        let Some(walk) = state.walks.iter_mut().find(|one| one.id() == walk) else { return };
        let work = work.shared();
        let driver = work.clone();
        let task = self.spawn(async move { drop(driver.await) }, &runtime);
        walk.take_decoding(Decoding { frame, work, task });
    }

    /// A frame that was decoded ahead, or is being decoded: then this waits for it. None where it was not.
    pub(crate) async fn decoded(&self, shard: ShardId, frame: u32) -> Decoded {
        let work = {
            let state = self.state();
            let mut decodings = state.walks.iter().filter(|walk| walk.shard() == shard).flat_map(Walk::decodings);
            decodings.find(|one| one.frame == frame)?.work.clone()
        };
        let plain = work.await?;
        self.counters.frames_decoded.fetch_add(1, Ordering::Relaxed);
        Some(plain)
    }
}

impl State {
    /// How many frames are held decoded, or are being decoded.
    pub(super) fn frames_decoded(&self) -> u32 {
        let count = |walk: &Walk| u32::try_from(walk.decodings().len()).unwrap_or(u32::MAX);
        self.walks.iter().map(count).fold(0, u32::saturating_add)
    }
}
