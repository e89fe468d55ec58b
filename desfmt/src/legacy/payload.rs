//! The stored bytes of one file: as they are, or one zstd or lz4 frame.
//!
//! A frame is believed in nothing: the index says how long the content is, a frame that claims another length is
//! refused before it is decoded, and decoding stops at that length.

use std::io::Read;

use lz4_flex::frame::{BlockMode, BlockSize, FrameDecoder, FrameEncoder, FrameInfo};
use zstd::zstd_safe;

use super::cursor::Cursor;
use crate::FormatError;

/// The longest content of a compressed entry that is decoded, in bytes. A frame cannot be read in part, so this much
/// memory is needed at once, and with the decoder's own buffers not more than 64 MiB. The ancestor keeps whatever is
/// longer than 10 MiB beside the shard, unless told otherwise; what is stored uncompressed can be of any length.
pub const COMPRESSED_PLAIN_LEN_MAX: u64 = 48 << 20;

/// The longest stored bytes that a compressed entry can need: as long as a content that does not shrink, and what its
/// frame adds to each block.
const COMPRESSED_STORED_LEN_MAX: u64 = COMPRESSED_PLAIN_LEN_MAX + (1 << 20);

const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
const LZ4_MAGIC: [u8; 4] = [0x04, 0x22, 0x4d, 0x18];
const LZ4_CONTENT_SIZE: u8 = 0x08;
const LZ4_BLOCK_CHECKSUMS: u8 = 0x10;
const LZ4_CONTENT_CHECKSUM: u8 = 0x04;
const LZ4_DICTIONARY: u8 = 0x01;
const LZ4_BLOCK_STORED: u32 = 0x8000_0000;

/// How the bytes of an entry are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LegacyCodec {
    /// Not at all.
    Stored,
    /// One zstd frame.
    Zstd,
    /// One frame of the lz4 frame format.
    Lz4,
}

impl LegacyCodec {
    /// Its number in an index.
    pub const fn number(self) -> u8 {
        match self {
            Self::Stored => 0,
            Self::Zstd => 1,
            Self::Lz4 => 2,
        }
    }

    /// The codec with this number.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Stored),
            1 => Some(Self::Zstd),
            2 => Some(Self::Lz4),
            _ => None,
        }
    }

    /// The ancestor's name for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stored => "none",
            Self::Zstd => "zstd",
            Self::Lz4 => "lz4",
        }
    }
}

/// Refuses a compressed content that takes more bytes in its shard than any that can be decoded: before they are read.
pub fn check_compressed_len(stored_len: u64) -> Result<(), FormatError> {
    if stored_len <= COMPRESSED_STORED_LEN_MAX {
        return Ok(());
    }
    let detail = format!("{stored_len} bytes, at most {COMPRESSED_STORED_LEN_MAX} are read");
    Err(FormatError::beyond_limits("compressed file", detail))
}

/// The content of an entry: `plain_len` bytes, made of the first frame in `stored`.
pub fn decode_payload(codec: LegacyCodec, stored: &[u8], plain_len: u64) -> Result<Vec<u8>, FormatError> {
    if codec != LegacyCodec::Stored && plain_len > COMPRESSED_PLAIN_LEN_MAX {
        let detail = format!(
            "{plain_len} bytes in one {} frame, at most {COMPRESSED_PLAIN_LEN_MAX} are decoded; pack the file again, \
             uncompressed or in the current format",
            codec.name()
        );
        return Err(FormatError::beyond_limits("compressed file", detail));
    }
    let decoded = match codec {
        LegacyCodec::Stored => Ok(stored.to_vec()),
        LegacyCodec::Zstd => decode_zstd(stored, plain_len),
        LegacyCodec::Lz4 => decode_lz4(stored, plain_len),
    };
    let plain = decoded.map_err(|detail| damaged(codec, detail))?;
    if len_of(&plain) != plain_len {
        return Err(damaged(codec, format!("it holds {} bytes, the index says {plain_len}", plain.len())));
    }
    Ok(plain)
}

fn damaged(codec: LegacyCodec, detail: String) -> FormatError {
    let what = match codec {
        LegacyCodec::Stored => "stored file",
        LegacyCodec::Zstd => "zstd frame",
        LegacyCodec::Lz4 => "lz4 frame",
    };
    FormatError::damaged(what, detail)
}

fn len_of(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

/// The window that a frame asks for costs nothing here: the content itself, decoded in one piece, is the window.
fn decode_zstd(stored: &[u8], plain_len: u64) -> Result<Vec<u8>, String> {
    let reason = |code| zstd_safe::get_error_name(code).to_owned();
    if !stored.starts_with(&ZSTD_MAGIC) {
        return Err("it does not begin like one".to_owned());
    }
    let frame_len = zstd_safe::find_frame_compressed_size(stored).map_err(reason)?;
    let frame = stored.get(..frame_len).ok_or("it is cut off")?;
    if let Ok(Some(claimed)) = zstd_safe::get_frame_content_size(frame)
        && claimed != plain_len
    {
        return Err(format!("it claims {claimed} bytes, the index says {plain_len}"));
    }
    let mut plain = Vec::with_capacity(usize::try_from(plain_len).map_err(|error| error.to_string())?);
    zstd_safe::decompress(&mut plain, frame).map_err(reason)?;
    Ok(plain)
}

fn decode_lz4(stored: &[u8], plain_len: u64) -> Result<Vec<u8>, String> {
    let frame = first_lz4_frame(stored)?;
    if let Some(claimed) = frame.content_size
        && claimed != plain_len
    {
        return Err(format!("it claims {claimed} bytes, the index says {plain_len}"));
    }
    // One byte more than there may be, so that a longer content shows; the decoder's own buffers hold a few blocks.
    let limit = plain_len.saturating_add(1);
    let mut plain = Vec::with_capacity(usize::try_from(limit).map_err(|error| error.to_string())?);
    FrameDecoder::new(frame.bytes).take(limit).read_to_end(&mut plain).map_err(|error| error.to_string())?;
    Ok(plain)
}

struct Lz4Frame<'a> {
    bytes: &'a [u8],
    /// The length of the content, by the frame's own word.
    content_size: Option<u64>,
}

/// Walks the blocks of a frame to find its end, which the decoder does not insist on.
fn first_lz4_frame(stored: &[u8]) -> Result<Lz4Frame<'_>, String> {
    let mut cursor = Cursor(stored);
    if cursor.take(LZ4_MAGIC.len()) != Some(&LZ4_MAGIC) {
        return Err("it does not begin like one".to_owned());
    }
    let cut = || "it is cut off".to_owned();
    let flags = cursor.u8().ok_or_else(cut)?;
    cursor.u8().ok_or_else(cut)?;
    let content_size = if flags & LZ4_CONTENT_SIZE == 0 { None } else { Some(cursor.u64().ok_or_else(cut)?) };
    if flags & LZ4_DICTIONARY != 0 {
        return Err("it needs a dictionary".to_owned());
    }
    cursor.u8().ok_or_else(cut)?;
    let checksum_len = |flag| if flags & flag == 0 { 0 } else { 4 };
    loop {
        let block = cursor.u32().ok_or_else(cut)?;
        if block == 0 {
            break;
        }
        let block_len = usize::try_from(block & !LZ4_BLOCK_STORED).map_err(|error| error.to_string())?;
        cursor.take(block_len).ok_or_else(cut)?;
        cursor.take(checksum_len(LZ4_BLOCK_CHECKSUMS)).ok_or_else(cut)?;
    }
    cursor.take(checksum_len(LZ4_CONTENT_CHECKSUM)).ok_or_else(cut)?;
    let frame_len = stored.len().saturating_sub(cursor.0.len());
    Ok(Lz4Frame { bytes: stored.get(..frame_len).unwrap_or(stored), content_size })
}

/// What a shard is written with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LegacyCompression {
    /// Contents as they are, the only way of the ancestor's packers.
    Stored,
    /// zstd at a level; 0 means 3.
    Zstd {
        /// 1 to 22.
        level: i32,
    },
    /// lz4 at its default level.
    Lz4,
}

impl LegacyCompression {
    /// The codec that its entries name.
    pub const fn codec(self) -> LegacyCodec {
        match self {
            Self::Stored => LegacyCodec::Stored,
            Self::Zstd { .. } => LegacyCodec::Zstd,
            Self::Lz4 => LegacyCodec::Lz4,
        }
    }
}

/// Compresses contents one by one; keeps its buffers between them.
pub struct PayloadEncoder {
    compression: LegacyCompression,
    zstd: Option<zstd::bulk::Compressor<'static>>,
}

impl PayloadEncoder {
    /// An encoder; refuses a zstd level that there is not.
    pub fn new(compression: LegacyCompression) -> std::io::Result<Self> {
        let zstd = match compression {
            LegacyCompression::Zstd { level } if zstd::compression_level_range().contains(&level) => {
                Some(zstd::bulk::Compressor::new(if level == 0 { 3 } else { level })?)
            }
            LegacyCompression::Zstd { level } => {
                let reason = format!("there is no zstd level {level}");
                return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, reason));
            }
            LegacyCompression::Stored | LegacyCompression::Lz4 => None,
        };
        Ok(Self { compression, zstd })
    }

    /// The codec that entries of its making name.
    pub const fn codec(&self) -> LegacyCodec {
        self.compression.codec()
    }

    /// The stored bytes of a content. They are kept even where they are longer than it, as the ancestor does.
    pub fn encode(&mut self, plain: &[u8]) -> std::io::Result<Vec<u8>> {
        match (&mut self.zstd, self.compression) {
            (Some(zstd), _) => zstd.compress(plain),
            (None, LegacyCompression::Lz4) => encode_lz4(plain),
            (None, LegacyCompression::Stored | LegacyCompression::Zstd { .. }) => Ok(plain.to_vec()),
        }
    }
}

impl std::fmt::Debug for PayloadEncoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("PayloadEncoder").field(&self.compression).finish()
    }
}

fn encode_lz4(plain: &[u8]) -> std::io::Result<Vec<u8>> {
    const ONE_BLOCK: usize = 64 << 10;
    let mode = if plain.len() <= ONE_BLOCK { BlockMode::Independent } else { BlockMode::Linked };
    // A size of 0 would mean an unknown one.
    let content_size = Some(len_of(plain)).filter(|len| *len > 0);
    let frame = FrameInfo::new().block_size(BlockSize::Max64KB).block_mode(mode).content_size(content_size);
    let mut encoder = FrameEncoder::with_frame_info(frame, Vec::new());
    std::io::Write::write_all(&mut encoder, plain)?;
    Ok(encoder.finish()?)
}

/// True for uids whose ending says that compressing gains nothing: the ancestor stores these as they are.
pub fn is_never_compressed(uid: &str) -> bool {
    const ENDINGS: [&str; 8] = ["jpg", "jpeg", "png", "gif", "gz", "zip", "bz2", "xz"];
    let name = uid.rsplit('/').find(|segment| !matches!(*segment, "" | "."));
    match name.and_then(|name| name.rsplit_once('.')) {
        Some((stem, ending)) if !stem.is_empty() => ENDINGS.contains(&ending.to_lowercase().as_str()),
        Some(_) | None => false,
    }
}

#[cfg(test)]
mod tests;
