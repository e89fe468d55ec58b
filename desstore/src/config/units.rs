//! Sizes and times as people write them.

use std::fmt;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error, Visitor};

use crate::values::{parse_bytes, parse_duration};

/// A number of bytes: `262144`, or `"256K"`, `"64M"`, `"2G"`, `"1T"` (binary, with or without `B` or `iB`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// A time: a number of seconds, or `"500ms"`, `"30s"`, `"15m"`, `"1h"`, `"7d"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Interval(pub Duration);

/// No interval is longer than ten years.
const SECONDS_MAX: u64 = 10 * 366 * 86_400;

impl Size {
    fn parse(text: &str) -> Option<Self> {
        parse_bytes(text).ok().map(Self)
    }
}

impl Interval {
    fn parse(text: &str) -> Option<Self> {
        parse_duration(text).ok().map(Self)
    }
}

const SIZE: &str = "a size such as 64M or 2G";
const INTERVAL: &str = "a time such as 500ms, 30s, 15m, 1h or 1d";

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Words { wanted: SIZE, number: |bytes| Some(Self(bytes)), text: Self::parse })
    }
}

impl<'de> Deserialize<'de> for Interval {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = |seconds| (seconds <= SECONDS_MAX).then(|| Self(Duration::from_secs(seconds)));
        deserializer.deserialize_any(Words { wanted: INTERVAL, number, text: Self::parse })
    }
}

/// Takes a number or a text.
struct Words<T> {
    wanted: &'static str,
    number: fn(u64) -> Option<T>,
    text: fn(&str) -> Option<T>,
}

impl<T> Visitor<'_> for Words<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.wanted)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<T, E> {
        (self.number)(value).ok_or_else(|| E::custom(format!("{value} is not {}", self.wanted)))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<T, E> {
        match u64::try_from(value) {
            Ok(value) => self.visit_u64(value),
            Err(_) => Err(E::custom(format!("{value} is not {}", self.wanted))),
        }
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<T, E> {
        (self.text)(value).ok_or_else(|| E::custom(format!("{value:?} is not {}", self.wanted)))
    }
}
