//! A local store beyond the contract: durability, links, debris, and directories that are not what they seem.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use super::root::Resolver;
use super::*;
use crate::clock::{ManualClock, SystemClock};
use crate::store::list_all;

struct Ground {
    _directory: tempfile::TempDir,
    store: LocalStore,
}

fn ground() -> Ground {
    let directory = tempfile::tempdir().unwrap();
    let store = LocalStore::create(directory.path().join("a/b"), Arc::new(SystemClock::new())).unwrap();
    Ground { _directory: directory, store }
}

impl Ground {
    fn path(&self, key: &str) -> PathBuf {
        self.store.root().join(key)
    }

    fn steps(&self) -> Vec<String> {
        self.store.shared.root.trail.take()
    }

    async fn put(&self, text: &str, content: &'static str) -> Receipt {
        self.store.put(&key(text), bytes(content)).await.unwrap()
    }
}

fn key(text: &str) -> ObjectKey {
    ObjectKey::new(text).unwrap()
}

fn bytes(content: &'static str) -> Payload {
    Payload::Bytes(Bytes::from_static(content.as_bytes()))
}

fn with(store: LocalStore, change: impl FnOnce(Shared) -> Shared) -> LocalStore {
    LocalStore { shared: Arc::new(change(Arc::into_inner(store.shared).unwrap())) }
}

async fn check_contract(resolver: Resolver, page_len: usize) {
    let directory = tempfile::tempdir().unwrap();
    let stores = AtomicU64::new(0);
    let make = || -> Arc<dyn ObjectStore> {
        let root = directory.path().join(stores.fetch_add(1, Ordering::Relaxed).to_string());
        let store = LocalStore::create(root, Arc::new(SystemClock::new())).unwrap();
        Arc::new(with(store, |shared| Shared { root: shared.root.with_resolver(resolver), page_len, ..shared }))
    };

    crate::conformance::run(make, directory.path()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_local_store_keeps_the_contract() {
    check_contract(Resolver::Kernel, 50).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_local_store_keeps_the_contract_without_openat2() {
    check_contract(Resolver::Walk, 1_000).await;
}

#[tokio::test]
async fn a_write_is_synced_before_it_is_acknowledged() {
    let ground = ground();

    ground.store.put_if_absent(&key("m/n/first"), bytes("1")).await.unwrap();
    assert_eq!(
        ground.steps(),
        [
            "sync directory ",
            "sync directory m",
            "sync directory ",
            "sync file .spool/*",
            "link m/n/first",
            "sync directory m/n",
        ]
    );

    let receipt = ground.put("m/n/first", "2").await;
    let replacing = ["sync file .spool/*", "rename m/n/first", "sync directory m/n"];
    assert_eq!(ground.steps(), replacing);

    ground.store.put_if_match(&key("m/n/first"), &receipt.etag, bytes("3")).await.unwrap();
    assert_eq!(ground.steps(), replacing);

    ground.store.delete(&key("m/n/first")).await.unwrap();
    assert_eq!(ground.steps(), ["unlink m/n/first", "sync directory m/n"]);
}

#[tokio::test]
async fn what_a_dead_writer_left_unsynced_is_synced_by_whoever_finds_it() {
    let ground = ground();
    ground.put("m/there", "x").await;
    let other = LocalStore::open(ground.store.root(), Arc::new(SystemClock::new())).unwrap();

    other.put_if_absent(&key("m/there"), bytes("y")).await.unwrap_err();
    assert_eq!(other.shared.root.trail.take(), ["sync directory ", "sync directory m"]);

    other.delete(&key("m/not there")).await.unwrap();
    assert_eq!(other.shared.root.trail.take(), ["sync directory m"]);
}

#[tokio::test]
async fn a_finished_file_is_linked_where_it_can_be() {
    let ground = ground();
    let file = ground.store.spool().unwrap().join("built");
    std::fs::write(&file, "content").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    ground.steps();

    let receipt = ground.store.put_if_absent(&key("shards/x.des"), Payload::File(file.clone())).await.unwrap();

    let steps = ["sync directory ", "sync file shards/x.des", "link shards/x.des", "sync directory shards"];
    assert_eq!(ground.steps(), steps);
    let (source, target) = (file.metadata().unwrap(), ground.path("shards/x.des").metadata().unwrap());
    assert_eq!(source.ino(), target.ino());
    assert_eq!(target.mode() & 0o777, ground.store.root().metadata().unwrap().mode() & 0o666);
    assert_eq!(ground.store.head(&key("shards/x.des")).await.unwrap().etag, receipt.etag);
}

#[tokio::test]
async fn a_file_that_is_an_object_already_is_copied_and_left_alone() {
    let ground = ground();
    let file = ground.store.spool().unwrap().join("built");
    std::fs::write(&file, "content").unwrap();
    let first = ground.store.put_if_absent(&key("a"), Payload::File(file.clone())).await.unwrap();

    let again = ground.store.put_if_absent(&key("a"), Payload::File(file.clone())).await;
    ground.store.put_if_absent(&key("b"), Payload::File(file)).await.unwrap();

    assert_eq!(again.unwrap_err().kind, StoreErrorKind::AlreadyExists);
    assert_eq!(ground.store.head(&key("a")).await.unwrap().etag, first.etag);
    assert_ne!(ground.path("a").metadata().unwrap().ino(), ground.path("b").metadata().unwrap().ino());
}

#[tokio::test]
async fn a_version_is_later_than_the_one_it_replaces_even_when_the_clock_goes_back() {
    let directory = tempfile::tempdir().unwrap();
    let at = |micros| Arc::new(ManualClock::new(Timestamp::from_micros(micros)));
    let store = |micros| LocalStore::open(directory.path(), at(micros)).unwrap();

    let first = store(2_000_000_000_000_000).put(&key("a"), bytes("same")).await.unwrap();
    let slow = store(1_000_000_000_000_000);
    let second = slow.put(&key("a"), bytes("same")).await.unwrap();

    assert_ne!(first.etag, second.etag);
    assert!(second.at >= first.at);
    assert_eq!(slow.head(&key("a")).await.unwrap().etag, second.etag);
    let steps = slow.shared.root.trail.take();
    assert!(steps.ends_with(&["sync file .spool/*", "rename a", "sync directory "].map(String::from)), "{steps:?}");
}

#[tokio::test]
async fn debris_of_the_dead_goes_and_files_in_use_stay() {
    let ground = ground();
    let spool = ground.store.spool().unwrap();
    std::fs::write(spool.join("put-1-00"), "of a process that died").unwrap();
    std::fs::write(spool.join("built"), "of somebody else").unwrap();
    std::fs::create_dir(spool.join("put-directory")).unwrap();
    let stamp = ground.store.shared.stamp();
    let in_use = TempFile::write(&ground.store.shared.root, bytes("x"), stamp).unwrap();

    assert_eq!(ground.store.clean_debris().unwrap(), 1);
    assert!(!spool.join("put-1-00").try_exists().unwrap());
    assert!(spool.join("built").try_exists().unwrap());
    assert!(spool.join(in_use.name()).try_exists().unwrap());

    drop(in_use);
    assert_eq!(std::fs::read_dir(&spool).unwrap().count(), 2);
    assert_eq!(ground.store.clean_debris().unwrap(), 0);
}

#[tokio::test]
async fn a_write_leaves_nothing_in_the_spool() {
    let ground = ground();
    let receipt = ground.put("a", "1").await;
    ground.store.put_if_absent(&key("a"), bytes("2")).await.unwrap_err();
    ground.store.put_if_match(&key("b"), &receipt.etag, bytes("2")).await.unwrap_err();
    ground.store.put_if_match(&key("a"), &receipt.etag, bytes("2")).await.unwrap();

    assert_eq!(std::fs::read_dir(ground.path(".spool")).unwrap().count(), 0);
}

#[tokio::test]
async fn symbolic_links_are_errors_and_never_followed() {
    let directory = tempfile::tempdir().unwrap();
    for resolver in [Resolver::Kernel, Resolver::Walk] {
        let root = directory.path().join(format!("{resolver:?}"));
        let store = LocalStore::create(&root, Arc::new(SystemClock::new())).unwrap();
        let store = with(store, |shared| Shared { root: shared.root.with_resolver(resolver), ..shared });
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("secret"), "secret").unwrap();
        symlink(outside.path(), root.join("directory")).unwrap();
        symlink(outside.path().join("secret"), root.join("file")).unwrap();

        for text in ["file", "directory/secret"] {
            let key = key(text);
            assert_eq!(store.get(&key, 100).await.unwrap_err().kind, StoreErrorKind::Denied, "{text}");
            assert_eq!(store.get_range(&key, 0..1, None).await.unwrap_err().kind, StoreErrorKind::Denied);
            assert_eq!(store.head(&key).await.unwrap_err().kind, StoreErrorKind::Denied);
            assert_eq!(store.put(&key, bytes("x")).await.unwrap_err().kind, StoreErrorKind::Denied);
            assert_eq!(store.delete(&key).await.unwrap_err().kind, StoreErrorKind::Denied);
        }
        let created = store.put_if_absent(&key("directory/new"), bytes("x")).await;
        assert_eq!(created.unwrap_err().kind, StoreErrorKind::Denied);
        for prefix in ["", "directory/"] {
            let listed = list_all(&store, prefix, Depth::Recursive, 100).await;
            assert_eq!(listed.unwrap_err().kind, StoreErrorKind::Denied);
        }
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1);
        assert_eq!(std::fs::read(outside.path().join("secret")).unwrap(), b"secret");
    }
}

#[tokio::test]
async fn only_regular_files_with_plain_names_are_objects() {
    let ground = ground();
    ground.put("shards/file", "x").await;
    std::fs::write(ground.path("shards/.rsync.Xy12"), "part").unwrap();
    std::fs::write(ground.path("shards/back\\slash"), "x").unwrap();
    std::fs::create_dir(ground.path("shards/empty")).unwrap();
    rustix::fs::mkfifoat(ground.store.shared.root.fd(), "shards/pipe", Mode::RUSR | Mode::WUSR).unwrap();

    let listed = list_all(&ground.store, "", Depth::Recursive, 100).await.unwrap();

    assert_eq!(listed.iter().map(|meta| meta.key.as_str()).collect::<Vec<_>>(), ["shards/file"]);
    for text in ["shards/pipe", "shards/empty", ".lock", ".spool/x", "shards/.rsync.Xy12"] {
        assert_eq!(ground.store.get(&key(text), 10).await.unwrap_err().kind, StoreErrorKind::NotFound, "{text}");
    }
    for text in [".lock", ".spool/x", "shards/.hidden"] {
        let written = ground.store.put_if_absent(&key(text), bytes("x")).await;
        assert_eq!(written.unwrap_err().kind, StoreErrorKind::Unsupported, "{text}");
        assert_eq!(ground.store.delete(&key(text)).await.unwrap_err().kind, StoreErrorKind::Unsupported, "{text}");
    }
    let below_a_file = ground.store.put_if_absent(&key("shards/file/below"), bytes("x")).await;
    assert_eq!(below_a_file.unwrap_err().kind, StoreErrorKind::Unsupported);
}

#[tokio::test]
async fn prefixes_that_no_key_can_have_list_nothing() {
    let ground = ground();
    ground.put("a/b", "x").await;
    for prefix in ["/", "/a", "../", "a/../a/", "a//", "./", ".spool/", "a/\0"] {
        assert!(list_all(&ground.store, prefix, Depth::Recursive, 10).await.unwrap().is_empty(), "{prefix:?}");
    }
}

#[tokio::test]
async fn a_listing_goes_on_after_any_key() {
    let ground = ground();
    let keys = ["m/a", "m/b", "m/d!", "m/d/1", "m/d/2", "m/d/2/x", "m/d0", "m/e/f/g"];
    for text in keys.into_iter().filter(|text| *text != "m/d/2") {
        ground.put(text, "x").await;
    }
    for after in keys.into_iter().chain(["", "m/", "m/d", "m/d/", "m/d/1/2", "m/e/f/g/h", "l", "n"]) {
        let expected: Vec<&str> = keys.into_iter().filter(|text| *text != "m/d/2" && *text > after).collect();
        let page = ground.store.list("m/", Depth::Recursive, Some(after)).await.unwrap();
        let found: Vec<&str> = page.objects.iter().map(|meta| meta.key.as_str()).collect();
        assert_eq!(found, expected, "after {after:?}");
    }
}

#[tokio::test]
async fn a_removed_root_is_not_an_empty_one() {
    let ground = ground();
    ground.put("a/b", "x").await;

    std::fs::remove_dir_all(ground.store.root()).unwrap();

    let kind = StoreErrorKind::Unavailable;
    assert_eq!(ground.store.get(&key("a/b"), 10).await.unwrap_err().kind, kind);
    assert_eq!(ground.store.head(&key("a/b")).await.unwrap_err().kind, kind);
    assert_eq!(list_all(&ground.store, "a/", Depth::Recursive, 10).await.unwrap_err().kind, kind);
    assert_eq!(list_all(&ground.store, "", Depth::Recursive, 10).await.unwrap_err().kind, kind);
}

#[tokio::test]
async fn a_missing_root_is_created_only_when_asked() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("x/y");
    let clock = || Arc::new(SystemClock::new());

    assert_eq!(LocalStore::open(&root, clock()).unwrap_err().kind, StoreErrorKind::NotFound);
    LocalStore::create(&root, clock()).unwrap();
    LocalStore::create(&root, clock()).unwrap();
    LocalStore::open(&root, clock()).unwrap();

    std::fs::write(directory.path().join("file"), "x").unwrap();
    assert!(LocalStore::create(directory.path().join("file"), clock()).is_err());
}

#[tokio::test]
async fn files_stay_open_within_bounds_and_go_when_their_objects_go() {
    let mut ground = ground();
    ground.store = with(ground.store, |shared| Shared { files: OpenFiles::new(4), ..shared });
    for number in 0..7 {
        let object = key(&format!("shards/{number}"));
        ground.store.put_if_absent(&object, bytes("content")).await.unwrap();
        ground.store.get_range(&object, 0..7, None).await.unwrap();
        ground.store.get_range(&key("shards/0"), 0..7, None).await.unwrap();
    }
    let files = &ground.store.shared.files;
    assert_eq!(files.count(), 4);
    assert!(files.current(&key("shards/3")).is_none());
    assert!(["0", "4", "5", "6"].iter().all(|name| files.current(&key(&format!("shards/{name}"))).is_some()));

    ground.store.delete(&key("shards/6")).await.unwrap();
    assert_eq!(files.count(), 3);

    std::fs::remove_file(ground.path("shards/5")).unwrap();
    ground.store.close_removed();
    assert_eq!(files.count(), 2);

    std::fs::remove_file(ground.path("shards/4")).unwrap();
    let read = ground.store.get_range(&key("shards/4"), 0..7, None).await;
    assert_eq!(read.unwrap_err().kind, StoreErrorKind::NotFound);
}

#[tokio::test]
async fn a_file_cut_short_behind_the_store_is_never_read_as_whole() {
    let ground = ground();
    let receipt = ground.put("a", "0123456789").await;
    ground.store.get_range(&key("a"), 0..10, None).await.unwrap();

    std::fs::OpenOptions::new().write(true).open(ground.path("a")).unwrap().set_len(5).unwrap();

    let unconditional = ground.store.get_range(&key("a"), 0..10, None).await;
    assert_eq!(unconditional.unwrap_err().kind, StoreErrorKind::Corrupt);
    let conditional = ground.store.get_range(&key("a"), 0..3, Some(&receipt.etag)).await;
    assert_eq!(conditional.unwrap_err().kind, StoreErrorKind::PreconditionFailed);
}

#[tokio::test]
async fn a_writer_gives_up_when_the_lock_is_never_free() {
    let directory = tempfile::tempdir().unwrap();
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(Timestamp::from_micros(0)));
    let one = LocalStore::open(directory.path(), Arc::clone(&clock)).unwrap();
    let other = LocalStore::open(directory.path(), clock).unwrap();
    let held = one.lock().await.unwrap();

    assert_eq!(other.put(&key("a"), bytes("x")).await.unwrap_err().kind, StoreErrorKind::Unavailable);
    assert_eq!(std::fs::read_dir(directory.path().join(".spool")).unwrap().count(), 0);

    drop(held);
    other.put(&key("a"), bytes("x")).await.unwrap();
}

#[test]
fn a_local_store_needs_no_runtime_and_reads_complete_at_the_first_poll() {
    use futures_util::FutureExt;
    let ground = ground();

    ground.store.put_if_absent(&key("a"), bytes("content")).now_or_never().unwrap().unwrap();

    assert_eq!(ground.store.get_range(&key("a"), 3..5, None).now_or_never().unwrap().unwrap(), "te");
    assert_eq!(ground.store.get_tail(&key("a"), 3).now_or_never().unwrap().unwrap().bytes, "ent");
    assert!(ground.store.get(&key("a"), 10).now_or_never().unwrap().is_ok());
    assert!(ground.store.list("", Depth::Direct, None).now_or_never().unwrap().is_ok());
}

#[tokio::test]
async fn what_is_created_belongs_to_the_owner_of_the_root() {
    let ground = ground();
    // Where the test may not give the root away, the owner is who runs it, and the rest holds all the same.
    let owner = std::os::unix::fs::chown(ground.store.root(), Some(12_345), Some(12_345))
        .map_or_else(|_| ground.store.root().metadata().unwrap().uid(), |()| 12_345);

    ground.put("a/b", "bytes").await;
    let receipt = ground.put("a/c", "old").await;
    ground.store.put_if_match(&key("a/c"), &receipt.etag, bytes("new")).await.unwrap();

    for made in ["a", "a/b", "a/c"] {
        assert_eq!(ground.path(made).metadata().unwrap().uid(), owner, "{made}");
    }
}
