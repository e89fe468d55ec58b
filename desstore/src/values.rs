//! Times and sizes as people write them in options. Each parser says what it wants when it does not get it.

use std::time::Duration;

/// A number of seconds, or a number with `ms`, `s`, `m`, `h` or `d`; at most a year.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let refused = || format!("{text:?} is not a time such as 500ms, 60s, 5m, 1h or 1d");
    let (number, unit) = split_unit(text);
    let number: u32 = number.parse().map_err(|_| refused())?;
    let unit = match unit {
        "ms" => Duration::from_millis(1),
        "s" | "" => Duration::from_secs(1),
        "m" => Duration::from_mins(1),
        "h" => Duration::from_hours(1),
        "d" => Duration::from_hours(24),
        _ => return Err(refused()),
    };
    unit.checked_mul(number).filter(|time| *time <= DURATION_MAX).ok_or_else(|| format!("{text:?} is above 365d"))
}

/// The same, but not nothing.
pub fn parse_timeout(text: &str) -> Result<Duration, String> {
    let timeout = parse_duration(text)?;
    if timeout.is_zero() { Err("must be longer than nothing".to_owned()) } else { Ok(timeout) }
}

const DURATION_MAX: Duration = Duration::from_hours(365 * 24);

/// A number of bytes, or a number with `K`, `M`, `G` or `T` (binary, with or without `B` or `iB`).
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let refused = || format!("{text:?} is not a size such as 256M or 2G");
    let (number, unit) = split_unit(text);
    let number: u64 = number.parse().map_err(|_| refused())?;
    let shift = match unit.trim_end_matches('B').trim_end_matches('i') {
        "" => 0,
        "K" | "k" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return Err(refused()),
    };
    number.checked_mul(1 << shift).ok_or_else(refused)
}

/// `yes` or `no`, in the words that configuration files use.
pub fn parse_flag(text: &str) -> Result<bool, String> {
    match text {
        "yes" | "true" | "on" | "1" => Ok(true),
        "no" | "false" | "off" | "0" => Ok(false),
        other => Err(format!("{other:?} is neither yes nor no")),
    }
}

fn split_unit(text: &str) -> (&str, &str) {
    let end = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    text.split_at_checked(end).unwrap_or((text, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_are_read_as_people_write_them() {
        assert_eq!(parse_duration("5"), Ok(Duration::from_secs(5)));
        assert_eq!(parse_duration("1500ms"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_bytes("2GiB"), Ok(2 << 30));
        assert_eq!(parse_flag("yes"), Ok(true));
        assert!(parse_duration("soon").is_err() && parse_bytes("lots").is_err() && parse_flag("").is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_a_parser_panic(text: String) {
            drop((parse_duration(&text), parse_bytes(&text), parse_flag(&text)));
        }
    }
}
