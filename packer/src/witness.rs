//! Whoever must know what became of every single row.

use std::fmt;
use std::io;

use desfmt::{Digest, ShardName};

use crate::issue::Outcome;
use crate::rows::Row;

/// What became of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate<'a> {
    /// It was packed, and its shard is published.
    Packed {
        /// BLAKE3 of the content that was read from its source.
        digest: Digest,
        /// The shard that holds it.
        shard: ShardName,
    },
    /// The archive held it already, with the content that its source has.
    Present {
        /// BLAKE3 of that content.
        digest: Digest,
    },
    /// It was left out.
    LeftOut {
        /// Why.
        outcome: Outcome,
        /// Why, in words.
        reason: &'a str,
    },
}

/// Is told once of each row that was handed over, but for those that only repeat another.
pub trait Witness: Send + Sync + fmt::Debug {
    /// Takes one row; several threads tell at once. Rows of one shard come in the order of their uids. An error stops
    /// the run at its end: it has not done what it should.
    fn settled(&self, row: &Row, fate: &Fate<'_>) -> io::Result<()>;
}
