//! The files that an order names: lines of a uid and a day, or JSON objects.

use std::collections::BTreeMap;
use std::io::{self, BufRead};

use desfmt::{Date, Uid};
use serde::Deserialize;

use crate::TimeRules;

/// How many files one order may name; what is read stays in memory.
const REQUESTS_MAX: usize = 5_000_000;

/// The longest line that is read, in bytes: a uid of 65,535 bytes, each escaped.
const LINE_LEN_MAX: u64 = 1 << 20;

/// An order that cannot be understood. Nothing of it was done.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// A line makes no sense.
    #[error("line {line}: {reason}")]
    Line {
        /// Which one, from 1.
        line: usize,
        /// Why.
        reason: String,
    },
    /// There are too many of them.
    #[error("more than {REQUESTS_MAX} files at once; split the order")]
    TooMany,
    /// It cannot be read.
    #[error("the order cannot be read")]
    Read {
        /// What the system says.
        #[from]
        source: io::Error,
    },
}

#[derive(Deserialize)]
struct Row {
    uid: String,
    #[serde(alias = "date")]
    created_at: Option<String>,
}

/// The day that a text means: `YYYYMMDD`, `YYYY-MM-DD`, or a time with its zone, of which the UTC day counts.
pub fn day_of(text: &str) -> Result<Date, String> {
    let text = text.trim();
    if let Ok(date) = text.parse::<Date>() {
        return Ok(date);
    }
    if text.len() == 10
        && text.is_ascii()
        && let Ok(date) = text.replace('-', "").parse::<Date>()
    {
        return Ok(date);
    }
    match TimeRules::default().read(text) {
        Ok((_, date)) => Ok(date),
        Err(_) => Err(format!(
            "{text:?} is neither a day such as 20240115 nor a time with its zone such as 2024-01-15T09:30:00Z"
        )),
    }
}

/// Reads an order: on each line `UID DAY`, split at the last white space, or a JSON object with `uid` and `created_at` (or
/// `date`). A line without a day is of `default`. Empty lines do not count.
pub fn read_requests(mut input: impl BufRead, default: Option<Date>) -> Result<BTreeMap<Date, Vec<Uid>>, RequestError> {
    let mut requests = BTreeMap::<Date, Vec<Uid>>::new();
    let mut count = 0_usize;
    let mut bytes = Vec::new();
    for line in 1_usize.. {
        bytes.clear();
        if io::Read::take(&mut input, LINE_LEN_MAX).read_until(b'\n', &mut bytes)? == 0 {
            break;
        }
        let refused = |reason: String| RequestError::Line { line, reason };
        let text = std::str::from_utf8(&bytes).map_err(|_| refused("it is not UTF-8".to_owned()))?;
        let text = text.trim_end_matches(['\n', '\r']);
        if text.is_empty() {
            continue;
        }
        count += 1;
        if count > REQUESTS_MAX {
            return Err(RequestError::TooMany);
        }
        let (date, uid) = request(text, default).map_err(refused)?;
        requests.entry(date).or_default().push(uid);
    }
    Ok(requests)
}

fn request(text: &str, default: Option<Date>) -> Result<(Date, Uid), String> {
    let no_day = || "it names no day; write UID DAY, or give --date".to_owned();
    let uid = |text: &str| Uid::new(text).map_err(|error| error.to_string());
    if text.starts_with('{') {
        let row: Row = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let date = row.created_at.as_deref().map(day_of).transpose()?;
        return Ok((date.or(default).ok_or_else(no_day)?, uid(&row.uid)?));
    }
    match (text.rsplit_once(['\t', ' ']), default) {
        (_, Some(date)) => Ok((date, uid(text)?)),
        (Some((name, day)), None) => Ok((day_of(day)?, uid(name)?)),
        (None, None) => Err(no_day()),
    }
}
