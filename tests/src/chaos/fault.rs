//! What can happen to a request.

use std::time::Duration;

use super::request::{Asked, Kind};

/// What is done to a request or its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The answer is late.
    Delay(Duration),
    /// The server is not asked; this status comes instead, with `Retry-After` in seconds.
    Status(u16, Option<u32>),
    /// The server is not asked; it is said that the bucket lies in this region.
    OtherRegion(&'static str),
    /// The connection is closed without an answer; the server is not asked.
    Close,
    /// The body breaks off half-way.
    CloseInBody,
    /// The body stands still half-way, for so long.
    Stall(Duration),
    /// One byte of the body is another one.
    FlipByte,
    /// The body is shorter, and is said to be.
    ShortBody,
    /// `Content-Range` tells of other bytes.
    WrongContentRange,
    /// A range is answered as if it were the whole object.
    WholeForRange,
    /// The server has done it, and the answer is lost.
    LoseAnswer,
    /// A write whose condition the server has refused is told as done, as servers do that ignore conditions.
    IgnoreCondition,
    /// What the object was at first comes instead of what it is.
    Stale,
}

/// To which requests something happens, and how often.
#[derive(Debug, Clone)]
pub struct Rule {
    /// What happens.
    pub fault: Fault,
    /// To requests of these kinds; to all if there are none.
    pub kinds: Vec<Kind>,
    /// To requests whose path or query holds this.
    pub holds: String,
    /// To requests whose credential (`KEY/DATE/REGION/s3/aws4_request`) holds this.
    pub signed: String,
    /// To how many of a million of them.
    pub per_million: u64,
    /// At most so often.
    pub times_max: Option<u64>,
}

impl Rule {
    /// To every request.
    pub fn always(fault: Fault) -> Self {
        Self {
            fault,
            kinds: Vec::new(),
            holds: String::new(),
            signed: String::new(),
            per_million: 1_000_000,
            times_max: None,
        }
    }

    /// To so many of a hundred requests.
    pub fn percent(percent: u64, fault: Fault) -> Self {
        Self { per_million: percent * 10_000, ..Self::always(fault) }
    }

    /// Only to requests of these kinds.
    pub fn on(self, kinds: &[Kind]) -> Self {
        Self { kinds: kinds.to_vec(), ..self }
    }

    /// Only to requests whose path or query holds a text.
    pub fn at(self, holds: &str) -> Self {
        Self { holds: holds.to_owned(), ..self }
    }

    /// Only to requests whose credential holds a text: a key, a region.
    pub fn signed(self, signed: &str) -> Self {
        Self { signed: signed.to_owned(), ..self }
    }

    /// Only to the first ones.
    pub fn times(self, times_max: u64) -> Self {
        Self { times_max: Some(times_max), ..self }
    }

    /// True when it is about this request.
    pub(super) fn fits(&self, asked: &Asked) -> bool {
        let is_kind = self.kinds.is_empty() || self.kinds.contains(&asked.kind);
        let is_there = asked.path.contains(&self.holds) || asked.query.contains(&self.holds);
        is_kind && is_there && asked.credential().contains(&self.signed)
    }
}
