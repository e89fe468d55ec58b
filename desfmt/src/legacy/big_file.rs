//! Big files: contents that the ancestor keeps beside a shard, each as an object named by its SHA-256.
//!
//! The name comes out of a shard, so it must not be trusted as a path: a [`BigFileHash`] is 32 bytes that were read
//! from exactly 64 lower-case hexadecimal digits, and only it can be made into a key.

use std::fmt;

use sha2::{Digest, Sha256};

use crate::layout::KeyError;
use crate::{FormatError, ObjectKey};

/// Contents longer than this many bytes are kept beside the shard, unless the ancestor was told otherwise.
pub const BIG_FILE_THRESHOLD: u64 = 10_485_760;

/// The folder of big files beside a shard, unless the ancestor was told otherwise.
pub const BIG_FILES_PREFIX: &str = "_bigFiles";

/// True when a content of this length belongs beside the shard.
pub const fn is_big_file(len: u64, threshold: u64) -> bool {
    len > threshold
}

/// The SHA-256 of a big file, which is also its name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BigFileHash([u8; 32]);

impl BigFileHash {
    /// The hash of some content.
    pub fn of(content: &[u8]) -> Self {
        Self(Sha256::digest(content).into())
    }

    /// Reads 64 lower-case hexadecimal digits; anything else could be a path to somewhere.
    pub fn parse(text: &[u8]) -> Result<Self, FormatError> {
        let damaged = || {
            let shown = String::from_utf8_lossy(text.get(..80).unwrap_or(text)).into_owned();
            FormatError::damaged("big file hash", format!("{shown:?} is not 64 lower-case hexadecimal digits"))
        };
        let (pairs, []) = text.as_chunks::<2>() else { return Err(damaged()) };
        let pairs: &[[u8; 2]; 32] = pairs.try_into().map_err(|_| damaged())?;
        let mut bytes = [0; 32];
        for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
            *byte = nibble(*high).zip(nibble(*low)).map(|(high, low)| high << 4 | low).ok_or_else(damaged)?;
        }
        Ok(Self(bytes))
    }

    /// Where the content lies: in the folder `prefix` beside the shard with this key.
    pub fn key(&self, shard: &ObjectKey, prefix: &str) -> Result<ObjectKey, KeyError> {
        let parent = shard.as_str().rsplit_once('/').map(|(parent, _)| parent);
        let mut key = String::new();
        for part in parent.into_iter().chain([prefix.trim_matches('/')]) {
            key.push_str(part);
            key.push('/');
        }
        key.push_str(&self.to_string());
        ObjectKey::new(&key)
    }

    /// Checks that some content is the one that was named.
    pub fn verify(&self, content: &[u8]) -> Result<(), FormatError> {
        self.check(Self::of(content))
    }

    /// Checks that the content hashed is the one that was named.
    pub fn check(&self, found: Self) -> Result<(), FormatError> {
        if found == *self {
            return Ok(());
        }
        Err(FormatError::damaged("big file", format!("SHA-256 is {found}, the index says {self}")))
    }
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => digit.checked_sub(b'0'),
        b'a'..=b'f' => digit.checked_sub(b'a' - 10),
        _ => None,
    }
}

impl fmt::Display for BigFileHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for BigFileHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BigFileHash({self})")
    }
}

/// Computes the hash of a content that arrives in pieces.
#[derive(Debug, Clone, Default)]
pub struct BigFileHasher(Sha256);

impl BigFileHasher {
    /// A hasher that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next piece.
    pub fn update(&mut self, piece: &[u8]) {
        self.0.update(piece);
    }

    /// The hash of all pieces.
    pub fn finish(self) -> BigFileHash {
        BigFileHash(self.0.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "71bd663bcc8c2a8c6c6196df6ac08c6a9e4c6d9c3bf2ba41975d83f0ef4c1e40";

    #[test]
    fn nothing_but_64_lower_case_digits_is_a_hash() {
        assert_eq!(BigFileHash::parse(HEX.as_bytes()).unwrap().to_string(), HEX);
        let traversal = format!("../{}", &HEX[..61]);
        for text in
            ["", "../victim", "/etc/passwd", &HEX[..63], &HEX.to_uppercase(), &format!("{HEX}0"), traversal.as_str()]
        {
            assert!(matches!(BigFileHash::parse(text.as_bytes()), Err(FormatError::Damaged { .. })), "{text}");
        }
    }

    #[test]
    fn a_big_file_lies_in_a_folder_beside_its_shard() {
        let hash = BigFileHash::parse(HEX.as_bytes()).unwrap();
        let key = |shard: &str, prefix| hash.key(&ObjectKey::new(shard).unwrap(), prefix);
        assert_eq!(key("s.des", BIG_FILES_PREFIX).unwrap().as_str(), format!("_bigFiles/{HEX}"));
        assert_eq!(key("arch/v1/s.des", "/_bigFiles/").unwrap().as_str(), format!("arch/v1/_bigFiles/{HEX}"));
        assert_eq!(key("a/s.des", "x/y").unwrap().as_str(), format!("a/x/y/{HEX}"));
        assert!(key("a/s.des", "../x").is_err());
        assert!(key("a/s.des", "").is_err());
    }

    #[test]
    fn other_content_than_the_one_named_is_damage() {
        let hash = BigFileHash::of(b"content");
        assert_eq!(hash.verify(b"content"), Ok(()));
        assert!(matches!(hash.verify(b"Content"), Err(FormatError::Damaged { .. })));
        let mut hasher = BigFileHasher::new();
        hasher.update(b"con");
        hasher.update(b"tent");
        assert_eq!(hasher.finish(), hash);
    }

    #[test]
    fn a_content_as_long_as_the_threshold_stays_in_the_shard() {
        assert!(!is_big_file(BIG_FILE_THRESHOLD, BIG_FILE_THRESHOLD));
        assert!(is_big_file(BIG_FILE_THRESHOLD + 1, BIG_FILE_THRESHOLD));
    }
}
