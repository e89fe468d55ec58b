//! Marks in the contents of files, and a search for them wherever bytes can hide: in objects as they are stored, in decoded
//! frames, and in dictionaries.

use std::collections::BTreeSet;

use bytes::Bytes;
use desfmt::v3::{PageNumber, ShardIndex};

/// What a mark begins with.
const BEGINNING: &[u8] = b"<MARK:";
/// How many digits follow, before a `>`.
const DIGITS: usize = 6;

/// The mark of a file.
pub fn mark(number: usize) -> String {
    format!("<MARK:{number:06}>")
}

/// All marks in some bytes.
pub fn marks_in(bytes: &[u8]) -> BTreeSet<usize> {
    let mut found = BTreeSet::new();
    let len = BEGINNING.len() + DIGITS + 1;
    for window in bytes.windows(len).filter(|window| window.starts_with(BEGINNING) && window.ends_with(b">")) {
        let digits = std::str::from_utf8(&window[BEGINNING.len()..len - 1]).ok();
        found.extend(digits.and_then(|digits| digits.parse::<usize>().ok()));
    }
    found
}

/// All places of an object in which bytes of files can be: the object itself, and if it is a shard its dictionary and its
/// frames, decoded.
pub fn hiding_places(object: &Bytes) -> Vec<Bytes> {
    let mut places = vec![object.clone()];
    let len = u64::try_from(object.len()).expect("a length");
    let Ok(index) = ShardIndex::open(object.clone(), len) else { return places };
    let part = |range: std::ops::Range<u64>| {
        let place = |at: u64| usize::try_from(at).expect("a place in memory");
        object.slice(place(range.start)..place(range.end))
    };
    places.extend(index.dictionary().map(|dictionary| Bytes::copy_from_slice(dictionary.as_bytes())));
    for number in (0..index.frame_pages()).map(PageNumber) {
        let range = index.frame_page_range(number).expect("a page of frames");
        let page = index.decode_frame_page(number, &part(range)).expect("a sound page");
        for frame in (0..page.len()).filter_map(|place| page.frame(place)) {
            places.push(index.decode_frame(&frame, &part(frame.stored.clone())).expect("a sound frame"));
        }
    }
    places
}

/// True for a shard with a dictionary.
pub fn has_dictionary(object: &Bytes) -> bool {
    let len = u64::try_from(object.len()).expect("a length");
    ShardIndex::open(object.clone(), len).is_ok_and(|index| index.dictionary().is_some())
}
