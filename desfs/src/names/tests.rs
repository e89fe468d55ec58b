use proptest::prelude::*;

use super::*;

fn naming() -> Naming {
    Naming::new(ArchiveId::from_bytes([7; 16]), BucketBits::new(8).unwrap())
}

fn uid(text: &str) -> Uid {
    Uid::new(text).unwrap()
}

#[test]
fn ordinary_uids_are_their_own_names() {
    for text in ["INV-2024-000017", "a b\nc", "\u{e9}", "...", ".hidden", "~", "-rf", "007", "x".repeat(255).as_str()] {
        assert_eq!(naming().encode(&uid(text)), text);
        assert_eq!(naming().decode(text.as_bytes()), Some(FileName::Whole(uid(text))));
    }
}

#[test]
fn what_linux_forbids_is_escaped() {
    for (text, name) in [
        ("a/b", "a%2Fb"),
        ("/", "%2F"),
        ("a\0b", "a%00b"),
        ("100%", "100%25"),
        ("%2F", "%252F"),
        (".", "%2E"),
        ("..", "%2E%2E"),
        ("../../etc/passwd", "..%2F..%2Fetc%2Fpasswd"),
    ] {
        assert_eq!(naming().encode(&uid(text)), name);
        assert_eq!(naming().decode(name.as_bytes()), Some(FileName::Whole(uid(text))));
    }
}

#[test]
fn a_uid_that_looks_like_a_cut_name_has_its_tilde_escaped() {
    let text = format!("{}~00FF-0123456789abcdef", "x".repeat(231));
    let name = format!("{}%7E00FF-0123456789abcdef", "x".repeat(231));
    assert_eq!(naming().encode(&uid(&text)), name);
    assert_eq!(naming().decode(name.as_bytes()), Some(FileName::Whole(uid(&text))));

    for text in [
        "~00FF-0123456789abcdef".to_owned(),
        format!("{}~00FF-0123456789abcdef", "x".repeat(229)),
        format!("{}~00ff-0123456789abcdef", "x".repeat(231)),
        format!("{}~00FF-0123456789ABCDEF", "x".repeat(231)),
    ] {
        assert_eq!(naming().encode(&uid(&text)), text);
        assert_eq!(naming().decode(text.as_bytes()), Some(FileName::Whole(uid(&text))));
    }
}

#[test]
fn other_spellings_are_the_names_of_nothing() {
    for name in ["%41", "%2f", "%2E", "a%2E", "%2E.", "%7E", "%", "%2", "100%", "", "%e4"] {
        let decoded = naming().decode(name.as_bytes());
        assert_eq!(decoded.is_some(), name == "%2E", "{name}");
    }
    assert_eq!(naming().decode(b"\xff\xfe"), None);
    assert_eq!(naming().decode("x".repeat(256).as_bytes()), None);
}

#[test]
fn long_uids_are_cut_and_told_apart() {
    let long = uid(&"y".repeat(256));
    let longer = uid(&"y".repeat(65_535));

    let (name, other) = (naming().encode(&long), naming().encode(&longer));

    assert_eq!((name.len(), other.len()), (255, 255));
    assert_ne!(name, other);
    let Some(FileName::Cut(cut)) = naming().decode(name.as_bytes()) else { panic!("{name}") };
    assert_eq!(cut.bucket, bucket_of(long.as_str(), BucketBits::new(8).unwrap()).unwrap());
    assert!(naming().is_cut_name_of(&cut, &long));
    assert!(!naming().is_cut_name_of(&cut, &longer));
}

#[test]
fn a_cut_never_splits_a_character_or_an_escape() {
    for text in ["\u{1f600}".repeat(100), "/".repeat(200), format!("a{}", "\u{1f600}".repeat(100))] {
        let name = naming().encode(&uid(&text));
        assert!(name.len() <= 255, "{name}");
        let Some(FileName::Cut(cut)) = naming().decode(name.as_bytes()) else { panic!("{name}") };
        assert!(text.starts_with(&cut.prefix));
        assert!(naming().is_cut_name_of(&cut, &uid(&text)));
    }
}

#[test]
fn a_long_uid_that_ends_like_a_cut_name_is_cut() {
    for len in [232, 233, 234, 300] {
        let text = format!("{}~00FF-0123456789abcdef", "z".repeat(len));
        let name = naming().encode(&uid(&text));
        assert!(name.len() <= 255);
        assert_ne!(name, text);
        assert!(matches!(naming().decode(name.as_bytes()), Some(FileName::Cut(_))), "{name}");
    }
}

/// Texts that come near everything that is special.
fn hostile_text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        8 => "[a-z0-9]{1,40}",
        1 => Just("%".to_owned()),
        1 => Just("/".to_owned()),
        1 => Just("\0".to_owned()),
        1 => Just(".".to_owned()),
        1 => Just("~".to_owned()),
        1 => Just("%2F".to_owned()),
        1 => Just("%7E".to_owned()),
        1 => Just("\u{1f600}".to_owned()),
        2 => Just("~00FF-0123456789abcdef".to_owned()),
        1 => any::<char>().prop_map(String::from),
    ];
    let filler = prop_oneof![3 => Just(0_usize), 2 => 225..240_usize, 1 => 0..300_usize];
    (filler, proptest::collection::vec(piece, 1..20))
        .prop_map(|(filler, pieces)| format!("{}{}", "f".repeat(filler), pieces.concat()))
}

proptest! {
    #[test]
    fn every_uid_has_a_name_that_leads_back_to_it(text in hostile_text()) {
        let uid = uid(&text);
        let name = naming().encode(&uid);
        prop_assert!(name.len() <= NAME_LEN_MAX && !name.is_empty() && !name.contains(['/', '\0']));
        prop_assert!(name != "." && name != "..");
        match naming().decode(name.as_bytes()) {
            Some(FileName::Whole(found)) => prop_assert_eq!(found, uid),
            Some(FileName::Cut(cut)) => prop_assert!(naming().is_cut_name_of(&cut, &uid)),
            None => prop_assert!(false, "{} has no meaning", name),
        }
    }

    #[test]
    fn different_uids_have_different_names(one in hostile_text(), other in hostile_text()) {
        prop_assert_eq!(naming().encode(&uid(&one)) == naming().encode(&uid(&other)), one == other);
    }

    #[test]
    fn only_names_that_are_written_are_read(name in hostile_text()) {
        match naming().decode(name.as_bytes()) {
            Some(FileName::Whole(uid)) => prop_assert_eq!(naming().encode(&uid), name),
            Some(FileName::Cut(_)) => prop_assert!(tail_start(&name).is_some()),
            None => {}
        }
    }

    #[test]
    fn no_bytes_make_decoding_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        drop(naming().decode(&bytes));
    }
}
