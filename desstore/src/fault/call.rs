//! The calls of a store, and what can be done to them.

use crate::error::StoreErrorKind;

/// The operations of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "they are named after the methods of ObjectStore")]
pub enum Operation {
    Get,
    GetIfChanged,
    GetRange,
    GetTail,
    Head,
    PutIfAbsent,
    PutIfMatch,
    Put,
    Delete,
    Purge,
    Time,
    List,
}

impl Operation {
    /// True for the operations that may change what is stored.
    pub const fn is_write(self) -> bool {
        match self {
            Self::PutIfAbsent | Self::PutIfMatch | Self::Put | Self::Delete | Self::Purge => true,
            Self::Get | Self::GetIfChanged | Self::GetRange | Self::GetTail | Self::Head | Self::Time | Self::List => {
                false
            }
        }
    }

    /// The name of the method.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::GetIfChanged => "get_if_changed",
            Self::GetRange => "get_range",
            Self::GetTail => "get_tail",
            Self::Head => "head",
            Self::PutIfAbsent => "put_if_absent",
            Self::PutIfMatch => "put_if_match",
            Self::Put => "put",
            Self::Delete => "delete",
            Self::Purge => "purge",
            Self::Time => "time",
            Self::List => "list",
        }
    }
}

/// Where in a call something happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// The process dies before the call takes effect.
    Before,
    /// The call takes effect, then the process dies without learning of it.
    After,
    /// The call takes effect, but its answer is lost: the process lives on with an error.
    AckLost,
}

impl Phase {
    /// All of them, for tests that try each.
    pub const ALL: [Self; 3] = [Self::Before, Self::After, Self::AckLost];
}

/// What was done to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The process died around the call, or its answer was lost.
    Crash(Phase),
    /// The call failed without taking effect.
    Refused(StoreErrorKind),
    /// A read ended early, which its length gave away.
    ShortRead,
    /// One bit of what was read was turned; nothing gave it away.
    FlippedBit,
    /// The process is dead.
    Dead,
}

/// One call, in the order of their beginnings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Its number, from 0.
    pub number: u64,
    /// What was asked.
    pub operation: Operation,
    /// The key, or the prefix of a listing.
    pub key: String,
    /// What was done to it.
    pub fault: Option<Fault>,
}

/// How often calls fail by chance, each in a million calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FaultRates {
    /// Calls refused with `Throttled`.
    pub throttled: u32,
    /// Calls refused with `Unavailable`.
    pub unavailable: u32,
    /// Calls that take effect and are answered with `Unavailable`.
    pub ack_lost: u32,
    /// Reads of content answered with `Corrupt`.
    pub short_read: u32,
    /// Reads of content with one bit turned.
    pub flipped_bit: u32,
}

/// Why a call failed, for whoever reads the message of a failed test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("injected with seed {seed} at call {number}: {fault:?}")]
pub struct InjectedFault {
    /// The seed of the store.
    pub seed: u64,
    /// The number of the call.
    pub number: u64,
    /// What was done.
    pub fault: Fault,
}
