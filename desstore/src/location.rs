//! Where an archive lies, as people type it: a directory, `file:///DIRECTORY`, or `s3://BUCKET/PREFIX`.
//!
//! [`Location::connect`] and [`Location::create`] are the one way from there to an [`ObjectStore`](crate::ObjectStore).

mod connect;
mod options;
mod zoned;

use std::fmt;
use std::path::{Path, PathBuf};

pub use connect::{ConnectError, Connected, Surroundings};
pub use options::{Encryption, OptionError, StoreOptions};
pub use zoned::{PlacedZone, ZonedLocation};

/// Where an archive lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// In a local directory.
    Local(PathBuf),
    /// In a bucket.
    S3(S3Location),
    /// In several places; only a configuration file can say so.
    Zones(Box<ZonedLocation>),
}

/// A bucket and what all keys of the archive in it begin with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Location {
    /// The bucket.
    pub bucket: String,
    /// Empty, or a path that ends with `/`.
    pub prefix: String,
}

/// A text that tells no place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}: {reason}")]
pub struct LocationError {
    text: String,
    reason: String,
}

/// The longest prefix, in bytes: keys of stores end at 1,024, and those of an archive need some of that.
const PREFIX_LEN_MAX: usize = 512;

/// Where shards are built that go to a bucket, unless told otherwise: on disk, and cleaned seldom.
const SCRATCH: &str = "/var/tmp";

impl Location {
    /// Understands a place as typed.
    pub fn parse(text: &str) -> Result<Self, LocationError> {
        let refused = |reason: String| LocationError { text: text.to_owned(), reason };
        let path = match text.split_once("://") {
            Some(("file", path)) if path.starts_with('/') => path,
            Some(("file", _)) => return Err(refused("a file:// URI is followed by an absolute path".to_owned())),
            // What may hold a password is not said again.
            Some(("s3", rest)) if rest.contains('@') => {
                return Err(LocationError {
                    text: "s3://...@...".to_owned(),
                    reason: "credentials do not belong in a URI; use a profile, a credentials file or the environment"
                        .to_owned(),
                });
            }
            Some(("s3", rest)) => return S3Location::parse(rest).map(Self::S3).map_err(refused),
            Some((scheme, _)) => {
                return Err(refused(format!(
                    "{scheme}:// is not known; there are local directories, file:// and s3://"
                )));
            }
            None => text,
        };
        if path.is_empty() {
            return Err(refused("it is empty; a local directory, file:// or s3://BUCKET/PREFIX is needed".to_owned()));
        }
        let path = std::path::absolute(path).map_err(|error| refused(error.to_string()))?;
        Ok(Self::Local(path))
    }

    /// True for a local directory.
    pub const fn is_local(&self) -> bool {
        match self {
            Self::Local(_) => true,
            Self::S3(_) | Self::Zones(_) => false,
        }
    }

    /// The directory, where it is one.
    pub fn local_path(&self) -> Option<&Path> {
        match self {
            Self::Local(path) => Some(path),
            Self::S3(_) | Self::Zones(_) => None,
        }
    }

    /// Where files are built before they become objects, unless told otherwise. For a local archive that is within it, so
    /// that a finished file becomes an object by a link.
    pub fn scratch(&self) -> PathBuf {
        match self {
            Self::Local(path) => path.join(crate::local::SPOOL),
            Self::S3(_) | Self::Zones(_) => {
                let user = rustix::process::geteuid().as_raw();
                Path::new(SCRATCH).join(format!("des-spool-{user}"))
            }
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(path) => write!(f, "{}", path.display()),
            Self::S3(location) => location.fmt(f),
            Self::Zones(location) => location.fmt(f),
        }
    }
}

impl S3Location {
    /// Understands `BUCKET` or `BUCKET/PREFIX`.
    fn parse(text: &str) -> Result<Self, String> {
        let (bucket, prefix) = text.split_once('/').unwrap_or((text, ""));
        let is_fit = |one: char| one.is_ascii_alphanumeric() || matches!(one, '.' | '-' | '_');
        if bucket.is_empty() {
            return Err("there is no bucket; s3://BUCKET/PREFIX is needed".to_owned());
        }
        if !(3..=63).contains(&bucket.len()) || !bucket.chars().all(is_fit) {
            return Err(format!("{bucket:?} is no name of a bucket: 3 to 63 letters, digits, dots and hyphens"));
        }
        let prefix = prefix.trim_end_matches('/');
        if prefix.is_empty() {
            return Ok(Self { bucket: bucket.to_owned(), prefix: String::new() });
        }
        if prefix.contains(['?', '#']) {
            return Err("options do not belong in the URI; say them with -o NAME=VALUE or --NAME VALUE".to_owned());
        }
        if prefix.len() > PREFIX_LEN_MAX || desfmt::ObjectKey::new(prefix).is_err() {
            return Err(format!(
                "the prefix is no path of at most {PREFIX_LEN_MAX} bytes, without empty parts, . and .."
            ));
        }
        Ok(Self { bucket: bucket.to_owned(), prefix: format!("{prefix}/") })
    }
}

impl fmt::Display for S3Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}", self.bucket)?;
        match self.prefix.strip_suffix('/') {
            Some(prefix) => write!(f, "/{prefix}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s3(bucket: &str, prefix: &str) -> Location {
        Location::S3(S3Location { bucket: bucket.to_owned(), prefix: prefix.to_owned() })
    }

    #[test]
    fn places_are_taken_as_they_are_typed() {
        let here = std::env::current_dir().unwrap();
        for (text, location) in [
            ("/srv/a", Location::Local("/srv/a".into())),
            ("file:///srv/a", Location::Local("/srv/a".into())),
            ("a", Location::Local(here.join("a"))),
            ("s3://bucket", s3("bucket", "")),
            ("s3://bucket/", s3("bucket", "")),
            ("s3://bucket/a", s3("bucket", "a/")),
            ("s3://my.bucket-1/a/b c//", s3("my.bucket-1", "a/b c/")),
        ] {
            assert_eq!(Location::parse(text).as_ref(), Ok(&location), "{text}");
        }
        assert_eq!(Location::parse("s3://bucket/a/").unwrap().to_string(), "s3://bucket/a");
        assert_eq!(Location::parse("s3://bucket/").unwrap().to_string(), "s3://bucket");
    }

    #[test]
    fn what_tells_no_place_is_refused_in_words() {
        for (text, reason) in [
            ("", "it is empty"),
            ("file://srv", "absolute path"),
            ("gopher://x", "gopher:// is not known"),
            ("s3://", "there is no bucket"),
            ("s3:///prefix", "there is no bucket"),
            ("s3://ab", "no name of a bucket"),
            ("s3://bu cket/x", "no name of a bucket"),
            ("s3://bucket/a//b", "the prefix"),
            ("s3://bucket/a/../b", "the prefix"),
            ("s3://bucket/a?region=x", "-o NAME=VALUE"),
        ] {
            let refused = Location::parse(text).unwrap_err().to_string();
            assert!(refused.contains(reason), "{text}: {refused}");
        }
    }

    #[test]
    fn a_password_in_a_uri_is_refused_and_not_repeated() {
        let refused = Location::parse("s3://key:verysecret@bucket/prefix").unwrap_err();
        assert!(!format!("{refused} {refused:?}").contains("verysecret"));
    }

    #[test]
    fn scratch_lies_within_a_local_archive_and_on_disk_for_a_bucket() {
        assert_eq!(Location::Local("/srv/a".into()).scratch(), Path::new("/srv/a/.spool"));
        assert!(s3("bucket", "").scratch().starts_with("/var/tmp"));
    }
}
