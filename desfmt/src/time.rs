//! Points in time and the UTC days that archives are ordered by.

use std::fmt;
use std::str::FromStr;

/// Microseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Timestamp(i64);

const MICROS_PER_SECOND: i64 = 1_000_000;
const MICROS_PER_DAY: i64 = 86_400 * MICROS_PER_SECOND;

impl Timestamp {
    /// Takes microseconds since the Unix epoch.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Microseconds since the Unix epoch.
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// Whole seconds since the Unix epoch, rounded down.
    pub const fn seconds(self) -> i64 {
        self.0.div_euclid(MICROS_PER_SECOND)
    }

    /// This point moved by a duration; saturates at the ends of the range.
    #[must_use]
    pub fn saturating_add(self, duration: std::time::Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)))
    }

    /// The time from `earlier` to this point; zero when `earlier` is later.
    pub fn since(self, earlier: Self) -> std::time::Duration {
        std::time::Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

/// RFC 3339 in UTC with microseconds, or seconds where the fraction is zero.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = civil(self.0.div_euclid(MICROS_PER_DAY));
        let micros = self.0.rem_euclid(MICROS_PER_DAY);
        let (seconds, fraction) = (micros / MICROS_PER_SECOND, micros % MICROS_PER_SECOND);
        let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")?;
        if fraction != 0 {
            write!(f, ".{fraction:06}")?;
        }
        f.write_str("Z")
    }
}

/// A calendar day, 0001-01-01 to 9999-12-31; in an archive written by DES a UTC day. Written `YYYYMMDD`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Date(u32);

/// A text that is no day.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a day of the form YYYYMMDD between 00010101 and 99991231")]
pub struct DateError {
    /// The text as given.
    pub text: String,
}

/// Days from 0000-12-31 to 1970-01-01.
const EPOCH_NUMBER: i64 = 719_163;

impl Date {
    /// The number of the last day, 9999-12-31.
    pub const NUMBER_MAX: u32 = 3_652_059;

    /// The day with this number: 1 is 0001-01-01.
    pub const fn from_number(number: u32) -> Option<Self> {
        if number >= 1 && number <= Self::NUMBER_MAX { Some(Self(number)) } else { None }
    }

    /// Its number: 1 for 0001-01-01. Fits in 22 bits.
    pub const fn number(self) -> u32 {
        self.0
    }

    /// The UTC day that a point in time falls on, if it is in range.
    pub fn of(time: Timestamp) -> Option<Self> {
        let number = time.0.div_euclid(MICROS_PER_DAY).checked_add(EPOCH_NUMBER)?;
        Self::from_number(u32::try_from(number).ok()?)
    }

    /// The day of a calendar date, if there is one.
    #[expect(clippy::arithmetic_side_effects, reason = "all parts are below 10,000")]
    pub fn from_civil(year: u32, month: u32, day: u32) -> Option<Self> {
        if !(1..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
            return None;
        }
        // Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", days_from_civil.
        let (year, month, day) = (i64::from(year), i64::from(month), i64::from(day));
        let shifted = if month <= 2 { year.checked_sub(1)? } else { year };
        let era = shifted.div_euclid(400);
        let year_of_era = shifted.rem_euclid(400);
        let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
        let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
        let date = Self::from_number(u32::try_from(era * 146_097 + day_of_era - 305).ok()?)?;
        // A day such as 31 April names another day's number; only a true date comes back as it went in.
        (date.civil() == (year, month, day)).then_some(date)
    }

    /// Midnight UTC at which the day begins.
    #[expect(clippy::arithmetic_side_effects, reason = "a day number has 22 bits")]
    pub fn start(self) -> Timestamp {
        Timestamp((i64::from(self.0) - EPOCH_NUMBER) * MICROS_PER_DAY)
    }

    #[expect(clippy::arithmetic_side_effects, reason = "a day number has 22 bits")]
    fn civil(self) -> (i64, i64, i64) {
        civil(i64::from(self.0) - EPOCH_NUMBER)
    }
}

/// Year, month and day of a count of days since the Unix epoch (Hinnant, `civil_from_days`).
#[expect(
    clippy::arithmetic_side_effects,
    reason = "days come from an i64 of microseconds or a u32: no sum can overflow"
)]
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_shifted + 2) / 5 + 1;
    let month = if month_shifted < 10 { month_shifted + 3 } else { month_shifted - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = self.civil();
        write!(f, "{year:04}{month:02}{day:02}")
    }
}

impl fmt::Debug for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Date({self})")
    }
}

impl serde::Serialize for Date {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Date {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl FromStr for Date {
    type Err = DateError;

    fn from_str(text: &str) -> Result<Self, DateError> {
        let error = || DateError { text: text.to_owned() };
        if text.len() != 8 || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(error());
        }
        let part = |range: std::ops::Range<usize>| text.get(range).and_then(|digits| digits.parse::<u32>().ok());
        match (part(0..4), part(4..6), part(6..8)) {
            (Some(year), Some(month), Some(day)) => Self::from_civil(year, month, day).ok_or_else(error),
            _ => Err(error()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_reads_back_as_it_is_written() {
        for text in ["00010101", "19691231", "19700101", "20000229", "20240115", "20240229", "99991231"] {
            assert_eq!(text.parse::<Date>().unwrap().to_string(), text);
        }
        assert_eq!(Date::from_number(1).unwrap().to_string(), "00010101");
        assert_eq!(Date::from_number(Date::NUMBER_MAX).unwrap().to_string(), "99991231");
    }

    #[test]
    fn days_that_no_calendar_has_are_refused() {
        for text in ["20230229", "20240431", "20241301", "00000101", "2024011", "2024-1-1", "+0240115", "202401150"] {
            assert!(text.parse::<Date>().is_err(), "{text}");
        }
    }

    #[test]
    fn every_number_names_one_day() {
        for number in (1..=Date::NUMBER_MAX).step_by(97) {
            let date = Date::from_number(number).unwrap();
            assert_eq!(date.to_string().parse::<Date>().unwrap().number(), number);
            assert_eq!(Date::of(date.start()), Some(date));
        }
    }

    #[test]
    fn the_day_of_a_time_is_its_utc_day() {
        let midnight = "20240101".parse::<Date>().unwrap().start();
        assert_eq!(Date::of(Timestamp::from_micros(midnight.micros() - 1)).unwrap().to_string(), "20231231");
        assert_eq!(midnight.to_string(), "2024-01-01T00:00:00Z");
        assert_eq!(Timestamp::from_micros(midnight.micros() + 1_500_000).to_string(), "2024-01-01T00:00:01.500000Z");
    }
}
