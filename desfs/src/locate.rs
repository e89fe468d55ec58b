//! `desfs path`: where a file is below a mount, by arithmetic alone. Whether it exists is not asked.

use std::sync::Arc;

use desfmt::instant::{InstantError, ParsedInstant, parse_created_at};
use desfmt::legacy::LegacyName;
use desfmt::{BucketBits, Date, Group, RoutingError, Uid, UidError, bucket_of, layout};
use desstore::{Clock, SystemClock};

use crate::cli::{PathArguments, environment};
use crate::environment::Asked;
use crate::exit::Failure;
use crate::names::{Naming, whole_name};

/// Where a file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Below a mount: `YYYYMMDD/NAME`.
    pub path: String,
    /// Its group and what the keys of the group's shards begin with, where the number of bits is known.
    pub group: Option<(Group, String)>,
}

/// What is known of the archive.
#[derive(Debug, Clone)]
pub enum Known {
    /// That it is one of DES, perhaps with how many bits.
    Bits(Option<BucketBits>),
    /// Everything.
    Archive {
        /// How it shows uids.
        naming: Naming,
        /// How many bits it has.
        bits: BucketBits,
        /// Whether the ancestor wrote it, which files by the clock on the wall.
        legacy: bool,
    },
}

/// Why there can be no such file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LocateError {
    /// The uid is none.
    #[error("uid {uid:?}: {error}")]
    Uid {
        /// The uid as given, or its beginning.
        uid: String,
        /// What is wrong with it.
        error: UidError,
    },
    /// The uid cannot be packed.
    #[error("uid {uid:?}: {error}")]
    Unroutable {
        /// The uid, or its beginning.
        uid: String,
        /// What is wrong with it.
        error: RoutingError,
    },
    /// The name depends on an archive that is not known.
    #[error("uid {uid:?}: its name is longer than 255 bytes and shown cut, as its archive says; give --archive")]
    CutName {
        /// The beginning of the uid.
        uid: String,
    },
    /// The time is none.
    #[error("created_at {0}")]
    Instant(InstantError),
    /// The time does not say which day it is.
    #[error("created_at {text:?} has no time zone, and the day is that of UTC; add one, such as Z")]
    NoZone {
        /// The time as given.
        text: String,
    },
    /// The day cannot be named.
    #[error("created_at {text:?} is not between the years 1 and 9999")]
    NoDay {
        /// The time as given.
        text: String,
    },
}

/// Does what the arguments say, and returns the lines to print.
pub fn run(arguments: &PathArguments) -> Result<String, Failure> {
    let PathArguments { uid, created_at, archive, options, n_bits, verbose } = arguments;
    let bits = n_bits.map(|number| BucketBits::new(number).ok_or(number)).transpose();
    let bits = bits.map_err(|number| Failure::usage(format!("--n-bits {number} is not a number from 0 to 16")))?;
    let known = match archive {
        Some(source) => examine(source, options, bits)?,
        None => Known::Bits(bits),
    };
    let place = locate(uid, created_at, &known).map_err(|error| Failure::usage(error.to_string()))?;
    if !*verbose {
        return Ok(format!("{}\n", place.path));
    }
    let missing = "--verbose tells the group, which depends on the archive; give --archive or --n-bits";
    let (group, shards) = place.group.ok_or_else(|| Failure::usage(missing))?;
    Ok(format!("{}\ngroup {group}\nshards {shards}\n", place.path))
}

fn examine(source: &str, options: &[String], bits: Option<BucketBits>) -> Result<Known, Failure> {
    let Asked { text, source, mut options } = Asked::new(Some(source.to_owned()), options, false, &environment)?;
    options.legacy_bits = bits.unwrap_or(options.legacy_bits);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::system(format!("no threads: {error}")))?;
    let archive = runtime.block_on(source.open(&options, clock))?.archive;
    match bits {
        Some(bits) if bits != archive.bits() => Err(Failure::usage(format!(
            "--n-bits {}: the archive {text} has {} bits",
            bits.get(),
            archive.bits().get()
        ))),
        Some(_) | None => Ok(Known::Archive {
            naming: Naming::new(archive.identity().archive, archive.bits()),
            bits: archive.bits(),
            legacy: archive.is_legacy(),
        }),
    }
}

/// Where the file of a uid and a time is.
pub fn locate(uid: &str, created_at: &str, known: &Known) -> Result<Place, LocateError> {
    let uid = Uid::new(uid).map_err(|error| LocateError::Uid { uid: shortened(uid), error })?;
    let parsed = parse_created_at(created_at).map_err(LocateError::Instant)?;
    let (bits, legacy) = match known {
        Known::Bits(bits) => (*bits, false),
        Known::Archive { bits, legacy, .. } => (Some(*bits), *legacy),
    };
    let date = day_of(created_at, &parsed, legacy)?;
    // Whether a uid can be routed does not depend on the number of bits.
    bucket_of(uid.as_str(), BucketBits::default())
        .map_err(|error| LocateError::Unroutable { uid: shortened(uid.as_str()), error })?;
    let name = match (whole_name(&uid), known) {
        (Ok(name), _) => name,
        (Err(_), Known::Archive { naming, .. }) => naming.encode(&uid),
        (Err(_), Known::Bits(_)) => return Err(LocateError::CutName { uid: shortened(uid.as_str()) }),
    };
    let group = bits.and_then(|bits| Group::of(date, uid.as_str(), bits).ok());
    let group = group.map(|group| {
        let prefix =
            if legacy { LegacyName::prefix(&group) } else { format!("{}{group}_", layout::shards_prefix(date)) };
        (group, prefix)
    });
    Ok(Place { path: format!("{date}/{name}"), group })
}

fn day_of(text: &str, parsed: &ParsedInstant, legacy: bool) -> Result<Date, LocateError> {
    let date = match (parsed.zoned(), legacy) {
        (_, true) => parsed.wall_date(),
        (Some(instant), false) => Date::of(instant),
        (None, false) => return Err(LocateError::NoZone { text: shortened(text) }),
    };
    date.ok_or_else(|| LocateError::NoDay { text: shortened(text) })
}

fn shortened(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use desfmt::ArchiveId;

    use super::*;

    fn bits(number: u8) -> BucketBits {
        BucketBits::new(number).unwrap()
    }

    fn archive(legacy: bool) -> Known {
        let naming = Naming::new(ArchiveId::from_bytes([1; 16]), bits(8));
        Known::Archive { naming, bits: bits(8), legacy }
    }

    fn refusal(uid: &str, created_at: &str) -> String {
        locate(uid, created_at, &Known::Bits(None)).unwrap_err().to_string()
    }

    #[test]
    fn a_file_is_below_the_day_of_utc_under_its_encoded_name() {
        let place = locate("a/b%c", "2024-01-15T00:30:00+02:00", &Known::Bits(None)).unwrap();

        assert_eq!(place, Place { path: "20240114/a%2Fb%25c".to_owned(), group: None });
    }

    #[test]
    fn the_group_is_told_where_the_bits_are_known() {
        let place = locate("319", "2024-01-15T00:30:00Z", &Known::Bits(Some(bits(8)))).unwrap();

        let (group, shards) = place.group.unwrap();
        assert_eq!((group.to_string().as_str(), shards.as_str()), ("20240115_3F", "shards/20240115/20240115_3F_"));
    }

    #[test]
    fn the_ancestor_files_by_the_clock_on_the_wall() {
        let place = locate("319", "2024-01-15T00:30:00+02:00", &archive(true)).unwrap();

        assert_eq!((place.path.as_str(), place.group.unwrap().1.as_str()), ("20240115/319", "20240115_3F_"));
        assert_eq!(locate("319", "2024-01-15T00:30", &archive(true)).unwrap().path, "20240115/319");
    }

    #[test]
    fn a_long_uid_needs_its_archive() {
        let long = "x".repeat(256);

        assert!(refusal(&long, "2024-01-15T00:00Z").contains("--archive"));
        let path = locate(&long, "2024-01-15T00:00Z", &archive(false)).unwrap().path;
        assert_eq!(path.len(), "20240115/".len() + 255);
    }

    #[test]
    fn whatever_is_wrong_is_named() {
        for (uid, created_at, said) in [
            ("", "2024-01-15T00:00Z", "uid \"\""),
            ("\u{b2}", "2024-01-15T00:00Z", "uid \"\u{b2}\""),
            ("a", "yesterday", "\"yesterday\""),
            ("a", "2024-01-15T00:00", "\"2024-01-15T00:00\" has no time zone"),
            ("a", "0001-01-01T00:00+02:00", "\"0001-01-01T00:00+02:00\" is not between"),
        ] {
            let refused = refusal(uid, created_at);
            assert!(refused.contains(said), "{refused}");
        }
    }
}
