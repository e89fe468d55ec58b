//! Builds one shard in a spool file: reads each file once, in the order of uids, and writes frames as they are compressed.

mod dedup;
mod sample;
mod verify;

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use desfmt::v3::{self, Body, BodySettings, BodyWriter, BuildError, EncodedFrame, FrameCutter, FrameEncoder};
use desfmt::{ArchiveId, Digest, Group, ShardName, Uid};

use crate::compression::{Compression, Framing, ShardCodec};
use crate::error::PackError;
use crate::issue::Outcome;
use crate::limits;
use crate::pool::{FrameQueue, Pool};
use crate::rows::Row;
use crate::source::{Source, Sources, Unpackable, digest_of};
use crate::spool::Spool;
use crate::todo::Todo;

use dedup::Contents;
pub(crate) use sample::{Choice, RunChooser, Sample};
use verify::Verification;

/// How shards are built.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Builder<'a> {
    pub(crate) archive: ArchiveId,
    pub(crate) group: Group,
    pub(crate) compression: Compression,
    pub(crate) framing: Framing,
    pub(crate) pool: &'a Pool,
    pub(crate) spool: &'a Spool,
}

/// A shard in a spool file, verified.
#[derive(Debug)]
pub(crate) struct Built {
    pub(crate) file: SpoolFile,
    pub(crate) body: Body,
    pub(crate) uids: Arc<[Uid]>,
    /// Digests of their contents, in the same order, where somebody wants to know.
    pub(crate) digests: Vec<Digest>,
    /// The lengths of its files together, shared contents counted each time.
    pub(crate) plain_len: u64,
}

/// What became of an attempt.
#[derive(Debug)]
pub(crate) enum Attempt {
    /// A shard.
    Built(Box<Built>),
    /// No file was left to be packed.
    Nothing,
    /// A large file turned out bad after parts of it had been written. It has been reported; the next attempt is
    /// without it.
    Again,
}

/// A file that is removed when it is no longer needed.
#[derive(Debug)]
pub(crate) struct SpoolFile(PathBuf);

impl SpoolFile {
    pub(crate) const fn new(path: PathBuf) -> Self {
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for SpoolFile {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0) {
            tracing::debug!(file = %self.0.display(), %error, "spool file stays");
        }
    }
}

/// A file as it was packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Packed {
    pub(super) offset: u64,
    pub(super) len: u64,
    pub(super) digest: Digest,
    /// True where an earlier file has put the same content there.
    pub(super) is_shared: bool,
}

impl Builder<'_> {
    /// Builds and verifies a shard of all that is still to be done. Blocks.
    pub(crate) fn build(&self, todo: &mut Todo) -> Result<Attempt, PackError> {
        let mut preloaded = sample::Preloaded::read(todo)?;
        let sample = match &preloaded {
            Some(loaded) => loaded.sample(todo.bytes_left()),
            None => sample::spread(todo)?,
        };
        let codec = ShardCodec::choose(self.compression, self.framing, &sample, todo.bytes_left())?;
        drop(sample);
        let mut build = Build::start(self, &codec)?;
        let mut rows = todo.rows();
        while let Some((position, row)) = rows.next_row(todo)? {
            let loaded = preloaded.as_mut().and_then(|loaded| loaded.take(position));
            match build.add(&row, loaded, todo.sources())? {
                Added::Packed => todo.progressed(&row),
                Added::Refused(Unpackable(reason)) => todo.settle(position, Outcome::Failed, &row, reason),
                Added::TooLate(Unpackable(reason)) => {
                    todo.settle(position, Outcome::Failed, &row, reason);
                    todo.start_again();
                    return Ok(Attempt::Again);
                }
            }
        }
        build.finish(self, todo.has_witness())
    }
}

/// What became of one file.
enum Added {
    Packed,
    /// It is left out.
    Refused(Unpackable),
    /// It should be left out, but parts of it are written.
    TooLate(Unpackable),
}

/// A shard under construction.
struct Build<'a> {
    file: SpoolFile,
    cutter: FrameCutter,
    queue: FrameQueue<'a>,
    writer: BodyFile,
    contents: Contents,
    uids: Vec<Uid>,
    plain_len: u64,
    frames: Vec<Vec<u8>>,
    buffer: Vec<u8>,
}

/// The body and the file that its bytes go to.
struct BodyFile {
    body: BodyWriter,
    out: BufWriter<File>,
    path: PathBuf,
}

impl BodyFile {
    fn write(&mut self, bytes: &[u8]) -> Result<(), PackError> {
        self.out.write_all(bytes).map_err(|source| PackError::spool(&self.path, source))
    }

    fn write_frame(&mut self, frame: EncodedFrame) -> Result<(), PackError> {
        let stored = self.body.push_frame(frame)?;
        self.write(&stored)
    }
}

impl<'a> Build<'a> {
    fn start(builder: &Builder<'a>, codec: &ShardCodec) -> Result<Self, PackError> {
        let file = SpoolFile::new(builder.spool.fresh_path(".des"));
        let path = file.path().to_owned();
        let created = File::options().read(true).write(true).create_new(true).open(&path);
        let out = BufWriter::with_capacity(1 << 20, created.map_err(|source| PackError::spool(&path, source))?);
        let level = builder.compression.level;
        let encoder = FrameEncoder::new(codec.codec, level, codec.dictionary.as_ref())?;
        let settings = BodySettings { archive: builder.archive, codec: codec.codec };
        let body = BodyWriter::new(settings, codec.dictionary.as_ref(), v3::Lineage::default())?;
        let mut writer = BodyFile { body, out, path };
        let header = writer.body.header();
        writer.write(&header)?;
        Ok(Self {
            file,
            cutter: FrameCutter::new(codec.frame_size),
            queue: FrameQueue::new(builder.pool, encoder),
            writer,
            contents: Contents::default(),
            uids: Vec::new(),
            plain_len: 0,
            frames: Vec::new(),
            buffer: Vec::new(),
        })
    }

    fn add(&mut self, row: &Row, loaded: Option<sample::Loaded>, sources: &Sources) -> Result<Added, PackError> {
        let (mtime, packed) = if let Some(loaded) = loaded {
            self.buffer = loaded.content;
            (loaded.mtime, self.add_whole(loaded.digest)?)
        } else {
            let source = match Source::open(row, sources) {
                Ok(source) => source,
                Err(reason) => return Ok(Added::Refused(reason)),
            };
            let mtime = source.mtime();
            if row.len <= limits::WHOLE_FILE_BYTES {
                match source.read(&mut self.buffer, |_| Ok::<_, PackError>(()))? {
                    Ok(digest) => (mtime, self.add_whole(digest)?),
                    Err(reason) => return Ok(Added::Refused(reason)),
                }
            } else {
                match self.add_large(row, source, sources)? {
                    Ok(packed) => (mtime, packed),
                    Err(added) => return Ok(added),
                }
            }
        };
        self.writer.body.push_entry(v3::NewEntry {
            uid: &row.uid,
            created_at: row.created_at,
            mtime,
            offset: packed.offset,
            len: packed.len,
            digest: packed.digest,
            metadata: row.metadata.as_deref(),
            birth: None,
        })?;
        self.contents.push(packed);
        self.uids.push(row.uid.clone());
        self.plain_len += packed.len;
        Ok(Added::Packed)
    }

    /// Adds what is in the buffer, or shares what is there already.
    fn add_whole(&mut self, digest: Digest) -> Result<Packed, PackError> {
        let len = u64::try_from(self.buffer.len()).unwrap_or(u64::MAX);
        if let Some(offset) = self.contents.find(&digest, len) {
            return Ok(Packed { offset, len, digest, is_shared: true });
        }
        self.cutter.push(&self.buffer, &mut self.frames)?;
        let placement = self.cutter.end_file(&mut self.frames)?;
        self.send()?;
        Ok(Packed { offset: placement.offset, len, digest, is_shared: false })
    }

    /// Streams a file that is too large for memory. It is read twice where one of its length is there already, since only
    /// its digest can tell whether they are equal.
    fn add_large(&mut self, row: &Row, source: Source, sources: &Sources) -> Result<Result<Packed, Added>, PackError> {
        if self.contents.has_large(row.len) {
            match digest_of(row, sources, &mut self.buffer) {
                Ok(digest) => {
                    if let Some(offset) = self.contents.find(&digest, row.len) {
                        return Ok(Ok(Packed { offset, len: row.len, digest, is_shared: true }));
                    }
                }
                Err(reason) => return Ok(Err(Added::Refused(reason))),
            }
        }
        let (cutter, queue, writer, frames) = (&mut self.cutter, &mut self.queue, &mut self.writer, &mut self.frames);
        let read = source.read(&mut self.buffer, |piece| {
            cutter.push(piece, frames)?;
            queue.push(frames, &mut |frame| writer.write_frame(frame))
        })?;
        match read {
            Ok(digest) => {
                let placement = self.cutter.end_file(&mut self.frames)?;
                self.send()?;
                Ok(Ok(Packed { offset: placement.offset, len: row.len, digest, is_shared: false }))
            }
            Err(reason) if self.cutter.abandon_file() => Ok(Err(Added::Refused(reason))),
            Err(reason) => Ok(Err(Added::TooLate(reason))),
        }
    }

    fn send(&mut self) -> Result<(), PackError> {
        let writer = &mut self.writer;
        self.queue.push(&mut self.frames, &mut |frame| writer.write_frame(frame))
    }

    fn finish(mut self, builder: &Builder<'_>, keeps_digests: bool) -> Result<Attempt, PackError> {
        if self.uids.is_empty() {
            return Ok(Attempt::Nothing);
        }
        self.cutter.finish(&mut self.frames)?;
        self.send()?;
        let mut writer = self.writer;
        self.queue.finish(&mut |frame| writer.write_frame(frame))?;
        let BodyFile { body, mut out, path } = writer;
        let body = body.finish()?;
        let spool_error = |source| PackError::spool(&path, source);
        out.write_all(body.trailer()).map_err(spool_error)?;
        let file = out.into_inner().map_err(io::IntoInnerError::into_error).map_err(spool_error)?;
        let uids: Arc<[Uid]> = Arc::from(self.uids);
        let name = ShardName { group: builder.group, split: 0, repack: 0 };
        let check = Verification { file: &file, body: &body, name, uids: &uids, contents: self.contents.entries() };
        check.run(builder.pool).map_err(|detail| PackError::Unverified { path: path.clone(), detail })?;
        let packed = if keeps_digests { self.contents.entries() } else { &[] };
        let digests = packed.iter().map(|packed| packed.digest).collect();
        let built = Built { file: self.file, body, uids, digests, plain_len: self.plain_len };
        Ok(Attempt::Built(Box::new(built)))
    }
}

impl From<BuildError> for PackError {
    fn from(source: BuildError) -> Self {
        Self::Format { source }
    }
}
