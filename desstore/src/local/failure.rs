//! What the kernel says, told as what a caller of the store can do about it.

use std::fmt;
use std::path::Path;

use desfmt::ObjectKey;
use rustix::io::Errno;

use crate::error::{StoreError, StoreErrorKind};

/// A step on a file that failed.
#[derive(Debug, thiserror::Error)]
#[error("{path}")]
pub(super) struct Failure {
    pub(super) kind: StoreErrorKind,
    path: String,
    #[source]
    cause: Option<Cause>,
}

#[derive(Debug, thiserror::Error)]
enum Cause {
    #[error(transparent)]
    Kernel(#[from] Errno),
    #[error("{0}")]
    Rule(&'static str),
}

impl Failure {
    /// A system call on `path` that failed.
    pub(super) fn of(errno: Errno, path: impl fmt::Display) -> Self {
        let cause = if errno == Errno::LOOP {
            Cause::Rule("symbolic links below the root are not followed")
        } else {
            Cause::Kernel(errno)
        };
        Self { kind: kind_of(errno), path: path.to_string(), cause: Some(cause) }
    }

    /// The same for calls that go through the standard library.
    pub(super) fn of_io(error: &std::io::Error, path: impl fmt::Display) -> Self {
        Self::of(Errno::from_io_error(error).unwrap_or(Errno::IO), path)
    }

    /// A rule of ours that `path` does not obey.
    pub(super) fn rule(kind: StoreErrorKind, path: impl fmt::Display, rule: &'static str) -> Self {
        Self { kind, path: path.to_string(), cause: Some(Cause::Rule(rule)) }
    }

    /// A failure after the point where the change became visible: whether it lasts is unknown.
    pub(super) fn after_the_change(mut self) -> Self {
        self.kind = StoreErrorKind::Unavailable;
        self
    }

    /// Names the operation for the caller.
    pub(super) fn during(self, operation: &'static str, key: &ObjectKey) -> StoreError {
        self.during_text(operation, key.as_str())
    }

    /// Names an operation on a prefix or on the whole store.
    pub(super) fn during_text(self, operation: &'static str, key: &str) -> StoreError {
        StoreError::new(self.kind, operation, key).caused_by(self)
    }
}

/// Joins the root and a path below it, for messages.
pub(super) fn shown<'a>(root: &'a Path, relative: &'a str) -> impl fmt::Display + use<'a> {
    struct Shown<'a>(&'a Path, &'a str);
    impl fmt::Display for Shown<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "{}", self.0.join(self.1).display())
        }
    }
    Shown(root, relative)
}

fn kind_of(errno: Errno) -> StoreErrorKind {
    match errno {
        Errno::NOENT | Errno::NOTDIR => StoreErrorKind::NotFound,
        Errno::EXIST => StoreErrorKind::AlreadyExists,
        Errno::ACCESS | Errno::PERM | Errno::ROFS | Errno::LOOP => StoreErrorKind::Denied,
        Errno::NOSPC | Errno::DQUOT | Errno::FBIG => StoreErrorKind::Full,
        Errno::NAMETOOLONG
        | Errno::ISDIR
        | Errno::XDEV
        | Errno::INVAL
        | Errno::OPNOTSUPP
        | Errno::NOSYS
        | Errno::MLINK
        | Errno::ILSEQ => StoreErrorKind::Unsupported,
        // Everything else, EIO, ESTALE, EMFILE and ENOMEM among it, says nothing about the object.
        _ => StoreErrorKind::Unavailable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_kernel_become_reactions() {
        for (errno, kind) in [
            (Errno::NOENT, StoreErrorKind::NotFound),
            (Errno::NOTDIR, StoreErrorKind::NotFound),
            (Errno::EXIST, StoreErrorKind::AlreadyExists),
            (Errno::ACCESS, StoreErrorKind::Denied),
            (Errno::PERM, StoreErrorKind::Denied),
            (Errno::ROFS, StoreErrorKind::Denied),
            (Errno::LOOP, StoreErrorKind::Denied),
            (Errno::NOSPC, StoreErrorKind::Full),
            (Errno::DQUOT, StoreErrorKind::Full),
            (Errno::NAMETOOLONG, StoreErrorKind::Unsupported),
            (Errno::IO, StoreErrorKind::Unavailable),
            (Errno::STALE, StoreErrorKind::Unavailable),
            (Errno::MFILE, StoreErrorKind::Unavailable),
            (Errno::NOMEM, StoreErrorKind::Unavailable),
        ] {
            assert_eq!(Failure::of(errno, "x").kind, kind, "{errno}");
        }
    }

    #[test]
    fn an_error_names_operation_key_path_and_cause() {
        let key = ObjectKey::new("a/b").unwrap();

        let error = Failure::of(Errno::ACCESS, shown(Path::new("/srv"), "a/b")).during("get", &key);

        let cause = std::error::Error::source(&error).unwrap();
        assert_eq!(error.to_string(), "get a/b: permission denied");
        assert_eq!(cause.to_string(), "/srv/a/b");
        assert_eq!(cause.source().unwrap().to_string(), "Permission denied (os error 13)");
    }
}
