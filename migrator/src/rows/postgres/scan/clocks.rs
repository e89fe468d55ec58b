//! Times without a zone: what the clocks of a zone show, and when.

use desfmt::Timestamp;
use jiff::tz::TimeZone;

/// How far the edges of a day may be from where the clocks of a zone say, in microseconds.
pub(super) const EDGE_MICROS: i64 = 3 * 3_600 * 1_000_000;

/// What the clocks of a zone show at a moment, as if it were UTC, and some time more.
pub(super) fn wall(time: Timestamp, zone: &TimeZone, more: i64) -> Timestamp {
    let offset = jiff::Timestamp::from_microsecond(time.micros()).map_or(0, |time| zone.to_offset(time).seconds());
    Timestamp::from_micros(time.micros().saturating_add(i64::from(offset) * 1_000_000).saturating_add(more))
}

/// The moment at which clocks of a zone show something. Of two the earlier.
pub(super) fn from_wall(wall: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
    let wall = jiff::Timestamp::from_microsecond(wall.micros()).ok()?;
    let time = zone.to_timestamp(jiff::tz::Offset::UTC.to_datetime(wall)).ok()?;
    Some(Timestamp::from_micros(time.as_microsecond()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        desfmt::instant::parse_created_at(text).unwrap().or_utc()
    }

    #[test]
    fn clocks_that_are_set_back_show_a_time_twice_and_the_first_is_meant() {
        let zone = TimeZone::get("Europe/Warsaw").unwrap();
        for (shown, instant) in [
            ("2024-01-15T12:00:00", "2024-01-15T11:00:00Z"),
            ("2024-07-15T12:00:00", "2024-07-15T10:00:00Z"),
            ("2024-10-27T02:30:00", "2024-10-27T00:30:00Z"),
            ("2024-03-31T02:30:00", "2024-03-31T01:30:00Z"),
        ] {
            assert_eq!(from_wall(at(shown), &zone), Some(at(instant)), "{shown}");
        }
        assert_eq!(wall(at("2024-07-15T10:00:00Z"), &zone, 0), at("2024-07-15T12:00:00Z"));
    }
}
