//! The part of a configuration that all programs share: where the archive lies and how it is reached.
//!
//! A file of the ancestor that spreads shards over zones is such a file: it names the same things by the same keys.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use desfmt::BucketBits;
use serde::de::{Deserialize, Deserializer, Error, Visitor};

use super::{ConfigError, Environment, Interval, load};
use crate::location::{Location, PlacedZone, StoreOptions, ZonedLocation};
use crate::zones::{ANCESTORS_BITS, ZoneMap, ZoneRange, ZoneSettings};

/// The configuration of an archive.
#[derive(Debug, Clone, Default, serde::Deserialize)]
pub struct ArchiveConfig {
    /// Where it lies; without zones only.
    archive: Option<String>,
    /// How its place is reached; with zones, what holds for all of them.
    #[serde(default)]
    store: BTreeMap<String, Scalar>,
    /// How many bits the buckets of the ranges have.
    n_bits: Option<u8>,
    /// The zone of the documents; the first one if not given.
    home: Option<String>,
    /// For how long copies of documents serve while their home is away.
    max_staleness: Option<Interval>,
    /// How long a read may take over all zones.
    deadline: Option<Interval>,
    /// The zones.
    #[serde(default)]
    zones: Vec<ZoneConfig>,
}

/// A zone.
#[derive(Debug, Clone, serde::Deserialize)]
struct ZoneConfig {
    name: String,
    /// Where it lies; or `s3`.
    archive: Option<String>,
    s3: Option<BucketConfig>,
    /// How it is reached, beyond what holds for all.
    #[serde(default)]
    store: BTreeMap<String, Scalar>,
    /// The groups whose home it is; none for a zone that only holds copies.
    range: Option<RangeConfig>,
    /// The zones that hold copies of them, in the order they are read.
    #[serde(default)]
    copies: Vec<String>,
}

/// A bucket as the ancestor says it.
#[derive(Debug, Clone, serde::Deserialize)]
struct BucketConfig {
    bucket: String,
    #[serde(default)]
    prefix: Option<String>,
    #[serde(alias = "region_name")]
    region: Option<String>,
    #[serde(alias = "endpoint_url")]
    endpoint: Option<String>,
}

/// Buckets `start` to `end`, both included; or a share of all, `from` included and `to` not.
#[derive(Debug, Clone, serde::Deserialize)]
struct RangeConfig {
    start: Option<u32>,
    end: Option<u32>,
    from: Option<Share>,
    to: Option<Share>,
}

/// The text of a number, a flag or a text.
#[derive(Debug, Clone)]
struct Scalar(String);

/// A share of all groups, in parts of 65,536.
#[derive(Debug, Clone, Copy)]
struct Share(u32);

const PARTS: u32 = 1 << 16;

/// Names of zones are parts of keys and of metrics.
const ZONE_NAME_LEN_MAX: usize = 64;

impl ArchiveConfig {
    /// Reads a file.
    pub fn load(path: &Path, environment: Environment<'_>) -> Result<Self, ConfigError> {
        load(path, environment)
    }

    /// Where the archive lies and how it is reached. `path` is the file, for what has to be refused.
    pub fn place(&self, path: &Path) -> Result<(Location, StoreOptions), ConfigError> {
        let refused = |at: &str, detail: String| ConfigError::value(path, at, detail);
        if !self.zones.is_empty() {
            if self.archive.is_some() {
                return Err(refused("archive", "there are zones, and each says where it lies".to_owned()));
            }
            let zoned = self.zoned(path)?;
            return Ok((Location::Zones(Box::new(zoned)), StoreOptions::default()));
        }
        for (at, is_given) in [
            ("home", self.home.is_some()),
            ("max_staleness", self.max_staleness.is_some()),
            ("deadline", self.deadline.is_some()),
            ("n_bits", self.n_bits.is_some()),
        ] {
            if is_given {
                return Err(refused(at, "there are no zones that it could be said of".to_owned()));
            }
        }
        let Some(archive) = &self.archive else {
            return Err(refused("", "neither the key \"archive\" nor \"zones\" is there".to_owned()));
        };
        let location = Location::parse(archive).map_err(|error| refused("archive", error.to_string()))?;
        let mut options = StoreOptions::default();
        set_all(&mut options, &self.store).map_err(|detail| refused("store", detail))?;
        Ok((location, options))
    }

    fn zoned(&self, path: &Path) -> Result<ZonedLocation, ConfigError> {
        let refused = |at: &str, detail: String| ConfigError::value(path, at, detail);
        let bits = self.n_bits.map_or(Ok(None), |bits| BucketBits::new(bits).map(Some).ok_or(bits));
        let bits = bits.map_err(|bits| refused("n_bits", format!("{bits} is not a number from 0 to 16")))?;
        let counts_buckets = |zone: &ZoneConfig| zone.range.as_ref().is_some_and(|range| range.start.is_some());
        let bits = match bits {
            // The ancestor counts 256 buckets where it is not told.
            None if self.zones.iter().any(counts_buckets) => BucketBits::new(ANCESTORS_BITS),
            bits => bits,
        };
        let (mut zones, mut ranges) = (Vec::new(), Vec::new());
        for (place, zone) in self.zones.iter().enumerate() {
            let at = |key: &str| format!("zones[{place}].{key}");
            let refused = |key: &str, detail: String| ConfigError::value(path, at(key), detail);
            check_name(&zone.name).map_err(|detail| refused("name", detail))?;
            if self.zones.iter().take(place).any(|other| other.name == zone.name) {
                return Err(refused("name", format!("there are two zones {:?}", zone.name)));
            }
            let (location, options) = self.placed(zone).map_err(|(key, detail)| refused(key, detail))?;
            let Some(range) = &zone.range else {
                if !zone.copies.is_empty() {
                    return Err(refused("copies", "the zone has no range that could be copied".to_owned()));
                }
                zones.push(PlacedZone { name: zone.name.clone(), location, options });
                continue;
            };
            let (from, to) = range.parts(bits).map_err(|detail| refused("range", detail))?;
            let mut holders = vec![place];
            for copy in &zone.copies {
                let holder = self.zone(copy).map_err(|detail| refused("copies", detail))?;
                if holders.contains(&holder) {
                    return Err(refused("copies", format!("the zone {copy:?} holds the range already")));
                }
                holders.push(holder);
            }
            ranges.push(ZoneRange { from, to, zones: holders });
            zones.push(PlacedZone { name: zone.name.clone(), location, options });
        }
        let home = self.home.as_deref().map_or(Ok(0), |home| self.zone(home));
        let home = home.map_err(|detail| refused("home", detail))?;
        let map = ZoneMap::new(ranges, home, bits).map_err(|error| refused("zones", error.to_string()))?;
        let default = ZoneSettings::default();
        let settings = ZoneSettings {
            deadline: self.deadline.map_or(default.deadline, |time| time.0),
            max_staleness: self.max_staleness.map_or(default.max_staleness, |time| time.0),
            ..default
        };
        Ok(ZonedLocation { zones, map, settings })
    }

    fn zone(&self, name: &str) -> Result<usize, String> {
        let names = || self.zones.iter().map(|zone| zone.name.as_str()).collect::<Vec<_>>().join(", ");
        let place = self.zones.iter().position(|zone| zone.name == name);
        place.ok_or_else(|| format!("there is no zone {name:?}; there are {}", names()))
    }

    /// Where a zone lies and how it is reached; or the key that is wrong, and why.
    fn placed(&self, zone: &ZoneConfig) -> Result<(Location, StoreOptions), (&'static str, String)> {
        let mut options = StoreOptions::default();
        set_all(&mut options, &self.store).map_err(|detail| ("store", detail))?;
        set_all(&mut options, &zone.store).map_err(|detail| ("store", detail))?;
        let location = match (&zone.archive, &zone.s3) {
            (Some(archive), None) => Location::parse(archive).map_err(|error| ("archive", error.to_string()))?,
            (None, Some(bucket)) => bucket.place(&mut options).map_err(|detail| ("s3", detail))?,
            (Some(_), Some(_)) => {
                return Err(("s3", "the zone's place is said twice, here and by \"archive\"".to_owned()));
            }
            (None, None) => return Err(("archive", "where the zone lies is missing; \"s3\" would do too".to_owned())),
        };
        match location {
            Location::Local(_) | Location::S3(_) => Ok((location, options)),
            Location::Zones(_) => Err(("archive", "a zone cannot be made of zones".to_owned())),
        }
    }
}

impl BucketConfig {
    fn place(&self, options: &mut StoreOptions) -> Result<Location, String> {
        for (name, value) in [("region", &self.region), ("endpoint", &self.endpoint)] {
            if let Some(value) = value.as_deref().filter(|value| !value.is_empty()) {
                options.set(name, Some(value)).map_err(|error| error.to_string())?;
            }
        }
        let prefix = self.prefix.as_deref().unwrap_or_default();
        Location::parse(&format!("s3://{}/{}", self.bucket, prefix.trim_matches('/')))
            .map_err(|error| error.to_string())
    }
}

impl RangeConfig {
    /// In parts of 65,536, half open.
    fn parts(&self, bits: Option<BucketBits>) -> Result<(u32, u32), String> {
        match (self.start, self.end, self.from, self.to) {
            (Some(start), Some(end), None, None) => {
                let bits = bits.ok_or("n_bits is missing")?;
                let last = bits.buckets().saturating_sub(1);
                if start > end {
                    return Err(format!("start {start} is behind end {end}"));
                }
                if end > last {
                    return Err(format!("with n_bits = {} the last bucket is {last}, not {end}", bits.get()));
                }
                let shift = 16_u8.saturating_sub(bits.get());
                Ok((start << shift, end.saturating_add(1) << shift))
            }
            (None, None, Some(from), Some(to)) => {
                if from.0 < to.0 {
                    Ok((from.0, to.0))
                } else {
                    Err("\"from\" is not before \"to\"".to_owned())
                }
            }
            _ => Err("\"start\" and \"end\" are needed, or \"from\" and \"to\"".to_owned()),
        }
    }
}

fn check_name(name: &str) -> Result<(), String> {
    let fits = |one: char| one.is_ascii_alphanumeric() || matches!(one, '-' | '_' | '.');
    let is_fit =
        !name.is_empty() && name.len() <= ZONE_NAME_LEN_MAX && !name.starts_with('.') && name.chars().all(fits);
    if is_fit { Ok(()) } else { Err(format!("{name:?} is no name of letters, digits, -, _ and .")) }
}

fn set_all(options: &mut StoreOptions, table: &BTreeMap<String, Scalar>) -> Result<(), String> {
    for (name, Scalar(value)) in table {
        if !StoreOptions::knows(name) {
            let known: Vec<&str> = StoreOptions::WITH_VALUE.into_iter().chain(StoreOptions::FLAGS).collect();
            return Err(super::reader::unknown("unknown key", name, &known));
        }
        // An empty variable leaves the option as it is.
        if !value.is_empty() {
            options.set(name, Some(value)).map_err(|error| error.to_string())?;
        }
    }
    Ok(())
}

/// Where the ancestor's variables say that the archive lies, if they say it.
pub fn place_of_ancestor(environment: Environment<'_>) -> Result<Option<(Location, StoreOptions)>, ConfigError> {
    let given = |name: &str| environment(name).filter(|value| !value.is_empty());
    let refused = |name: &str, detail: String| ConfigError::value(Path::new("environment"), name, detail);
    let backend = given("DES_BACKEND");
    // Having a bucket forces S3, as with the ancestor.
    let bucket = given("DES_S3_BUCKET");
    let kind = match (backend.as_deref(), &bucket) {
        (Some("multi_s3"), _) => "multi_s3",
        (_, Some(_)) | (Some("s3"), None) => "s3",
        (Some("local"), None) => "local",
        (None, None) if given("DES_ZONES_CONFIG").is_some() => "multi_s3",
        (None, None) if given("DES_BASE_DIR").is_some() => "local",
        (None, None) => return Ok(None),
        (Some(other), None) => {
            return Err(refused("DES_BACKEND", format!("{other:?} is none of local, s3 and multi_s3")));
        }
    };
    let needed =
        |name: &str| given(name).ok_or_else(|| refused(name, format!("it is not set, and DES_BACKEND is {kind}")));
    match kind {
        "multi_s3" => {
            let path = needed("DES_ZONES_CONFIG")?;
            let path = Path::new(&path);
            ArchiveConfig::load(path, environment)?.place(path).map(Some)
        }
        "s3" => {
            let bucket = BucketConfig {
                bucket: needed("DES_S3_BUCKET")?,
                prefix: given("DES_S3_PREFIX"),
                region: given("DES_S3_REGION"),
                endpoint: given("DES_S3_ENDPOINT_URL"),
            };
            let mut options = StoreOptions::default();
            let location = bucket.place(&mut options).map_err(|detail| refused("DES_S3_BUCKET", detail))?;
            Ok(Some((location, options)))
        }
        _ => {
            let directory = needed("DES_BASE_DIR")?;
            let location = Location::parse(&directory).map_err(|error| refused("DES_BASE_DIR", error.to_string()))?;
            Ok(Some((location, StoreOptions::default())))
        }
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyScalar;

        impl Visitor<'_> for AnyScalar {
            type Value = Scalar;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, a number, true or false")
            }

            fn visit_bool<E>(self, value: bool) -> Result<Scalar, E> {
                Ok(Scalar(if value { "yes" } else { "no" }.to_owned()))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Scalar, E> {
                Ok(Scalar(value.to_string()))
            }

            fn visit_str<E>(self, value: &str) -> Result<Scalar, E> {
                Ok(Scalar(value.to_owned()))
            }
        }

        deserializer.deserialize_any(AnyScalar)
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyShare;

        impl Visitor<'_> for AnyShare {
            type Value = Share;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a share from 0 to 1, such as 0.5 or \"1/3\"")
            }

            fn visit_u64<E: Error>(self, value: u64) -> Result<Share, E> {
                self.visit_str(&value.to_string())
            }

            fn visit_f64<E: Error>(self, value: f64) -> Result<Share, E> {
                self.visit_str(&value.to_string())
            }

            fn visit_str<E: Error>(self, value: &str) -> Result<Share, E> {
                parse_share(value)
                    .ok_or_else(|| E::custom(format!("{value:?} is not a share from 0 to 1, such as 0.5 or 1/3")))
            }
        }

        deserializer.deserialize_any(AnyShare)
    }
}

/// Rounded to the nearest part, so that equal texts are equal shares.
fn parse_share(text: &str) -> Option<Share> {
    let (number, divisor) = match text.split_once('/') {
        Some((number, divisor)) => (number.trim().parse::<f64>().ok()?, divisor.trim().parse::<f64>().ok()?),
        None => (text.trim().parse::<f64>().ok()?, 1.0),
    };
    let share = number / divisor;
    if !(0.0..=1.0).contains(&share) {
        return None;
    }
    let wanted = share * f64::from(PARTS);
    // The number of parts whose middle lies below it.
    let (mut low, mut high) = (0, PARTS);
    while low < high {
        let middle = low.midpoint(high);
        if f64::from(middle) + 0.5 <= wanted { low = middle.saturating_add(1) } else { high = middle }
    }
    Some(Share(low))
}

#[cfg(test)]
mod tests;
