//! 100,000 random mutations of larger shards, most of them with the checksums made right again.

use bytes::Bytes;
use desfmt::v3::{FOOTER_LEN, PageNumber};

use crate::forge::{self, Parts};
use crate::random::Random;
use crate::samples::{self, Sample};
use crate::walk::Opened;

/// How often each of the four large samples is mutated, in each of three ways.
const BLIND: usize = 7_000;
const SEALED: usize = 6_000;
const FORGED: usize = 12_000;
const _: () = assert!(4 * (BLIND + SEALED + FORGED) == 100_000);

/// Runs a test for all large samples, on as many threads as there are processors.
fn for_each_large_sample(run: impl Fn(&Sample, Random) + Sync) {
    let samples = samples::large();
    std::thread::scope(|scope| {
        for (sample, seed) in samples.iter().zip(1..) {
            let run = &run;
            scope.spawn(move || run(sample, Random(seed)));
        }
    });
}

#[test]
fn random_damage_never_changes_what_is_read() {
    for_each_large_sample(|sample, mut random| {
        for round in 0..BLIND {
            let mut damaged = sample.object.to_vec();
            random.mutate(&mut damaged);
            assert_reads_are_right(&Bytes::from(damaged), sample, &mut random, round);
        }
    });
}

/// Reads a few files: each is right, or refused.
fn assert_reads_are_right(object: &Bytes, sample: &Sample, random: &mut Random, round: usize) {
    let Ok(opened) = Opened::new(object) else { return };
    for _ in 0..4 {
        let file = &sample.files[random.below(sample.files.len())];
        let Ok(entry) = opened.find(file.uid.as_str()) else { continue };
        let entry = entry.expect("a file never vanishes");
        if let Ok(content) = opened.content(&entry) {
            assert!(content == file.content, "{}, round {round}: {:?}", sample.what, file.uid);
        }
        if let Ok(metadata) = opened.metadata(&entry) {
            assert_eq!(metadata, file.metadata, "{}, round {round}", sample.what);
        }
    }
}

#[test]
fn random_damage_under_right_checksums_of_the_tail_is_survived() {
    for_each_large_sample(|sample, mut random| {
        let body_len = sample.object.len() - FOOTER_LEN;
        let tail = usize::try_from(forge::sections_of(&sample.object[body_len..]).dictionary).unwrap();
        for _ in 0..SEALED {
            let mut object = sample.object.to_vec();
            if random.below(3) == 0 {
                // Any field of the footer but magic, version and flags.
                let place = body_len + 20 + random.below(FOOTER_LEN - 32);
                let (value, len) = (random.number().to_le_bytes(), 1 << random.below(4));
                object[place..place + len].copy_from_slice(&value[..len]);
                let footer = object.last_chunk_mut().unwrap();
                forge::seal_footer(footer);
            } else {
                let place = tail + random.below(body_len - tail);
                object[place] = random.next().to_le_bytes()[0];
                forge::seal(&mut object);
            }
            poke(&Bytes::from(object), sample, &mut random);
        }
    });
}

#[test]
fn random_damage_under_right_checksums_everywhere_is_survived() {
    for_each_large_sample(|sample, mut random| {
        let mut parts = Parts::of(&sample.object).unwrap();
        let mut directory = parts.directory();
        let mut opened = 0;
        for _ in 0..FORGED {
            let touched = forge_once(&mut parts, &mut directory, &mut random);
            let object = parts.assemble_with(&directory);
            if poke(&object, sample, &mut random) {
                opened += 1;
            }
            touched.undo(&mut parts, &mut directory);
        }
        assert!(opened > FORGED / 4, "{}: only {opened} forged shards could be opened at all", sample.what);
    });
}

/// What was changed, so that it can be put back: copying all parts each time would take most of the time.
enum Touched {
    Index(usize, Vec<u8>),
    Cold(usize, Vec<u8>),
    FrameTable(usize, Vec<u8>),
    Frame(usize, Vec<u8>),
    Dictionary(Vec<u8>),
    Nothing,
}

impl Touched {
    fn undo(self, parts: &mut Parts, directory: &mut Vec<u8>) {
        match self {
            Self::Index(place, before) => parts.index[place] = before,
            Self::Cold(place, before) => parts.cold[place] = before,
            Self::FrameTable(place, before) => parts.frame_table[place] = before,
            Self::Frame(place, before) => parts.frames[place] = before,
            Self::Dictionary(before) => parts.dictionary = before,
            Self::Nothing => {}
        }
        *directory = parts.directory();
    }
}

fn forge_once(parts: &mut Parts, directory: &mut Vec<u8>, random: &mut Random) -> Touched {
    let touched = match random.below(8) {
        0 | 1 => {
            let place = random.below(parts.index.len());
            let before = parts.index[place].clone();
            random.mutate(&mut parts.index[place]);
            Touched::Index(place, before)
        }
        2 => {
            let place = random.below(parts.cold.len());
            let before = parts.cold[place].clone();
            random.mutate(&mut parts.cold[place]);
            Touched::Cold(place, before)
        }
        3 => {
            let place = random.below(parts.frame_table.len());
            let before = parts.frame_table[place].clone();
            random.mutate(&mut parts.frame_table[place]);
            Touched::FrameTable(place, before)
        }
        4 | 5 => {
            let place = random.below(parts.frames.len());
            let before = parts.frames[place].clone();
            parts.frames[place] = forge_frame(place, &before, random);
            Touched::Frame(place, before)
        }
        6 => {
            let before = parts.dictionary.clone();
            random.mutate(&mut parts.dictionary);
            Touched::Dictionary(before)
        }
        _ => {
            random.mutate(directory);
            return Touched::Nothing;
        }
    };
    *directory = parts.directory();
    touched
}

/// The same frame with its payload or its plain length changed and its checksum right. Its length stays, so that the
/// frame table still finds the others.
fn forge_frame(number: usize, frame: &[u8], random: &mut Random) -> Vec<u8> {
    let payload_len = frame.len() - 8;
    let mut payload = frame[..payload_len].to_vec();
    let mut field = u32::from_le_bytes(frame[payload_len..payload_len + 4].try_into().unwrap());
    if random.below(3) == 0 {
        field = match random.below(3) {
            0 => field ^ 1 << 31,
            1 => field & 1 << 31 | u32::try_from(random.number() & 0x1f_ffff).unwrap(),
            _ => u32::try_from(random.number() >> 32).unwrap(),
        };
    } else {
        random.mutate(&mut payload);
        payload.resize(payload_len, 0);
    }
    forge::frame(u32::try_from(number).unwrap(), &payload, field)
}

/// Opens a shard and reads here and there. False where it could not even be opened.
fn poke(object: &Bytes, sample: &Sample, random: &mut Random) -> bool {
    let Ok(opened) = Opened::new(object) else { return false };
    let any_page = |count: u32, random: &mut Random| {
        PageNumber(u32::try_from(random.below(usize::try_from(count).unwrap().max(1))).unwrap())
    };
    let page = any_page(opened.index.index_pages(), random);
    if let Ok(decoded) = opened.index_page(page) {
        for entry in decoded.entries().step_by(400) {
            assert_eq!(decoded.find(entry.uid.as_str()).as_ref(), Some(&entry));
            drop(opened.find_birth(entry.origin, entry.ordinal));
            drop(opened.metadata(&entry));
            if let Ok(content) = opened.content(&entry) {
                assert!(u64::try_from(content.len()).unwrap() <= entry.len);
            }
        }
    }
    if let Ok(frames) = opened.frame_page(any_page(opened.index.frame_pages(), random)) {
        for frame in (0..frames.len()).step_by(211).filter_map(|place| frames.frame(place)) {
            assert!(frame.stored.end <= opened.index.footer().frames_range().end);
        }
    }
    for _ in 0..2 {
        let file = &sample.files[random.below(sample.files.len())];
        if let Ok(Some(entry)) = opened.find(file.uid.as_str()) {
            assert_eq!(entry.uid, file.uid);
            drop(opened.content(&entry));
        }
    }
    true
}
