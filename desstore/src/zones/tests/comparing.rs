//! Zones are compared: what agrees, what is owed, what is wrong.

use super::*;
use crate::archive::{CheckEvent, CheckOptions, Checked, Finding, FindingKind, Verdict};

async fn compared(store: &ZoneStore) -> (Checked, Vec<Finding>) {
    let mut findings = Vec::new();
    let mut tell = |event: CheckEvent<'_>| {
        if let CheckEvent::Found(finding) = event {
            findings.push(finding.clone());
        }
    };
    let checked = compare(store, &CheckOptions::default(), &mut tell).await;
    (checked, findings)
}

/// What was found: kind, verdict and object of each.
fn told(findings: &[Finding]) -> Vec<(FindingKind, Verdict, &str)> {
    findings.iter().map(|one| (one.kind, one.verdict, one.object.as_str())).collect()
}

const SHARD: &str = "shards/20240115/20240115_0_0000.des";

fn shard() -> ObjectKey {
    ObjectKey::new(SHARD).unwrap()
}

#[tokio::test]
async fn zones_that_agree_are_sound_and_every_copy_is_read() {
    let ground = Ground::new();
    let (store, writer) = ground.create().await;
    ground.pack(&writer, &[("2", b"even"), ("4", b"even too")]).await.unwrap();
    ground.pack(&writer, &[("3", b"odd")]).await.unwrap();
    delete(&*ground.reader(&store).await, "2").await.unwrap();

    let (checked, findings) = compared(&store).await;

    assert_eq!(findings, []);
    assert_eq!((checked.days, checked.shards, checked.wrong, checked.unchecked), (1, 2, 0, 0));
    assert_eq!(checked.bytes_read, 2 * checked.stored_bytes);
}

#[tokio::test]
async fn what_a_zone_is_owed_is_told_and_is_wrong_when_nobody_pays() {
    let ground = Ground::new();
    let (store, writer) = ground.create().await;
    ground.cut(B);
    ground.pack(&writer, &[("2", b"even")]).await.unwrap();
    ground.heal(B);

    let (checked, young) = compared(&store).await;
    assert_eq!((checked.wrong, checked.unchecked), (0, 0), "{young:?}");
    assert!(young.iter().all(|one| one.kind == FindingKind::Owed && one.problem.contains("zone b is owed a copy")));
    assert!(young.iter().any(|one| one.object == SHARD), "{young:?}");

    ground.clock.advance(Duration::from_mins(11));
    let (checked, old) = compared(&store).await;
    assert_eq!((checked.wrong, old.len()), (u64::try_from(young.len()).unwrap(), young.len()), "{old:?}");

    pay(&store, ground.spool()).await.unwrap();
    assert_eq!(compared(&store).await.1, []);
}

#[tokio::test]
async fn a_copy_that_is_lost_damaged_or_another_one_is_named_with_its_zone() {
    for (damage, kind) in
        [("lost", FindingKind::Missing), ("cut", FindingKind::Mismatch), ("flipped", FindingKind::Damaged)]
    {
        for zone in [A, B] {
            let ground = Ground::new();
            let (store, writer) = ground.create().await;
            ground.pack(&writer, &[("2", b"even")]).await.unwrap();
            let mut bytes = ground.memory[zone].get(&shard(), 1 << 20).await.unwrap().bytes.to_vec();
            ground.memory[zone].delete(&shard()).await.unwrap();
            match damage {
                "cut" => drop(bytes.pop()),
                _ => bytes[40] ^= 1,
            }
            if damage != "lost" {
                ground.memory[zone].put(&shard(), Payload::Bytes(bytes.into())).await.unwrap();
            }

            let (checked, findings) = compared(&store).await;

            assert_eq!(told(&findings), [(kind, Verdict::Wrong, SHARD)], "{damage}");
            assert!(findings[0].problem.contains(["zone a", "zone b"][zone]), "{findings:?}");
            assert_eq!((checked.wrong, checked.damaged, checked.unchecked), (1, 1, 0));
        }
    }
}

#[tokio::test]
async fn a_document_that_a_copy_lacks_or_has_in_another_version_is_named() {
    let ground = Ground::new();
    let (store, writer) = ground.create().await;
    ground.pack(&writer, &[("2", b"even")]).await.unwrap();
    let manifest = layout::manifest(day());
    let old = ground.memory[B].get(&manifest, 1 << 20).await.unwrap().bytes;
    ground.pack(&writer, &[("4", b"even too")]).await.unwrap();
    delete(&*ground.reader(&store).await, "2").await.unwrap();
    ground.memory[B].put(&manifest, Payload::Bytes(old)).await.unwrap();
    let record = ObjectKey::new(&ground.keys(B, "tombstones/").await[0]).unwrap();
    ground.memory[B].delete(&record).await.unwrap();

    let (_, findings) = compared(&store).await;

    let expected = [
        (FindingKind::Mismatch, Verdict::Wrong, manifest.as_str()),
        (FindingKind::Missing, Verdict::Wrong, record.as_str()),
    ];
    assert_eq!(told(&findings), expected);
    assert!(findings[0].problem.contains("generation"), "{findings:?}");
}

#[tokio::test]
async fn what_only_a_copy_still_holds_is_named_unless_it_is_owed_its_removal() {
    let ground = Ground::new();
    let (store, writer) = ground.create().await;
    ground.pack(&writer, &[("2", b"even")]).await.unwrap();
    let left = ObjectKey::new("shards/20240115/20240115_0_0009.des").unwrap();
    ground.memory[B].put(&left, Payload::Bytes(Bytes::from_static(b"bytes of a deleted file"))).await.unwrap();

    let (_, findings) = compared(&store).await;
    assert_eq!(told(&findings), [(FindingKind::Orphan, Verdict::Wrong, left.as_str())]);

    ground.memory[A].put(&left, Payload::Bytes(Bytes::from_static(b"bytes of a deleted file"))).await.unwrap();
    ground.cut(B);
    store.purge(&left).await.unwrap();
    ground.heal(B);
    let (_, findings) = compared(&store).await;
    assert_eq!(told(&findings), [(FindingKind::Owed, Verdict::Harmless, left.as_str())]);
}

#[tokio::test]
async fn a_zone_that_is_away_is_not_called_damaged() {
    let ground = Ground::new();
    let (store, writer) = ground.create().await;
    ground.pack(&writer, &[("2", b"even")]).await.unwrap();
    ground.cut(B);

    let (checked, findings) = compared(&store).await;

    assert_eq!((checked.wrong, checked.unchecked), (0, 1), "{findings:?}");
    assert_eq!(findings[0].object, "zone b");
}
