//! What a zone is owed: an object that it has not got yet, or that it still has.

use serde::{Deserialize, Serialize};

use super::Document;
use crate::{FormatError, ObjectKey, Timestamp};

/// Something that is still to be done in a zone. Written once, and removed when it is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ZoneDebt {
    /// The zone that is owed.
    pub zone: String,
    /// The object it is about.
    pub key: ObjectKey,
    /// What is to be done.
    pub task: DebtTask,
    /// The version of a replaced document that the zone is to get; none for all else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// When, by the clock of the host that wrote it; for the record only.
    pub at: Timestamp,
}

/// What a zone is owed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DebtTask {
    /// The object as it is in its home zone.
    Copy,
    /// That the object goes.
    Remove,
}

impl Document for ZoneDebt {
    const KIND: &'static str = "zone debt";
    const VERSION: u32 = 1;

    fn check(&self) -> Result<(), FormatError> {
        Ok(())
    }
}
