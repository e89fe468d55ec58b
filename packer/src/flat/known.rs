//! What the shards of a group hold already.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use desfmt::Digest;
use desfmt::FormatError;
use desfmt::legacy::{
    LegacyFooter, LegacyHeader, LegacyIndex, LegacyName, Location, SIDECAR_LEN_MAX, Sidecar, decode_payload,
};

use super::big_files;
use crate::error::PackError;

/// What is known of a uid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Absent,
    Deleted,
    Present { len: u64, digest: Digest },
}

/// The open shards of a group, in the order in which the ancestor tries them.
#[derive(Debug)]
pub(super) struct KnownGroup {
    directory: PathBuf,
    shards: Vec<OpenShard>,
    deleted: HashSet<String>,
}

/// A shard of format 1 or 2 that was opened.
#[derive(Debug)]
pub(super) struct OpenShard {
    path: PathBuf,
    file: File,
    pub(super) index: LegacyIndex,
}

impl KnownGroup {
    pub(super) fn open<'a>(directory: &Path, names: impl Iterator<Item = &'a LegacyName>) -> Result<Self, PackError> {
        let mut group = Self { directory: directory.to_owned(), shards: Vec::new(), deleted: HashSet::new() };
        for name in names {
            group.shards.push(OpenShard::open(&directory.join(name.to_string()))?);
            group.read_sidecar(&directory.join(name.sidecar()))?;
        }
        Ok(group)
    }

    /// A sidecar that cannot be read is an error: what it calls deleted must not come back.
    fn read_sidecar(&mut self, path: &Path) -> Result<(), PackError> {
        let mut bytes = Vec::new();
        let read = File::open(path).and_then(|file| file.take(SIDECAR_LEN_MAX + 1).read_to_end(&mut bytes));
        match read {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(source) => return Err(PackError::spool(path, source)),
        }
        let sidecar = Sidecar::parse(&bytes).map_err(|error| damaged(path, &error))?;
        self.deleted.extend(sidecar.tombstones.into_iter().map(|tombstone| tombstone.uid));
        Ok(())
    }

    pub(super) fn state(&self, uid: &str) -> Result<State, PackError> {
        if self.deleted.contains(uid) {
            return Ok(State::Deleted);
        }
        for shard in &self.shards {
            if let Some(entry) = shard.index.find(uid) {
                let digest = shard.digest(entry.location, &self.directory)?;
                return Ok(State::Present { len: entry.location.plain_len(), digest });
            }
        }
        Ok(State::Absent)
    }
}

fn damaged(path: &Path, error: &FormatError) -> PackError {
    PackError::refused(format!("{}: {error}", path.display()))
}

impl OpenShard {
    pub(super) fn open(path: &Path) -> Result<Self, PackError> {
        let failed = |source| PackError::spool(path, source);
        let file = File::open(path).map_err(failed)?;
        let len = file.metadata().map_err(failed)?.len();
        let mut header = [0; LegacyHeader::LEN];
        let mut footer = [0; LegacyFooter::LEN];
        let footer_len = u64::try_from(LegacyFooter::LEN).unwrap_or(u64::MAX);
        file.read_exact_at(&mut header, 0).map_err(failed)?;
        file.read_exact_at(&mut footer, len.saturating_sub(footer_len)).map_err(failed)?;
        let format = |error: FormatError| damaged(path, &error);
        let header = LegacyHeader::decode(&header).map_err(format)?;
        let range = LegacyFooter::decode(&footer).and_then(|footer| footer.index_range(len)).map_err(format)?;
        let mut index = vec![0; usize::try_from(range.end - range.start).unwrap_or(usize::MAX)];
        file.read_exact_at(&mut index, range.start).map_err(failed)?;
        let index = LegacyIndex::parse(header.version, Bytes::from(index), range.start).map_err(format)?;
        Ok(Self { path: path.to_owned(), file, index })
    }

    /// The digest of a content, decoded as a reader decodes it.
    pub(super) fn digest(&self, location: Location, directory: &Path) -> Result<Digest, PackError> {
        match location {
            Location::Inline { offset, stored_len, codec, plain_len } => {
                let mut bytes = vec![0; usize::try_from(stored_len).unwrap_or(usize::MAX)];
                let read = self.file.read_exact_at(&mut bytes, offset);
                read.map_err(|source| PackError::spool(&self.path, source))?;
                let plain = decode_payload(codec, &bytes, plain_len).map_err(|error| damaged(&self.path, &error))?;
                Ok(blake3::hash(&plain))
            }
            Location::BigFile { hash, len } => {
                let path = big_files(directory).join(hash.to_string());
                let failed = |source| PackError::spool(&path, source);
                if fs::metadata(&path).map_err(failed)?.len() != len {
                    return Err(PackError::refused(format!("{}: a big file of another length", path.display())));
                }
                let mut hasher = blake3::Hasher::new();
                hasher.update_reader(File::open(&path).map_err(failed)?).map_err(failed)?;
                Ok(hasher.finalize())
            }
        }
    }
}
