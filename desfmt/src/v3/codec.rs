//! How frames are compressed: the codecs, the dictionaries, and the contexts of zstd that are costly to make.

use std::cell::RefCell;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use zstd::bulk::Compressor;
use zstd::dict::DecoderDictionary;
use zstd::zstd_safe::{self, CCtx, DCtx};

use super::limits::DICTIONARY_LEN_MAX;
use crate::FormatError;
use crate::v3::BuildError;

/// What the frames of a shard are compressed with. A frame that does not shrink is stored as it is, whatever the codec.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Codec {
    /// Not at all.
    Stored,
    /// Zstandard (RFC 8878), with the shard's dictionary if it has one.
    #[default]
    Zstd,
    /// The block format of LZ4.
    Lz4,
}

impl Codec {
    pub(super) const fn number(self) -> u8 {
        match self {
            Self::Stored => 0,
            Self::Zstd => 1,
            Self::Lz4 => 2,
        }
    }

    pub(super) fn from_number(number: u8) -> Result<Self, FormatError> {
        match number {
            0 => Ok(Self::Stored),
            1 => Ok(Self::Zstd),
            2 => Ok(Self::Lz4),
            other => Err(FormatError::too_new("shard footer", format!("codec {other}"))),
        }
    }
}

/// `none`, `zstd` or `lz4`.
impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stored => "none",
            Self::Zstd => "zstd",
            Self::Lz4 => "lz4",
        })
    }
}

/// Snippets that the files of a shard have in common, so that small frames compress as well as large ones.
/// Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct Dictionary(Arc<[u8]>);

impl Dictionary {
    /// What a dictionary is usually allowed to take.
    pub const LEN_DEFAULT: usize = 16 << 10;

    /// Makes a dictionary of at most `len_max` bytes from samples; `None` where they do not give one.
    /// The same samples give the same dictionary.
    pub fn train(samples: &[&[u8]], len_max: usize) -> Option<Self> {
        Self::from_bytes(&zstd::dict::from_samples(samples, len_max.min(DICTIONARY_LEN_MAX)).ok()?)
    }

    /// Takes bytes as a dictionary, unless they are empty, too many, or broken.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.is_empty() || bytes.len() > DICTIONARY_LEN_MAX || DecoderDictionary::try_copy(bytes).is_err() {
            return None;
        }
        Some(Self(Arc::from(bytes)))
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Dictionary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Dictionary({} bytes)", self.0.len())
    }
}

/// A compressor for many small pieces of known length, which need no checksum or dictionary number of their own.
pub(super) fn compressor(level: i32, dictionary: Option<&Dictionary>) -> Result<Compressor<'static>, BuildError> {
    let make = || {
        let mut compressor = Compressor::with_dictionary(level, dictionary.map_or(&[], Dictionary::as_bytes))?;
        compressor.include_dictid(false)?;
        compressor.include_checksum(false)?;
        Ok(compressor)
    };
    make().map_err(|error: std::io::Error| BuildError::Compressor { detail: error.to_string() })
}

/// From this length on a frame is laid behind its dictionary. zstd searches what lies side by side as one piece, which takes
/// a tenth to a quarter less time than two pieces do (`docs/performance.md`), but reads the dictionary anew for each frame.
/// Shorter ones are compressed by the tables of a dictionary that was read once, as zstd itself does up to this length.
const ADJACENT_LEN_MIN: usize = 16 << 10;

/// Where a trained dictionary has its number (`doc/zstd_compression_format.md` of zstd).
const DICTIONARY_NUMBER: Range<usize> = 4..8;

/// A compressor for frames, one after the other.
pub(super) struct FrameCompressor {
    apart: Compressor<'static>,
    adjacent: Option<Adjacent>,
}

impl FrameCompressor {
    pub(super) fn new(level: i32, dictionary: Option<&Dictionary>) -> Result<Self, BuildError> {
        let adjacent = dictionary.map(|dictionary| Adjacent::new(level, dictionary)).transpose()?;
        Ok(Self { apart: compressor(level, dictionary)?, adjacent })
    }

    pub(super) fn compress(&mut self, plain: &[u8]) -> Result<Vec<u8>, BuildError> {
        match &mut self.adjacent {
            Some(adjacent) if plain.len() >= ADJACENT_LEN_MIN => adjacent.compress(plain),
            _ => self.apart.compress(plain).map_err(|error| BuildError::Compressor { detail: error.to_string() }),
        }
    }
}

/// A dictionary with room for a frame behind it.
struct Adjacent {
    context: CCtx<'static>,
    level: i32,
    /// The dictionary, and then the frame that was compressed last.
    bytes: Vec<u8>,
    dictionary_len: usize,
}

impl Adjacent {
    fn new(level: i32, dictionary: &Dictionary) -> Result<Self, BuildError> {
        let no_memory = || BuildError::Compressor { detail: "no memory for a zstd context".to_owned() };
        let context = CCtx::try_create().ok_or_else(no_memory)?;
        let mut bytes = dictionary.as_bytes().to_vec();
        // The number of a trained one would be written into each frame.
        if zstd_safe::get_dict_id_from_dict(&bytes).is_some()
            && let Some(number) = bytes.get_mut(DICTIONARY_NUMBER)
        {
            number.fill(0);
        }
        Ok(Self { context, level, dictionary_len: bytes.len(), bytes })
    }

    fn compress(&mut self, plain: &[u8]) -> Result<Vec<u8>, BuildError> {
        self.bytes.truncate(self.dictionary_len);
        self.bytes.extend_from_slice(plain);
        let (dictionary, plain) = self.bytes.split_at(self.dictionary_len);
        let mut compressed = Vec::with_capacity(zstd_safe::compress_bound(plain.len()));
        let outcome = self.context.compress_using_dict(&mut compressed, plain, dictionary, self.level);
        let failed = |code| BuildError::Compressor { detail: zstd_safe::get_error_name(code).to_owned() };
        outcome.map(|_| compressed).map_err(failed)
    }
}

thread_local! {
    /// Making a context costs more than decoding a small frame.
    static CONTEXT: RefCell<Option<DCtx<'static>>> = const { RefCell::new(None) };
}

/// Decompresses into exactly `plain_len` bytes, which the caller has checked against a limit; any other outcome is
/// an error. One call needs no window, however large the one is that the data asks for.
pub(super) fn decompress_zstd(
    compressed: &[u8],
    plain_len: usize,
    dictionary: Option<&DecoderDictionary<'static>>,
) -> Result<Vec<u8>, String> {
    let mut plain = Vec::with_capacity(plain_len);
    let mut run = |slot: &mut Option<DCtx<'static>>| {
        let context = match slot {
            Some(context) => context,
            None => slot.insert(DCtx::try_create().ok_or("no memory for a zstd context")?),
        };
        let outcome = match dictionary {
            Some(dictionary) => context.decompress_using_ddict(&mut plain, compressed, dictionary.as_ddict()),
            None => context.decompress(&mut plain, compressed),
        };
        outcome.map_err(zstd_safe::get_error_name)
    };
    let written = CONTEXT
        .with(|context| match context.try_borrow_mut() {
            Ok(mut slot) => run(&mut slot),
            Err(_) => run(&mut None),
        })
        .map_err(ToOwned::to_owned)?;
    if written != plain_len || plain.len() != plain_len {
        return Err(format!("{written} bytes come out where {plain_len} were promised"));
    }
    Ok(plain)
}
