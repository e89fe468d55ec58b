//! Inode numbers and directory positions: computed, never stored, so that a million files in the kernel's caches cost the
//! daemon nothing, and equal on every mount, after a remount and after a repack.
//!
//! ```text
//! 63        42 41        22 21         0
//! +-----------+------------+------------+
//! | day (22)  | serial (20)| ordinal(22)|   a file: where it was born
//! | day       | 0          | 0          |   a day
//! | 0         | 0          | 1          |   the root
//! +-----------+------------+------------+
//! ```

use desfmt::{Birth, Date};

/// Bits of a birth ordinal.
const ORDINAL_BITS: u32 = 22;
/// Bits of a birth serial number.
const SERIAL_BITS: u32 = 20;

/// What an inode number stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Node {
    /// The directory of days.
    Root,
    /// The directory of a day.
    Day(Date),
    /// A file of a day.
    File(Date, Birth),
}

impl Node {
    /// Its inode number: never 0, and 1 only for the root.
    pub fn number(self) -> u64 {
        match self {
            Self::Root => 1,
            Self::Day(date) => day_bits(date),
            Self::File(date, birth) => day_bits(date) | birth_bits(birth),
        }
    }

    /// What a number stands for; `None` where it stands for nothing.
    pub fn of_number(number: u64) -> Option<Self> {
        if number == 1 {
            return Some(Self::Root);
        }
        let date = Date::from_number(u32::try_from(number >> (ORDINAL_BITS + SERIAL_BITS)).ok()?)?;
        let low = number & ((1 << (ORDINAL_BITS + SERIAL_BITS)) - 1);
        if low == 0 {
            return Some(Self::Day(date));
        }
        birth_of_bits(low).map(|birth| Self::File(date, birth))
    }
}

/// A position in a directory: what readdir hands out with an entry, and resumes after. Never 0, which means the beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cookie(u64);

/// Where a listing of a directory goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resume<T> {
    /// With `.`.
    AtDot,
    /// With `..`.
    AtDotDot,
    /// With the first entry proper.
    AtFirst,
    /// After this entry.
    After(T),
}

impl Cookie {
    /// After `.`.
    pub const DOT: Self = Self(1);
    /// After `..`.
    pub const DOT_DOT: Self = Self(2);

    /// After a day, in the root.
    pub fn of_day(date: Date) -> Self {
        Self(u64::from(date.number()) + Self::DOT_DOT.0)
    }

    /// After a file, in its day. A serial number is at least 1, so this is far above [`Cookie::DOT_DOT`].
    pub fn of_birth(birth: Birth) -> Self {
        Self(birth_bits(birth))
    }

    /// The number that the kernel keeps.
    pub const fn number(self) -> u64 {
        self.0
    }

    /// Where a listing of the root goes on. A number that was never handed out goes on at the next that was.
    pub fn resume_root(number: u64) -> Resume<Date> {
        Self::resume(number, |number| {
            let day = u32::try_from(number.saturating_sub(Self::DOT_DOT.0)).unwrap_or(u32::MAX).min(Date::NUMBER_MAX);
            Date::from_number(day)
        })
    }

    /// Where a listing of a day goes on.
    pub fn resume_day(number: u64) -> Resume<Birth> {
        Self::resume(number, |number| {
            let highest = Birth { serial: Birth::SERIAL_MAX, ordinal: Birth::ORDINAL_MAX };
            if number > birth_bits(highest) { Some(highest) } else { birth_of_bits(number) }
        })
    }

    fn resume<T>(number: u64, entry: impl FnOnce(u64) -> Option<T>) -> Resume<T> {
        match number {
            0 => Resume::AtDot,
            1 => Resume::AtDotDot,
            2 => Resume::AtFirst,
            number => entry(number).map_or(Resume::AtFirst, Resume::After),
        }
    }
}

fn day_bits(date: Date) -> u64 {
    u64::from(date.number()) << (ORDINAL_BITS + SERIAL_BITS)
}

fn birth_bits(birth: Birth) -> u64 {
    debug_assert!(birth.serial >= 1 && birth.serial <= Birth::SERIAL_MAX && birth.ordinal <= Birth::ORDINAL_MAX);
    (u64::from(birth.serial) << ORDINAL_BITS) | u64::from(birth.ordinal)
}

fn birth_of_bits(bits: u64) -> Option<Birth> {
    let serial = u32::try_from(bits >> ORDINAL_BITS).ok()?;
    let ordinal = u32::try_from(bits & u64::from(Birth::ORDINAL_MAX)).ok()?;
    (1..=Birth::SERIAL_MAX).contains(&serial).then_some(Birth { serial, ordinal })
}

const _: () = assert!(Birth::ORDINAL_MAX == (1 << ORDINAL_BITS) - 1 && Birth::SERIAL_MAX == (1 << SERIAL_BITS) - 1);
const _: () = assert!(Date::NUMBER_MAX < 1 << 22);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn date(text: &str) -> Date {
        text.parse().unwrap()
    }

    fn any_birth() -> impl Strategy<Value = Birth> {
        (1..=Birth::SERIAL_MAX, 0..=Birth::ORDINAL_MAX).prop_map(|(serial, ordinal)| Birth { serial, ordinal })
    }

    #[test]
    fn the_root_is_inode_1_and_nothing_is_inode_0() {
        assert_eq!(Node::Root.number(), 1);
        assert_eq!(Node::of_number(1), Some(Node::Root));
        assert_eq!(Node::of_number(0), None);
        assert_eq!(Node::of_number(2), None);
        assert_eq!(Node::of_number(u64::MAX), None);
    }

    #[test]
    fn the_ends_of_the_range_keep_apart() {
        let last = Birth { serial: Birth::SERIAL_MAX, ordinal: Birth::ORDINAL_MAX };
        assert_eq!(Node::File(date("99991231"), last).number() >> 42, u64::from(Date::NUMBER_MAX));
        assert_ne!(Node::File(date("00010101"), last).number(), Node::Day(date("00010102")).number());
    }

    #[test]
    fn an_ordinal_without_a_serial_stands_for_nothing() {
        assert_eq!(Node::of_number(Node::Day(date("20240115")).number() | 5), None);
    }

    #[test]
    fn a_listing_resumes_after_the_special_entries() {
        assert_eq!(Cookie::resume_root(0), Resume::AtDot);
        assert_eq!(Cookie::resume_day(Cookie::DOT.number()), Resume::AtDotDot);
        assert_eq!(Cookie::resume_day(Cookie::DOT_DOT.number()), Resume::AtFirst);
        assert_eq!(Cookie::resume_root(3), Resume::After(date("00010101")));
        assert_eq!(Cookie::resume_root(u64::MAX), Resume::After(date("99991231")));
        assert_eq!(Cookie::resume_day(3), Resume::AtFirst);
    }

    proptest! {
        #[test]
        fn a_file_is_found_again_by_its_number(day in 1..=Date::NUMBER_MAX, birth in any_birth()) {
            let node = Node::File(Date::from_number(day).unwrap(), birth);
            prop_assert_eq!(Node::of_number(node.number()), Some(node));
            let directory = Node::Day(Date::from_number(day).unwrap());
            prop_assert_eq!(Node::of_number(directory.number()), Some(directory));
        }

        #[test]
        fn a_number_stands_for_at_most_one_node(number: u64) {
            if let Some(node) = Node::of_number(number) {
                prop_assert_eq!(node.number(), number);
            }
        }

        #[test]
        fn positions_order_like_births_and_resume_after_them(one in any_birth(), other in any_birth()) {
            prop_assert_eq!(Cookie::of_birth(one).number() < Cookie::of_birth(other).number(), one < other);
            prop_assert_eq!(Cookie::resume_day(Cookie::of_birth(one).number()), Resume::After(one));
        }

        #[test]
        fn every_day_resumes_after_itself(day in 1..=Date::NUMBER_MAX) {
            let date = Date::from_number(day).unwrap();
            prop_assert_eq!(Cookie::resume_root(Cookie::of_day(date).number()), Resume::After(date));
        }
    }
}
