//! An archive whose objects were written by somebody who means harm: nothing is asked for beyond its limit, and no shard
//! reaches another one's files.

#![expect(clippy::arithmetic_side_effects, clippy::indexing_slicing, clippy::unwrap_used, reason = "a test")]

#[path = "../../desfmt/tests/hostile/samples.rs"]
#[expect(dead_code, reason = "not all kinds of samples are needed here")]
mod samples;

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use desfmt::document::{self, Document, Identity, Manifest, ManifestShard};
use desfmt::legacy::LegacyFooter;
use desfmt::v3::Footer;
use desfmt::{ArchiveId, Bucket, BucketBits, Date, FormatError, Group, ObjectKey, ShardName, Timestamp, Uid, layout};
use desstore::{Archive, ArchiveError, LocalStore, ManualClock, ReadOptions, SeededRandom};

use samples::Recipe;

const ARCHIVE: ArchiveId = ArchiveId::from_bytes([0xa5; 16]);

fn bits() -> BucketBits {
    BucketBits::new(1).unwrap()
}

fn day() -> Date {
    "20240115".parse().unwrap()
}

fn uid(text: &str) -> Uid {
    Uid::new(text).unwrap()
}

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new(Timestamp::from_micros(1_705_300_000_000_000)))
}

fn write(root: &Path, key: &ObjectKey, bytes: &[u8]) {
    let path = root.join(key.as_str());
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

fn write_document<D: Document>(root: &Path, key: &ObjectKey, document: &D) {
    write(root, key, &document::encode(document).unwrap());
}

/// Writes a shard of files with these uids, each with a content of its own, and returns what a manifest says of it.
fn write_shard(root: &Path, bucket: u16, serial: u32, uids: &[&str]) -> ManifestShard {
    let files = uids.iter().map(|uid| samples::file(uid, format!("{uid} in {bucket}").as_bytes())).collect();
    let object = Recipe::default().build("shard", files).object;
    let footer = Footer::decode(object.last_chunk::<256>().unwrap()).unwrap();
    let group = Group { date: day(), bucket: Bucket::new(u32::from(bucket), bits()).unwrap(), bits: bits() };
    let key = layout::shard(&ShardName { group, split: 0, repack: 0 });
    write(root, &key, &object);
    ManifestShard {
        bucket,
        split: 0,
        repack: 0,
        key,
        shard: footer.shard_id,
        len: footer.object_len,
        tail_len: footer.tail_len,
        blake3: blake3::hash(&object).to_hex().to_string(),
        entries: footer.entries,
        plain_len: footer.content_len,
        uid_min: None,
        uid_max: None,
        serials: vec![serial],
    }
}

async fn open(root: &Path, shards: Vec<ManifestShard>) -> Arc<Archive> {
    let identity = Identity::new(ARCHIVE, bits(), Timestamp::from_micros(0));
    write_document(root, &layout::identity(), &identity);
    let mut manifest = Manifest::empty(day());
    manifest.next_serial = 9;
    manifest.shards = shards;
    write_document(root, &layout::manifest(day()), &manifest);
    let store = Arc::new(LocalStore::open(root, clock()).unwrap());
    Archive::open(store, ReadOptions::default(), clock(), Arc::new(SeededRandom::new(1))).await.unwrap()
}

fn is_beyond_limits<T>(result: &Result<T, ArchiveError>) -> bool {
    matches!(result, Err(ArchiveError::Damaged { source: FormatError::BeyondLimits { .. }, .. }))
}

#[tokio::test]
async fn a_tail_of_a_terabyte_is_not_asked_for() {
    let root = tempfile::tempdir().unwrap();
    let mut shard = write_shard(root.path(), 0, 1, &["2"]);
    File::options().write(true).open(root.path().join(shard.key.as_str())).unwrap().set_len(1 << 40).unwrap();
    (shard.len, shard.tail_len) = (1 << 40, 1 << 40);
    let archive = open(root.path(), vec![shard]).await;

    let refused = archive.lookup(day(), &uid("2")).await;

    assert!(is_beyond_limits(&refused), "{refused:?}");
}

#[tokio::test]
async fn a_shard_cannot_list_files_of_another_group() {
    let root = tempfile::tempdir().unwrap();
    let sound = write_shard(root.path(), 0, 1, &["2", "4"]);
    let hostile = write_shard(root.path(), 1, 2, &["3", "4"]);
    let archive = open(root.path(), vec![sound, hostile]).await;

    let four = archive.lookup(day(), &uid("4")).await.unwrap().unwrap();
    let listed = archive.list(day(), None, 100).await;

    assert_eq!(archive.read(day(), four.birth, 0, 100).await.unwrap(), "4 in 0");
    assert!(matches!(listed, Err(ArchiveError::Inconsistent { .. })), "{listed:?}");
    let of_the_sound_one = archive.list(day(), None, 2).await.unwrap();
    assert_eq!(of_the_sound_one[1], four);
}

#[tokio::test]
async fn a_shard_in_the_place_of_another_one_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let first = write_shard(root.path(), 0, 1, &["2"]);
    let second = write_shard(root.path(), 1, 2, &["3"]);
    fs::copy(root.path().join(second.key.as_str()), root.path().join(first.key.as_str())).unwrap();
    assert_eq!(first.len, second.len);
    let archive = open(root.path(), vec![first, second]).await;

    let refused = archive.lookup(day(), &uid("2")).await;

    assert!(matches!(refused, Err(ArchiveError::Inconsistent { .. })), "{refused:?}");
    assert!(archive.lookup(day(), &uid("3")).await.unwrap().is_some());
}

/// A shard of the ancestor with one entry, which claims to be compressed into so many bytes.
fn write_legacy_shard(root: &Path, name: &str, uid: &str, stored_len: u64) {
    let mut index = 1_u32.to_le_bytes().to_vec();
    index.extend(u16::try_from(uid.len()).unwrap().to_le_bytes());
    index.extend(uid.as_bytes());
    index.push(0);
    index.extend(8_u64.to_le_bytes());
    index.extend(stored_len.to_le_bytes());
    index.push(1);
    index.extend(stored_len.to_le_bytes());
    index.extend(1_000_u64.to_le_bytes());
    index.extend(0_u32.to_le_bytes());
    let index_len = u64::try_from(index.len()).unwrap();
    index.extend(LegacyFooter { index_len }.encode());

    let path = root.join(name);
    fs::write(&path, b"DES2\x02\0\0\0").unwrap();
    let file = File::options().write(true).open(path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &index, 8 + stored_len).unwrap();
}

fn open_legacy(root: &Path) -> Arc<Archive> {
    let store = Arc::new(LocalStore::open(root, clock()).unwrap());
    Archive::open_legacy(store, bits(), ReadOptions::default(), clock(), Arc::new(SeededRandom::new(1)))
}

#[tokio::test]
async fn a_compressed_file_of_a_terabyte_is_not_asked_for() {
    let root = tempfile::tempdir().unwrap();
    write_legacy_shard(root.path(), "20240115_0_0000.des", "2", 1 << 40);
    let archive = open_legacy(root.path());
    let found = archive.lookup(day(), &uid("2")).await.unwrap().unwrap();

    let refused = archive.read(day(), found.birth, 0, 100).await;

    assert!(is_beyond_limits(&refused), "{refused:?}");
}

#[tokio::test]
async fn a_shard_of_the_ancestor_cannot_list_files_of_another_group() {
    let root = tempfile::tempdir().unwrap();
    write_legacy_shard(root.path(), "20240115_0_0000.des", "4", 0);
    write_legacy_shard(root.path(), "20240115_1_0000.des", "4", 0);
    let archive = open_legacy(root.path());

    let listed = archive.list(day(), None, 100).await.unwrap();

    assert_eq!(listed, [archive.lookup(day(), &uid("4")).await.unwrap().unwrap()]);
}
