//! The body of a new shard and the local file that its bytes go to.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use desfmt::ShardName;
use desfmt::v3::{Body, BodyWriter, BuildError, EncodedFrame, NewEntry};

use crate::archive::ArchiveError;
use crate::repack::local::{SpoolFile, spool_error};

/// A body under construction.
pub(super) struct BodyFile {
    body: BodyWriter,
    out: BufWriter<File>,
    place: SpoolFile,
}

impl BodyFile {
    /// Begins a file in the spool.
    pub(super) fn begin(body: BodyWriter, spool: &Path, name: &str) -> Result<Self, ArchiveError> {
        let (place, out) = SpoolFile::create(spool, name)?;
        let mut file = Self { body, out: BufWriter::with_capacity(1 << 20, out), place };
        let header = file.body.header();
        file.write(&header)?;
        Ok(file)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
        self.out.write_all(bytes).map_err(|error| spool_error(self.place.path(), error))
    }

    /// Takes the next frame.
    pub(super) fn write_frame(&mut self, frame: EncodedFrame) -> Result<(), Trouble> {
        let stored = self.body.push_frame(frame)?;
        self.write(&stored).map_err(Trouble)
    }

    /// Takes the next entry.
    pub(super) fn push(&mut self, entry: NewEntry<'_>) -> Result<(), ArchiveError> {
        self.body.push_entry(entry).map_err(refused)
    }

    /// Ends the file, with the footer for a name.
    pub(super) fn finish(self, name: &ShardName) -> Result<(SpoolFile, Body), ArchiveError> {
        let Self { body, mut out, place } = self;
        let body = body.finish().map_err(refused)?;
        let failed = |error| spool_error(place.path(), error);
        out.write_all(body.trailer()).map_err(failed)?;
        out.write_all(&body.footer_bytes(name)).map_err(failed)?;
        out.flush().map_err(failed)?;
        Ok((place, body))
    }
}

/// An error within what the queue hands out.
pub(super) struct Trouble(ArchiveError);

impl Trouble {
    pub(super) fn into_inner(self) -> ArchiveError {
        self.0
    }
}

impl From<BuildError> for Trouble {
    fn from(error: BuildError) -> Self {
        Self(refused(error))
    }
}

#[expect(clippy::needless_pass_by_value, reason = "handed to map_err")]
pub(super) fn refused(error: BuildError) -> ArchiveError {
    ArchiveError::refused(format!("a shard cannot be rebuilt: {error}"))
}
