//! What a time in a manifest means: which point in time, and which day.

use desfmt::instant::parse_created_at;
use desfmt::{Date, Timestamp};
use jiff::tz::TimeZone;

/// How times of the input are understood.
#[derive(Debug, Clone, Default)]
pub struct TimeRules {
    /// What a time without a zone is local to; without this such a time is refused.
    pub zone: Option<TimeZone>,
    /// Takes the day that is written instead of the UTC day, as the ancestor does.
    pub as_written: bool,
}

impl TimeRules {
    /// Reads a time and the day it belongs to.
    pub(crate) fn read(&self, text: &str) -> Result<(Timestamp, Date), String> {
        let parsed = parse_created_at(text).map_err(|error| format!("created_at: {error}"))?;
        let time = match (parsed.zoned(), &self.zone) {
            (Some(time), _) => time,
            (None, Some(zone)) => {
                local(parsed.wall(), zone).ok_or_else(|| format!("created_at {text:?} is out of range"))?
            }
            // The ancestor's format keeps no time, only the day that is written.
            (None, None) if self.as_written => parsed.or_utc(),
            (None, None) => {
                return Err(format!("created_at {text:?} has no time zone (--timezone says which one is meant)"));
            }
        };
        let date = if self.as_written { parsed.wall_date() } else { Date::of(time) };
        Ok((time, date.ok_or_else(|| format!("created_at {text:?} is out of range"))?))
    }
}

/// The point in time at which clocks in a zone show `wall`. Of two the earlier; where clocks jump over it, the time as far
/// after the jump.
fn local(wall: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
    let wall = jiff::Timestamp::from_microsecond(wall.micros()).ok()?;
    let time = zone.to_timestamp(jiff::tz::Offset::UTC.to_datetime(wall)).ok()?;
    Some(Timestamp::from_micros(time.as_microsecond()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(rules: &TimeRules, text: &str) -> Result<String, String> {
        rules.read(text).map(|(_, date)| date.to_string())
    }

    #[test]
    fn the_day_is_the_utc_day() {
        let rules = TimeRules::default();
        assert_eq!(day(&rules, "2024-01-01T00:30:00+02:00").unwrap(), "20231231");
        assert_eq!(day(&rules, "2023-12-31T22:30:00Z").unwrap(), "20231231");
    }

    #[test]
    fn the_ancestors_day_is_the_one_that_is_written() {
        let rules = TimeRules { as_written: true, zone: None };
        assert_eq!(day(&rules, "2024-01-01T00:30:00+02:00").unwrap(), "20240101");
        assert_eq!(day(&rules, "2024-01-01T00:30:00").unwrap(), "20240101");
    }

    #[test]
    fn a_time_without_a_zone_needs_to_be_told_one() {
        let warsaw = TimeRules { zone: Some(TimeZone::fixed(jiff::tz::offset(2))), as_written: false };
        assert!(day(&TimeRules::default(), "2024-01-01T00:30:00").unwrap_err().contains("--timezone"));
        assert_eq!(day(&warsaw, "2024-01-01T00:30:00").unwrap(), "20231231");
        assert_eq!(day(&warsaw, "2024-01-01T00:30:00Z").unwrap(), "20240101");
    }
}
