//! Builds one shard of format 2 and the big files beside it.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use desfmt::legacy::{
    BIG_FILE_THRESHOLD, BigFileHash, BigFileHasher, LegacyCodec, LegacyCompression, LegacyWriter, PayloadEncoder,
    StoredPayload, is_big_file, is_never_compressed,
};
use desfmt::{Digest, FormatError, Uid};

use super::known::OpenShard;
use super::{big_files, sync_directory};
use crate::build::SpoolFile;
use crate::compression::{CodecChoice, Compression};
use crate::error::PackError;
use crate::issue::Outcome;
use crate::rows::Row;
use crate::source::{Source, Sources, Unpackable};
use crate::spool::Spool;
use crate::todo::Todo;

/// How flat shards are built.
#[derive(Debug, Clone, Copy)]
pub(super) struct FlatBuilder<'a> {
    directory: &'a Path,
    spool: &'a Spool,
    compression: Compression,
}

/// A shard in a spool file, verified and durable, with all its big files in place.
#[derive(Debug)]
pub(super) struct FlatBuilt {
    pub(super) file: SpoolFile,
    pub(super) files: u64,
    pub(super) bytes_in: u64,
    /// The shard and the big files that it brought.
    pub(super) bytes_out: u64,
}

impl<'a> FlatBuilder<'a> {
    pub(super) const fn new(directory: &'a Path, spool: &'a Spool, compression: Compression) -> Self {
        Self { directory, spool, compression }
    }

    /// Builds a shard of all that is still to be done; `None` where no file could be packed.
    pub(super) fn build(&self, todo: &mut Todo) -> Result<Option<FlatBuilt>, PackError> {
        let mut build = Build::start(self)?;
        let mut rows = todo.rows();
        while let Some((position, row)) = rows.next_row(todo)? {
            match build.add(&row, todo.sources())? {
                Ok(()) => todo.progressed(&row),
                Err(Unpackable(reason)) => todo.settle(position, Outcome::Failed, &row, reason),
            }
        }
        build.finish()
    }
}

struct Build<'a> {
    builder: FlatBuilder<'a>,
    file: SpoolFile,
    out: BufWriter<File>,
    writer: LegacyWriter,
    encoder: PayloadEncoder,
    contents: Vec<(Uid, Digest)>,
    bytes_in: u64,
    big_bytes: u64,
    content: Vec<u8>,
    buffer: Vec<u8>,
}

impl<'a> Build<'a> {
    fn start(builder: &FlatBuilder<'a>) -> Result<Self, PackError> {
        let file = SpoolFile::new(builder.spool.fresh_path(".des"));
        let failed = |source| PackError::spool(file.path(), source);
        let mut out = BufWriter::with_capacity(1 << 20, File::create_new(file.path()).map_err(failed)?);
        out.write_all(&LegacyWriter::HEADER).map_err(failed)?;
        let compression = match builder.compression.choice {
            CodecChoice::Auto | CodecChoice::Zstd => LegacyCompression::Zstd { level: builder.compression.level },
            CodecChoice::Lz4 => LegacyCompression::Lz4,
            CodecChoice::Stored => LegacyCompression::Stored,
        };
        let encoder = PayloadEncoder::new(compression).map_err(failed)?;
        Ok(Self {
            builder: *builder,
            file,
            out,
            writer: LegacyWriter::new(),
            encoder,
            contents: Vec::new(),
            bytes_in: 0,
            big_bytes: 0,
            content: Vec::new(),
            buffer: Vec::new(),
        })
    }

    fn add(&mut self, row: &Row, sources: &Sources) -> Result<Result<(), Unpackable>, PackError> {
        let source = match Source::open(row, sources) {
            Ok(source) => source,
            Err(reason) => return Ok(Err(reason)),
        };
        let added = if is_big_file(row.len, BIG_FILE_THRESHOLD) {
            self.add_big(row, source)?
        } else {
            self.add_inline(row, source)?
        };
        Ok(added.map(|digest| {
            self.contents.push((row.uid.clone(), digest));
            self.bytes_in += row.len;
        }))
    }

    fn add_inline(&mut self, row: &Row, source: Source) -> Result<Result<Digest, Unpackable>, PackError> {
        let content = &mut self.content;
        content.clear();
        let digest = match source.read(&mut self.buffer, |piece| {
            content.extend_from_slice(piece);
            Ok::<_, PackError>(())
        })? {
            Ok(digest) => digest,
            Err(reason) => return Ok(Err(reason)),
        };
        let failed = |source| PackError::spool(self.file.path(), source);
        let (codec, encoded) = if is_never_compressed(row.uid.as_str()) {
            (LegacyCodec::Stored, None)
        } else {
            let encoded = self.encoder.encode(&self.content).map_err(failed)?;
            // What does not shrink would only cost its readers time.
            if encoded.len() < self.content.len() {
                (self.encoder.codec(), Some(encoded))
            } else {
                (LegacyCodec::Stored, None)
            }
        };
        let stored = encoded.as_deref().unwrap_or(&self.content);
        let stored_len = u64::try_from(stored.len()).unwrap_or(u64::MAX);
        let payload = StoredPayload { codec, stored_len, plain_len: row.len };
        self.writer.push_inline(&row.uid, payload, row.metadata.as_deref()).map_err(|error| refused(&error))?;
        self.out.write_all(stored).map_err(failed)?;
        Ok(Ok(digest))
    }

    /// Puts a big file beside the shard. One that is there already has the same content: its name says so.
    fn add_big(&mut self, row: &Row, source: Source) -> Result<Result<Digest, Unpackable>, PackError> {
        let file = SpoolFile::new(self.builder.spool.fresh_path(".big"));
        let failed = |source| PackError::spool(file.path(), source);
        let mut out = File::create_new(file.path()).map_err(failed)?;
        let mut hasher = BigFileHasher::new();
        let read = source.read(&mut self.buffer, |piece| {
            hasher.update(piece);
            out.write_all(piece).map_err(failed)
        })?;
        let digest = match read {
            Ok(digest) => digest,
            Err(reason) => return Ok(Err(reason)),
        };
        out.sync_all().map_err(failed)?;
        let hash = hasher.finish();
        self.place_big(&file, &hash, row.len)?;
        self.writer
            .push_big_file(&row.uid, &hash, row.len, row.metadata.as_deref())
            .map_err(|error| refused(&error))?;
        Ok(Ok(digest))
    }

    fn place_big(&mut self, file: &SpoolFile, hash: &BigFileHash, len: u64) -> Result<(), PackError> {
        let folder = big_files(self.builder.directory);
        let path = folder.join(hash.to_string());
        let failed = |source| PackError::spool(&path, source);
        fs::create_dir_all(&folder).map_err(failed)?;
        match fs::hard_link(file.path(), &path) {
            Ok(()) => self.big_bytes += len,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if fs::metadata(&path).map_err(failed)?.len() != len {
                    return Err(PackError::refused(format!("{}: a big file of another length", path.display())));
                }
            }
            Err(source) => return Err(failed(source)),
        }
        sync_directory(&folder)?;
        sync_directory(self.builder.directory)
    }

    fn finish(mut self) -> Result<Option<FlatBuilt>, PackError> {
        if self.contents.is_empty() {
            return Ok(None);
        }
        let bytes_out = self.writer.file_len() + self.big_bytes;
        let failed = |source| PackError::spool(self.file.path(), source);
        self.out.write_all(&self.writer.finish()).map_err(failed)?;
        let file = self.out.into_inner().map_err(io::IntoInnerError::into_error).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        let unverified =
            |detail: &str| PackError::Unverified { path: self.file.path().to_owned(), detail: detail.to_owned() };
        let shard = OpenShard::open(self.file.path())?;
        if shard.index.len() != self.contents.len() {
            return Err(unverified("another number of entries"));
        }
        for (uid, digest) in &self.contents {
            let entry = shard.index.find(uid.as_str()).ok_or_else(|| unverified("an entry is missing"))?;
            if shard.digest(entry.location, self.builder.directory)? != *digest {
                return Err(unverified(&format!("{uid:?} has other content than was put")));
            }
        }
        let files = u64::try_from(self.contents.len()).unwrap_or(u64::MAX);
        Ok(Some(FlatBuilt { file: self.file, files, bytes_in: self.bytes_in, bytes_out }))
    }
}

fn refused(error: &FormatError) -> PackError {
    PackError::refused(error.to_string())
}
