//! Orders as they are read and planned, on a store in memory.

use std::collections::BTreeMap;

use desfmt::{Date, Uid};
use desstore::Deletion;

use super::{Age, Plan, Tally, day_of, read_requests};
use crate::pack::testing::{self, World};

fn day(text: &str) -> Date {
    text.parse().unwrap()
}

fn read(text: &str, default: Option<&str>) -> Result<Vec<(String, String)>, String> {
    let requests = read_requests(text.as_bytes(), default.map(day)).map_err(|error| error.to_string())?;
    let named = |(date, uids): (Date, Vec<Uid>)| {
        uids.into_iter().map(move |uid| (date.to_string(), uid.to_string())).collect::<Vec<_>>()
    };
    Ok(requests.into_iter().flat_map(named).collect())
}

#[test]
fn an_order_is_lines_or_json_lines() {
    let text = "INV-1 20240115\nwith a blank 2024-01-16\n\ntab\t2024-01-17T23:30:00-01:00\r\n\
                {\"uid\":\"J 1\",\"created_at\":\"2024-01-15T01:00:00Z\"}\n{\"uid\":\"J2\",\"date\":\"20240116\",\"x\":1}\n";
    let expected = [
        ("20240115", "INV-1"),
        ("20240115", "J 1"),
        ("20240116", "with a blank"),
        ("20240116", "J2"),
        ("20240118", "tab"),
    ];
    let expected: Vec<_> = expected.iter().map(|(date, uid)| ((*date).to_owned(), (*uid).to_owned())).collect();
    assert_eq!(read(text, None).unwrap(), expected);
    let of_one_day = read("a b\nc\n", Some("20240115")).unwrap();
    assert_eq!(of_one_day, [("20240115".to_owned(), "a b".to_owned()), ("20240115".to_owned(), "c".to_owned())]);
}

#[test]
fn a_line_that_makes_no_sense_is_named() {
    for (text, reason) in [
        ("a 20240115\nb\n", "line 2: it names no day"),
        ("a 20241301\n", "line 1: \"20241301\" is neither a day"),
        ("{\"uid\":1}\n", "line 1: "),
        ("{\"uid\":\"a\"}\n", "line 1: it names no day"),
        ("\t20240115\n", "line 1: "),
    ] {
        let refused = read(text, None).unwrap_err();
        assert!(refused.starts_with(reason), "{text:?}: {refused}");
    }
    assert!(day_of("2024-01-15T09:30:00").is_err(), "a time without its zone is of no day");
}

#[test]
fn ages_are_counted_back_by_the_calendar() {
    for (age, today, expected) in [
        ("7y", "20240229", "20170228"),
        ("7y", "20240301", "20170301"),
        ("30d", "20240115", "20231216"),
        ("2w", "20240115", "20240101"),
    ] {
        assert_eq!(age.parse::<Age>().unwrap().before(day(today)), Some(day(expected)), "{age} before {today}");
    }
    for text in ["", "7", "y", "0d", "7m", "-1d", "99999999999d"] {
        assert!(text.parse::<Age>().is_err(), "{text}");
    }
    assert_eq!(Age::Years(3_000).before(day("20240115")), None);
}

#[tokio::test]
async fn an_order_is_planned_questioned_and_done() {
    let world = World::mixed(7, 60);
    let store = testing::memory();
    world.pack_as(world.config(), &store).await.unwrap();
    let archive = testing::reader(&store).await;
    let mut asked = BTreeMap::<Date, Vec<Uid>>::new();
    for (date, uid) in world.expected().keys() {
        asked.entry(day(date)).or_default().push(Uid::new(uid).unwrap());
    }
    let all = asked.values().map(Vec::len).sum::<usize>();
    let first = asked.iter().next().map(|(date, uids)| (*date, uids[0].clone())).unwrap();
    let absent = Uid::new("nowhere to be found").unwrap();
    asked.get_mut(&first.0).unwrap().extend([absent.clone(), absent]);

    let few = BTreeMap::from([(first.0, vec![first.1.clone()])]);
    let plan = Plan::new(&archive, few).await.unwrap();
    assert_eq!(plan.doubt(), None, "a single file is no doubt");
    let done = plan.execute(&archive, &Deletion::default(), false).await.unwrap();
    assert_eq!((done.recorded, done.writes), (1, 1));

    let plan = Plan::new(&archive, asked.clone()).await.unwrap();
    let visible = u64::try_from(all - 1).unwrap();
    assert_eq!(plan.tally(), Tally { visible, already_deleted: 1, absent: 1 });
    assert!(plan.doubt().unwrap().contains("of the archive"), "{:?}", plan.doubt());
    let done = plan.execute(&archive, &Deletion::default(), true).await.unwrap();
    assert_eq!(done.recorded, visible + 1, "what is absent is recorded when asked for");

    let again = Plan::new(&archive, asked).await.unwrap();
    assert_eq!(again.tally(), Tally { visible: 0, already_deleted: visible + 2, absent: 0 });
    assert!(testing::visible(&store).await.is_empty());
}
