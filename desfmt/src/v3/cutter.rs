//! Cuts the contents of files into frames.
//!
//! Small files share a frame until `target` bytes are gathered; a file that would make a shared frame larger than
//! twice the target begins one of its own; a file larger than 2^20 bytes fills frames of exactly so many. The cuts
//! depend on the lengths of the files only, never on how their bytes arrive.

use super::frame::address_of;
use super::limits::{FRAMES_MAX, SLOT_LEN};
use crate::v3::{BuildError, to_u64, to_usize};

/// How many plain bytes a frame gathers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameSize(u32);

impl FrameSize {
    /// One file a frame.
    pub const ONE_FILE: Self = Self(0);

    /// Takes a number of bytes, 0 to 2^20; with 0 no two files share a frame.
    pub fn new(target: u64) -> Option<Self> {
        if target <= SLOT_LEN { u32::try_from(target).ok().map(Self) } else { None }
    }

    /// The number of bytes.
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// 8 KiB: small enough that a small file is cheap to read, large enough to compress well.
impl Default for FrameSize {
    fn default() -> Self {
        Self(8 << 10)
    }
}

/// Where a file's content lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    /// The address of its first byte.
    pub offset: u64,
    /// Plain bytes.
    pub len: u64,
}

/// Takes the contents of files in the order of their uids and hands out frames to be encoded, in order.
#[derive(Debug)]
pub struct FrameCutter {
    target: usize,
    shared_max: usize,
    /// The frame under way.
    pending: Vec<u8>,
    frame_number: u32,
    /// Where in `pending` the current file begins; 0 once earlier parts of it have left.
    file_start: usize,
    /// Bytes of the current file that have left in full frames.
    file_passed: u64,
    file_address: u64,
}

impl FrameCutter {
    /// A cutter that starts with frame 0.
    pub fn new(size: FrameSize) -> Self {
        let target = to_usize(u64::from(size.get()));
        let slot = to_usize(SLOT_LEN);
        Self {
            target,
            shared_max: target.saturating_mul(2).min(slot),
            pending: Vec::new(),
            frame_number: 0,
            file_start: 0,
            file_passed: 0,
            file_address: 0,
        }
    }

    /// Takes the next bytes of the current file; `out` receives the frames that are full.
    pub fn push(&mut self, mut bytes: &[u8], out: &mut Vec<Vec<u8>>) -> Result<(), BuildError> {
        while !bytes.is_empty() {
            let room = to_usize(SLOT_LEN).saturating_sub(self.pending.len());
            let (head, rest) = bytes.split_at(bytes.len().min(room));
            self.pending.extend_from_slice(head);
            bytes = rest;
            let full = self.pending.len() >= to_usize(SLOT_LEN) && !bytes.is_empty();
            if self.file_start > 0 && (full || self.pending.len() > self.shared_max) {
                let file = self.pending.split_off(self.file_start);
                self.emit(file, out)?;
            }
            if self.pending.len() >= to_usize(SLOT_LEN) && self.file_start == 0 {
                if self.file_passed == 0 {
                    self.file_address = address_of(self.frame_number);
                }
                self.file_passed = self.file_passed.saturating_add(to_u64(self.pending.len()));
                self.emit(Vec::new(), out)?;
            }
        }
        Ok(())
    }

    /// Ends the current file, which may be empty, and says where it lies.
    pub fn end_file(&mut self, out: &mut Vec<Vec<u8>>) -> Result<Placement, BuildError> {
        if self.file_passed == 0 {
            self.file_address = self.address(self.file_start);
        }
        let in_pending = to_u64(self.pending.len().saturating_sub(self.file_start));
        let placement = Placement { offset: self.file_address, len: self.file_passed.saturating_add(in_pending) };
        if !self.pending.is_empty() && self.pending.len() >= self.target {
            self.emit(Vec::new(), out)?;
        }
        self.file_start = self.pending.len();
        self.file_passed = 0;
        Ok(placement)
    }

    /// Forgets the bytes of the current file, as if it had never begun: it cannot be read, or its content is there
    /// already. Returns false, and forgets nothing, when parts of it have left in frames.
    pub fn abandon_file(&mut self) -> bool {
        if self.file_passed > 0 {
            return false;
        }
        self.pending.truncate(self.file_start);
        true
    }

    /// Hands out what is gathered, so that the next file begins a frame. Call it after the last file.
    pub fn finish(&mut self, out: &mut Vec<Vec<u8>>) -> Result<(), BuildError> {
        if !self.pending.is_empty() {
            self.emit(Vec::new(), out)?;
        }
        Ok(())
    }

    /// Leaves out the numbers of frames that the caller takes over from another shard, after [`Self::finish`].
    pub fn skip_frames(&mut self, count: u32) -> Result<(), BuildError> {
        if !self.pending.is_empty() {
            return Err(BuildError::invalid("frames taken over in the midst of one"));
        }
        self.advance(count)
    }

    /// The address that the next byte would get if no cut came before it.
    pub fn position(&self) -> u64 {
        self.address(self.pending.len())
    }

    fn address(&self, in_frame: usize) -> u64 {
        address_of(self.frame_number).saturating_add(to_u64(in_frame))
    }

    /// Hands out `pending`; `next` is what the frame after it begins with.
    fn emit(&mut self, next: Vec<u8>, out: &mut Vec<Vec<u8>>) -> Result<(), BuildError> {
        self.advance(1)?;
        out.push(std::mem::replace(&mut self.pending, next));
        self.file_start = 0;
        Ok(())
    }

    fn advance(&mut self, count: u32) -> Result<(), BuildError> {
        let number = self.frame_number.saturating_add(count);
        if number > FRAMES_MAX {
            let (figure, limit) = (u64::from(number), u64::from(FRAMES_MAX));
            return Err(BuildError::BeyondLimits { what: "frames of a shard", figure, limit });
        }
        self.frame_number = number;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cut(target: u64, lens: &[usize], piece: usize) -> (Vec<usize>, Vec<Placement>) {
        let mut cutter = FrameCutter::new(FrameSize::new(target).unwrap());
        let mut frames = Vec::new();
        let placements = lens.iter().map(|len| {
            for bytes in vec![7_u8; *len].chunks(piece) {
                cutter.push(bytes, &mut frames).unwrap();
            }
            cutter.end_file(&mut frames).unwrap()
        });
        let placements = placements.collect();
        cutter.finish(&mut frames).unwrap();
        (frames.iter().map(Vec::len).collect(), placements)
    }

    fn offsets(placements: &[Placement]) -> Vec<u64> {
        placements.iter().map(|placement| placement.offset).collect()
    }

    #[test]
    fn small_files_share_a_frame_until_the_target_is_gathered() {
        let (frames, placements) = cut(8_192, &[3_000, 3_000, 3_000, 100], 1_000);
        assert_eq!(frames, [9_000, 100]);
        assert_eq!(offsets(&placements), [0, 3_000, 6_000, SLOT_LEN]);
    }

    #[test]
    fn a_file_that_would_overshoot_twice_the_target_begins_a_frame() {
        let (frames, placements) = cut(8_192, &[8_000, 8_385, 8_384, 1], 5_000);
        assert_eq!(frames, [8_000, 8_385, 8_384, 1]);
        assert_eq!(offsets(&placements), [0, SLOT_LEN, 2 * SLOT_LEN, 3 * SLOT_LEN]);
        assert_eq!(cut(8_192, &[8_000, 8_384], 5_000).0, [16_384]);
    }

    #[test]
    fn a_large_file_fills_frames_and_its_rest_is_shared() {
        let (frames, placements) = cut(8_192, &[10, 2_100_000, 20], 65_536);
        assert_eq!(frames, [10, 1 << 20, 1 << 20, 2_848 + 20]);
        assert_eq!(offsets(&placements), [0, SLOT_LEN, 3 * SLOT_LEN + 2_848]);
        assert_eq!(placements[1].len, 2_100_000);
    }

    #[test]
    fn without_a_target_each_file_has_its_frame() {
        let (frames, placements) = cut(0, &[10, 0, 20, 1_048_577], 4_096);
        assert_eq!(frames, [10, 20, 1 << 20, 1]);
        assert_eq!(offsets(&placements), [0, SLOT_LEN, SLOT_LEN, 2 * SLOT_LEN]);
    }

    #[test]
    fn an_abandoned_file_leaves_no_trace() {
        let mut cutter = FrameCutter::new(FrameSize::default());
        let mut frames = Vec::new();
        cutter.push(b"kept", &mut frames).unwrap();
        cutter.end_file(&mut frames).unwrap();
        cutter.push(b"forgotten", &mut frames).unwrap();

        assert!(cutter.abandon_file());

        cutter.push(b"kept too", &mut frames).unwrap();
        assert_eq!(cutter.end_file(&mut frames).unwrap(), Placement { offset: 4, len: 8 });
        cutter.finish(&mut frames).unwrap();
        assert_eq!(frames, [b"keptkept too"]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn cuts_do_not_depend_on_how_bytes_arrive(
            target in prop_oneof![Just(0_u64), Just(8_192), Just(1 << 20), 1_u64..100_000],
            lens in proptest::collection::vec(prop_oneof![0_usize..20_000, 0_usize..3_000_000], 0..12),
            pieces in (1_usize..100_000, 1_000_usize..3_000_000),
        ) {
            prop_assert_eq!(cut(target, &lens, pieces.0.max(512)), cut(target, &lens, pieces.1));
        }

        #[test]
        fn files_up_to_a_slot_lie_in_one_frame_and_larger_ones_begin_one(
            target in 0_u64..=1 << 20,
            lens in proptest::collection::vec(prop_oneof![0_usize..20_000, 900_000_usize..2_200_000], 0..12),
        ) {
            let (frames, placements) = cut(target, &lens, 300_000);
            prop_assert_eq!(frames.iter().sum::<usize>(), lens.iter().sum::<usize>());
            prop_assert!(frames.iter().all(|len| (1..=1 << 20).contains(len)));
            for placement in placements.iter().filter(|placement| placement.len > 0) {
                let skip = placement.offset % SLOT_LEN;
                prop_assert!(skip == 0 || skip + placement.len <= SLOT_LEN);
                let last = usize::try_from((placement.offset + placement.len - 1) / SLOT_LEN).unwrap();
                let in_last = usize::try_from((placement.offset + placement.len - 1) % SLOT_LEN).unwrap();
                prop_assert!(in_last < frames[last]);
            }
        }
    }
}
