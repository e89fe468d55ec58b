//! Values on the wire: times, days and uids in the server's own binary form, so that nothing is rounded on the way.

use std::error::Error;

use desfmt::{Date, Timestamp};
use postgres::types::private::BytesMut;
use postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};

type AnyError = Box<dyn Error + Sync + Send>;

/// Microseconds from the Unix epoch to that of the server, 2000-01-01.
const EPOCH_MICROS: i64 = 946_684_800_000_000;

/// Number of the day 2000-01-01.
const EPOCH_DAY: i64 = 730_120;

/// A `timestamptz`, or a `timestamp` as if it were UTC.
#[derive(Debug, Clone, Copy)]
pub(super) struct SqlTime(pub(super) Timestamp);

impl<'a> FromSql<'a> for SqlTime {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, AnyError> {
        let micros = i64::from_be_bytes(raw.try_into()?);
        // The infinities stay at the ends of the range, where no day is.
        let micros = match micros {
            i64::MIN | i64::MAX => micros,
            finite => finite.saturating_add(EPOCH_MICROS),
        };
        Ok(Self(Timestamp::from_micros(micros)))
    }

    fn accepts(ty: &Type) -> bool {
        matches!(*ty, Type::TIMESTAMPTZ | Type::TIMESTAMP)
    }
}

impl ToSql for SqlTime {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, AnyError> {
        let micros = self.0.micros().saturating_sub(EPOCH_MICROS);
        out.extend_from_slice(&micros.to_be_bytes());
        Ok(IsNull::No)
    }

    fn accepts(ty: &Type) -> bool {
        <Self as FromSql<'_>>::accepts(ty)
    }

    to_sql_checked!();
}

/// A `date`.
#[derive(Debug, Clone, Copy)]
pub(super) struct SqlDay(pub(super) Date);

impl<'a> FromSql<'a> for SqlDay {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, AnyError> {
        let days = i64::from(i32::from_be_bytes(raw.try_into()?)).saturating_add(EPOCH_DAY);
        let day = u32::try_from(days).ok().and_then(Date::from_number);
        day.map(Self).ok_or_else(|| "a day before year 1 or after year 9999".into())
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::DATE
    }
}

impl ToSql for SqlDay {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, AnyError> {
        let days = i32::try_from(i64::from(self.0.number()).saturating_sub(EPOCH_DAY))?;
        out.extend_from_slice(&days.to_be_bytes());
        Ok(IsNull::No)
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::DATE
    }

    to_sql_checked!();
}

/// A uid as the type that its column has.
#[derive(Debug, Clone, Copy)]
pub(super) struct SqlUid<'a>(pub(super) &'a str);

impl ToSql for SqlUid<'_> {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, AnyError> {
        match *ty {
            Type::INT8 => out.extend_from_slice(&self.0.parse::<i64>()?.to_be_bytes()),
            Type::INT4 => out.extend_from_slice(&self.0.parse::<i32>()?.to_be_bytes()),
            Type::UUID => out.extend_from_slice(&uuid_bytes(self.0).ok_or("not a UUID")?),
            _ => out.extend_from_slice(self.0.as_bytes()),
        }
        Ok(IsNull::No)
    }

    fn accepts(ty: &Type) -> bool {
        matches!(*ty, Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::INT8 | Type::INT4 | Type::UUID)
    }

    to_sql_checked!();
}

/// The bytes of hexadecimal digits, with or without hyphens.
pub(super) fn hex_bytes(text: &str) -> Option<Vec<u8>> {
    let digits = text.strip_prefix("\\x").unwrap_or(text);
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let digits = digits.bytes().filter(|byte| *byte != b'-').map(digit).collect::<Option<Vec<u8>>>()?;
    let (pairs, rest) = digits.as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    Some(pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

fn uuid_bytes(text: &str) -> Option<[u8; 16]> {
    hex_bytes(text)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_days_survive_the_wire() {
        for text in ["1969-12-31T23:59:59.999999Z", "2000-01-01T00:00:00Z", "2262-04-11T00:00:00.000001Z"] {
            let time = desfmt::instant::parse_created_at(text).unwrap().or_utc();
            let mut out = BytesMut::new();
            SqlTime(time).to_sql(&Type::TIMESTAMPTZ, &mut out).unwrap();
            assert_eq!(SqlTime::from_sql(&Type::TIMESTAMPTZ, &out).unwrap().0, time, "{text}");
        }
        for text in ["00010101", "19700101", "20240229", "99991231"] {
            let day: Date = text.parse().unwrap();
            let mut out = BytesMut::new();
            SqlDay(day).to_sql(&Type::DATE, &mut out).unwrap();
            assert_eq!(SqlDay::from_sql(&Type::DATE, &out).unwrap().0, day);
        }
        let mut out = BytesMut::new();
        SqlDay("20000101".parse().unwrap()).to_sql(&Type::DATE, &mut out).unwrap();
        assert_eq!(out.as_ref(), [0; 4]);
    }

    #[test]
    fn uids_take_the_type_of_their_column() {
        for (uid, ty, bytes) in [
            ("-7", Type::INT8, (-7_i64).to_be_bytes().to_vec()),
            ("7", Type::INT4, 7_i32.to_be_bytes().to_vec()),
            ("a/b", Type::TEXT, b"a/b".to_vec()),
            ("00000000-0000-0000-0000-0000000000ff", Type::UUID, [vec![0; 15], vec![255]].concat()),
        ] {
            let mut out = BytesMut::new();
            SqlUid(uid).to_sql(&ty, &mut out).unwrap();
            assert_eq!(out.as_ref(), bytes, "{uid}");
        }
        assert!(SqlUid("x").to_sql(&Type::INT8, &mut BytesMut::new()).is_err());
    }

    #[test]
    fn checksums_are_read_as_digits() {
        assert_eq!(hex_bytes("\\x00fF"), Some(vec![0, 255]));
        assert_eq!(hex_bytes("0"), None);
        assert_eq!(hex_bytes("zz"), None);
    }
}
