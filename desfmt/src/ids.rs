//! The identities of archives and shards, and the digests that contents are known by.

use std::fmt;

use uuid::Uuid;

/// BLAKE3 of some bytes.
pub type Digest = blake3::Hash;

/// Identifies an archive for ever; written once, in `des.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct ArchiveId(Uuid);

impl ArchiveId {
    /// Takes 16 bytes, usually random, as an identity.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }

    /// Its 16 bytes.
    pub const fn bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

impl fmt::Display for ArchiveId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Identifies the content of one shard object within its archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct ShardId(Uuid);

impl ShardId {
    /// The identity of a shard: the head of BLAKE3 over the digest of its body and the archive's identity, so that
    /// a run after a crash knows its own object again.
    pub fn of_body(archive: ArchiveId, body: &Digest) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("DES 2026 shard identity");
        hasher.update(body.as_bytes());
        hasher.update(archive.bytes());
        Self::from_digest(&hasher.finalize())
    }

    /// The identity that stands for one version of an object of the ancestor, which has none of its own.
    pub fn of_legacy_object(key: &str, len: u64, version: &str) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("DES 2026 legacy shard identity");
        hasher.update(key.as_bytes());
        hasher.update(&[0]);
        hasher.update(&len.to_le_bytes());
        hasher.update(version.as_bytes());
        Self::from_digest(&hasher.finalize())
    }

    /// Takes 16 bytes that were read from a shard or manifest.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }

    fn from_digest(digest: &Digest) -> Self {
        let [head @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] = *digest.as_bytes();
        Self(Uuid::from_bytes(head))
    }

    /// Its 16 bytes.
    pub const fn bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a tombstone knows of a uid: 16 bytes of BLAKE3 keyed by the archive. It outlives the uid itself.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UidHash([u8; 16]);

/// Computes the [`UidHash`]es of an archive.
#[derive(Clone)]
pub struct UidHasher {
    key: [u8; 32],
}

impl UidHasher {
    /// The hasher of an archive.
    pub fn new(archive: ArchiveId) -> Self {
        Self { key: blake3::derive_key("DES 2026 uid in tombstones", archive.bytes()) }
    }

    /// The hash of a uid.
    pub fn hash(&self, uid: &str) -> UidHash {
        let [head @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] =
            *blake3::keyed_hash(&self.key, uid.as_bytes()).as_bytes();
        UidHash(head)
    }
}

impl fmt::Debug for UidHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UidHasher")
    }
}

impl UidHash {
    /// Its 16 bytes.
    pub const fn bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// Takes 32 lower-case hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != 32 || text.bytes().any(|byte| !matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return None;
        }
        Some(Self(u128::from_str_radix(text, 16).ok()?.to_be_bytes()))
    }
}

impl fmt::Display for UidHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for UidHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UidHash({self})")
    }
}

impl serde::Serialize for UidHash {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for UidHash {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("a uid hash has 32 lower-case hexadecimal digits"))
    }
}

/// Where an entry was born: the serial number of its first shard within the day and its place in that shard.
/// Never changes, whatever repacking does, so inode numbers and directory positions are made of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Birth {
    /// 1 to 1,048,575 (20 bits); the manifest allots it.
    pub serial: u32,
    /// 0 to 4,194,303 (22 bits).
    pub ordinal: u32,
}

impl Birth {
    /// The largest serial number of a day.
    pub const SERIAL_MAX: u32 = (1 << 20) - 1;
    /// The largest ordinal in a shard.
    pub const ORDINAL_MAX: u32 = (1 << 22) - 1;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uid_hash_reads_back_as_it_is_written() {
        let hash = UidHasher::new(ArchiveId::from_bytes([7; 16])).hash("INV-1");
        assert_eq!(UidHash::parse(&hash.to_string()), Some(hash));
        assert_ne!(hash, UidHasher::new(ArchiveId::from_bytes([8; 16])).hash("INV-1"));
        assert_eq!(UidHash::parse("ABCDEF00000000000000000000000000"), None);
    }
}
