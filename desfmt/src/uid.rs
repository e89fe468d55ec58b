//! The name of a file within its day.

use std::fmt;
use std::sync::Arc;

/// A uid: UTF-8 text of 1 to 65,535 bytes, unique within its date. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uid(Arc<str>);

/// Why a text cannot be a uid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UidError {
    /// The text has no characters.
    #[error("a uid must not be empty")]
    Empty,
    /// The text is longer than the format can hold.
    #[error("a uid of {len} bytes is longer than {} bytes", Uid::LEN_MAX)]
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
}

impl Uid {
    /// The longest uid, in bytes of UTF-8.
    pub const LEN_MAX: usize = 65_535;

    /// Takes a text as a uid.
    pub fn new(text: impl AsRef<str>) -> Result<Self, UidError> {
        let text = text.as_ref();
        match text.len() {
            0 => Err(UidError::Empty),
            len if len > Self::LEN_MAX => Err(UidError::TooLong { len }),
            _ => Ok(Self(Arc::from(text))),
        }
    }

    /// The uid as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Uid({:?})", &*self.0)
    }
}

impl AsRef<str> for Uid {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for Uid {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl serde::Serialize for Uid {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> serde::Deserialize<'de> for Uid {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        Self::new(text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uid_holds_1_to_65535_bytes() {
        assert_eq!(Uid::new(""), Err(UidError::Empty));
        assert_eq!(Uid::new("x".repeat(65_536)), Err(UidError::TooLong { len: 65_536 }));
        assert_eq!(Uid::new("x".repeat(65_535)).unwrap().as_str().len(), 65_535);
    }
}
