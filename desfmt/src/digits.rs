//! Which characters the ancestor takes for digits, so that its routing is met exactly.
//!
//! Its uids are numeric when every character has the Unicode property `Numeric_Type` Decimal or Digit.
//! Decimals come in runs of ten and have a value; the others (superscripts, circled digits) pass its test but
//! cannot be read as a number, so a uid that holds one cannot be routed.
//!
//! Source: Unicode 14.0, `extracted/DerivedNumericType.txt` (the tables of the ancestor's interpreter).

/// The zero of each run of ten decimals, ascending.
const DECIMAL_ZEROS: [u32; 66] = [
    0x30, 0x660, 0x6f0, 0x7c0, 0x966, 0x9e6, 0xa66, 0xae6, 0xb66, 0xbe6, 0xc66, 0xce6, 0xd66, 0xde6, 0xe50, 0xed0,
    0xf20, 0x1040, 0x1090, 0x17e0, 0x1810, 0x1946, 0x19d0, 0x1a80, 0x1a90, 0x1b50, 0x1bb0, 0x1c40, 0x1c50, 0xa620,
    0xa8d0, 0xa900, 0xa9d0, 0xa9f0, 0xaa50, 0xabf0, 0xff10, 0x104a0, 0x10d30, 0x11066, 0x110f0, 0x11136, 0x111d0,
    0x112f0, 0x11450, 0x114d0, 0x11650, 0x116c0, 0x11730, 0x118e0, 0x11950, 0x11c50, 0x11d50, 0x11da0, 0x16a60,
    0x16ac0, 0x16b50, 0x1d7ce, 0x1d7d8, 0x1d7e2, 0x1d7ec, 0x1d7f6, 0x1e140, 0x1e2f0, 0x1e950, 0x1fbf0,
];

/// Inclusive ranges of characters that are digits without being decimals, ascending.
const OTHER_DIGITS: [(u32, u32); 20] = [
    (0xb2, 0xb3),
    (0xb9, 0xb9),
    (0x1369, 0x1371),
    (0x19da, 0x19da),
    (0x2070, 0x2070),
    (0x2074, 0x2079),
    (0x2080, 0x2089),
    (0x2460, 0x2468),
    (0x2474, 0x247c),
    (0x2488, 0x2490),
    (0x24ea, 0x24ea),
    (0x24f5, 0x24fd),
    (0x24ff, 0x24ff),
    (0x2776, 0x277e),
    (0x2780, 0x2788),
    (0x278a, 0x2792),
    (0x10a40, 0x10a43),
    (0x10e60, 0x10e68),
    (0x11052, 0x1105a),
    (0x1f100, 0x1f10a),
];

/// What a character is to the ancestor's test for numeric uids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Digit {
    /// A decimal digit and its value, 0 to 9.
    Decimal(u8),
    /// A digit that no number can be read from, such as `\u{b2}`.
    Unreadable,
    /// Anything else.
    No,
}

/// Classifies one character.
pub(crate) fn classify(character: char) -> Digit {
    let code = u32::from(character);
    let runs = DECIMAL_ZEROS.partition_point(|zero| *zero <= code);
    let value = runs.checked_sub(1).and_then(|run| DECIMAL_ZEROS.get(run)).and_then(|zero| code.checked_sub(*zero));
    if let Some(value) = value.and_then(|value| u8::try_from(value).ok())
        && value < 10
    {
        return Digit::Decimal(value);
    }
    let after = OTHER_DIGITS.partition_point(|(first, _)| *first <= code);
    match after.checked_sub(1).and_then(|range| OTHER_DIGITS.get(range)) {
        Some((_, last)) if code <= *last => Digit::Unreadable,
        Some(_) | None => Digit::No,
    }
}
