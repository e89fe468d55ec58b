use std::collections::BTreeSet;
use std::time::Duration;

use desfmt::{Birth, BucketBits, Group, Timestamp, Uid, v3};
use desstore::{ArchiveWriter, BuiltShard, Clock, ManualClock, MemoryStore, ObjectStore, ReadOptions, SeededRandom};
use rustix::io::Errno;

use super::*;
use crate::inode::Cookie;
use crate::options::MountOptions;

/// An archive in memory that is filled shard by shard and mounted, as it were.
struct Fixture {
    store: Arc<dyn ObjectStore>,
    clock: Arc<ManualClock>,
    writer: ArchiveWriter,
    scratch: tempfile::TempDir,
}

fn date(text: &str) -> Date {
    text.parse().unwrap()
}

fn day() -> Date {
    date("20240115")
}

impl Fixture {
    async fn new() -> Self {
        let clock = Arc::new(ManualClock::new(Timestamp::from_micros(1_705_300_000_000_000)));
        let store: Arc<dyn ObjectStore> = Arc::new(MemoryStore::new(Arc::<ManualClock>::clone(&clock)));
        let random = Arc::new(SeededRandom::new(1));
        let bits = BucketBits::new(0).unwrap();
        let writer =
            ArchiveWriter::create(Arc::clone(&store), bits, Arc::<ManualClock>::clone(&clock), random).await.unwrap();
        Self { store, clock, writer, scratch: tempfile::tempdir().unwrap() }
    }

    /// A fixture with these files in one shard of one day.
    async fn with(files: &[&str]) -> Self {
        let fixture = Self::new().await;
        fixture.pack(day(), files).await;
        fixture
    }

    async fn pack(&self, date: Date, names: &[&str]) {
        let mut uids: Vec<Uid> = names.iter().map(|name| Uid::new(name).unwrap()).collect();
        uids.sort_unstable();
        let group = Group::of(date, "any", self.writer.identity().bits()).unwrap();
        let survey = self.writer.survey(&group, &uids).await.unwrap();
        let (bytes, body, plain_len) = self.body(date, &uids);
        let file = self.scratch.path().join(body.shard_id().to_string());
        std::fs::write(&file, bytes).unwrap();
        let shard = BuiltShard { group, file, body, uids: uids.into(), plain_len, survey };
        self.writer.publish(&shard).await.unwrap();
    }

    fn body(&self, date: Date, uids: &[Uid]) -> (Vec<u8>, v3::Body, u64) {
        let settings = v3::BodySettings { archive: self.writer.identity().archive, codec: v3::Codec::Zstd };
        let encoder = v3::FrameEncoder::new(v3::Codec::Zstd, 3, None).unwrap();
        let mut body = v3::BodyWriter::new(settings, None, v3::Lineage::default()).unwrap();
        let mut cutter = v3::FrameCutter::new(v3::FrameSize::default());
        let (mut bytes, mut frames, mut plain_len) = (body.header(), Vec::new(), 0);
        for uid in uids {
            let content = content_of(uid.as_str());
            cutter.push(&content, &mut frames).unwrap();
            let placement = cutter.end_file(&mut frames).unwrap();
            let entry = v3::NewEntry {
                uid,
                created_at: date.start(),
                mtime: v3::Mtime { seconds: -5, nanos: 7 },
                offset: placement.offset,
                len: placement.len,
                digest: blake3::hash(&content),
                metadata: (uid.as_str() == "described").then_some("{\"colour\":\"blue\"}"),
                birth: None,
            };
            body.push_entry(entry).unwrap();
            plain_len += placement.len;
        }
        cutter.finish(&mut frames).unwrap();
        for frame in frames {
            bytes.extend(body.push_frame(encoder.encode(&frame).unwrap()).unwrap());
        }
        let body = body.finish().unwrap();
        bytes.extend_from_slice(body.trailer());
        (bytes, body, plain_len)
    }

    async fn mount(&self, options: &str) -> FileSystem {
        let options = MountOptions::parse([options], false).unwrap();
        let read = ReadOptions { ttl: options.ttl, ..ReadOptions::default() };
        let clock: Arc<dyn Clock> = Arc::<ManualClock>::clone(&self.clock);
        let random = Arc::new(SeededRandom::new(2));
        let archive = Archive::open(Arc::clone(&self.store), read, Arc::clone(&clock), random).await.unwrap();
        let modes = Modes {
            owner: options.owner.unwrap_or(0),
            group: options.group.unwrap_or(0),
            group_may_delete: options.group.is_some(),
            umask: options.umask,
            exec: options.exec,
        };
        FileSystem::new(archive, modes, DeletionPolicy::new(&options, "here".to_owned(), clock))
    }
}

fn content_of(uid: &str) -> Vec<u8> {
    format!("content of {uid}").into_bytes()
}

const ROOT: u64 = 1;

fn day_inode() -> u64 {
    Node::Day(day()).number()
}

fn as_user(user: u32) -> Caller {
    Caller { user }
}

fn errno<T: std::fmt::Debug>(result: Result<T, FsError>) -> Errno {
    result.unwrap_err().errno()
}

/// The names in a directory, read in pages of a length.
async fn names(mount: &FileSystem, inode: u64, page_len: usize) -> Vec<String> {
    let (mut names, mut position) = (Vec::new(), 0);
    loop {
        let entries = mount.list(inode, position, page_len).await.unwrap();
        let Some(last) = entries.last() else { return names };
        position = last.cookie.number();
        names.extend(entries.into_iter().map(|entry| entry.name));
    }
}

#[tokio::test]
async fn a_file_is_found_and_read() {
    let mount = Fixture::with(&["a", "b", "c"]).await.mount("").await;

    let day = mount.lookup(ROOT, b"20240115").await.unwrap();
    let file = mount.lookup(day.inode, b"b").await.unwrap();

    assert_eq!((day.kind, file.kind), (Kind::Directory, Kind::File));
    assert_eq!(mount.read(file.inode, 0, 1 << 20).await.unwrap(), content_of("b"));
    assert_eq!(mount.read(file.inode, 8, 2).await.unwrap(), content_of("b")[8..10]);
    assert_eq!(mount.read(file.inode, 1_000, 2).await.unwrap(), b""[..]);
    assert_eq!(mount.attributes(file.inode).await.unwrap(), file);
    assert_eq!(mount.attributes(day.inode).await.unwrap(), day);
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let mount = Fixture::with(&["a"]).await.mount("").await;

    for name in [&b"20240116"[..], b"2024-01-15", b"20240231", b"des.json", b"\xff", b"shards"] {
        assert_eq!(errno(mount.lookup(ROOT, name).await), Errno::NOENT);
    }
    for name in [&b"b"[..], b"\xff", b"%61", b"."] {
        assert_eq!(errno(mount.lookup(day_inode(), name).await), Errno::NOENT);
    }
    assert_eq!(errno(mount.lookup(day_inode(), &[b'x'; 256]).await), Errno::NAMETOOLONG);
}

#[tokio::test]
async fn directories_and_files_are_not_taken_for_each_other() {
    let mount = Fixture::with(&["a"]).await.mount("").await;
    let file = mount.lookup(day_inode(), b"a").await.unwrap().inode;

    assert_eq!(errno(mount.lookup(file, b"a").await), Errno::NOTDIR);
    assert_eq!(errno(mount.list(file, 0, 10).await), Errno::NOTDIR);
    assert_eq!(errno(mount.read(ROOT, 0, 10).await), Errno::ISDIR);
    assert_eq!(errno(mount.unlink(ROOT, b"20240115", as_user(0)).await), Errno::ISDIR);
    assert_eq!(errno(mount.remove_directory(day_inode(), b"a", as_user(0)).await), Errno::NOTDIR);
}

#[tokio::test]
async fn inodes_that_stand_for_nothing_are_stale() {
    let mount = Fixture::with(&["a"]).await.mount("").await;
    let missing = Node::File(day(), Birth { serial: 1, ordinal: 77 }).number();

    for inode in [0, 2, missing, Node::Day(date("20300101")).number()] {
        assert_eq!(errno(mount.attributes(inode).await), Errno::STALE);
    }
    assert_eq!(errno(mount.read(missing, 0, 1).await), Errno::STALE);
}

#[tokio::test]
async fn long_and_odd_names_are_listed_and_lead_back() {
    let long = "y".repeat(300);
    let odd = ["a/b", "..", "%", "new\nline", &long, "~"];
    let mount = Fixture::with(&odd).await.mount("").await;

    let entries = mount.list(day_inode(), Cookie::DOT_DOT.number(), 100).await.unwrap();

    assert_eq!(entries.len(), odd.len());
    for entry in entries {
        assert_eq!(mount.lookup(day_inode(), entry.name.as_bytes()).await.unwrap(), entry.attributes);
    }
}

#[tokio::test]
async fn a_listing_is_the_same_in_pages_of_any_length() {
    let uids: Vec<String> = (0..700).map(|number| format!("{number:04}")).collect();
    let fixture = Fixture::with(&uids.iter().map(String::as_str).collect::<Vec<_>>()).await;
    fixture.pack(day(), &["0000a", "zzz"]).await;
    let mount = fixture.mount("").await;

    let whole = names(&mount, day_inode(), 10_000).await;

    assert_eq!(whole.len(), 2 + 702);
    assert_eq!(whole[..3], [".", "..", "0000"]);
    assert_eq!(whole[702..], ["0000a", "zzz"], "a later shard comes later");
    for page_len in [1, 3, 64] {
        assert_eq!(names(&mount, day_inode(), page_len).await, whole);
    }
}

#[tokio::test]
async fn a_listing_resumes_after_an_entry_that_was_deleted() {
    let mount = Fixture::with(&["a", "b", "c", "d"]).await.mount("").await;
    let entries = mount.list(day_inode(), Cookie::DOT_DOT.number(), 2).await.unwrap();

    mount.unlink(day_inode(), b"b", as_user(0)).await.unwrap();
    mount.unlink(day_inode(), b"c", as_user(0)).await.unwrap();
    let rest = mount.list(day_inode(), entries[1].cookie.number(), 10).await.unwrap();

    assert_eq!(rest.iter().map(|entry| entry.name.as_str()).collect::<Vec<_>>(), ["d"]);
    assert_eq!(names(&mount, day_inode(), 10).await, [".", "..", "a", "d"]);
}

#[tokio::test]
async fn the_root_lists_days_in_order() {
    let fixture = Fixture::new().await;
    for day in ["20240301", "19991231", "20240115"] {
        fixture.pack(date(day), &["a"]).await;
    }
    let mount = fixture.mount("").await;

    for page_len in [1, 2, 100] {
        assert_eq!(names(&mount, ROOT, page_len).await, [".", "..", "19991231", "20240115", "20240301"]);
    }
    let entries = mount.list(ROOT, Cookie::of_day(date("20000101")).number(), 10).await.unwrap();
    assert_eq!(entries[0].name, "20240115");
}

#[tokio::test]
async fn listed_attributes_are_those_of_stat() {
    let mount = Fixture::with(&["a", "b"]).await.mount("uid=7,gid=8").await;

    for directory in [ROOT, day_inode()] {
        for entry in mount.list(directory, 0, 10).await.unwrap() {
            assert_eq!(mount.attributes(entry.attributes.inode).await.unwrap(), entry.attributes);
        }
    }
}

#[tokio::test]
async fn modes_follow_the_options() {
    let fixture = Fixture::with(&["a"]).await;
    for (options, day_mode, file_mode) in [
        ("", 0o755, 0o444),
        ("gid=5", 0o775, 0o444),
        ("ro", 0o555, 0o444),
        ("delete=deny,gid=5", 0o555, 0o444),
        ("umask=027", 0o750, 0o440),
        ("exec", 0o755, 0o555),
    ] {
        let mount = fixture.mount(options).await;
        let day = mount.lookup(ROOT, b"20240115").await.unwrap();
        let file = mount.lookup(day.inode, b"a").await.unwrap();
        assert_eq!((day.mode, file.mode), (day_mode, file_mode), "{options}");
        assert_eq!((file.mtime.seconds, file.mtime.nanos, file.links), (-5, 7, 1));
    }
}

#[tokio::test]
async fn a_deleted_file_is_gone_at_once_and_read_by_who_has_it_open() {
    let fixture = Fixture::with(&["a", "b"]).await;
    let mount = fixture.mount("").await;
    let file = mount.lookup(day_inode(), b"a").await.unwrap();

    let gone = mount.unlink(day_inode(), b"a", as_user(0)).await.unwrap();

    assert_eq!(gone.number(), file.inode);
    assert_eq!(errno(mount.lookup(day_inode(), b"a").await), Errno::NOENT);
    assert_eq!(errno(mount.unlink(day_inode(), b"a", as_user(0)).await), Errno::NOENT);
    assert_eq!(mount.read(file.inode, 0, 100).await.unwrap(), content_of("a"));
    assert_eq!(mount.attributes(file.inode).await.unwrap(), file);
    assert_eq!(errno(fixture.mount("").await.lookup(day_inode(), b"a").await), Errno::NOENT);
}

#[tokio::test]
async fn another_mount_sees_a_deletion_within_its_ttl() {
    let fixture = Fixture::with(&["a", "b"]).await;
    let (here, there) = (fixture.mount("").await, fixture.mount("ttl=60s").await);
    there.lookup(day_inode(), b"a").await.unwrap();

    here.unlink(day_inode(), b"a", as_user(0)).await.unwrap();
    fixture.clock.advance(Duration::from_secs(20));
    let lease = there.lease(day_inode(), b"a");
    there.lookup(day_inode(), b"a").await.unwrap();
    // The kernel may keep the name for what is left, and no longer.
    assert_eq!(there.left_of(lease), Duration::from_secs(40));
    fixture.clock.advance(Duration::from_secs(40));

    assert_eq!(errno(there.lookup(day_inode(), b"a").await), Errno::NOENT);
}

#[tokio::test]
async fn a_day_that_was_emptied_here_is_there_until_it_is_removed() {
    let fixture = Fixture::with(&["a", "b"]).await;
    fixture.pack(date("20240116"), &["c"]).await;
    let mount = fixture.mount("").await;
    assert_eq!(errno(mount.remove_directory(ROOT, b"20240115", as_user(0)).await), Errno::NOTEMPTY);

    mount.unlink(day_inode(), b"a", as_user(0)).await.unwrap();
    mount.unlink(day_inode(), b"b", as_user(0)).await.unwrap();

    mount.lookup(ROOT, b"20240115").await.unwrap();
    assert_eq!(names(&mount, ROOT, 10).await, [".", "..", "20240115", "20240116"]);
    assert_eq!(names(&fixture.mount("").await, ROOT, 10).await, [".", "..", "20240116"], "nobody else shows it");
    mount.remove_directory(ROOT, b"20240115", as_user(0)).await.unwrap();
    assert_eq!(errno(mount.lookup(ROOT, b"20240115").await), Errno::NOENT);
    assert_eq!(names(&mount, ROOT, 10).await, [".", "..", "20240116"]);
    assert_eq!(names(&mount, day_inode(), 10).await, [".", ".."], "who stands in it sees nothing");
    assert_eq!(errno(mount.remove_directory(ROOT, b"20240117", as_user(0)).await), Errno::NOENT);

    fixture.pack(day(), &["later"]).await;
    fixture.clock.advance(Duration::from_mins(1));
    assert_eq!(names(&mount, day_inode(), 10).await, [".", "..", "later"]);
    mount.lookup(ROOT, b"20240115").await.unwrap();
}

#[tokio::test]
async fn only_those_who_may_delete_do() {
    let fixture = Fixture::with(&["a", "b", "c"]).await;
    for options in ["ro", "delete=deny"] {
        let mount = fixture.mount(options).await;
        assert_eq!(errno(mount.unlink(day_inode(), b"a", as_user(0)).await), Errno::ROFS);
        assert_eq!(errno(mount.unlink(day_inode(), b"nothing", as_user(0)).await), Errno::NOENT);
        assert_eq!(errno(mount.remove_directory(ROOT, b"20240115", as_user(0)).await), Errno::ROFS);
    }
    let mount = fixture.mount("delete=5:6").await;
    assert_eq!(errno(mount.unlink(day_inode(), b"a", as_user(0)).await), Errno::PERM);
    assert_eq!(errno(mount.remove_directory(ROOT, b"20240115", as_user(7)).await), Errno::PERM);
    mount.unlink(day_inode(), b"a", as_user(6)).await.unwrap();
}

#[tokio::test]
async fn a_limit_stops_deletions_that_would_have_worked() {
    let fixture = Fixture::with(&["a", "b", "c"]).await;
    let mount = fixture.mount("delete_limit=2/h").await;
    assert_eq!(errno(mount.unlink(day_inode(), b"nothing", as_user(0)).await), Errno::NOENT);

    mount.unlink(day_inode(), b"a", as_user(0)).await.unwrap();
    mount.unlink(day_inode(), b"b", as_user(0)).await.unwrap();

    assert_eq!(errno(mount.unlink(day_inode(), b"c", as_user(0)).await), Errno::DQUOT);
    fixture.clock.advance(Duration::from_mins(31));
    mount.unlink(day_inode(), b"c", as_user(0)).await.unwrap();
}

#[tokio::test]
async fn extended_attributes_tell_what_is_known() {
    let mount = Fixture::with(&["described", "plain"]).await.mount("xattr").await;
    let described = mount.lookup(day_inode(), b"described").await.unwrap().inode;
    let plain = mount.lookup(day_inode(), b"plain").await.unwrap().inode;
    let value = async |inode, name: &str| {
        mount.extended_attribute(inode, name.as_bytes()).await.map(|value| String::from_utf8(value).unwrap())
    };

    assert_eq!(value(described, "user.des.uid").await.unwrap(), "described");
    assert_eq!(value(described, "user.des.size").await.unwrap(), "20");
    assert_eq!(value(described, "user.des.metadata").await.unwrap(), "{\"colour\":\"blue\"}");
    assert_eq!(value(described, "user.des.created_at").await.unwrap(), "2024-01-15T00:00:00Z");
    assert!(value(described, "user.des.shard").await.unwrap().starts_with("shards/20240115/"));
    let digest = format!("blake3:{}", blake3::hash(&content_of("plain")));
    assert_eq!(value(plain, "user.des.digest").await.unwrap(), digest);
    assert_eq!(errno(value(plain, "user.des.metadata").await), Errno::NODATA);
    assert_eq!(errno(value(plain, "security.capability").await), Errno::NODATA);
    assert_eq!(errno(value(day_inode(), "user.des.uid").await), Errno::NODATA);

    let listed = String::from_utf8(mount.extended_attribute_names(described).await.unwrap()).unwrap();
    let listed: BTreeSet<_> = listed.split_terminator('\0').collect();
    assert_eq!(listed.len(), 8);
    assert_eq!(mount.extended_attribute_names(plain).await.unwrap().split(|byte| *byte == 0).count(), 7 + 1);
    assert_eq!(mount.extended_attribute_names(ROOT).await.unwrap(), b"");
}

#[tokio::test]
async fn totals_are_known_after_they_were_asked_for() {
    let mount = Fixture::with(&["a", "b"]).await.mount("").await;
    assert_eq!(mount.totals_known(), Totals::default());

    let totals = mount.totals().await.unwrap();

    assert_eq!((totals.files, totals.plain_bytes), (2, 24));
    assert!(totals.stored_bytes > 0);
    assert_eq!(mount.totals_known(), totals);
}

#[test]
fn what_is_no_missing_file_is_never_called_one() {
    use desfmt::FormatError;
    use desstore::{StoreError, StoreErrorKind};

    for kind in [
        StoreErrorKind::NotFound,
        StoreErrorKind::AlreadyExists,
        StoreErrorKind::PreconditionFailed,
        StoreErrorKind::Denied,
        StoreErrorKind::Throttled,
        StoreErrorKind::Unavailable,
        StoreErrorKind::Corrupt,
        StoreErrorKind::Unsupported,
    ] {
        let error = FsError::from(ArchiveError::Store(StoreError::new(kind, "get", "key")));
        assert_eq!(error.errno(), Errno::IO, "{kind:?}");
        assert!(error.is_trouble());
    }
    let damaged = ArchiveError::Damaged { object: "x".to_owned(), source: FormatError::damaged("page", "crc") };
    assert_eq!(FsError::from(damaged).errno(), Errno::IO);
}
