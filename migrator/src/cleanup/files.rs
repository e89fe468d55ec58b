//! Removing a source that is a file.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use desfmt::Digest;
use packer::{BeneathError, Roots};
use rustix::fs::AtFlags;

use super::{Fate, Held};

/// The most that is read at once.
const PIECE_BYTES: usize = 1 << 20;

/// Removes a source that the archive holds as it is.
pub(super) fn remove(roots: &Roots, path: &Path, held: &Held, remove_deleted: bool) -> Fate {
    let file = match roots.open_file(path) {
        Ok(file) => file,
        Err(BeneathError::Missing) => return Fate::Gone,
        Err(error) => return Fate::changed(error.to_string()),
    };
    let state = match file.metadata() {
        Ok(metadata) if metadata.is_file() => metadata,
        Ok(_) => return Fate::changed("the source is not a regular file"),
        Err(error) => return Fate::changed(format!("the source cannot be read: {error}")),
    };
    match held.demand(remove_deleted) {
        Err(fate) => return fate,
        Ok(None) => {}
        Ok(Some((digest, len))) => match digest_of(&file) {
            Ok(found) if state.len() == len && found == digest => {}
            Ok(_) => return Fate::other_content(),
            Err(error) => return Fate::changed(format!("the source cannot be read: {error}")),
        },
    }
    unlink(roots, path, &file, &state)
}

/// Takes the name away, if it still is that of the very file, unchanged.
fn unlink(roots: &Roots, path: &Path, file: &File, state: &std::fs::Metadata) -> Fate {
    let (parent, name): (OwnedFd, OsString) = match roots.open_parent(path) {
        Ok(found) => found,
        Err(error) => return Fate::changed(error.to_string()),
    };
    let named = match rustix::fs::statat(&parent, &name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(named) => named,
        Err(rustix::io::Errno::NOENT) => return Fate::Gone,
        Err(errno) => return Fate::changed(format!("the source cannot be looked at: {errno}")),
    };
    let is_same = file.metadata().is_ok_and(|now| {
        let of = |one: &std::fs::Metadata| {
            (one.dev(), one.ino(), one.len(), one.mtime(), one.mtime_nsec(), one.ctime(), one.ctime_nsec())
        };
        of(&now) == of(state) && (named.st_dev, named.st_ino) == (now.dev(), now.ino())
    });
    if !is_same {
        return Fate::changed("the source changed while it was compared; it stays");
    }
    match rustix::fs::unlinkat(&parent, &name, AtFlags::empty()) {
        Ok(()) => {
            let directory = path.parent().map(Path::to_owned).unwrap_or_default();
            Fate::Removed { bytes: state.len(), directory: Some((directory, parent)) }
        }
        Err(rustix::io::Errno::NOENT) => Fate::Gone,
        Err(errno) => Fate::changed(format!("the source cannot be removed: {errno}")),
    }
}

/// The digest of what a file holds from where it stands.
pub(super) fn digest_of(mut file: &File) -> std::io::Result<Digest> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; PIECE_BYTES];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hasher.finalize()),
            Ok(count) => {
                hasher.update(buffer.get(..count).unwrap_or_default());
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Kind;

    fn place() -> (tempfile::TempDir, Roots) {
        let place = tempfile::tempdir().unwrap();
        let roots = Roots::open(&[place.path().to_owned()], false).unwrap();
        (place, roots)
    }

    fn holds(content: &[u8]) -> Held {
        Held::Content(blake3::hash(content), u64::try_from(content.len()).unwrap())
    }

    #[test]
    fn only_a_source_that_is_what_the_archive_holds_is_removed() {
        let (place, roots) = place();
        let path = place.path().join("file");
        for (held, remove_deleted, is_removed) in [
            (holds(b"content"), false, true),
            (holds(b"CONTENT"), false, false),
            (holds(b"longer content"), false, false),
            (Held::Nothing, true, false),
            (Held::Deleted, false, false),
            (Held::Deleted, true, true),
        ] {
            std::fs::write(&path, b"content").unwrap();
            let fate = remove(&roots, &path, &held, remove_deleted);
            assert_eq!(matches!(fate, Fate::Removed { bytes: 7, .. }), is_removed);
            assert_eq!(path.try_exists().unwrap(), !is_removed);
        }
    }

    #[test]
    fn what_is_gone_is_gone_and_what_is_no_file_stays() {
        let (place, roots) = place();
        assert!(matches!(remove(&roots, &place.path().join("none"), &holds(b""), false), Fate::Gone));
        std::os::unix::fs::symlink("/etc/passwd", place.path().join("link")).unwrap();
        let link = remove(&roots, &place.path().join("link"), &holds(b""), false);
        assert!(matches!(link, Fate::Kept(Kind::SourceChanged, _)));
        let elsewhere = remove(&roots, Path::new("/etc/passwd"), &holds(b""), false);
        assert!(matches!(elsewhere, Fate::Kept(Kind::SourceChanged, _)));
    }

    #[test]
    fn a_file_that_was_exchanged_after_it_was_compared_stays() {
        let (place, roots) = place();
        let path = place.path().join("file");
        std::fs::write(&path, b"content").unwrap();
        let file = roots.open_file(&path).unwrap();
        let state = file.metadata().unwrap();
        std::fs::write(place.path().join("other"), b"content").unwrap();
        std::fs::rename(place.path().join("other"), &path).unwrap();

        assert!(matches!(unlink(&roots, &path, &file, &state), Fate::Kept(Kind::SourceChanged, _)));
        assert!(path.try_exists().unwrap());
    }
}
