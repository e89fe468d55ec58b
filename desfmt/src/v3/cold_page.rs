//! Cold pages: what only verifying and `getfattr` ask for, of the same entries as the index page of the same number.
//!
//! ```text
//! digests     [u8; 32] each   BLAKE3 of the plain content
//! presence    ints            bytes of metadata + 1; 0 without
//! metadata    bytes           JSON objects, one after the other
//! ```

use super::column::{decode_bytes, decode_ints};
use super::cursor::Cursor;
use super::index_page::PageContext;
use super::limits::PAGE_METADATA_LEN_MAX;
use crate::FormatError;
use crate::ids::Digest;
use crate::v3::{to_u64, to_usize};

/// A decoded cold page.
#[derive(Debug)]
pub struct ColdPage {
    digests: Vec<Digest>,
    metadata: String,
    /// Where each entry's metadata ends, and whether there is any.
    ends: Vec<(u32, bool)>,
}

impl ColdPage {
    pub(super) fn decode(bytes: &[u8], context: PageContext) -> Result<Self, FormatError> {
        let mut cursor = Cursor::new("cold page", bytes);
        // The count of entries is below 2^12, whatever the shard says.
        let digests = cursor.take(context.count.saturating_mul(blake3::OUT_LEN))?;
        let (digests, _) = digests.as_chunks::<{ blake3::OUT_LEN }>();
        let digests = digests.iter().map(|bytes| Digest::from_bytes(*bytes)).collect();
        let mut ends = Vec::with_capacity(context.count);
        let mut end = 0_u64;
        for presence in decode_ints(&mut cursor, context.count)? {
            let Ok(presence) = u64::try_from(presence) else {
                return Err(cursor.damaged("metadata of negative length"));
            };
            end = end.saturating_add(presence.saturating_sub(1));
            if end > PAGE_METADATA_LEN_MAX {
                let detail = format!("{end} bytes of metadata where {PAGE_METADATA_LEN_MAX} are the most");
                return Err(FormatError::beyond_limits("cold page", detail));
            }
            ends.push((u32::try_from(end).unwrap_or(u32::MAX), presence > 0));
        }
        let metadata = decode_bytes(&mut cursor, to_usize(end))?;
        let Ok(metadata) = String::from_utf8(metadata) else {
            return Err(cursor.damaged("metadata that is not UTF-8"));
        };
        if ends.iter().any(|(end, _)| !metadata.is_char_boundary(to_usize(u64::from(*end)))) {
            return Err(cursor.damaged("metadata that ends within a character"));
        }
        cursor.finish(context.extended)?;
        Ok(Self { digests, metadata, ends })
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.digests.len()
    }

    /// True without entries, which no page of a shard is.
    pub fn is_empty(&self) -> bool {
        self.digests.is_empty()
    }

    /// BLAKE3 of the plain content of the entry at a place in the page.
    pub fn digest(&self, index: usize) -> Option<Digest> {
        self.digests.get(index).copied()
    }

    /// The metadata of the entry at a place in the page, if it has any: a JSON object.
    pub fn metadata(&self, index: usize) -> Option<&str> {
        let (end, true) = *self.ends.get(index)? else {
            return None;
        };
        let start = match index.checked_sub(1) {
            Some(before) => self.ends.get(before)?.0,
            None => 0,
        };
        self.metadata.get(to_usize(u64::from(start))..to_usize(u64::from(end)))
    }

    /// The memory that it takes.
    pub fn memory_bytes(&self) -> usize {
        let columns = size_of_val(self.digests.as_slice()).saturating_add(size_of_val(self.ends.as_slice()));
        to_usize(to_u64(size_of::<Self>()).saturating_add(to_u64(self.metadata.len()))).saturating_add(columns)
    }
}
