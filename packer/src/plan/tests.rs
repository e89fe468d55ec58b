use proptest::prelude::*;

use super::*;
use crate::issue::Issue;
use crate::rows::Row;
use crate::rows::tests::{any_row, row};

fn bits(n: u8) -> BucketBits {
    BucketBits::new(n).unwrap()
}

struct Planned {
    plan: Plan,
    shards: Vec<(ShardPlan, Vec<Row>)>,
    issues: Vec<Issue>,
}

fn plan_of(rows: &[Row], n_bits: u8, limits: ShardLimits, share: Share) -> Planned {
    let root = tempfile::tempdir().unwrap();
    let spool = Spool::open(root.path()).unwrap();
    let issues = IssueLog::open(None, None).unwrap();
    let mut log = RowLogWriter::new(&spool);
    for row in rows {
        log.encode(row).unwrap().unwrap();
    }
    let planner = Planner { bits: bits(n_bits), limits, share, spool: &spool, issues: &issues };
    let (plan, sorted) = planner.plan(&log.finish().unwrap()).unwrap();
    let mut plans = ShardPlans::new(&sorted, bits(n_bits), limits);
    let mut shards = Vec::new();
    while let Some(shard) = plans.next_shard().unwrap() {
        let mut reader = sorted.read(shard.rows.clone(), 100);
        let mut rows = Vec::new();
        while let Some(row) = reader.next_row().unwrap() {
            rows.push(row.decode().unwrap());
        }
        shards.push((shard, rows));
    }
    Planned { plan, shards, issues: issues.kept() }
}

const WIDE: ShardLimits = ShardLimits { bytes: 1 << 30, entries: 1 << 20 };

prop_compose! {
    fn any_limits()(bytes in 1_u64..5_000, entries in 1_u64..20) -> ShardLimits {
        ShardLimits { bytes, entries }
    }
}

proptest! {
    #[test]
    fn the_order_of_the_input_does_not_matter(
        rows in proptest::collection::vec(any_row(), 0..50).prop_shuffle(),
        n_bits in 0_u8..6,
        limits in any_limits(),
    ) {
        let mut sorted = rows.clone();
        sorted.sort_by_key(|row| format!("{row:?}"));

        let (a, b) = (plan_of(&rows, n_bits, limits, Share::ALL), plan_of(&sorted, n_bits, limits, Share::ALL));

        prop_assert_eq!(a.plan, b.plan);
        prop_assert_eq!(a.shards.len(), b.shards.len());
        for ((_, a), (_, b)) in a.shards.iter().zip(&b.shards) {
            let said = |row: &Row| Row { number: 0, ..row.clone() };
            prop_assert!(a.iter().map(said).eq(b.iter().map(said)));
        }
    }

    #[test]
    fn every_row_is_planned_once_or_has_a_reason(
        rows in proptest::collection::vec(any_row(), 0..50),
        n_bits in 0_u8..6,
        limits in any_limits(),
    ) {
        let planned = plan_of(&rows, n_bits, limits, Share::ALL);

        let packed: usize = planned.shards.iter().map(|(_, rows)| rows.len()).sum();
        let repeated = usize::try_from(planned.plan.repeated).unwrap();
        prop_assert_eq!(packed + repeated + planned.issues.len(), rows.len());
        prop_assert_eq!(planned.plan.volume().files, u64::try_from(packed).unwrap());
        prop_assert_eq!(planned.plan.shards(), u64::try_from(planned.shards.len()).unwrap());
        for (shard, rows) in &planned.shards {
            prop_assert!(rows.iter().all(|row| Group::of(row.date, row.uid.as_str(), bits(n_bits)) == Ok(shard.group)));
            prop_assert!(rows.is_sorted_by(|a, b| a.uid < b.uid));
        }
    }

    #[test]
    fn shards_keep_to_their_limits(
        rows in proptest::collection::vec(any_row(), 0..50),
        n_bits in 0_u8..3,
        limits in any_limits(),
    ) {
        for (shard, rows) in plan_of(&rows, n_bits, limits, Share::ALL).shards {
            prop_assert_eq!(shard.volume.files, u64::try_from(rows.len()).unwrap());
            prop_assert_eq!(shard.volume.bytes, rows.iter().map(|row| row.len).sum::<u64>());
            prop_assert!(shard.volume.files <= limits.entries);
            prop_assert!(shard.volume.bytes <= limits.bytes || shard.volume.files == 1);
        }
    }

    #[test]
    fn workers_share_everything_and_nothing_twice(
        rows in proptest::collection::vec(any_row(), 0..50),
        count in 1_u32..5,
    ) {
        let all = plan_of(&rows, 4, WIDE, Share::ALL);
        let count = NonZeroU32::new(count).unwrap();
        let shares: Vec<_> =
            (0..count.get()).map(|index| plan_of(&rows, 4, WIDE, Share { index, count })).collect();

        let mut groups: Vec<_> = shares.iter().flat_map(|share| share.shards.iter().map(|(shard, _)| shard.group)).collect();
        groups.sort();
        prop_assert!(groups.iter().eq(all.shards.iter().map(|(shard, _)| &shard.group)));
        prop_assert_eq!(shares.iter().map(|share| share.issues.len()).sum::<usize>(), all.issues.len());
    }
}

#[test]
fn rows_that_contradict_each_other_are_all_refused() {
    let elsewhere = Row { source: "/data/other".into(), number: 3, ..row("a", 0, 1) };
    let planned =
        plan_of(&[row("a", 0, 1), row("b", 0, 1), elsewhere, row("a", 0, 1), row("a", 1, 1)], 4, WIDE, Share::ALL);

    let packed: Vec<_> = planned.shards.iter().flat_map(|(_, rows)| rows).map(|row| row.uid.as_str()).collect();
    assert_eq!(packed, ["b", "a"]);
    assert_eq!(planned.issues.len() + usize::try_from(planned.plan.repeated).unwrap(), 3);
    assert!(planned.issues.iter().all(|issue| issue.uid.as_deref() == Some("a")));
}

#[test]
fn rows_that_say_the_same_are_taken_once() {
    let again = Row { number: 2, ..row("a", 0, 1) };
    let planned = plan_of(&[row("a", 0, 1), again], 4, WIDE, Share::ALL);
    assert_eq!((planned.plan.volume().files, planned.plan.repeated, planned.issues.len()), (1, 1, 0));
}

#[test]
fn a_new_archive_gets_as_many_groups_as_keep_shards_large() {
    let days = |each: &[u64]| -> BTreeMap<Date, Volume> {
        (1..).zip(each).map(|(n, bytes)| (Date::from_number(n).unwrap(), Volume { files: 1, bytes: *bytes })).collect()
    };
    for (each, n_bits) in [
        (vec![], 4),
        (vec![1], 4),
        (vec![1 << 30], 4),
        (vec![(1 << 31) - 1], 4),
        (vec![1 << 31], 5),
        (vec![0, 1 << 32], 5),
        (vec![1 << 34, 1 << 34], 8),
        (vec![1 << 60], 16),
    ] {
        assert_eq!(choose_bits(&days(&each)).get(), n_bits, "{each:?}");
    }
}
