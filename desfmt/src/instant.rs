//! The texts that stand for a point in time, exactly as the ancestor reads them.
//!
//! It trims the text, turns a capital `Z` at its end into `+00:00`, and hands it to its interpreter's reader of ISO
//! 8601. That one takes calendar and week dates, with or without separators, any single character between date and
//! time, fractions of any length after a dot or comma (cut to microseconds), and zones with seconds. It also takes
//! some malformed texts, such as a stray colon before the zone, and so does this module: a uid must be found under
//! the day that the ancestor put it, and a test compares the two over a table of the interpreter's own verdicts.

use crate::{Date, Timestamp};

const SECOND: i64 = 1_000_000;
const DAY: i64 = 86_400 * SECOND;

/// A point in time as somebody wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParsedInstant {
    /// With a zone.
    Zoned {
        /// The point in time.
        instant: Timestamp,
        /// What the clock on the wall of that zone showed, as if it were UTC.
        wall: Timestamp,
    },
    /// Without one: only a clock on some wall.
    Naive {
        /// What it showed, as if it were UTC.
        wall: Timestamp,
    },
}

/// A text that is no point in time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a point in time in ISO 8601, such as 2024-01-15T09:30:00Z")]
pub struct InstantError {
    /// The text as given, or its first 64 characters.
    pub text: String,
}

impl ParsedInstant {
    /// What the clock on the wall showed, as if it were UTC.
    pub const fn wall(&self) -> Timestamp {
        match self {
            Self::Zoned { wall, .. } | Self::Naive { wall } => *wall,
        }
    }

    /// The day that the ancestor files it under: that of the wall, whatever the zone.
    pub fn wall_date(&self) -> Option<Date> {
        Date::of(self.wall())
    }

    /// The point in time, if the text says which zone it means.
    pub const fn zoned(&self) -> Option<Timestamp> {
        match self {
            Self::Zoned { instant, .. } => Some(*instant),
            Self::Naive { .. } => None,
        }
    }

    /// The point in time; one without zone is taken as UTC.
    pub const fn or_utc(&self) -> Timestamp {
        match self {
            Self::Zoned { instant, .. } => *instant,
            Self::Naive { wall } => *wall,
        }
    }
}

/// Reads a text as the ancestor does.
pub fn parse_created_at(text: &str) -> Result<ParsedInstant, InstantError> {
    // The ancestor's idea of white space has four control characters more than ours.
    let trimmed = text.trim_matches(|c: char| c.is_whitespace() || ('\x1c'..='\x1f').contains(&c));
    let parsed = match trimmed.strip_suffix('Z') {
        Some(rest) => parse(format!("{rest}+00:00").as_bytes()),
        None => parse(trimmed.as_bytes()),
    };
    parsed.ok_or_else(|| InstantError { text: text.chars().take(64).collect() })
}

fn parse(bytes: &[u8]) -> Option<ParsedInstant> {
    let text = Text(bytes);
    let date_len = date_len(text)?;
    let date = parse_date(text, date_len)?;
    let after = bytes.get(date_len..)?;
    let (clock, zone) = match char_len(after) {
        Some(separator_len) => parse_time(Text(after.get(separator_len..)?))?,
        None => (0, None),
    };
    let wall = Timestamp::from_micros(date.start().micros().checked_add(clock)?);
    Some(match zone {
        Some(offset) => {
            ParsedInstant::Zoned { instant: Timestamp::from_micros(wall.micros().checked_sub(offset)?), wall }
        }
        None => ParsedInstant::Naive { wall },
    })
}

/// Length of the UTF-8 character that some bytes begin with.
fn char_len(bytes: &[u8]) -> Option<usize> {
    Some(match bytes.first()? {
        0..=0x7f => 1,
        0xe0..=0xef => 3,
        0xf0..=0xff => 4,
        0x80..=0xdf => 2,
    })
}

/// Bytes that end in as many NULs as anyone looks at: that is how the interpreter sees its texts.
#[derive(Clone, Copy)]
struct Text<'a>(&'a [u8]);

impl Text<'_> {
    fn at(self, place: usize) -> u8 {
        self.0.get(place).copied().unwrap_or(0)
    }

    fn is_digit(self, place: usize) -> bool {
        self.at(place).is_ascii_digit()
    }

    /// The number that `count` digits make.
    fn number(self, place: usize, count: usize) -> Option<i64> {
        self.0.get(place..place.checked_add(count)?)?.iter().try_fold(0_i64, |number, byte| {
            let digit = byte.checked_sub(b'0').filter(|digit| *digit < 10)?;
            number.checked_mul(10)?.checked_add(i64::from(digit))
        })
    }
}

/// How long the date at the front of a text is. Every form of it can be told by its fifth and sixth characters, but
/// for week dates, whose weekday may be left out: there the digits that follow decide.
fn date_len(text: Text<'_>) -> Option<usize> {
    match (text.0.len(), text.at(4), text.at(5)) {
        (..7, ..) => None,
        (7, ..) => Some(7),
        (len, b'-', b'W') => match text.at(8) {
            b'-' if len == 9 => None,
            b'-' if text.is_digit(10) => Some(8),
            b'-' => Some(10),
            _ => Some(8),
        },
        (_, b'-', _) => Some(10),
        (_, b'W', _) => {
            let digits = text.0.iter().skip(7).take_while(|byte| byte.is_ascii_digit()).count();
            Some(match digits {
                0 => 7,
                1 => 8,
                // Hours and minutes come in pairs. An odd count is a separator and pairs, an even one has a weekday too.
                count if count % 2 == 1 => 7,
                _ => 8,
            })
        }
        _ => Some(8),
    }
}

fn parse_date(text: Text<'_>, len: usize) -> Option<Date> {
    let year = u32::try_from(text.number(0, 4)?).ok()?;
    let separated = text.at(4) == b'-';
    let mut place = if separated { 5 } else { 4 };
    // Steps over the separator between two fields, if the date has them.
    let separator = |place: usize| if separated { (text.at(place) == b'-').then_some(1) } else { Some(0) };
    if text.at(place) == b'W' {
        place = place.checked_add(1)?;
        let week = text.number(place, 2)?;
        place = place.checked_add(2)?;
        let weekday = if place < len { text.number(place.checked_add(separator(place)?)?, 1)? } else { 1 };
        return week_date(year, week, weekday);
    }
    let month = text.number(place, 2)?;
    place = place.checked_add(2)?.checked_add(separator(place.checked_add(2)?)?)?;
    let day = text.number(place, 2)?;
    let ends = place.checked_add(2)? == len;
    Date::from_civil(year, u32::try_from(month).ok()?, u32::try_from(day).ok()?).filter(|_| ends)
}

/// The day of an ISO week date. Week 1 is the one that holds 4 January, the last one holds 28 December.
fn week_date(year: u32, week: i64, weekday: i64) -> Option<Date> {
    let monday = |date: Date| i64::from(date.number()).checked_sub(i64::from(date.number().checked_sub(1)? % 7));
    let first = monday(Date::from_civil(year, 1, 4)?)?;
    let last = monday(Date::from_civil(year, 12, 28)?)?;
    let start = first.checked_add(week.checked_sub(1)?.checked_mul(7)?)?;
    if week < 1 || start > last || !(1..=7).contains(&weekday) {
        return None;
    }
    Date::from_number(u32::try_from(start.checked_add(weekday)?.checked_sub(1)?).ok()?)
}

/// Microseconds since midnight, and the zone's distance from UTC if there is one.
fn parse_time(text: Text<'_>) -> Option<(i64, Option<i64>)> {
    let zone_at = text.0.iter().position(|byte| matches!(byte, b'+' | b'-' | b'Z')).unwrap_or(text.0.len());
    let (clock, rest) = parse_clock(text, zone_at)?;
    let [hour, minute, second, micros] = clock;
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let clock = total(clock)?;
    if micros >= SECOND {
        return None;
    }
    let sign = match text.at(zone_at) {
        _ if zone_at >= text.0.len() => return (rest == Rest::Nothing).then_some((clock, None)),
        b'Z' => return (text.at(zone_at.checked_add(1)?) == 0).then_some((clock, Some(0))),
        b'-' => -1,
        _ => 1,
    };
    let zone = Text(text.0.get(zone_at.checked_add(1)?..)?);
    let (offset, rest) = parse_clock(zone, zone.0.len())?;
    // A zone of less than a second is none to the interpreter.
    let offset = total(offset)?;
    let offset = if offset < SECOND { 0 } else { offset };
    (rest == Rest::Nothing && offset < DAY).then_some((clock, Some(offset.checked_mul(sign)?)))
}

fn total([hour, minute, second, micros]: [i64; 4]) -> Option<i64> {
    let seconds = hour.checked_mul(3_600)?.checked_add(minute.checked_mul(60)?)?.checked_add(second)?;
    seconds.checked_mul(SECOND)?.checked_add(micros)
}

/// Whether anything follows a clock.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rest {
    Nothing,
    Something,
}

/// Reads `HH[:MM[:SS[.ffffff]]]` or the same without colons, up to `end`.
fn parse_clock(text: Text<'_>, end: usize) -> Option<([i64; 4], Rest)> {
    let rest_at = |place| if text.at(place) == 0 { Rest::Nothing } else { Rest::Something };
    let mut clock = [0; 4]; // hour, minute, second, microsecond
    let mut place = 0_usize;
    let mut separated = true;
    for order in 0..3 {
        *clock.get_mut(order)? = text.number(place, 2)?;
        let after = place.checked_add(2)?;
        place = after.checked_add(1)?;
        if order == 0 {
            separated = text.at(after) == b':';
        }
        if place >= end {
            return Some((clock, rest_at(after)));
        }
        match text.at(after) {
            b':' if separated => {}
            b'.' | b',' => break,
            _ if !separated => place = after,
            _ => return None,
        }
    }
    let digits = end.checked_sub(place)?.min(6);
    let scale = [SECOND, 100_000, 10_000, 1_000, 100, 10, 1].get(digits)?;
    *clock.get_mut(3)? = text.number(place, digits)?.checked_mul(*scale)?;
    place = place.checked_add(digits)?;
    while text.is_digit(place) {
        place = place.checked_add(1)?;
    }
    Some((clock, rest_at(place)))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;

    /// What Python 3.11 makes of a text: its wall clock and offset in microseconds, or nothing.
    type Verdict = (String, Option<(i64, Option<i64>)>);

    /// The table that `tests/data/make_instants.py` writes.
    fn verdicts() -> Vec<Verdict> {
        let table = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/instants.jsonl");
        let row = |line: &str| match serde_json::from_str::<Vec<serde_json::Value>>(line).unwrap().as_slice() {
            [text, wall] => (text.as_str().unwrap().to_owned(), wall.as_i64().map(|wall| (wall, None))),
            [text, wall, offset] => {
                (text.as_str().unwrap().to_owned(), Some((wall.as_i64().unwrap(), offset.as_i64())))
            }
            _ => panic!("{line}"),
        };
        fs::read_to_string(table).unwrap().lines().map(row).collect()
    }

    #[test]
    fn times_are_read_as_the_ancestors_interpreter_reads_them() {
        let verdicts = verdicts();
        for (text, expected) in &verdicts {
            let found = parse_created_at(text).ok().map(|parsed| {
                let wall = parsed.wall().micros();
                (wall, parsed.zoned().map(|instant| wall - instant.micros()))
            });
            assert_eq!(found, *expected, "{text:?}");
        }
        assert!(verdicts.len() > 1_000 && verdicts.iter().filter(|(_, verdict)| verdict.is_some()).count() > 500);
    }

    #[test]
    fn the_day_is_that_of_the_wall_and_the_instant_that_of_the_world() {
        let parsed = parse_created_at("2024-01-01T00:30+02:00").unwrap();
        assert_eq!(parsed.wall_date().unwrap().to_string(), "20240101");
        assert_eq!(parsed.zoned().unwrap().to_string(), "2023-12-31T22:30:00Z");

        let naive = parse_created_at("2024-01-01T00:30").unwrap();
        assert_eq!(naive.zoned(), None);
        assert_eq!(naive.or_utc().to_string(), "2024-01-01T00:30:00Z");
    }

    #[test]
    fn a_refused_text_is_named_but_not_at_any_length() {
        let error = parse_created_at(&"x".repeat(1_000_000)).unwrap_err();
        assert_eq!(error.text.len(), 64);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC*", like in "[0-9]{4}-?W?[0-9]{2}-?[0-9]{0,2}[-0-9:.,+WZT \\PC]{0,24}") {
            parse_created_at(&text).ok();
            parse_created_at(&like).ok();
        }
    }
}
