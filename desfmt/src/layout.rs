//! Where everything lies in a store: the one place that builds and reads object keys.
//!
//! ```text
//! des.json                                            identity of the archive
//! des.adopt.json                                      the same, while an archive of the ancestor is adopted
//! YYYYMMDD_HH_NNNN.des, _bigFiles/                    shards of the ancestor that were adopted where they lay
//! manifests/YYYYMMDD.json                             live shards of a day
//! shards/YYYYMMDD/YYYYMMDD_HH_NNNN[_RNNN].des         immutable shards
//! tombstones/YYYYMMDD/HH.json                         folded tombstones of a group
//! tombstones/YYYYMMDD/HH/<uuidv7>-<uid hash>.json     one deletion
//! tombstones/YYYYMMDD/HH/<uuidv7>-batch.json          many deletions of a group
//! debts/ZONE/YYYYMMDD/<uuidv7>.json                   a document that a zone has still to get or to lose
//! debts/ZONE/shards/<uuidv7>.json                     the same of a shard; and of the identity below `identity/`
//! ```

use std::fmt;
use std::sync::Arc;

use uuid::Uuid;

use crate::ids::UidHash;
use crate::routing::{Bucket, BucketBits, Group};
use crate::time::Date;

/// The name of an object below an archive's root: segments joined by `/`, none of them empty, `.` or `..`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey(Arc<str>);

/// A text that must not be used as a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} cannot be the key of an object")]
pub struct KeyError {
    /// The text as given.
    pub text: String,
}

impl ObjectKey {
    /// Longest key that every store takes, in bytes.
    pub const LEN_MAX: usize = 1_024;

    /// Takes a text as a key. Nothing that could leave the archive's root is accepted.
    pub fn new(text: &str) -> Result<Self, KeyError> {
        let fits = text.len() <= Self::LEN_MAX
            && !text.contains(['\0', '\\'])
            && text.split('/').all(|segment| !matches!(segment, "" | "." | ".."));
        if fits { Ok(Self(Arc::from(text))) } else { Err(KeyError { text: text.to_owned() }) }
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Only for keys that this module builds out of parts that are safe by their types.
    fn built(text: String) -> Self {
        debug_assert!(Self::new(&text).is_ok(), "{text}");
        Self(Arc::from(text))
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl serde::Serialize for ObjectKey {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> serde::Deserialize<'de> for ObjectKey {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::new(&text).map_err(serde::de::Error::custom)
    }
}

/// The name of one shard object: a split of a group, in one of its repacked versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardName {
    /// The group whose files it holds.
    pub group: Group,
    /// Which split of the group, from 0.
    pub split: u32,
    /// Which repacked version, 0 for the first.
    pub repack: u32,
}

impl ShardName {
    /// Reads a file name such as `20240115_3F_0000_R001.des`; only the spelling that [`ShardName`] itself writes.
    pub fn parse(text: &str, bits: BucketBits) -> Option<Self> {
        let stem = text.strip_suffix(".des")?;
        let mut parts = stem.split('_');
        let date = parts.next()?.parse::<Date>().ok()?;
        let bucket = Bucket::parse_hex(parts.next()?, bits)?;
        let split = parts.next()?.parse().ok()?;
        let repack = match parts.next() {
            Some(part) => part.strip_prefix('R')?.parse().ok().filter(|number| *number > 0)?,
            None => 0,
        };
        let name = Self { group: Group { date, bucket, bits }, split, repack };
        (name.to_string() == text).then_some(name)
    }
}

impl fmt::Display for ShardName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{:04}", self.group, self.split)?;
        if self.repack > 0 {
            write!(f, "_R{:03}", self.repack)?;
        }
        f.write_str(".des")
    }
}

/// The identity of the archive.
pub fn identity() -> ObjectKey {
    ObjectKey::built("des.json".to_owned())
}

/// The identity that an archive of the ancestor will have, while it is adopted.
pub fn adoption() -> ObjectKey {
    ObjectKey::built("des.adopt.json".to_owned())
}

/// True for a shard of the ancestor that was adopted where it lay: of version 1 or 2, beside `des.json`.
pub fn is_flat(key: &ObjectKey) -> bool {
    !key.as_str().contains('/')
}

/// The prefix of all manifests.
pub const MANIFESTS: &str = "manifests/";

/// The prefix of all shards.
pub const SHARDS: &str = "shards/";

/// The prefix of all tombstones.
pub const TOMBSTONES: &str = "tombstones/";

/// The manifest of a day.
pub fn manifest(date: Date) -> ObjectKey {
    ObjectKey::built(format!("{MANIFESTS}{date}.json"))
}

/// The day that a manifest's key belongs to.
pub fn parse_manifest(key: &str) -> Option<Date> {
    key.strip_prefix(MANIFESTS)?.strip_suffix(".json")?.parse().ok()
}

/// The prefix of all shard objects of a day.
pub fn shards_prefix(date: Date) -> String {
    format!("{SHARDS}{date}/")
}

/// The bucket that all shards below a prefix belong to, where it names one.
pub fn parse_shards_prefix(prefix: &str, bits: BucketBits) -> Option<Bucket> {
    let (day, name) = prefix.strip_prefix(SHARDS)?.split_once('/')?;
    let (date, rest) = name.split_once('_')?;
    let (hex, _) = rest.split_once('_')?;
    if day == date { Bucket::parse_hex(hex, bits) } else { None }
}

/// A shard object.
pub fn shard(name: &ShardName) -> ObjectKey {
    ObjectKey::built(format!("{SHARDS}{}/{name}", name.group.date))
}

/// The shard that a key names.
pub fn parse_shard(key: &str, bits: BucketBits) -> Option<ShardName> {
    let (date, name) = key.strip_prefix(SHARDS)?.split_once('/')?;
    ShardName::parse(name, bits).filter(|name| name.group.date.to_string() == date)
}

/// The prefix of all tombstones of a day.
pub fn tombstones_prefix(date: Date) -> String {
    format!("{TOMBSTONES}{date}/")
}

/// A prefix of all tombstones of a group, and of other groups whose names begin alike.
pub fn group_tombstones_prefix(group: &Group) -> String {
    format!("{TOMBSTONES}{}/{}", group.date, group.bucket.hex(group.bits))
}

/// The folded tombstones of a group.
pub fn folded_tombstones(group: &Group) -> ObjectKey {
    ObjectKey::built(format!("{TOMBSTONES}{}/{}.json", group.date, group.bucket.hex(group.bits)))
}

/// The record of one deletion. `operation` is a `UUIDv7`.
pub fn tombstone_record(group: &Group, operation: Uuid, uid: UidHash) -> ObjectKey {
    ObjectKey::built(format!("{TOMBSTONES}{}/{}/{operation}-{uid}.json", group.date, group.bucket.hex(group.bits)))
}

/// A batch of deletions of one group. `operation` is a `UUIDv7`.
pub fn tombstone_batch(group: &Group, operation: Uuid) -> ObjectKey {
    ObjectKey::built(format!("{TOMBSTONES}{}/{}/{operation}-batch.json", group.date, group.bucket.hex(group.bits)))
}

/// The prefix of all that zones are owed.
pub const DEBTS: &str = "debts/";

/// What a debt is about, as its key says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DebtScope {
    /// Documents of a day.
    Day(Date),
    /// Shards.
    Shards,
    /// The identity.
    Identity,
}

impl fmt::Display for DebtScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Day(date) => date.fmt(f),
            Self::Shards => f.write_str("shards"),
            Self::Identity => f.write_str("identity"),
        }
    }
}

/// What a zone is owed. `zone` is made of letters, digits, `-`, `_` and `.`, and does not begin with a dot.
pub fn debt(zone: &str, scope: DebtScope, operation: Uuid) -> ObjectKey {
    ObjectKey::built(format!("{DEBTS}{zone}/{scope}/{operation}.json"))
}

/// The zone that a key below `debts/` belongs to, and what it is about.
pub fn parse_debt(key: &str) -> Option<(&str, DebtScope)> {
    let (zone, rest) = key.strip_prefix(DEBTS)?.split_once('/')?;
    let scope = match rest.strip_suffix(".json")?.split_once('/')?.0 {
        "shards" => DebtScope::Shards,
        "identity" => DebtScope::Identity,
        date => DebtScope::Day(date.parse().ok()?),
    };
    Some((zone, scope))
}

/// The day that a document or the prefix of a listing of documents belongs to, if it is one.
pub fn day_of(key: &str) -> Option<Date> {
    let date = key.strip_prefix(TOMBSTONES).or_else(|| key.strip_prefix(MANIFESTS))?;
    date.split_once(['/', '.'])?.0.parse().ok()
}

/// What a key below `tombstones/` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TombstoneKey {
    /// The folded set of a group.
    Folded(Group),
    /// One deletion: the listing alone says which.
    Record(Group, Uuid, UidHash),
    /// Many deletions, named by the body only.
    Batch(Group, Uuid),
}

impl TombstoneKey {
    /// The group whose files it deletes.
    pub const fn group(&self) -> Group {
        match self {
            Self::Folded(group) | Self::Record(group, ..) | Self::Batch(group, _) => *group,
        }
    }
}

/// Reads a key below `tombstones/`.
pub fn parse_tombstone(key: &str, bits: BucketBits) -> Option<TombstoneKey> {
    let (date, rest) = key.strip_prefix(TOMBSTONES)?.split_once('/')?;
    let (date, rest) = (date.parse().ok()?, rest.strip_suffix(".json")?);
    let group = |hex: &str| Bucket::parse_hex(hex, bits).map(|bucket| Group { date, bucket, bits });
    let Some((hex, name)) = rest.split_once('/') else {
        return group(rest).map(TombstoneKey::Folded);
    };
    let (operation, suffix) = (name.get(..36)?, name.get(36..)?.strip_prefix('-')?);
    let operation = Uuid::try_parse(operation).ok()?;
    match suffix {
        "batch" => Some(TombstoneKey::Batch(group(hex)?, operation)),
        hash => Some(TombstoneKey::Record(group(hex)?, operation, UidHash::parse(hash)?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{ArchiveId, UidHasher};

    fn name(split: u32, repack: u32) -> ShardName {
        let bits = BucketBits::new(8).unwrap();
        let date = "20240115".parse().unwrap();
        ShardName { group: Group { date, bucket: Bucket::new(0x3f, bits).unwrap(), bits }, split, repack }
    }

    #[test]
    fn a_shard_name_reads_back_as_it_is_written() {
        for (split, repack, text) in [
            (0, 0, "20240115_3F_0000.des"),
            (0, 1, "20240115_3F_0000_R001.des"),
            (12_345, 1_000, "20240115_3F_12345_R1000.des"),
        ] {
            assert_eq!(name(split, repack).to_string(), text);
            assert_eq!(ShardName::parse(text, BucketBits::new(8).unwrap()), Some(name(split, repack)));
            let key = shard(&name(split, repack));
            assert_eq!(parse_shard(key.as_str(), BucketBits::new(8).unwrap()), Some(name(split, repack)));
        }
        for text in ["20240115_3F_0.des", "20240115_3f_0000.des", "20240115_3F_0000_R000.des", "20240115_3F_0000.meta"]
        {
            assert_eq!(ShardName::parse(text, BucketBits::new(8).unwrap()), None, "{text}");
        }
    }

    #[test]
    fn a_prefix_of_shards_may_name_a_bucket() {
        let bits = BucketBits::new(8).unwrap();
        for prefix in ["shards/20240115/20240115_3F_", "shards/20240115/20240115_3F_00"] {
            assert_eq!(parse_shards_prefix(prefix, bits), Bucket::new(0x3f, bits), "{prefix}");
        }
        for prefix in ["shards/20240115/", "shards/20240115/20240115_3F", "shards/20240115/20240116_3F_", "shards/"] {
            assert_eq!(parse_shards_prefix(prefix, bits), None, "{prefix}");
        }
    }

    #[test]
    fn keys_cannot_leave_the_root() {
        for text in ["", "/a", "a/", "a//b", "../a", "a/../b", "a/.", "a\0b", "a\\b"] {
            assert!(ObjectKey::new(text).is_err(), "{text:?}");
        }
        assert!(ObjectKey::new("_bigFiles/0a").is_ok());
    }

    #[test]
    fn debts_and_documents_tell_their_day() {
        let day = "20240115".parse().unwrap();
        let operation = Uuid::from_bytes([3; 16]);
        for scope in [DebtScope::Day(day), DebtScope::Shards, DebtScope::Identity] {
            assert_eq!(parse_debt(debt("b-1", scope, operation).as_str()), Some(("b-1", scope)));
        }
        assert_eq!(parse_debt("debts/b/20240230/x.json"), None);
        for key in [manifest(day).as_str(), tombstones_prefix(day).as_str(), "tombstones/20240115/3F/x"] {
            assert_eq!(day_of(key), Some(day), "{key}");
        }
        for key in [MANIFESTS, TOMBSTONES, "shards/20240115/", "tombstones/2024"] {
            assert_eq!(day_of(key), None, "{key}");
        }
    }

    #[test]
    fn tombstone_keys_say_what_they_are() {
        let (bits, group) = (BucketBits::new(8).unwrap(), name(0, 0).group);
        let operation = Uuid::from_bytes([3; 16]);
        let hash = UidHasher::new(ArchiveId::from_bytes([1; 16])).hash("x");
        for (key, meaning) in [
            (folded_tombstones(&group), TombstoneKey::Folded(group)),
            (tombstone_record(&group, operation, hash), TombstoneKey::Record(group, operation, hash)),
            (tombstone_batch(&group, operation), TombstoneKey::Batch(group, operation)),
        ] {
            assert_eq!(parse_tombstone(key.as_str(), bits), Some(meaning), "{key}");
        }
        assert_eq!(parse_tombstone("tombstones/20240115/3F/x.json", bits), None);
    }
}
