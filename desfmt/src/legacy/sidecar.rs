//! Sidecars: what the ancestor knows of deletions. One JSON document beside a shard.
//!
//! Only the tombstones matter here, and none of them may be missed. So whatever is not understood is an error: an
//! unknown field, a key that does not fit its value, a time that cannot be read. Deletions hold for a uid within the
//! day of the shard's name, whatever time the request gave.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};

use super::json;
use crate::instant::parse_created_at;
use crate::{FormatError, Timestamp};

/// The longest sidecar that is read, in bytes. It holds about 500 for each file of the shard.
pub const SIDECAR_LEN_MAX: u64 = 512 << 20;

const WHAT: &str = "sidecar";

/// One deletion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SidecarTombstone {
    /// The deleted uid, as it was asked for.
    pub uid: String,
    /// The time of creation that the request gave. It need not be that of the file.
    pub created_at: Timestamp,
    /// When it was asked for.
    pub deleted_at: Timestamp,
    /// Who asked.
    pub deleted_by: String,
    /// Why.
    pub reason: String,
    /// The ticket that ordered it, if any.
    pub ticket: Option<String>,
}

/// What a sidecar says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sidecar {
    /// The version it calls itself. The ancestor writes 1 and reads any that has the same fields.
    pub version: u64,
    /// The file name of the shard it was made for.
    pub shard_file: String,
    /// All deletions.
    pub tombstones: Vec<SidecarTombstone>,
}

impl Sidecar {
    /// Reads a sidecar.
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        if u64::try_from(bytes.len()).is_ok_and(|len| len > SIDECAR_LEN_MAX) {
            let detail = format!("{} bytes, at most {SIDECAR_LEN_MAX} are read", bytes.len());
            return Err(FormatError::beyond_limits(WHAT, detail));
        }
        let damaged = |detail: String| FormatError::damaged(WHAT, detail);
        let text = str::from_utf8(bytes).map_err(|error| damaged(error.to_string()))?;
        if !text.trim_start().starts_with('{') {
            return Err(damaged("it is no JSON object".to_owned()));
        }
        let document: Document =
            serde_json::from_str(&json::to_strict(text)).map_err(|error| damaged(error.to_string()))?;
        Ok(Self { version: document.version, shard_file: document.shard_file, tombstones: document.tombstones.0 })
    }
}

/// The document as it is written. Fields that nobody here needs are still demanded, so that a document of another
/// shape is not taken for one without deletions.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: u64,
    shard_file: String,
    #[serde(rename = "shard_size")]
    _shard_size: u64,
    #[serde(rename = "created_at")]
    _created_at: String,
    #[serde(rename = "last_updated")]
    _last_updated: String,
    #[serde(rename = "index")]
    _index: IgnoredAny,
    tombstones: Tombstones,
    #[serde(default, rename = "stats")]
    _stats: IgnoredAny,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    uid: String,
    created_at: String,
    deleted_at: String,
    deleted_by: String,
    reason: String,
    ticket_id: Option<String>,
}

impl Record {
    fn into_tombstone(self, key: &str) -> Result<SidecarTombstone, String> {
        let time = |text: &str| parse_created_at(text).map(|time| time.or_utc()).map_err(|error| error.to_string());
        if !key.strip_prefix(self.uid.as_str()).is_some_and(|rest| rest.starts_with(':')) {
            return Err(format!("the tombstone {key:?} names the uid {:?}", self.uid));
        }
        Ok(SidecarTombstone {
            created_at: time(&self.created_at)?,
            deleted_at: time(&self.deleted_at)?,
            uid: self.uid,
            deleted_by: self.deleted_by,
            reason: self.reason,
            ticket: self.ticket_id,
        })
    }
}

/// A JSON object of tombstones. A map would drop one of two equal keys; this keeps both.
struct Tombstones(Vec<SidecarTombstone>);

impl<'de> Deserialize<'de> for Tombstones {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Gather;

        impl<'de> Visitor<'de> for Gather {
            type Value = Vec<SidecarTombstone>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tombstones")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut tombstones = Vec::new();
                while let Some((key, record)) = map.next_entry::<String, Record>()? {
                    tombstones.push(record.into_tombstone(&key).map_err(A::Error::custom)?);
                }
                Ok(tombstones)
            }
        }

        deserializer.deserialize_map(Gather).map(Self)
    }
}

#[cfg(test)]
mod tests;
