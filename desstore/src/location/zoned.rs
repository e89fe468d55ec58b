//! An archive in several places.

use std::fmt;

use super::{Location, StoreOptions};
use crate::zones::{ZoneMap, ZoneSettings};

/// The places that together hold an archive, and what belongs where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZonedLocation {
    /// The zones, in the order that the map counts them.
    pub zones: Vec<PlacedZone>,
    /// Which groups belong to which.
    pub map: ZoneMap,
    /// How they stand in for each other.
    pub settings: ZoneSettings,
}

/// A zone: its name, where it lies and how it is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlacedZone {
    /// Its name.
    pub name: String,
    /// A directory or a bucket.
    pub location: Location,
    /// How it is reached.
    pub options: StoreOptions,
}

impl fmt::Display for ZonedLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("zones")?;
        for (place, zone) in self.zones.iter().enumerate() {
            write!(f, "{}{} ({})", if place == 0 { " " } else { ", " }, zone.name, zone.location)?;
        }
        Ok(())
    }
}
