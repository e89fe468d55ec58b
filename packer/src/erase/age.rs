//! How old something must be to be deleted: `90d`, `12w`, `7y`.

use std::str::FromStr;

use desfmt::Date;

/// A span that is counted back from a day of the calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Age {
    /// So many days.
    Days(u32),
    /// So many years: the same day of the calendar, the 28th of February for a 29th.
    Years(u32),
}

/// A text that is no age.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no age such as 90d, 12w or 7y")]
pub struct AgeError {
    text: String,
}

impl FromStr for Age {
    type Err = AgeError;

    fn from_str(text: &str) -> Result<Self, AgeError> {
        let refused = || AgeError { text: text.to_owned() };
        let digits = text.find(|one: char| !one.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at_checked(digits).ok_or_else(refused)?;
        let number: u32 = number.parse().ok().filter(|number| *number > 0).ok_or_else(refused)?;
        match unit {
            "d" => Ok(Self::Days(number)),
            "w" => number.checked_mul(7).map(Self::Days).ok_or_else(refused),
            "y" => Ok(Self::Years(number)),
            _ => Err(refused()),
        }
    }
}

impl Age {
    /// The day that is so long before another one, if there is one.
    pub fn before(self, today: Date) -> Option<Date> {
        match self {
            Self::Days(days) => Date::from_number(today.number().checked_sub(days)?),
            Self::Years(years) => {
                let text = today.to_string();
                let part = |range: std::ops::Range<usize>| text.get(range)?.parse::<u32>().ok();
                let (year, month, day) = (part(0..4)?.checked_sub(years)?, part(4..6)?, part(6..8)?);
                Date::from_civil(year, month, day).or_else(|| Date::from_civil(year, month, 28))
            }
        }
    }
}
