//! What a repacked shard stems from.

use super::column::{ColumnEncoder, decode_ints};
use super::cursor::{Cursor, put_varint};
use super::limits::ORIGINS_MAX;
use crate::FormatError;
use crate::ids::{Birth, Digest, ShardId};
use crate::v3::{BuildError, to_u64};

/// Where the entries of a repacked shard were born, and which objects it replaces. Empty for a fresh shard.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lineage {
    /// The birth serials within the day, all different; an entry's origin is an index into them.
    pub serials: Vec<u32>,
    /// The shards that it was made from.
    pub parents: Vec<Parent>,
}

/// A shard that another one was made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parent {
    /// Its identity.
    pub shard: ShardId,
    /// BLAKE3 of its body.
    pub body_digest: Digest,
}

impl Lineage {
    /// True for a shard that was never repacked: its only origin is itself.
    pub fn is_fresh(&self) -> bool {
        self.serials.is_empty()
    }

    /// Checks the rules that writer and reader share; says which is broken.
    pub(super) fn validate(&self) -> Result<(), String> {
        let mut serials = self.serials.clone();
        serials.sort_unstable();
        if serials.windows(2).any(|pair| matches!(pair, [left, right] if left == right)) {
            return Err("a serial is listed twice".to_owned());
        }
        if serials.iter().any(|serial| !(1..=Birth::SERIAL_MAX).contains(serial)) {
            return Err("a serial out of range".to_owned());
        }
        if serials.is_empty() && !self.parents.is_empty() {
            return Err("parents without serials".to_owned());
        }
        Ok(())
    }

    pub(super) fn encode(&self, columns: &mut ColumnEncoder, out: &mut Vec<u8>) -> Result<(), BuildError> {
        put_varint(out, to_u64(self.serials.len()));
        let serials: Vec<i64> = self.serials.iter().copied().map(i64::from).collect();
        columns.ints(out, &serials)?;
        put_varint(out, to_u64(self.parents.len()));
        for parent in &self.parents {
            out.extend_from_slice(parent.shard.bytes());
            out.extend_from_slice(parent.body_digest.as_bytes());
        }
        Ok(())
    }

    pub(super) fn decode(cursor: &mut Cursor<'_>) -> Result<Self, FormatError> {
        let count_max = usize::try_from(ORIGINS_MAX).unwrap_or(0);
        let count = cursor.varint_up_to(count_max)?;
        let serials: Result<Vec<u32>, _> = decode_ints(cursor, count)?.into_iter().map(u32::try_from).collect();
        let serials = serials.map_err(|_| cursor.damaged("a serial out of range"))?;
        let count = cursor.varint_up_to(count_max)?;
        let mut parents = Vec::with_capacity(count);
        for _ in 0..count {
            let shard = ShardId::from_bytes(cursor.array()?);
            parents.push(Parent { shard, body_digest: Digest::from_bytes(cursor.array()?) });
        }
        let lineage = Self { serials, parents };
        lineage.validate().map_err(|detail| cursor.damaged(detail))?;
        Ok(lineage)
    }
}
