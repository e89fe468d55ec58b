//! Damage by accident: whatever bit flips and wherever a shard ends, a read gives the right bytes or an error.

use bytes::Bytes;
use desfmt::FormatError;
use desfmt::v3::HEADER_LEN;

use crate::samples::{self, File, Sample};
use crate::walk::Opened;

/// Looks up and reads every file as a mount does, which checks no digest. What is found must be what was packed;
/// returns how many files could not be read.
fn assert_right_or_refused(object: &Bytes, sample: &Sample, damage: &dyn std::fmt::Display) -> usize {
    let Ok(opened) = Opened::new(object) else { return sample.files.len() };
    let refused = sample.files.iter().zip(0_u32..).filter(|(file, position)| {
        let read = read_file(&opened, file);
        if let Ok((found_at, content, metadata)) = &read {
            assert_eq!(found_at, position, "{}: {damage}", sample.what);
            assert_eq!(content, &file.content, "{}: {damage}", sample.what);
            assert_eq!(metadata, &file.metadata, "{}: {damage}", sample.what);
        }
        read.is_err()
    });
    refused.count()
}

fn read_file(opened: &Opened<'_>, file: &File) -> Result<(u32, Vec<u8>, Option<String>), FormatError> {
    let entry = opened.find(file.uid.as_str())?.expect("a file never vanishes");
    let (origin, ordinal) = file.birth.unwrap_or((0, entry.position));
    let born = opened.find_birth(origin, ordinal)?;
    assert_eq!(born.as_ref(), Some(&entry));
    Ok((entry.position, opened.content(&entry)?, opened.metadata(&entry)?))
}

#[test]
fn no_flipped_bit_changes_what_is_read() {
    let samples = samples::small();
    std::thread::scope(|scope| {
        for sample in &samples {
            scope.spawn(|| flip_every_bit(sample));
        }
    });
}

fn flip_every_bit(sample: &Sample) {
    assert_eq!(assert_right_or_refused(&sample.object, sample, &"no damage"), 0);
    let mut found = 0;
    for place in 0..sample.object.len() {
        for bit in 0..8 {
            let mut damaged = sample.object.to_vec();
            damaged[place] ^= 1 << bit;
            let refused =
                assert_right_or_refused(&Bytes::from(damaged), sample, &format_args!("bit {bit} of byte {place}"));
            found += usize::from(refused > 0);
        }
    }
    if !sample.files.is_empty() {
        // No lookup reads the header; everything else is somebody's.
        assert_eq!(found, (sample.object.len() - HEADER_LEN) * 8, "{}", sample.what);
    }
}

#[test]
fn no_cut_and_no_missing_or_added_byte_changes_what_is_read() {
    for sample in samples::small() {
        let object = &sample.object;
        for place in 0..object.len() {
            let (head, tail) = object.split_at(place);
            for (damage, damaged) in [
                ("cut after", head.to_vec()),
                ("cut before", tail.to_vec()),
                ("without", [head, &tail[1..]].concat()),
                ("one more at", [head, &[0], tail].concat()),
                ("twice from", [object, tail].concat()),
            ] {
                if damaged.len() == object.len() {
                    continue;
                }
                let damaged = Bytes::from(damaged);
                let read = Opened::new(&damaged);
                assert!(read.is_err(), "{}: {damage} byte {place}", sample.what);
            }
        }
    }
}
