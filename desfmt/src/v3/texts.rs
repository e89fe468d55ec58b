//! Ascending texts, front-coded: each says how many bytes it shares with the one before.
//!
//! ```text
//! shared     ints     bytes shared with the text before; 0 for the first
//! len        ints     bytes of the whole text
//! rest       bytes    what is not shared, of all texts
//! ```

use super::column::{ColumnEncoder, decode_bytes, decode_ints};
use super::cursor::Cursor;
use crate::FormatError;
use crate::uid::Uid;
use crate::v3::{BuildError, to_usize};

/// Texts one after the other in one allocation.
#[derive(Debug, Default)]
pub(super) struct Texts {
    arena: Vec<u8>,
    ends: Vec<u32>,
}

impl Texts {
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Bytes of all texts together.
    pub(super) fn text_len(&self) -> usize {
        self.arena.len()
    }

    pub(super) fn get(&self, index: usize) -> Option<&[u8]> {
        let end = to_usize(u64::from(*self.ends.get(index)?));
        let start = match index.checked_sub(1) {
            Some(before) => to_usize(u64::from(*self.ends.get(before)?)),
            None => 0,
        };
        self.arena.get(start..end)
    }

    pub(super) fn push(&mut self, text: &[u8]) {
        self.arena.extend_from_slice(text);
        // Pages and directories are cut long before their texts reach 4 GiB.
        self.ends.push(u32::try_from(self.arena.len()).unwrap_or(u32::MAX));
    }

    pub(super) fn clear(&mut self) {
        self.arena.clear();
        self.ends.clear();
    }

    /// How many texts, from the first on, fulfil the predicate.
    pub(super) fn partition_point(&self, mut predicate: impl FnMut(&[u8]) -> bool) -> usize {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low.midpoint(high);
            if self.get(middle).is_some_and(&mut predicate) {
                low = middle.saturating_add(1);
            } else {
                high = middle;
            }
        }
        low
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.arena.capacity().saturating_add(self.ends.capacity().saturating_mul(size_of::<u32>()))
    }

    /// True when all are UTF-8.
    pub(super) fn are_utf8(&self) -> bool {
        std::str::from_utf8(&self.arena)
            .is_ok_and(|text| self.ends.iter().all(|end| text.is_char_boundary(to_usize(u64::from(*end)))))
    }

    pub(super) fn encode(&self, columns: &mut ColumnEncoder, out: &mut Vec<u8>) -> Result<(), BuildError> {
        let (mut shared_lens, mut lens) = (Vec::with_capacity(self.len()), Vec::with_capacity(self.len()));
        let (mut rest, mut before) = (Vec::new(), [].as_slice());
        for text in (0..self.len()).filter_map(|index| self.get(index)) {
            let shared = shared_len(before, text);
            shared_lens.push(i64::try_from(shared).unwrap_or(i64::MAX));
            lens.push(i64::try_from(text.len()).unwrap_or(i64::MAX));
            rest.extend_from_slice(text.get(shared..).unwrap_or(&[]));
            before = text;
        }
        columns.ints(out, &shared_lens)?;
        columns.ints(out, &lens)?;
        columns.bytes(out, &rest)
    }

    /// Reads `count` texts of 1 to 65,535 bytes, together at most `text_len_max`, and proves that they ascend.
    pub(super) fn decode(cursor: &mut Cursor<'_>, count: usize, text_len_max: u64) -> Result<Self, FormatError> {
        let shared_lens = decode_ints(cursor, count)?;
        let lens = decode_ints(cursor, count)?;
        let (mut text_len, mut rest_len, mut before) = (0_u64, 0_u64, 0_i64);
        for (shared, len) in shared_lens.iter().zip(&lens) {
            let len_max = i64::try_from(Uid::LEN_MAX).unwrap_or(0);
            if !(1..=len_max).contains(len) || !(0..=before.min(*len)).contains(shared) {
                return Err(cursor.damaged(format!("a text of {len} bytes, {shared} shared with one of {before}")));
            }
            text_len = text_len.saturating_add(len.unsigned_abs());
            rest_len = rest_len.saturating_add(len.abs_diff(*shared));
            before = *len;
        }
        if text_len > text_len_max {
            let detail = format!("{text_len} bytes of texts where {text_len_max} are the most");
            return Err(FormatError::beyond_limits("page", detail));
        }
        let rest = decode_bytes(cursor, to_usize(rest_len))?;
        let lens =
            shared_lens.iter().zip(&lens).map(|(shared, len)| (to_usize(shared.unsigned_abs()), len.abs_diff(*shared)));
        Self::join(lens.map(|(shared, own)| (shared, to_usize(own))), &rest, count, to_usize(text_len))
            .ok_or_else(|| cursor.damaged("texts out of order"))
    }

    /// Spells out texts; `None` where one does not come after the one before.
    fn join(
        lens: impl Iterator<Item = (usize, usize)>,
        mut rest: &[u8],
        count: usize,
        text_len: usize,
    ) -> Option<Self> {
        let mut texts = Self { arena: Vec::with_capacity(text_len), ends: Vec::with_capacity(count) };
        let mut before = 0..0_usize;
        for (shared, own_len) in lens {
            let own;
            (own, rest) = rest.split_at_checked(own_len)?;
            let shared_end = before.start.checked_add(shared)?;
            // The first byte that is not shared decides; a text that ends there comes first.
            let next_before = if shared_end < before.end { texts.arena.get(shared_end) } else { None };
            if texts.len() > 0 && own.first() <= next_before {
                return None;
            }
            let start = texts.arena.len();
            texts.arena.extend_from_within(before.start..shared_end);
            texts.arena.extend_from_slice(own);
            texts.ends.push(u32::try_from(texts.arena.len()).ok()?);
            before = start..texts.arena.len();
        }
        Some(texts)
    }
}

/// How many bytes two texts have in common at their beginnings.
pub(super) fn shared_len(left: &[u8], right: &[u8]) -> usize {
    left.iter().zip(right).take_while(|(left, right)| left == right).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn encode(texts: &BTreeSet<Vec<u8>>) -> Vec<u8> {
        let mut all = Texts::default();
        for text in texts {
            all.push(text);
        }
        let mut bytes = Vec::new();
        all.encode(&mut ColumnEncoder::new().unwrap(), &mut bytes).unwrap();
        bytes
    }

    proptest! {
        #[test]
        fn ascending_texts_read_back(
            texts in proptest::collection::btree_set(proptest::collection::vec(0_u8..4, 1..9), 0..100),
        ) {
            let bytes = encode(&texts);
            let mut cursor = Cursor::new("test", &bytes);
            let decoded = Texts::decode(&mut cursor, texts.len(), 1_000).unwrap();
            prop_assert!(cursor.finish(false).is_ok());
            let decoded: BTreeSet<Vec<u8>> = (0..decoded.len()).map(|index| decoded.get(index).unwrap().to_vec()).collect();
            prop_assert_eq!(decoded, texts);
        }
    }

    #[test]
    fn texts_that_do_not_ascend_are_refused() {
        for pair in [["b", "a"], ["a", "a"], ["ab", "a"]] {
            let mut texts = Texts::default();
            for text in pair {
                texts.push(text.as_bytes());
            }
            let mut bytes = Vec::new();
            texts.encode(&mut ColumnEncoder::new().unwrap(), &mut bytes).unwrap();
            assert!(Texts::decode(&mut Cursor::new("test", &bytes), 2, 1_000).is_err(), "{pair:?}");
        }
    }

    #[test]
    fn few_bytes_cannot_ask_for_endless_texts() {
        let texts = (0_u32..400).map(|number| [vec![b'x'; 60_000], number.to_be_bytes().to_vec()].concat()).collect();
        let bytes = encode(&texts);
        assert!(bytes.len() < 2_000);
        let refused = Texts::decode(&mut Cursor::new("test", &bytes), 400, 1 << 20);
        assert!(matches!(refused, Err(FormatError::BeyondLimits { .. })));
    }
}
