//! One reader that may be walking forwards: what shows that, and what comes next for it.
//!
//! A random reader must not be taken for a walk, since it would pay for what it does not want. Several steps from a file to
//! exactly the next one are proof: with N files in a shard and four readers watched there, chance makes three of them in
//! a row in about 64 of N^2 orders. Fewer do where a walk is likely to begin.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

use desfmt::{Birth, ShardId};

use super::decoded::{Decoding, FRAMES_DECODED_BEYOND};
use super::piece::{Held, Piece};

/// Bytes of the first window of a walk, and of the largest.
const WINDOW_BYTES_MIN: u64 = 1 << 20;
pub(super) const WINDOW_BYTES_MAX: u64 = 8 << 20;

/// Steps that show a walk; those from the beginning of a shard; and one from there when the shard has been listed and nobody
/// else reads in it.
const STEPS_MIN: u32 = 3;
const STEPS_MIN_FROM_START: u32 = 2;
const STEPS_MIN_AFTER_LISTING: u32 = 1;

/// How many frames a reader with windows may be off, back or ahead: several requests at once do not arrive in order.
const FRAMES_ASTRAY_MAX: u32 = 16;

/// How many frames a piece is kept after the reader has passed it, for the same reason.
const FRAMES_BEHIND: u32 = 8;

/// How many pieces beyond the one being read are fetched at once, when a walk has gone on for some time.
const PIECES_BEYOND_MAX: usize = 3;

/// A read, as far as it tells where a reader is going.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    pub(crate) shard: ShardId,
    pub(crate) birth: Birth,
    /// What is read of the file, and how long it is.
    pub(crate) range: Range<u64>,
    pub(crate) len: u64,
    /// True when the file has frames of its own.
    pub(crate) is_large: bool,
    /// The frames that hold what is read.
    pub(crate) frames: Range<u32>,
    /// The first of them that is not at hand, or their end.
    pub(crate) missing: u32,
    /// Where the frames of the file end, and those of the shard.
    pub(crate) file_end: u32,
    pub(crate) shard_end: u32,
    /// True when somebody has listed the shard lately.
    pub(crate) is_listed: bool,
}

/// A window that should be fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wish {
    pub(crate) walk: u64,
    /// Its frames begin here and end before `end`.
    pub(crate) from: u32,
    pub(crate) end: u32,
    /// About so many stored bytes.
    pub(crate) bytes: u64,
}

/// How far ahead of a reader is fetched.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// How long the next window is.
    window_bytes: u64,
    pieces_beyond_max: usize,
}

impl Pace {
    /// That of a walk which has just begun.
    const FIRST: Self = Self { window_bytes: WINDOW_BYTES_MIN, pieces_beyond_max: 1 };
}

#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own about the reader")]
pub(super) struct Walk {
    id: u64,
    shard: ShardId,
    birth: Birth,
    end: u64,
    is_at_end_of_file: bool,
    is_from_start: bool,
    is_in_one_file: bool,
    /// True when the file that was read last has frames of its own.
    is_in_large: bool,
    steps: u32,
    is_shown: bool,
    /// True when somebody has looked at what comes after the shard.
    has_left: bool,
    /// The furthest frame read.
    frame: u32,
    pace: Pace,
    pieces: VecDeque<Held>,
    /// The first frame that is not in a piece, and where there are no more.
    next_frame: u32,
    last_frame: u32,
    /// Frames that are decoded ahead, and the first that nobody has begun to decode.
    decodings: VecDeque<Decoding>,
    next_to_decode: u32,
    touched: Duration,
    /// The number of the read that was its last.
    turn: u64,
}

impl Walk {
    pub(super) fn new(id: u64, step: &Step, now: Duration) -> Self {
        Self {
            id,
            shard: step.shard,
            birth: step.birth,
            end: step.range.end,
            is_at_end_of_file: step.range.end >= step.len,
            is_from_start: step.frames.start == 0 && step.range.start == 0,
            is_in_one_file: true,
            is_in_large: step.is_large,
            steps: 0,
            is_shown: false,
            has_left: false,
            frame: step.frames.end.saturating_sub(1),
            pace: Pace::FIRST,
            pieces: VecDeque::new(),
            next_frame: step.frames.end,
            last_frame: step.file_end,
            decodings: VecDeque::new(),
            next_to_decode: 0,
            touched: now,
            turn: id,
        }
    }

    /// A reader who is expected at the beginning of a shard of so many frames, coming from another one at that pace.
    pub(super) fn expected(
        id: u64,
        (shard, first): (ShardId, Birth),
        (frames, pace): (u32, Pace),
        now: Duration,
    ) -> Self {
        Self {
            id,
            shard,
            birth: first,
            end: 0,
            is_at_end_of_file: false,
            is_from_start: true,
            is_in_one_file: false,
            is_in_large: false,
            steps: STEPS_MIN,
            is_shown: true,
            has_left: false,
            frame: 0,
            pace,
            pieces: VecDeque::new(),
            next_frame: 0,
            last_frame: frames,
            decodings: VecDeque::new(),
            next_to_decode: 0,
            touched: now,
            turn: id,
        }
    }

    /// At which pace, said once, when this reader goes from file to file and has all that comes before the end of the shard.
    pub(super) fn leaves(&mut self) -> Option<Pace> {
        let is_leaving = self.is_shown && !self.is_in_one_file && self.next_frame >= self.last_frame;
        (is_leaving && !std::mem::replace(&mut self.has_left, true)).then_some(self.pace)
    }

    pub(super) const fn id(&self) -> u64 {
        self.id
    }

    pub(super) const fn shard(&self) -> ShardId {
        self.shard
    }

    pub(super) const fn turn(&self) -> u64 {
        self.turn
    }

    pub(super) const fn touched(&self) -> Duration {
        self.touched
    }

    pub(super) const fn has_windows(&self) -> bool {
        self.is_shown
    }

    pub(super) fn bytes(&self) -> u64 {
        self.pieces.iter().map(|held| held.piece.span().bytes()).fold(0, u64::saturating_add)
    }

    pub(super) fn holds_something(&self) -> bool {
        !self.pieces.is_empty() || !self.decodings.is_empty()
    }

    pub(super) const fn decodings(&self) -> &VecDeque<Decoding> {
        &self.decodings
    }

    /// The frames that are to be decoded now, no more than `room`. Each is said once.
    pub(super) fn frames_to_decode(&mut self, room: u32) -> Range<u32> {
        if !self.is_shown || !self.is_in_large {
            return 0..0;
        }
        let next = self.frame.saturating_add(1);
        let from = self.next_to_decode.max(next);
        let end = next.saturating_add(FRAMES_DECODED_BEYOND).min(self.last_frame).min(from.saturating_add(room));
        self.next_to_decode = from.max(end);
        from..self.next_to_decode
    }

    pub(super) fn take_decoding(&mut self, decoding: Decoding) {
        self.decodings.push_back(decoding);
    }

    /// True when a read goes on where this reader is.
    pub(super) fn is_followed_by(&self, step: &Step) -> bool {
        if self.shard != step.shard {
            return false;
        }
        let is_near = self.has_windows() && {
            let from = self.frame.saturating_sub(FRAMES_ASTRAY_MAX);
            (from..=self.next_frame.saturating_add(FRAMES_ASTRAY_MAX)).contains(&step.frames.start)
        };
        is_near || self.is_next(step)
    }

    /// True when a read begins exactly where the last one ended.
    fn is_next(&self, step: &Step) -> bool {
        if self.birth == step.birth {
            return self.end == step.range.start;
        }
        self.birth.serial == step.birth.serial
            && self.birth.ordinal.checked_add(1) == Some(step.birth.ordinal)
            && self.is_at_end_of_file
            && step.range.start == 0
    }

    /// Follows the reader. `is_alone` says that no other one has read in the shard since its last step.
    pub(super) fn advance(&mut self, step: &Step, (turn, now): (u64, Duration), is_alone: bool) {
        (self.turn, self.touched) = (turn, now);
        self.is_in_one_file &= self.birth == step.birth;
        self.is_in_large = step.is_large;
        self.last_frame = if self.is_in_one_file { step.file_end } else { step.shard_end };
        if self.is_next(step) {
            self.steps = self.steps.saturating_add(1);
        }
        let is_forwards = (step.birth.ordinal, step.range.end) > (self.birth.ordinal, self.end);
        if is_forwards {
            (self.birth, self.end) = (step.birth, step.range.end);
            self.is_at_end_of_file = step.range.end >= step.len;
        }
        let before = self.piece_of(self.frame);
        self.frame = self.frame.max(step.frames.end.saturating_sub(1));
        if self.piece_of(self.frame) != before {
            self.pace.pieces_beyond_max = self.pace.pieces_beyond_max.saturating_add(1).min(PIECES_BEYOND_MAX);
        }
        while self.pieces.front().is_some_and(|held| self.has_long_passed(held)) {
            self.pieces.pop_front();
        }
        self.decodings.retain(|one| one.frame >= self.frame);
        let steps_min = match (self.is_from_start, step.is_listed && is_alone) {
            (true, true) => STEPS_MIN_AFTER_LISTING,
            (true, false) => STEPS_MIN_FROM_START,
            (false, _) => STEPS_MIN,
        };
        self.is_shown |= self.steps >= steps_min;
        if self.pieces.is_empty() {
            self.next_frame = self.next_frame.max(step.missing);
        }
    }

    /// What is to be fetched next, unless enough is on its way.
    pub(super) fn wish(&self, window_bytes_max: u64) -> Option<Wish> {
        let beyond = self.pieces.iter().filter(|held| held.piece.span().frames.start > self.frame).count();
        let is_wanted = self.has_windows() && beyond < self.pace.pieces_beyond_max && self.next_frame < self.last_frame;
        is_wanted.then_some(Wish {
            walk: self.id,
            from: self.next_frame,
            end: self.last_frame,
            bytes: self.pace.window_bytes.min(window_bytes_max),
        })
    }

    pub(super) const fn is_waiting_for(&self, wish: &Wish) -> bool {
        self.next_frame == wish.from
    }

    /// Takes the piece that was wished for.
    pub(super) fn take(&mut self, held: Held) {
        self.next_frame = held.piece.span().frames.end;
        self.pieces.push_back(held);
        self.pace.window_bytes = self.pace.window_bytes.saturating_mul(2).min(WINDOW_BYTES_MAX);
    }

    /// Wishes for smaller windows from now on.
    pub(super) fn ask_for_less(&mut self) {
        self.pace.window_bytes = (self.pace.window_bytes / 2).max(WINDOW_BYTES_MIN);
    }

    /// The piece that holds a frame.
    pub(super) fn find(&self, frame: u32) -> Option<Piece> {
        let held = self.pieces.iter().find(|held| held.piece.span().frames.contains(&frame));
        held.map(|held| held.piece.clone())
    }

    /// Gives up pieces that did not arrive and what comes after them, and says how many did not: who walks here begins with
    /// small windows again.
    pub(super) fn drop_failed(&mut self) -> u64 {
        let failed = self.pieces.iter().filter(|held| held.piece.has_failed()).count();
        if failed > 0 {
            self.pieces.retain(|held| !held.piece.has_failed());
            self.begin_again();
        }
        u64::try_from(failed).unwrap_or(u64::MAX)
    }

    /// Gives up the oldest piece, if the reader has passed it, or has come to the end of all that there is.
    pub(super) fn drop_passed(&mut self) -> bool {
        let is_at_end = self.is_at_end_of_file && self.frame.saturating_add(1) >= self.last_frame;
        let is_passed = |held: &Held| is_at_end || held.piece.span().frames.end <= self.frame;
        self.pieces.front().is_some_and(is_passed) && self.pieces.pop_front().is_some()
    }

    /// Goes on after what is at hand.
    pub(super) fn skip(&mut self, wish: &Wish, end: u32) {
        if self.is_waiting_for(wish) {
            self.next_frame = end.max(self.next_frame);
        }
    }

    /// Gives up the piece that holds a frame.
    pub(super) fn drop_frame(&mut self, frame: u32) {
        self.pieces.retain(|held| !held.piece.span().frames.contains(&frame));
        self.decodings.retain(|one| one.frame != frame);
    }

    /// Gives up everything; the walk has to show itself again.
    pub(super) fn give_up(&mut self) {
        self.pieces.clear();
        self.decodings.clear();
        self.begin_again();
    }

    fn begin_again(&mut self) {
        (self.is_shown, self.steps, self.next_to_decode) = (false, 0, 0);
        self.pace = Pace::FIRST;
    }

    fn piece_of(&self, frame: u32) -> Option<u32> {
        let held = self.pieces.iter().find(|held| held.piece.span().frames.contains(&frame))?;
        Some(held.piece.span().frames.start)
    }

    fn has_long_passed(&self, held: &Held) -> bool {
        held.piece.span().frames.end.saturating_add(FRAMES_BEHIND) <= self.frame
    }
}
