//! Reading ahead: who walks forwards through a shard finds what comes next on its way already.
//!
//! What was fetched is kept as it is stored, in pieces of adjacent frames, until the reader has passed it; the next frames of
//! large files are decoded before they are asked for. Pieces that readers demand are shared while they are in flight. Nothing
//! here fails: a reader whose piece did not arrive asks the store itself. From a store that is near nothing is fetched, and
//! who reads small files there is not watched. How it looks from outside is in `docs/caching.md`.

mod decoded;
mod piece;
#[cfg(test)]
mod tests;
mod walk;

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use desfmt::{Birth, ShardId, v3};
use futures_util::future::BoxFuture;
use tokio::runtime::Handle;
use tokio::task::{AbortHandle, JoinSet};

pub(crate) use decoded::Decoded;
pub(crate) use piece::{Fetched, Piece, Span};
use piece::{Held, WeakPiece};
pub(crate) use walk::{Pace, Step, Wish};
use walk::{WINDOW_BYTES_MAX, Walk};

use crate::clock::Clock;

/// The share of the budget of all caches that pieces may take: one in so many.
const SHARE: u64 = 4;

/// Pieces take no more than this, however large the budget: enough for a few walks at once.
const BYTES_MAX: u64 = 128 << 20;

/// The same for decoded frames.
const DECODED_SHARE: u64 = 16;
const DECODED_BYTES_MAX: u64 = 16 << 20;

/// How many readers are watched at once, and how many of one shard that have not shown to walk.
const WALKS_MAX: usize = 32;
const WALKS_UNSHOWN_MAX: usize = 4;

/// How long a walk may rest before its pieces are given up, and before others may take their memory.
const REST_MAX: Duration = Duration::from_secs(30);
const REST_MAX_IN_NEED: Duration = Duration::from_secs(5);

/// What reading ahead has done so far, and what it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AheadStats {
    /// Windows that were asked for.
    pub windows: u64,
    /// Stored bytes of them.
    pub window_bytes: u64,
    /// Frames that a window had ready, or on its way, when they were wanted.
    pub frames_served: u64,
    /// Windows that did not arrive.
    pub windows_failed: u64,
    /// Windows that there was no memory for.
    pub windows_refused: u64,
    /// Frames that another reader had asked for already.
    pub frames_shared: u64,
    /// Frames that were decoded, or were being decoded, when they were wanted.
    pub frames_decoded: u64,
    /// Bytes held or on their way now.
    pub bytes: u64,
    /// What they may come to.
    pub bytes_max: u64,
}

/// All walks of an archive, and what is on its way.
#[derive(Debug)]
pub(crate) struct Ahead {
    clock: Arc<dyn Clock>,
    bytes_max: AtomicU64,
    /// How many frames may be held decoded.
    frames_max: AtomicU32,
    state: Mutex<State>,
    /// Dropped with the archive, which ends what is on its way.
    tasks: Mutex<JoinSet<()>>,
    counters: Counters,
}

#[derive(Debug, Default)]
struct State {
    walks: Vec<Walk>,
    demands: Vec<(ShardId, WeakPiece)>,
    /// How many reads there were.
    turns: u64,
}

#[derive(Debug, Default)]
struct Counters {
    windows: AtomicU64,
    window_bytes: AtomicU64,
    frames_served: AtomicU64,
    windows_failed: AtomicU64,
    windows_refused: AtomicU64,
    frames_shared: AtomicU64,
    frames_decoded: AtomicU64,
}

/// What is kept ahead of readers may take so much of a budget of all caches.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Share {
    pieces_bytes: u64,
    /// None is larger than a slot.
    frames: u32,
}

impl Share {
    pub(crate) fn of(memory_bytes: u64, store_is_near: bool) -> Self {
        let pieces_bytes = if store_is_near { 0 } else { (memory_bytes / SHARE).min(BYTES_MAX) };
        let frames = (memory_bytes / DECODED_SHARE).min(DECODED_BYTES_MAX) / v3::limits::SLOT_LEN;
        Self { pieces_bytes, frames: u32::try_from(frames).unwrap_or(u32::MAX) }
    }

    pub(crate) fn bytes(self) -> u64 {
        self.pieces_bytes.saturating_add(bytes_of(self.frames))
    }
}

/// What so many decoded frames take at most.
fn bytes_of(frames: u32) -> u64 {
    u64::from(frames).saturating_mul(v3::limits::SLOT_LEN)
}

impl Ahead {
    pub(crate) fn new(share: Share, clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            bytes_max: AtomicU64::new(share.pieces_bytes),
            frames_max: AtomicU32::new(share.frames),
            state: Mutex::default(),
            tasks: Mutex::default(),
            counters: Counters::default(),
        }
    }

    /// Changes what may be held; what is too much is given up at once.
    pub(crate) fn set_share(&self, share: Share) {
        self.bytes_max.store(share.pieces_bytes, Ordering::Relaxed);
        self.frames_max.store(share.frames, Ordering::Relaxed);
        let mut state = self.state();
        let is_too_much = |state: &State| state.bytes() > share.pieces_bytes || state.frames_decoded() > share.frames;
        while is_too_much(&state) && state.give_up_oldest(self.clock.monotonic(), Duration::ZERO) {}
    }

    /// Notes a read. Says what is to be fetched ahead of it, if anything; [`Ahead::begin`] it and ask
    /// [`Ahead::next_wish`] for more.
    pub(crate) fn step(&self, step: &Step) -> Option<Wish> {
        let now = self.clock.monotonic();
        let mut state = self.state();
        state.walks.retain(|walk| now.saturating_sub(walk.touched()) < REST_MAX);
        state.turns = state.turns.saturating_add(1);
        let turn = state.turns;
        let latest = state.walks.iter().filter(|walk| walk.shard() == step.shard).map(Walk::turn).max();
        if let Some(walk) = state.walks.iter_mut().find(|walk| walk.is_followed_by(step)) {
            let is_alone = latest == Some(walk.turn());
            walk.advance(step, (turn, now), is_alone);
            return walk.wish(self.window_bytes_max());
        }
        state.watch(step, turn, now);
        None
    }

    /// At which pace, said once, when all that is left of a shard for the reader who was there last is at hand or on its way,
    /// and he goes from file to file.
    pub(crate) fn leaving(&self, shard: ShardId) -> Option<Pace> {
        self.state().latest_in(shard)?.leaves()
    }

    /// Expects a reader at the beginning of a shard, with its first file, and says what is to be fetched for him.
    pub(crate) fn enter(&self, (shard, first): (ShardId, Birth), frames: u32, pace: Pace) -> Option<Wish> {
        let now = self.clock.monotonic();
        let mut state = self.state();
        if state.walks.len() >= WALKS_MAX || state.walks.iter().any(|walk| walk.shard() == shard) {
            return None;
        }
        state.turns = state.turns.saturating_add(1);
        let walk = Walk::expected(state.turns, (shard, first), (frames, pace), now);
        let wish = walk.wish(self.window_bytes_max());
        state.walks.push(walk);
        wish
    }

    /// What is to be fetched after what was begun.
    pub(crate) fn next_wish(&self, after: &Wish) -> Option<Wish> {
        self.state().walks.iter().find(|walk| walk.id() == after.walk)?.wish(self.window_bytes_max())
    }

    /// Begins to fetch a window, if there is memory for it and nobody was faster. `arrived` gets its bytes.
    pub(crate) fn begin(
        &self,
        wish: &Wish,
        span: Span,
        fetch: BoxFuture<'static, Fetched>,
        arrived: impl FnOnce(Bytes) + Send + 'static,
    ) {
        let bytes = span.bytes();
        let now = self.clock.monotonic();
        let bytes_max = self.bytes_max.load(Ordering::Relaxed);
        // Without a runtime nothing can go on by itself.
        let Ok(runtime) = Handle::try_current() else { return };
        let mut state = self.state();
        while state.bytes().saturating_add(bytes) > bytes_max && state.make_room(wish.walk, now) {}
        let is_fitting = state.bytes().saturating_add(bytes) <= bytes_max;
        let Some(walk) = state.walks.iter_mut().find(|walk| walk.id() == wish.walk) else { return };
        if !is_fitting {
            self.counters.windows_refused.fetch_add(1, Ordering::Relaxed);
            return walk.ask_for_less();
        }
        if !walk.is_waiting_for(wish) {
            return;
        }
        let piece = Piece::new(span, fetch);
        let driver = piece.clone();
        let bring = async move {
            if let Ok(bytes) = driver.bytes().await {
                arrived(bytes);
            }
        };
        let task = self.spawn(bring, &runtime);
        walk.take(Held::new(piece, task));
        self.counters.windows.fetch_add(1, Ordering::Relaxed);
        self.counters.window_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The piece that holds a frame, or will.
    pub(crate) fn find(&self, shard: ShardId, frame: u32) -> Option<Piece> {
        let mut state = self.state();
        let (mut failed, mut found) = (0, None);
        for walk in state.walks.iter_mut().filter(|walk| walk.shard() == shard) {
            failed = walk.drop_failed().saturating_add(failed);
            found = found.or_else(|| walk.find(frame));
        }
        self.counters.windows_failed.fetch_add(failed, Ordering::Relaxed);
        if found.is_some() {
            self.counters.frames_served.fetch_add(1, Ordering::Relaxed);
            return found;
        }
        let mut demands = state.demands.iter().filter(|(of, _)| *of == shard);
        let found = demands.find_map(|(_, demand)| demand.upgrade_for(frame));
        if found.is_some() {
            self.counters.frames_shared.fetch_add(1, Ordering::Relaxed);
        }
        found
    }

    /// The same for who does not read the frame now, so that it does not count as served.
    pub(crate) fn peek(&self, shard: ShardId, frame: u32) -> Option<Piece> {
        self.state().walks.iter().filter(|walk| walk.shard() == shard).find_map(|walk| walk.find(frame))
    }

    /// Fetches frames that a reader waits for. Whoever wants one of them before they have arrived shares the request.
    pub(crate) fn demand(&self, shard: ShardId, span: Span, fetch: BoxFuture<'static, Fetched>) -> Piece {
        let piece = Piece::new(span, fetch);
        let mut state = self.state();
        state.demands.retain(|(_, demand)| demand.is_in_flight());
        state.demands.push((shard, piece.downgrade()));
        piece
    }

    /// Gives up what holds these frames of a shard.
    pub(crate) fn forget(&self, shard: ShardId, frames: &[u32]) {
        let mut state = self.state();
        for walk in state.walks.iter_mut().filter(|walk| walk.shard() == shard) {
            for frame in frames {
                walk.drop_frame(*frame);
            }
        }
    }

    /// Says that a window need not be fetched: all of it, up to this frame, is at hand.
    pub(crate) fn skip(&self, wish: &Wish, end: u32) {
        if let Some(walk) = self.state().walks.iter_mut().find(|walk| walk.id() == wish.walk) {
            walk.skip(wish, end);
        }
    }

    /// Gives up what is held of a shard.
    pub(crate) fn forget_shard(&self, shard: ShardId) {
        let mut state = self.state();
        state.walks.retain(|walk| walk.shard() != shard);
        state.demands.retain(|(of, _)| *of != shard);
    }

    /// Gives up everything.
    pub(crate) fn clear(&self) {
        *self.state() = State::default();
    }

    /// Gives up what readers have left behind. To be called now and then.
    pub(crate) fn tend(&self) {
        let now = self.clock.monotonic();
        self.state().walks.retain(|walk| now.saturating_sub(walk.touched()) < REST_MAX);
    }

    pub(crate) fn stats(&self) -> AheadStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let state = self.state();
        let (pieces_bytes, frames) = (state.bytes(), state.frames_decoded());
        drop(state);
        AheadStats {
            windows: read(&self.counters.windows),
            window_bytes: read(&self.counters.window_bytes),
            frames_served: read(&self.counters.frames_served),
            windows_failed: read(&self.counters.windows_failed),
            windows_refused: read(&self.counters.windows_refused),
            frames_shared: read(&self.counters.frames_shared),
            frames_decoded: read(&self.counters.frames_decoded),
            bytes: pieces_bytes.saturating_add(bytes_of(frames)),
            bytes_max: read(&self.bytes_max).saturating_add(bytes_of(self.frames_max.load(Ordering::Relaxed))),
        }
    }

    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static, runtime: &Handle) -> AbortHandle {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn_on(work, runtime)
    }

    /// A walk has four windows at most: the one being read and three beyond.
    fn window_bytes_max(&self) -> u64 {
        (self.bytes_max.load(Ordering::Relaxed) / 4).min(WINDOW_BYTES_MAX)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn bytes(&self) -> u64 {
        self.walks.iter().map(Walk::bytes).fold(0, u64::saturating_add)
    }

    /// The walk that was in a shard last.
    fn latest_in(&mut self, shard: ShardId) -> Option<&mut Walk> {
        self.walks.iter_mut().filter(|walk| walk.shard() == shard).max_by_key(|walk| walk.turn())
    }

    /// Begins to watch a reader. One who already has windows is not given up for one who has not shown to need any.
    fn watch(&mut self, step: &Step, turn: u64, now: Duration) {
        let is_unshown = |walk: &Walk| walk.shard() == step.shard && !walk.has_windows();
        let is_full_here = self.walks.iter().filter(|walk| is_unshown(walk)).count() >= WALKS_UNSHOWN_MAX;
        if is_full_here || self.walks.len() >= WALKS_MAX {
            let can_go = |walk: &Walk| {
                let rests = now.saturating_sub(walk.touched()) >= REST_MAX_IN_NEED;
                if is_full_here { is_unshown(walk) } else { !walk.has_windows() || rests }
            };
            let oldest = self.walks.iter().enumerate().filter(|(_, walk)| can_go(walk));
            let oldest = oldest.min_by_key(|(_, walk)| (walk.has_windows(), walk.turn())).map(|(at, _)| at);
            let Some(oldest) = oldest else { return };
            drop(self.walks.swap_remove(oldest));
        }
        self.walks.push(Walk::new(turn, step, now));
    }

    /// Frees some memory for a walk: first what its own reader has passed, then what others have passed or left behind.
    fn make_room(&mut self, walk: u64, now: Duration) -> bool {
        self.walks.sort_by_key(|one| one.id() != walk);
        self.walks.iter_mut().any(Walk::drop_passed) || self.give_up_oldest(now, REST_MAX_IN_NEED)
    }

    /// Gives up the pieces of the walk that has rested longest, if that is long enough.
    fn give_up_oldest(&mut self, now: Duration, rest: Duration) -> bool {
        let oldest = self.walks.iter_mut().filter(|walk| walk.holds_something()).min_by_key(|walk| walk.turn());
        match oldest {
            Some(walk) if now.saturating_sub(walk.touched()) >= rest => {
                walk.give_up();
                true
            }
            Some(_) | None => false,
        }
    }
}
