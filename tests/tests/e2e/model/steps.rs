//! What is done to a mount: sequences of steps, drawn at random.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::Index;

/// Days of a sequence.
pub(super) const DAYS: usize = 3;

/// The uids that files of a sequence have; some need escapes.
pub(super) const UIDS: [&str; 12] = [
    "0",
    "00",
    "17",
    "INV-17",
    "a/b",
    "..",
    "100%",
    "two words\nand a line",
    "z\u{fc}rich",
    "Zu\u{308}rich",
    "0123456789abcdef0123456789abcdef",
    "a-name-that-is-long-enough-to-fill-much-of-a-small-buffer-of-getdents-all-by-itself-and-then-some-more-of-it",
];

/// Lengths of files: around the sizes of a page, of a frame and of the largest frame.
const LENS: [usize; 8] = [0, 1, 500, 4_095, 4_097, 9_000, 70_000, 1_100_000];

/// A file that may or may not be there: its day and uid, by number.
pub(super) type Place = (usize, usize);

/// What a file holds, in brief.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Content {
    /// How many bytes.
    pub(super) len: usize,
    /// Which of several contents of that length.
    pub(super) variant: u8,
}

impl Content {
    /// The bytes themselves.
    pub(super) fn bytes(self) -> Vec<u8> {
        let byte = |index: usize| {
            let mixed = index.wrapping_mul(2_654_435_761) >> 9;
            u8::try_from((mixed ^ (index >> 6)) & 31).unwrap_or_default() ^ self.variant
        };
        (0..self.len).map(byte).collect()
    }
}

/// Which bytes are read, as parts of what there is and a little beyond.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    pub(super) offset: Index,
    pub(super) len: usize,
}

impl Span {
    /// The offset in a file of a length, and how many bytes are asked for.
    pub(super) fn of(self, len: usize) -> (usize, usize) {
        (self.offset.index(len + 10), self.len)
    }
}

/// One thing that happens.
#[derive(Debug, Clone)]
pub(super) enum Step {
    /// A name is looked up.
    Lookup(Place),
    /// A directory (a day, or the root) is listed from somewhere.
    List { directory: usize, from: Index, buffer_bytes: usize },
    /// A file is opened and kept open.
    Open(Place),
    /// A part of a file that is open is read.
    Read(Index, Span),
    /// A file is mapped and stays so.
    Map(Place),
    /// A part of a mapping is looked at.
    Look(Index, Span),
    /// A file is deleted.
    Unlink(Place),
    /// A file is deleted on another host.
    UnlinkElsewhere(Place),
    /// A day is removed.
    RemoveDay(usize),
    /// Files are packed by another program.
    Pack(BTreeMap<Place, Content>),
    /// The daemon drops its caches.
    DropCaches,
    /// The mount is taken down and comes back.
    Remount,
}

fn place() -> impl Strategy<Value = Place> {
    (0..DAYS, 0..UIDS.len())
}

fn span() -> impl Strategy<Value = Span> {
    let len = prop_oneof![1..100_usize, Just(4_096), 1..200_000_usize];
    (any::<Index>(), len).prop_map(|(offset, len)| Span { offset, len })
}

fn files(count: std::ops::Range<usize>) -> impl Strategy<Value = BTreeMap<Place, Content>> {
    let len = prop_oneof![20 => prop::sample::select(&LENS[..7]), 1 => Just(LENS[7])];
    // What is empty has no variants.
    let content =
        (len, 0..2_u8).prop_map(|(len, variant)| Content { len, variant: if len == 0 { 0 } else { variant } });
    prop::collection::btree_map(place(), content, count)
}

fn step() -> impl Strategy<Value = Step> {
    let buffer_bytes = prop_oneof![300..600_usize, Just(4_096), Just(32_768)];
    prop_oneof![
        4 => place().prop_map(Step::Lookup),
        6 => (0..=DAYS, any::<Index>(), buffer_bytes)
            .prop_map(|(directory, from, buffer_bytes)| Step::List { directory, from, buffer_bytes }),
        4 => place().prop_map(Step::Open),
        6 => (any::<Index>(), span()).prop_map(|(handle, span)| Step::Read(handle, span)),
        3 => place().prop_map(Step::Map),
        4 => (any::<Index>(), span()).prop_map(|(mapping, span)| Step::Look(mapping, span)),
        6 => place().prop_map(Step::Unlink),
        2 => place().prop_map(Step::UnlinkElsewhere),
        2 => (0..DAYS).prop_map(Step::RemoveDay),
        2 => files(1..6).prop_map(Step::Pack),
        1 => Just(Step::DropCaches),
        1 => Just(Step::Remount),
    ]
}

/// A sequence: first something is packed, then things happen.
pub(super) fn sequence() -> impl Strategy<Value = Vec<Step>> {
    (files(1..16), prop::collection::vec(step(), 1..14)).prop_map(|(first, mut steps)| {
        steps.insert(0, Step::Pack(first));
        steps
    })
}
