//! Damage is found, whatever is damaged, and no bytes make a decoder panic or ask for endless memory.

use bytes::Bytes;
use proptest::prelude::*;

use super::building::{File, Opened, ShardBuilder, file, name};
use crate::FormatError;
use crate::v3::check::read_everything;
use crate::v3::cold_page::ColdPage;
use crate::v3::frame_page::{FramePage, FramePageContext};
use crate::v3::index_page::{IndexPage, PageContext};
use crate::v3::{
    BodySettings, BodyWriter, BuildError, Codec, Dictionary, FOOTER_LEN, Features, Footer, FrameSize, HEADER_LEN,
    Lineage, NewEntry, PageNumber, ShardIndex, check_object, to_u64,
};

/// A shard that has a bit of everything: dictionary, lineage, metadata, shared, empty and stored content.
fn full_shard() -> (Bytes, Vec<File>) {
    let mut files: Vec<File> = (0..24)
        .map(|number| file(&format!("uid-{number:02}"), format!("some text {}, some text", number % 5).as_bytes()))
        .collect();
    files[3].content = (0..=255).collect();
    files[4].content.clear();
    files[5].metadata = Some("{\"user.a\":1}".to_owned());
    for (number, file) in files.iter_mut().enumerate() {
        file.birth = Some((u16::try_from(number % 2).unwrap(), u32::try_from(number * 3).unwrap()));
        file.mtime.nanos = u32::try_from(number).unwrap();
    }
    let lineage = Lineage { serials: vec![1, 2], parents: Vec::new() };
    let dictionary = Dictionary::from_bytes(b"some text 0, some text 1, some text").unwrap();
    let frame_size = FrameSize::new(64).unwrap();
    let builder = ShardBuilder { lineage, dictionary: Some(dictionary), frame_size, ..ShardBuilder::default() };
    (builder.build(&files), files)
}

/// Opens and reads everything there is, but leaves out the digest of the body, which would find any damage.
fn read_all(object: &[u8]) -> Result<(), FormatError> {
    let index = ShardIndex::open(Bytes::copy_from_slice(object), to_u64(object.len()))?;
    read_everything(&index, object).map(|_| ())
}

#[test]
fn every_flipped_bit_is_found_where_it_is_read() {
    let (object, _) = full_shard();
    read_all(&object).unwrap();
    for place in 0..object.len() {
        for bit in 0..8 {
            let mut damaged = object.to_vec();
            damaged[place] ^= 1 << bit;
            assert!(read_all(&damaged).is_err(), "bit {bit} of byte {place} of {}", object.len());
        }
    }
}

#[test]
fn every_truncation_is_found() {
    let (object, _) = full_shard();
    for len in 0..object.len() {
        assert!(check_object(&object.slice(..len)).is_err(), "the first {len} bytes");
        assert!(check_object(&object.slice(object.len() - len..)).is_err(), "the last {len} bytes");
        let longer = [&object[..], &object[..len]].concat();
        assert!(len == 0 || check_object(&Bytes::from(longer)).is_err(), "{len} bytes more");
    }
}

#[test]
fn swapped_pages_and_frames_are_found() {
    let files: Vec<File> =
        (0..1_024).map(|number| file(&format!("{number:04}"), format!("{number:04}").as_bytes())).collect();
    let builder = ShardBuilder { codec: Codec::Stored, frame_size: FrameSize::ONE_FILE, ..ShardBuilder::default() };
    let opened = Opened::new(&builder.build(&files));
    let frames = opened.part(opened.index.frame_page_range(PageNumber(0)).unwrap());
    let frames = opened.index.decode_frame_page(PageNumber(0), frames).unwrap();
    let (first, second) = (frames.frame(0).unwrap(), frames.frame(1).unwrap());

    let of_the_second = opened.part(second.stored.clone());
    let index_page = opened.part(opened.index.index_page_range(PageNumber(1)).unwrap());

    assert_eq!(of_the_second.len(), opened.part(first.stored.clone()).len());
    assert!(opened.index.decode_frame(&first, of_the_second).is_err());
    assert!(opened.index.decode_index_page(PageNumber(0), index_page).is_err());
    assert!(opened.index.decode_index_page(PageNumber(2), index_page).is_err());
}

#[test]
fn a_tail_of_another_length_or_object_is_refused() {
    let (object, _) = full_shard();
    let footer = Footer::decode(&object[object.len() - FOOTER_LEN..]).unwrap();
    let len = to_u64(object.len());
    let tail = object.slice(usize::try_from(footer.tail_range().start).unwrap()..);
    assert!(ShardIndex::open(tail.clone(), len).is_ok());
    assert!(ShardIndex::open(tail.slice(1..), len).is_err());
    assert!(ShardIndex::open(tail.clone(), len + 1).is_err());
    assert!(ShardIndex::open(Bytes::new(), len).is_err());
}

/// The footer with something changed and its checksum right again.
fn with_footer(object: &Bytes, change: impl FnOnce(&mut Footer)) -> Bytes {
    let (body, footer) = object.split_at(object.len() - FOOTER_LEN);
    let mut footer = Footer::decode(footer).unwrap();
    change(&mut footer);
    Bytes::from([body, &footer.encode()].concat())
}

#[test]
fn unknown_features_are_refused_or_ignored_as_they_ask_for() {
    let (object, files) = full_shard();
    let open = |object: Bytes| ShardIndex::open(object.clone(), to_u64(object.len()));

    let incompatible = with_footer(&object, |footer| footer.features = Features { incompatible: 4, compatible: 0 });
    let compatible = with_footer(&object, |footer| footer.features = Features { incompatible: 0, compatible: 4 });

    assert!(matches!(open(incompatible), Err(FormatError::TooNew { .. })));
    let opened = Opened::new(&compatible);
    for file in &files {
        assert_eq!(opened.read(&opened.find(file.uid.as_str()).unwrap(), 0, u64::MAX), file.content);
    }
}

#[test]
fn another_version_or_codec_is_too_new() {
    let (object, _) = full_shard();
    for (place, value) in [(8, 4), (91, 3)] {
        let mut bytes = object[object.len() - FOOTER_LEN..].to_vec();
        bytes[place] = value;
        let crc = crc32c::crc32c(&bytes[..FOOTER_LEN - 4]);
        bytes[FOOTER_LEN - 4..].copy_from_slice(&crc.to_le_bytes());
        assert!(matches!(Footer::decode(&bytes), Err(FormatError::TooNew { .. })), "byte {place}");
    }
}

#[test]
fn figures_beyond_the_limits_are_refused_before_anything_is_allocated() {
    let (object, _) = full_shard();
    let open = |change: &dyn Fn(&mut Footer)| {
        let changed = with_footer(&object, |footer| change(footer));
        ShardIndex::open(changed.clone(), to_u64(changed.len())).map(|_| ())
    };
    assert!(matches!(open(&|footer| footer.entries = u32::MAX), Err(FormatError::BeyondLimits { .. })));
    assert!(matches!(open(&|footer| footer.frames = u32::MAX), Err(FormatError::BeyondLimits { .. })));
    assert!(matches!(open(&|footer| footer.index_pages = u32::MAX), Err(FormatError::BeyondLimits { .. })));
    assert!(matches!(open(&|footer| footer.tail_len = u64::MAX), Err(FormatError::BeyondLimits { .. })));
    assert!(open(&|footer| footer.index_pages = 1 << 16).is_err());
    assert!(open(&|footer| footer.frames = 1 << 26).is_err());
    assert!(open(&|footer| footer.sections.cold = u64::MAX).is_err());
    assert!(open(&|footer| footer.object_len = 0).is_err());
    assert!(open(&|footer| footer.tail_len = 0).is_err());
}

#[test]
fn a_small_frame_cannot_become_a_large_one() {
    let files = [file("a", &vec![0; 1 << 20])];
    for codec in [Codec::Zstd, Codec::Lz4] {
        let opened = Opened::new(&ShardBuilder { codec, ..ShardBuilder::default() }.build(&files));
        let page_bytes = opened.part(opened.index.frame_page_range(PageNumber(0)).unwrap());
        let frame = opened.index.decode_frame_page(PageNumber(0), page_bytes).unwrap().frame(0).unwrap();
        let stored = opened.part(frame.stored.clone());
        let payload = &stored[..stored.len() - 8];
        for plain_len in [1_u32, (1 << 20) - 1, (1 << 20) + 1, 1 << 30] {
            let field = (plain_len | 1 << 31).to_le_bytes();
            let address = 0_u64.to_le_bytes();
            let crc = crc32c::crc32c(&[payload, &field, &address].concat()).to_le_bytes();
            let forged = [payload, &field, &crc].concat();
            assert!(opened.index.decode_frame(&frame, &forged).is_err(), "{codec} to {plain_len}");
        }
    }
}

#[test]
fn what_no_shard_can_hold_is_refused_when_written() {
    let settings = BodySettings { archive: super::building::ARCHIVE, codec: Codec::Lz4 };
    let dictionary = Dictionary::from_bytes(b"some text").unwrap();
    assert!(matches!(
        BodyWriter::new(settings, Some(&dictionary), Lineage::default()),
        Err(BuildError::Invalid { .. })
    ));
    let twice = Lineage { serials: vec![1, 1], parents: Vec::new() };
    assert!(BodyWriter::new(settings, None, twice).is_err());

    let mut writer = BodyWriter::new(settings, None, Lineage::default()).unwrap();
    let sample = file("b", b"");
    let entry = NewEntry {
        uid: &sample.uid,
        created_at: sample.created_at,
        mtime: sample.mtime,
        offset: 0,
        len: 0,
        digest: blake3::hash(b""),
        metadata: None,
        birth: None,
    };
    writer.push_entry(entry).unwrap();
    let later = file("c", b"");
    for refused in [
        entry,
        NewEntry { uid: &file("a", b"").uid, ..entry },
        NewEntry { uid: &later.uid, birth: Some((0, 1)), ..entry },
        NewEntry { uid: &later.uid, metadata: Some("[1]"), ..entry },
        NewEntry { uid: &later.uid, metadata: Some("{"), ..entry },
        NewEntry { uid: &later.uid, offset: (1 << 20) - 1, len: 2, ..entry },
        NewEntry { uid: &later.uid, offset: u64::MAX, len: u64::MAX, ..entry },
    ] {
        assert!(writer.push_entry(refused).is_err(), "{refused:?}");
    }
    writer.push_entry(NewEntry { uid: &later.uid, len: 1, ..entry }).unwrap();
    assert!(writer.finish().is_err(), "content without a frame");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_bytes_make_a_footer_or_shard_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..600),
        object_len in prop_oneof![any::<u64>(), 0_u64..1_000],
    ) {
        prop_assert!(Footer::decode(&bytes).is_err());
        prop_assert!(ShardIndex::open(Bytes::from(bytes), object_len).is_err());
    }

    /// Damage behind checksums that are right again: what a hostile writer would do.
    #[test]
    fn forged_directories_and_pages_never_panic(
        places in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let (object, _) = full_shard();
        let footer = Footer::decode(&object[object.len() - FOOTER_LEN..]).unwrap();
        let usize_of = |offset: u64| usize::try_from(offset).unwrap();
        let mut forged = object.to_vec();
        let directory = usize_of(footer.sections.directory)..usize_of(footer.sections.footer);
        for (place, value) in &places {
            let place = HEADER_LEN + place.index(directory.end - HEADER_LEN);
            forged[place] = *value;
        }
        let crc = |range: std::ops::Range<usize>| crc32c::crc32c(&forged[range]);
        let (directory_crc, dictionary_crc) =
            (crc(directory.clone()), crc(usize_of(footer.sections.dictionary)..directory.start));
        let forged = with_footer(&Bytes::from(forged), |footer| {
            footer.directory_crc = directory_crc;
            footer.dictionary_crc = dictionary_crc;
        });
        drop(read_all(&forged));

        // Pages and frames as they are decoded once their checksums hold.
        let context = PageContext { first_position: 0, count: 24, frames: footer.frames, origins: 2, extended: false };
        let part = |start: u64, end: u64| &forged[usize_of(start)..usize_of(end)];
        let sections = footer.sections;
        if let Ok(page) = IndexPage::decode(part(sections.index, sections.frame_table), context) {
            prop_assert_eq!(page.entries().count(), 24);
        }
        drop(ColdPage::decode(part(sections.cold, sections.index), context));
        let count = usize_of(u64::from(footer.frames));
        let context = FramePageContext { first: 0, count, start: 64, end: sections.cold, extended: false };
        drop(FramePage::decode(part(sections.frame_table, sections.dictionary), context));
    }
}

#[test]
fn the_name_stands_in_the_footer_only() {
    let (body, built) = ShardBuilder::default().build_body(&[file("a", b"x")]);
    let mut other = name();
    other.repack += 1;
    assert_ne!(built.footer_bytes(&name()), built.footer_bytes(&other));
    assert_ne!(built.object_digest(&name()), built.object_digest(&other));
    assert_eq!(Footer::decode(&built.footer_bytes(&other)).unwrap().name, other);
    assert_eq!(built.digest(), blake3::hash(&body));
}
