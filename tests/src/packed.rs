//! A small archive of files that the test knows.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::{Corpus, Mount, command, des_pack, run, scratch};

/// An archive in a directory of its own, and what was packed into it.
#[derive(Debug)]
pub struct Packed {
    directory: TempDir,
    /// What was packed.
    pub corpus: Corpus,
}

impl Packed {
    /// Packs what `fill` adds.
    #[track_caller]
    pub fn of(fill: impl FnOnce(&mut Corpus)) -> Self {
        let directory = scratch();
        let mut corpus = Corpus::new(&directory.path().join("source"));
        fill(&mut corpus);
        let packed = Self { directory, corpus };
        packed.pack("all");
        packed
    }

    /// Packs random files.
    #[track_caller]
    pub fn random(seed: u64, count: usize) -> Self {
        Self::of(|corpus| corpus.add_random(seed, count))
    }

    /// Packs the corpus as it is now.
    #[track_caller]
    pub fn pack(&self, manifest: &str) {
        let manifest = self.corpus.manifest(manifest);
        run(des_pack(&self.archive()).arg("--input-json").arg(manifest)).success();
    }

    /// The archive.
    pub fn archive(&self) -> PathBuf {
        self.directory.path().join("archive")
    }

    /// A directory for whatever the test needs.
    pub fn place(&self) -> &Path {
        self.directory.path()
    }

    /// Gives the archive, and a directory to mount it on, to a user.
    pub fn give_to(&self, user: u32, mount_point: &Path) {
        let paths = [self.place(), mount_point];
        run(command("chown").args(["-R", &format!("{user}:{user}")]).args(paths)).success();
    }

    /// Mounts the archive.
    #[track_caller]
    pub fn mount(&self, options: &str) -> Mount {
        Mount::new(&self.archive(), options)
    }

    /// Asserts that a mount shows the corpus, all of it and nothing else, but for files that are gone.
    #[track_caller]
    pub fn assert_shown_in(&self, mount: &Path, gone: &[(&str, &str)]) {
        self.corpus.assert_shown_in(mount, gone);
    }
}

/// The objects below a directory of an archive: none when there is no such directory.
pub fn objects_below(archive: &Path, part: &str) -> Vec<PathBuf> {
    let root = archive.join(part);
    if fs::exists(&root).expect("part of an archive") { crate::files_below(&root) } else { Vec::new() }
}
