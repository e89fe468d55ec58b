//! Arithmetic of days and windows: which rows belong to which day, and how far the cutoff may go.

use desfmt::{Date, Timestamp};

/// Microseconds of a day.
const DAY_MICROS: i64 = 86_400_000_000;

/// A stretch of time, from its start to just before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// The first moment.
    pub start: Timestamp,
    /// The first moment after it.
    pub end: Timestamp,
}

impl Window {
    /// A whole day.
    pub fn of(day: Date) -> Self {
        Self { start: day.start(), end: end_of(day) }
    }

    /// All time that a day can be of, up to a moment.
    pub fn until(end: Timestamp) -> Self {
        Self { start: first_day().start(), end }
    }

    /// True for a moment within.
    pub fn has(&self, time: Timestamp) -> bool {
        self.start <= time && time < self.end
    }

    /// True where there is no moment within.
    pub fn is_empty(&self) -> bool {
        self.end <= self.start
    }
}

/// The moment at which a day is over.
pub fn end_of(day: Date) -> Timestamp {
    Timestamp::from_micros(day.start().micros().saturating_add(DAY_MICROS))
}

/// The first day that there is.
pub fn first_day() -> Date {
    Date::from_number(1).unwrap_or_else(|| unreachable!("1 is the number of a day"))
}

/// The start of the day that a moment lies in: rows are moved by whole days only.
pub fn day_start(time: Timestamp) -> Timestamp {
    Timestamp::from_micros(time.micros().saturating_sub(time.micros().rem_euclid(DAY_MICROS)))
}

/// How far rows may be moved: up to the start of the day in which it was `lag_days` days ago, but not beyond `last`.
pub fn horizon(now: Timestamp, lag_days: u32, last: Option<Date>) -> Timestamp {
    let lag = i64::from(lag_days).saturating_mul(DAY_MICROS);
    let by_lag = day_start(Timestamp::from_micros(now.micros().saturating_sub(lag)));
    last.map_or(by_lag, |last| by_lag.min(end_of(last)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        desfmt::instant::parse_created_at(text).unwrap().or_utc()
    }

    #[test]
    fn a_day_is_over_when_the_next_one_begins() {
        let window = Window::of("20240229".parse().unwrap());
        assert!(window.has(at("2024-02-29T00:00:00Z")) && window.has(at("2024-02-29T23:59:59.999999Z")));
        assert!(!window.has(at("2024-03-01T00:00:00Z")) && !window.has(at("2024-02-28T23:59:59.999999Z")));
    }

    #[test]
    fn the_horizon_is_a_midnight_and_never_younger_than_the_lag() {
        for (now, lag, horizon_at) in [
            ("2024-03-10T15:30:00Z", 7, "2024-03-03T00:00:00Z"),
            ("2024-03-10T00:00:00Z", 7, "2024-03-03T00:00:00Z"),
            ("2024-03-09T23:59:59.999999Z", 7, "2024-03-02T00:00:00Z"),
            ("2024-03-10T15:30:00Z", 0, "2024-03-10T00:00:00Z"),
        ] {
            assert_eq!(horizon(at(now), lag, None), at(horizon_at), "{now} {lag}");
        }
    }

    #[test]
    fn a_last_day_only_lowers_the_horizon_and_is_itself_moved() {
        let now = at("2024-03-10T15:30:00Z");
        assert_eq!(horizon(now, 0, Some("20240301".parse().unwrap())), at("2024-03-02T00:00:00Z"));
        assert_eq!(horizon(now, 7, Some("20240309".parse().unwrap())), at("2024-03-03T00:00:00Z"));
    }

    #[test]
    fn times_before_1970_fall_into_their_own_day() {
        assert_eq!(day_start(at("1969-12-31T23:00:00Z")), at("1969-12-31T00:00:00Z"));
    }
}
