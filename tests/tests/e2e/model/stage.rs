//! An archive, its mounts and the model of it: plays sequences and compares after every step.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::rc::Rc;

use des_tests::{Entry, Mount, des_pack, list_from, run, scratch, shown_name};
use rustix::process::{Signal, kill_process};
use serde_json::json;
use tempfile::TempDir;

use super::mapper::Mapper;
use super::steps::{Content, DAYS, Place, Span, Step, UIDS};
use super::truth::Day;

/// Files and mappings that a sequence holds at once, at most.
const HELD_MAX: usize = 6;

/// An archive that sequences are played on.
#[derive(Debug)]
pub(super) struct Stage {
    scratch: TempDir,
    options: &'static str,
    /// Whether the mount sees at once what is changed elsewhere.
    is_current: bool,
    /// `None` only while remounting.
    mount: Option<Mount>,
    /// Another host.
    elsewhere: Option<Mount>,
    mapper: Mapper,
    days: BTreeMap<String, Day>,
    packs: usize,
    sequences: u32,
    /// The days of the sequence that is played.
    current: Vec<String>,
    open: Vec<(File, Rc<Vec<u8>>)>,
    mapped: Vec<Content>,
}

impl Stage {
    pub(super) fn new(options: &'static str, is_current: bool) -> Self {
        Self {
            scratch: scratch(),
            options,
            is_current,
            mount: None,
            elsewhere: None,
            mapper: Mapper::start(),
            days: BTreeMap::new(),
            packs: 0,
            sequences: 0,
            current: Vec::new(),
            open: Vec::new(),
            mapped: Vec::new(),
        }
    }

    /// How many sequences it has seen.
    pub(super) const fn sequences(&self) -> u32 {
        self.sequences
    }

    /// Plays a sequence on days of its own.
    pub(super) fn play(&mut self, sequence: &[Step]) {
        // Days of several sequences lie between each other.
        self.current = (0..DAYS).map(|day| format!("20{:02}06{:02}", 24 + day, 1 + self.sequences)).collect();
        self.sequences += 1;
        for (number, step) in sequence.iter().enumerate() {
            self.take(step);
            self.compare(&format!("after step {number}, {step:?}"));
        }
        self.let_go();
    }

    /// Compares everything that all sequences have left, on a mount that has seen nothing before.
    pub(super) fn finish(mut self) {
        self.remount();
        self.current = self.days.keys().cloned().collect();
        self.compare("at the end");
    }

    fn root(&self) -> PathBuf {
        self.mount.as_ref().expect("mounted").path().to_path_buf()
    }

    fn path(&self, (day, uid): Place) -> PathBuf {
        self.root().join(&self.current[day]).join(shown_name(UIDS[uid]))
    }

    fn day(&mut self, day: usize) -> &mut Day {
        self.days.entry(self.current[day].clone()).or_default()
    }

    fn bytes(&mut self, (day, uid): Place) -> Option<Rc<Vec<u8>>> {
        self.day(day).files.get(UIDS[uid]).map(|file| Rc::clone(&file.bytes))
    }

    /// Where a content lies to be packed.
    fn source(&self, content: Content) -> PathBuf {
        self.scratch.path().join(format!("{}-{}", content.len, content.variant))
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Lookup(place) => self.look_up(*place),
            Step::List { directory, from, buffer_bytes } => self.list(*directory, *from, *buffer_bytes),
            Step::Open(place) => self.open(*place),
            Step::Read(handle, span) if !self.open.is_empty() => self.read(handle.index(self.open.len()), *span),
            Step::Map(place) => self.map(*place),
            Step::Look(mapping, span) if !self.mapped.is_empty() => {
                self.look(mapping.index(self.mapped.len()), *span);
            }
            Step::Read(..) | Step::Look(..) => {}
            Step::Unlink(place) => self.unlink(*place),
            Step::UnlinkElsewhere(place) => self.unlink_elsewhere(*place),
            Step::RemoveDay(day) => self.remove_day(*day),
            Step::Pack(files) => self.pack(files),
            Step::DropCaches => {
                kill_process(self.mount.as_ref().expect("mounted").daemon(), Signal::HUP).expect("SIGHUP");
            }
            Step::Remount => self.remount(),
        }
    }

    fn look_up(&mut self, place: Place) {
        let expected = self.bytes(place);
        match (fs::symlink_metadata(self.path(place)), expected) {
            (Ok(found), Some(bytes)) => {
                assert!(found.is_file());
                assert_eq!(usize::try_from(found.len()), Ok(bytes.len()));
                if let Some((inode, _)) = self.day(place.0).known.get(UIDS[place.1]) {
                    assert_eq!(found.ino(), *inode);
                }
            }
            (Err(error), None) => assert_eq!(error.kind(), ErrorKind::NotFound),
            (found, expected) => panic!("found {found:?}, there is one: {}", expected.is_some()),
        }
    }

    fn list(&mut self, directory: usize, from: proptest::sample::Index, buffer_bytes: usize) {
        let path = self.current.get(directory).map_or_else(|| self.root(), |day| self.root().join(day));
        if directory < DAYS && !self.day(directory).is_shown() {
            assert_eq!(fs::read_dir(&path).expect_err("a day that is not there").kind(), ErrorKind::NotFound);
            return;
        }
        let whole = list_from(&path, 0, 65_536);
        assert_eq!(list_from(&path, 0, buffer_bytes), whole, "with a buffer of {buffer_bytes}");
        if !whole.is_empty() {
            let from = from.index(whole.len());
            assert_eq!(list_from(&path, whole[from].cookie, buffer_bytes), whole[from + 1..], "from {from}");
        }
        if directory < DAYS {
            // After an entry that is gone, the listing goes on with what followed it.
            let known: Vec<_> = self.day(directory).known.values().map(|(_, cookie)| *cookie).collect();
            for cookie in known {
                let rest: Vec<_> = whole.iter().filter(|entry| entry.cookie > cookie).cloned().collect();
                assert_eq!(list_from(&path, cookie, buffer_bytes), rest, "after {cookie}");
            }
        }
    }

    fn open(&mut self, place: Place) {
        let path = self.path(place);
        match (File::open(path), self.bytes(place)) {
            (Ok(file), Some(bytes)) => {
                self.open.push((file, bytes));
                if self.open.len() > HELD_MAX {
                    self.open.remove(0);
                }
            }
            (Err(error), None) => assert_eq!(error.kind(), ErrorKind::NotFound),
            (found, expected) => panic!("found {found:?}, there is one: {}", expected.is_some()),
        }
    }

    fn read(&self, handle: usize, span: Span) {
        let (file, bytes) = &self.open[handle];
        let (offset, len) = span.of(bytes.len());
        let mut found = vec![0; len];
        let mut filled = 0;
        while filled < len {
            let at = u64::try_from(offset + filled).expect("a small number");
            let count = file.read_at(&mut found[filled..], at).expect("an open file can be read");
            if count == 0 {
                break;
            }
            filled += count;
        }
        let expected = bytes.get(offset..).unwrap_or_default();
        assert!(found[..filled] == expected[..len.min(expected.len())], "bytes from {offset}, {len}");
    }

    fn map(&mut self, place: Place) {
        let file = self.day(place.0).files.get(UIDS[place.1]);
        let Some(content) = file.map(|file| file.content).filter(|content| content.len > 0) else { return };
        if self.mapped.len() == HELD_MAX {
            self.mapper.clear();
            self.mapped.clear();
        }
        let path = self.path(place);
        assert_eq!(self.mapper.map(self.mapped.len(), &path), content.len);
        self.mapped.push(content);
    }

    fn look(&mut self, mapping: usize, span: Span) {
        let content = self.mapped[mapping];
        let (offset, len) = span.of(content.len);
        let source = self.source(content);
        assert!(self.mapper.is_as_in(mapping, &source, offset, len), "mapped bytes from {offset}, {len}");
    }

    fn unlink(&mut self, place: Place) {
        let outcome = fs::remove_file(self.path(place));
        let was_there = self.day(place.0).unlink(UIDS[place.1], true);
        assert_eq!(outcome.map_err(|error| error.kind()), if was_there { Ok(()) } else { Err(ErrorKind::NotFound) });
    }

    fn unlink_elsewhere(&mut self, place: Place) {
        if !self.is_current {
            return;
        }
        let archive = self.scratch.path().join("archive");
        let mount = self.elsewhere.get_or_insert_with(|| Mount::new(&archive, "ttl=0"));
        let path = mount.file(&self.current[place.0], UIDS[place.1]);
        let was_there = self.day(place.0).unlink(UIDS[place.1], false);
        let outcome = fs::remove_file(path);
        assert_eq!(outcome.map_err(|error| error.kind()), if was_there { Ok(()) } else { Err(ErrorKind::NotFound) });
    }

    fn remove_day(&mut self, day: usize) {
        let outcome = fs::remove_dir(self.root().join(&self.current[day]));
        let model = self.day(day);
        let expected = match (model.is_shown(), model.files.is_empty()) {
            (false, _) => Err(ErrorKind::NotFound),
            (true, false) => Err(ErrorKind::DirectoryNotEmpty),
            (true, true) => Ok(()),
        };
        assert_eq!(outcome.map_err(|error| error.kind()), expected);
        if expected.is_ok() {
            model.forget_mount();
        }
    }

    fn pack(&mut self, files: &BTreeMap<Place, Content>) {
        self.packs += 1;
        let mut rows = Vec::new();
        let mut is_refused = false;
        for ((day, uid), content) in files {
            let source = self.source(*content);
            if !source.try_exists().expect("source") {
                fs::write(&source, content.bytes()).expect("source");
            }
            let date = &self.current[*day];
            let created_at = format!("{}-{}-{}T07:00:00Z", &date[..4], &date[4..6], &date[6..]);
            rows.push(json!({
                "uid": UIDS[*uid], "created_at": created_at, "size_bytes": content.len, "source_path": source,
            }));
            is_refused |= self.day(*day).pack(UIDS[*uid], *content);
        }
        let manifest = self.scratch.path().join(format!("pack-{}.json", self.packs));
        fs::write(&manifest, serde_json::to_vec(&rows).expect("rows")).expect("manifest");
        let archive = self.scratch.path().join("archive");
        let outcome = run(des_pack(&archive).args(["--n-bits", "2", "--input-json"]).arg(&manifest));
        assert_eq!(outcome.code(), i32::from(is_refused), "{outcome:?}");
        if self.mount.is_none() || !self.is_current {
            self.remount();
        }
    }

    fn remount(&mut self) {
        self.let_go();
        if let Some(mount) = self.mount.take() {
            mount.unmount();
        }
        self.mount = Some(Mount::new(&self.scratch.path().join("archive"), self.options));
        self.days.values_mut().for_each(Day::forget_mount);
    }

    /// Closes and unmaps everything.
    fn let_go(&mut self) {
        self.open.clear();
        self.mapped.clear();
        self.mapper.clear();
    }

    /// Compares the whole tree: the names of all days, and everything in those of the sequence.
    fn compare(&mut self, when: &str) {
        let root = self.root();
        let shown: Vec<_> = list_from(&root, 0, 32_768).into_iter().map(|entry| entry.name).collect();
        let expected: Vec<_> = self.days.iter().filter(|(_, day)| day.is_shown()).map(|(name, _)| name).collect();
        assert!(shown.iter().eq(expected), "{when}: the root shows {shown:?}");
        for name in self.current.clone() {
            let day = self.days.entry(name.clone()).or_default();
            if !day.is_shown() {
                continue;
            }
            let path = root.join(&name);
            let entries = list_from(&path, 0, 32_768);
            assert!(entries.is_sorted_by_key(|entry| entry.cookie), "{when}: {name} is not in order");
            let shown: BTreeSet<_> = entries.iter().map(|entry| entry.name.clone()).collect();
            assert_eq!(shown.len(), entries.len(), "{when}: {name} lists something twice");
            let expected: BTreeSet<_> = day.files.keys().map(|uid| shown_name(uid)).collect();
            assert_eq!(shown, expected, "{when}: what {name} lists");
            for (uid, file) in &day.files {
                let shown = shown_name(uid);
                let Entry { inode, cookie, .. } =
                    *entries.iter().find(|entry| entry.name == shown).expect("it is listed");
                let known = *day.known.entry(uid).or_insert((inode, cookie));
                assert_eq!((inode, cookie), known, "{when}: inode and position of {name}/{uid:?}");
                let mut found = Vec::with_capacity(file.bytes.len());
                let read = File::open(path.join(&shown)).and_then(|mut open| open.read_to_end(&mut found));
                assert!(read.is_ok() && found == *file.bytes, "{when}: {name}/{uid:?}: {read:?}");
            }
        }
    }
}
