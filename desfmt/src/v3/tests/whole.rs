//! Whatever is packed reads back, by uid, by position and by birth, whole and in parts.

use bytes::Bytes;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::building::{DAY_START, File, Opened, ShardBuilder, file};
use crate::ids::{Birth, ShardId};
use crate::time::Timestamp;
use crate::uid::Uid;
use crate::v3::limits::SLOT_LEN;
use crate::v3::{
    Codec, Dictionary, Encoding, FrameEncoder, FrameSize, Lineage, Mtime, PageNumber, Parent, ShardIndex, check_object,
};

/// Contents of which some are equal, some empty, some incompressible.
fn content() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        Just(Vec::new()),
        (0_u8..3, 1_usize..40_000).prop_map(|(byte, len)| vec![byte; len]),
        vec(any::<u8>(), 1..3_000),
        "[a-f ]{1,300}".prop_map(String::into_bytes),
    ]
}

fn metadata() -> impl Strategy<Value = Option<String>> {
    prop_oneof![4 => Just(None), 1 => "[a-z\u{e9}]{0,20}".prop_map(|text| Some(format!("{{\"user.note\":\"{text}\"}}")))]
}

fn files(count_max: usize) -> impl Strategy<Value = Vec<File>> {
    let uid = prop_oneof!["[a-c]{1,6}", "\\PC{1,12}", "[0-9a-f]{32}", "x{200,300}"];
    let facts = (content(), any::<i64>(), any::<i64>(), 0_u32..1_000_000_000, metadata());
    btree_map(uid, facts, 0..count_max).prop_map(|files| {
        let file = |(uid, (content, created_at, seconds, nanos, metadata)): (String, _)| File {
            uid: Uid::new(uid).unwrap(),
            content,
            created_at: Timestamp::from_micros(created_at),
            mtime: Mtime { seconds, nanos },
            metadata,
            birth: None,
        };
        files.into_iter().map(file).collect()
    })
}

fn builder() -> impl Strategy<Value = ShardBuilder> {
    let raw = Dictionary::from_bytes(b"abcdef fedcba, and what files may have in common").unwrap();
    let coded = prop_oneof![
        Just((Codec::Stored, None)),
        Just((Codec::Lz4, None)),
        Just((Codec::Zstd, None)),
        Just((Codec::Zstd, Some(raw))),
    ];
    let size = prop_oneof![Just(0), Just(8_192), 1_u64..100_000];
    (coded, size).prop_map(|((codec, dictionary), size)| ShardBuilder {
        codec,
        dictionary,
        frame_size: FrameSize::new(size).unwrap(),
        ..ShardBuilder::default()
    })
}

fn assert_all_found(opened: &Opened, files: &[File]) {
    for (position, file) in files.iter().enumerate() {
        let position = u32::try_from(position).unwrap();
        let entry = opened.find(file.uid.as_str()).unwrap();
        assert_eq!((entry.position, &entry.uid), (position, &file.uid));
        assert_eq!((entry.created_at, entry.mtime), (file.created_at, file.mtime));
        let (origin, ordinal) = file.birth.unwrap_or((0, position));
        assert_eq!((entry.origin, entry.ordinal), (origin, ordinal));
        assert_eq!(opened.find_birth(origin, ordinal), Some(entry.clone()));
        assert_eq!(opened.read(&entry, 0, u64::MAX), file.content);
        let (from, to) = (file.content.len() / 3, file.content.len() / 2);
        let part = opened.read(&entry, u64::try_from(from).unwrap(), u64::try_from(to - from).unwrap());
        assert_eq!(part, file.content[from..to]);
        assert_eq!(opened.metadata(&entry), file.metadata);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn any_files_read_back(files in files(40), builder in builder(), missing in "[a-c]{1,6}") {
        let object = builder.build(&files);

        check_object(&object).unwrap();
        let opened = Opened::new(&object);
        assert_all_found(&opened, &files);
        if files.iter().all(|file| file.uid.as_str() != missing) {
            prop_assert_eq!(opened.find(&missing), None);
        }
        let uids = files.iter().map(|file| file.uid.clone()).collect::<Vec<_>>();
        prop_assert_eq!(opened.index.first_uid(), uids.first().cloned());
        prop_assert_eq!(opened.index.last_uid(), uids.last());
    }

    #[test]
    fn the_same_files_give_the_same_body(files in files(20), builder in builder()) {
        let (bytes, body) = builder.build_body(&files);
        let (again, body_again) = builder.build_body(&files);

        prop_assert_eq!(&bytes, &again);
        prop_assert_eq!(body.digest(), blake3::hash(&bytes));
        prop_assert_eq!(body.shard_id(), body_again.shard_id());
        let name = super::building::name();
        let object = [bytes, body.footer_bytes(&name).to_vec()].concat();
        prop_assert_eq!(body.object_digest(&name), blake3::hash(&object));
    }

    #[test]
    fn births_survive_drops_and_merges(
        mut files in files(60),
        births in vec((0_u16..4, 1_u32..1_000), 60),
    ) {
        let mut next = [0_u32; 4];
        for (file, (origin, step)) in files.iter_mut().zip(births) {
            let ordinal = &mut next[usize::from(origin)];
            *ordinal += step;
            file.birth = Some((origin, *ordinal));
        }
        let lineage = Lineage { serials: vec![5, 9, 2, 1_048_575], parents: Vec::new() };
        let opened = Opened::new(&ShardBuilder { lineage: lineage.clone(), ..ShardBuilder::default() }.build(&files));

        prop_assert_eq!(opened.index.lineage(), &lineage);
        assert_all_found(&opened, &files);
        for origin in 0..4 {
            for ordinal in (0..60_000).step_by(97) {
                let born = files.iter().find(|file| file.birth == Some((origin, ordinal)));
                prop_assert_eq!(opened.find_birth(origin, ordinal).map(|entry| entry.uid), born.map(|file| file.uid.clone()));
            }
        }
        prop_assert_eq!(opened.index.page_of_birth(4, 0), None);
    }
}

/// Many small files: several index pages and, with one file a frame, several pages of the frame table.
fn many_files() -> Vec<File> {
    let numbers = 0..2_500_u32;
    let content = |number: u32| format!("content of {}", number % 2_000).into_bytes();
    numbers.map(|number| file(&format!("{:08x}", number.wrapping_mul(1_664_525)), &content(number))).collect()
}

fn sorted(mut files: Vec<File>) -> Vec<File> {
    files.sort_by(|left, right| left.uid.cmp(&right.uid));
    files
}

#[test]
fn a_shard_of_several_pages_reads_back() {
    let mut files = sorted(many_files());
    for (number, file) in files.iter_mut().enumerate() {
        file.created_at = Timestamp::from_micros(DAY_START + i64::try_from(number).unwrap() * 34_000_000);
    }
    let builder = ShardBuilder { frame_size: FrameSize::ONE_FILE, ..ShardBuilder::default() };
    let opened = Opened::new(&builder.build(&files));

    assert_eq!((opened.index.index_pages(), opened.index.frame_pages()), (5, 2));
    assert_all_found(&opened, &files);
    assert_eq!(opened.index.page_of_position(2_499), Some(PageNumber(4)));
    assert_eq!(opened.index.page_of_position(2_500), None);
    assert_eq!(opened.find("00000000").map(|entry| entry.position), Some(0));
    for missing in ["", "0", "00000001", "7f", "ffffffffff", "zzz"] {
        assert_eq!(opened.find(missing), None, "{missing}");
    }
    let walked: Vec<Uid> = (0..5)
        .flat_map(|page| opened.page(PageNumber(page)).entries().map(|entry| entry.uid).collect::<Vec<_>>())
        .collect();
    assert_eq!(walked, files.iter().map(|file| file.uid.clone()).collect::<Vec<_>>());
    assert_eq!(opened.page(PageNumber(1)).lower_bound(files[600].uid.as_str()), 88);
}

#[test]
fn births_of_many_pages_are_found_after_half_of_them_are_dropped() {
    let files = sorted(many_files()).into_iter().enumerate();
    let birth = |number: usize| (u16::try_from(number / 7 % 2).unwrap(), u32::try_from(number).unwrap());
    let kept = files.filter(|(number, _)| number % 3 != 0);
    let files: Vec<File> = kept.map(|(number, file)| File { birth: Some(birth(number)), ..file }).collect();
    let parent = Parent { shard: ShardId::from_bytes([3; 16]), body_digest: blake3::hash(b"parent") };
    let lineage = Lineage { serials: vec![17, 4], parents: vec![parent] };
    let object = ShardBuilder { lineage: lineage.clone(), ..ShardBuilder::default() }.build(&files);

    check_object(&object).unwrap();
    let opened = Opened::new(&object);
    assert_eq!(opened.index.lineage(), &lineage);
    assert_all_found(&opened, &files);
    for number in (0..2_500).step_by(3) {
        let (origin, ordinal) = birth(number);
        assert_eq!(opened.find_birth(origin, ordinal), None);
    }
    assert_eq!(opened.find_birth(1, Birth::ORDINAL_MAX), None);
}

#[test]
fn equal_contents_share_their_bytes() {
    let files: Vec<File> =
        (0..100).map(|number| file(&format!("{number:03}"), &vec![b'0' + number % 2; 50_000])).collect();
    let object = ShardBuilder { codec: Codec::Stored, ..ShardBuilder::default() }.build(&files);

    let report = check_object(&object).unwrap();

    assert_eq!((report.frames, report.plain_len, report.content_len), (2, 100_000, 5_000_000));
    assert!(object.len() < 110_000);
}

#[test]
fn a_large_file_is_read_one_frame_at_a_time() {
    let pattern: Vec<u8> = (0..3 * (1_u32 << 20) + 12_345).map(|place| (place / 251).to_le_bytes()[0]).collect();
    let files = [file("a", b"small"), file("b", &pattern), file("c", b"after")];
    for codec in [Codec::Stored, Codec::Zstd, Codec::Lz4] {
        let object = ShardBuilder { codec, ..ShardBuilder::default() }.build(&files);
        let opened = Opened::new(&object);
        assert_all_found(&opened, &files);
        let entry = opened.find("b").unwrap();
        assert_eq!(entry.offset % SLOT_LEN, 0);
        assert_eq!(opened.read(&entry, 2_097_150, 4), pattern[2_097_150..2_097_154]);
        assert_eq!(check_object(&object).unwrap().frames, 6);
    }
}

#[test]
fn a_dictionary_makes_small_frames_smaller_and_is_kept_in_the_shard() {
    let letter = |number: u32| {
        let greeting = "Dear customer, we confirm the receipt of your order and will ship it to the address below. ";
        format!("{greeting}Order {number}, {} pieces, reference {:x}", number % 7, number.wrapping_mul(2_654_435_761))
    };
    let files: Vec<File> = (0..600).map(|number| file(&format!("{number:04}"), letter(number).as_bytes())).collect();
    let samples: Vec<&[u8]> = files.iter().map(|file| file.content.as_slice()).collect();
    let dictionary = Dictionary::train(&samples, Dictionary::LEN_DEFAULT).unwrap();
    let plain = ShardBuilder { frame_size: FrameSize::ONE_FILE, ..ShardBuilder::default() };
    let trained = ShardBuilder { dictionary: Some(dictionary.clone()), ..plain.clone() };

    let (without, with) = (Opened::new(&plain.build(&files)), Opened::new(&trained.build(&files)));

    let stored = |opened: &Opened| opened.index.footer().stored_len();
    assert!(stored(&with) * 2 < stored(&without), "{} against {}", stored(&with), stored(&without));
    assert_eq!(with.index.dictionary(), Some(dictionary));
    assert_eq!(without.index.dictionary(), None);
    assert_all_found(&with, &files);
    check_object(&with.object).unwrap();
}

#[test]
fn frames_of_any_length_have_the_dictionary_and_not_its_number() {
    let line = |number: u32| {
        format!("2024-03-01T12:00:00Z service[{number}]: request {:x} took {number} ms\n", number * 7_919)
    };
    let samples: Vec<String> = (0..800).map(|first| (first..first + 9).map(line).collect()).collect();
    let samples: Vec<&[u8]> = samples.iter().map(String::as_bytes).collect();
    let trained = Dictionary::train(&samples, Dictionary::LEN_DEFAULT).unwrap();
    let plain: String = (0..20_000).map(|number| line(number * 3)).collect();
    assert!(zstd::zstd_safe::get_dict_id_from_dict(trained.as_bytes()).is_some());

    let mut decompressor = zstd::bulk::Decompressor::with_dictionary(trained.as_bytes()).unwrap();
    for level in [1, 3, 19] {
        let encoder = FrameEncoder::new(Codec::Zstd, level, Some(&trained)).unwrap();
        for len in [1_000, (16 << 10) - 1, 16 << 10, 100_000, 1 << 20] {
            let plain = &plain.as_bytes()[..len];

            let frame = encoder.encode(plain).unwrap();

            assert_eq!(frame.encoding(), Encoding::Compressed, "{len} at {level}");
            let stored = frame.bind(0);
            let payload = &stored[..stored.len() - 8];
            assert_eq!(zstd::zstd_safe::get_dict_id_from_frame(payload), None, "{len} at {level}");
            assert!(decompressor.decompress(payload, len).unwrap() == plain, "{len} at {level}");
        }
    }
}

#[test]
fn what_a_dictionary_has_takes_no_room_in_a_frame_of_any_length() {
    let mut noise = vec![0; 100_000];
    blake3::Hasher::new().finalize_xof().fill(&mut noise);
    let dictionary = Dictionary::from_bytes(&noise[..8 << 10]).unwrap();
    let encoder = FrameEncoder::new(Codec::Zstd, 3, Some(&dictionary)).unwrap();
    for len in [12 << 10, 16 << 10, 100_000] {
        let new = u64::try_from(len - (8 << 10)).unwrap();
        assert!(encoder.encode(&noise[..len]).unwrap().stored_len() < new + 200, "{len}");
    }
}

#[test]
fn long_uids_and_metadata_make_pages_shorter_not_larger() {
    let metadata = format!("{{\"user.x\":\"{}\"}}", "y".repeat(60_000));
    let with_metadata = |file: File| File { metadata: Some(metadata.clone()), ..file };
    let files: Vec<File> =
        (0..20).map(|number| with_metadata(file(&format!("{}{number:05}", "u".repeat(65_530)), b"z"))).collect();
    let object = ShardBuilder::default().build(&files);

    let opened = Opened::new(&object);
    assert_eq!(opened.index.index_pages(), 10);
    assert_all_found(&opened, &files);
    assert_eq!(check_object(&object).unwrap().metadata_len, 20 * u64::try_from(metadata.len()).unwrap());
}

#[test]
fn a_shard_without_files_is_a_shard() {
    let object = ShardBuilder::default().build(&[]);
    let opened = Opened::new(&object);
    assert_eq!(check_object(&object).unwrap().entries, 0);
    assert_eq!(opened.find("a"), None);
    assert_eq!(opened.find_birth(0, 0), None);
    assert_eq!((opened.index.first_uid(), opened.index.last_uid()), (None, None));
}

#[test]
fn a_frame_moves_to_another_shard_as_it_is() {
    let files = [file("a", &[1; 9_000]), file("b", &[2; 9_000])];
    let opened = Opened::new(&ShardBuilder::default().build(&files));
    let page_bytes = opened.part(opened.index.frame_page_range(PageNumber(0)).unwrap());
    let frame = opened.index.decode_frame_page(PageNumber(0), page_bytes).unwrap().frame(1).unwrap();

    let copied = opened.index.copy_frame(&frame, opened.part(frame.stored.clone())).unwrap().unwrap();

    assert_eq!((copied.plain_len(), copied.stored_len()), (9_000, frame.stored.end - frame.stored.start));
    let settings = crate::v3::BodySettings { archive: super::building::ARCHIVE, codec: Codec::Zstd };
    let mut writer = crate::v3::BodyWriter::new(settings, None, Lineage::default()).unwrap();
    let first = writer.push_frame(copied).unwrap();
    assert_ne!(first, opened.part(frame.stored), "the place of a frame is part of its checksum");
}

#[test]
fn a_frame_in_place_is_not_copied_when_it_is_stored() {
    let opened =
        Opened::new(&ShardBuilder { codec: Codec::Stored, ..ShardBuilder::default() }.build(&[file("a", &[1; 9_000])]));
    let page_bytes = opened.part(opened.index.frame_page_range(PageNumber(0)).unwrap());
    let frame = opened.index.decode_frame_page(PageNumber(0), page_bytes).unwrap().frame(0).unwrap();
    let stored = Bytes::copy_from_slice(opened.part(frame.stored.clone()));

    let plain = opened.index.decode_frame_in_place(&frame, &stored).unwrap();

    assert_eq!(plain.as_ptr(), stored.as_ptr());
    assert_eq!(plain, opened.index.decode_frame(&frame, &stored).unwrap());
}

#[test]
fn a_large_index_is_no_part_of_the_tail() {
    let digest = |number: u32| blake3::hash(&number.to_le_bytes()).to_hex();
    let mut files: Vec<File> =
        (0..50_000).map(|number| file(&format!("{number:06}{}", &digest(number)[..32]), b"")).collect();
    for (number, file) in (0_u32..).zip(&mut files) {
        let random = i64::from_str_radix(&digest(number)[..9], 16).unwrap();
        file.created_at = Timestamp::from_micros(DAY_START + random);
        file.mtime = Mtime { seconds: random, nanos: 0 };
    }
    let object = ShardBuilder::default().build(&files);
    let opened = Opened::new(&object);

    assert!(opened.index.footer().tail_len < 100_000, "{}", opened.index.footer().tail_len);
    assert_eq!(opened.index.resident_index_page(PageNumber(0)), None);
    assert!(opened.find(files[49_999].uid.as_str()).is_some());
    let small = Opened::new(&ShardBuilder::default().build(&files[..1_000]));
    let resident = small.index.resident_index_page(PageNumber(1)).unwrap();
    assert_eq!(resident, small.part(small.index.index_page_range(PageNumber(1)).unwrap()));
    assert!(ShardIndex::open(object.slice(1..), u64::try_from(object.len()).unwrap()).is_ok(), "more than the tail");
}
