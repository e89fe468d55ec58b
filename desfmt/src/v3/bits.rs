//! Numbers of a fixed count of bits each, one after the other, lowest bit first.

/// How many bits a number needs.
pub(super) const fn width(value: u64) -> u32 {
    u64::BITS.saturating_sub(value.leading_zeros())
}

/// How many bytes `count` numbers of `width` bits take.
pub(super) fn packed_len(count: usize, width: u32) -> usize {
    count.saturating_mul(usize::try_from(width).unwrap_or(usize::MAX)).div_ceil(8)
}

/// Appends numbers below `2^width`.
pub(super) fn pack(out: &mut Vec<u8>, width: u32, values: impl Iterator<Item = u64>) {
    let (mut held, mut held_bits) = (0_u128, 0_u32);
    for value in values {
        held |= u128::from(value) << held_bits;
        held_bits = held_bits.saturating_add(width);
        while held_bits >= 8 {
            out.push(held.to_le_bytes()[0]);
            held >>= 8;
            held_bits = held_bits.saturating_sub(8);
        }
    }
    if held_bits > 0 {
        out.push(held.to_le_bytes()[0]);
    }
}

/// The `count` numbers of `width` bits, 0 to 64, in `bytes`, which must be as many as [`packed_len`] says.
pub(super) fn unpack(bytes: &[u8], width: u32, count: usize, mut take: impl FnMut(u64)) {
    let mask = if width >= 64 { u64::MAX } else { (1_u64 << width).wrapping_sub(1) };
    let step = usize::try_from(width).unwrap_or(64);
    let mut bit = 0_usize;
    for _ in 0..count {
        let start = bit >> 3;
        let shift = u32::from(bit.to_le_bytes()[0] & 7);
        let mut value = load(bytes, start).wrapping_shr(shift);
        if width > 57 && shift.wrapping_add(width) > 64 {
            let above = bytes.get(start.wrapping_add(8)).copied().unwrap_or(0);
            value |= u64::from(above).wrapping_shl(64_u32.wrapping_sub(shift));
        }
        take(value & mask);
        bit = bit.wrapping_add(step);
    }
}

/// Eight bytes from `start`, zeros where there are none.
#[inline]
pub(super) fn load(bytes: &[u8], start: usize) -> u64 {
    let rest = bytes.get(start..).unwrap_or(&[]);
    match rest.first_chunk() {
        Some(eight) => u64::from_le_bytes(*eight),
        None => load_last(rest),
    }
}

#[cold]
fn load_last(rest: &[u8]) -> u64 {
    rest.iter().rev().fold(0, |value, byte| (value << 8) | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_of_any_width_read_back(bits in 0_u32..=64, seeds in proptest::collection::vec(any::<u64>(), 0..100)) {
            let mask = if bits == 64 { u64::MAX } else { (1 << bits) - 1 };
            let values: Vec<u64> = seeds.iter().map(|seed| seed & mask).collect();
            let mut bytes = Vec::new();

            pack(&mut bytes, bits, values.iter().copied());

            prop_assert_eq!(bytes.len(), packed_len(values.len(), bits));
            let mut unpacked = Vec::new();
            unpack(&bytes, bits, values.len(), |value| unpacked.push(value));
            prop_assert_eq!(unpacked, values);
        }
    }

    #[test]
    fn the_width_of_a_number_is_the_place_of_its_highest_bit() {
        assert_eq!((width(0), width(1), width(255), width(256), width(u64::MAX)), (0, 1, 8, 9, 64));
    }
}
