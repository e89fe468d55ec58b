//! Frames: pieces of the stream, each compressed on its own, each proving itself.
//!
//! ```text
//! payload            stored or compressed plain bytes
//! plain_len     u32  bit 31 set: compressed; the rest: plain bytes, 1 to 2^20
//! crc           u32  CRC-32C of payload, plain_len, and the frame's address (u64)
//! ```
//!
//! The address is part of the checksum, so bytes of one frame never pass for another's.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use zstd::dict::DecoderDictionary;

use super::codec::{self, Codec, Dictionary, FrameCompressor};
use super::limits::{SLOT_BITS, SLOT_LEN};
use crate::FormatError;
use crate::v3::{BuildError, to_u64, to_usize};

/// Bytes that follow the payload.
pub(super) const TRAILER_LEN: usize = 8;

const COMPRESSED_BIT: u32 = 1 << 31;

/// How the payload of a frame is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// As it is.
    Stored,
    /// With the shard's codec.
    Compressed,
}

/// A frame as compressed, not yet bound to its place in a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedFrame {
    payload: Vec<u8>,
    payload_crc: u32,
    plain_len: u32,
    encoding: Encoding,
}

impl EncodedFrame {
    pub(super) fn new(payload: Vec<u8>, plain_len: usize, encoding: Encoding) -> Self {
        let payload_crc = crc32c::crc32c(&payload);
        // A frame has at most 2^20 plain bytes, so this never saturates.
        Self { payload, payload_crc, plain_len: u32::try_from(plain_len).unwrap_or(u32::MAX), encoding }
    }

    /// Bytes it holds when decoded.
    pub const fn plain_len(&self) -> u32 {
        self.plain_len
    }

    /// Bytes it takes in the shard.
    pub fn stored_len(&self) -> u64 {
        to_u64(self.payload.len().saturating_add(TRAILER_LEN))
    }

    /// Whether compressing paid.
    pub const fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// The bytes of the frame as the one with this number.
    pub(super) fn bind(self, number: u32) -> Vec<u8> {
        let field = match self.encoding {
            Encoding::Stored => self.plain_len,
            Encoding::Compressed => self.plain_len | COMPRESSED_BIT,
        };
        let crc = frame_crc(self.payload_crc, field, number);
        let mut stored = self.payload;
        stored.extend(field.to_le_bytes());
        stored.extend(crc.to_le_bytes());
        stored
    }
}

/// The address of a frame's first byte.
pub(super) fn address_of(number: u32) -> u64 {
    u64::from(number) << SLOT_BITS
}

fn frame_crc(payload_crc: u32, plain_len_field: u32, number: u32) -> u32 {
    let crc = crc32c::crc32c_append(payload_crc, &plain_len_field.to_le_bytes());
    crc32c::crc32c_append(crc, &address_of(number).to_le_bytes())
}

/// Compresses frames, on as many threads as like to. Clones share their contexts.
#[derive(Clone)]
pub struct FrameEncoder {
    codec: Codec,
    level: i32,
    dictionary: Option<Dictionary>,
    /// Contexts at rest: one for each thread that has been encoding at the same time as others.
    contexts: Arc<Mutex<Vec<FrameCompressor>>>,
}

impl std::fmt::Debug for FrameEncoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FrameEncoder")
            .field("codec", &self.codec)
            .field("level", &self.level)
            .field("dictionary", &self.dictionary)
            .finish_non_exhaustive()
    }
}

impl FrameEncoder {
    /// Prepares a codec. The level counts for zstd only; a dictionary is refused by all others.
    pub fn new(codec: Codec, level: i32, dictionary: Option<&Dictionary>) -> Result<Self, BuildError> {
        if dictionary.is_some() && codec != Codec::Zstd {
            return Err(BuildError::invalid(format!("{codec} has no dictionaries")));
        }
        let levels = zstd::compression_level_range();
        if codec == Codec::Zstd && !levels.contains(&level) {
            let detail = format!("level {level} is not between {} and {}", levels.start(), levels.end());
            return Err(BuildError::Compressor { detail });
        }
        Ok(Self { codec, level, dictionary: dictionary.cloned(), contexts: Arc::default() })
    }

    /// Encodes one frame of 1 to 2^20 bytes. What does not shrink by a thirty-second part is stored as it is: it
    /// would cost every reader time and save no one any.
    pub fn encode(&self, plain: &[u8]) -> Result<EncodedFrame, BuildError> {
        let plain_len = to_u64(plain.len());
        if !(1..=SLOT_LEN).contains(&plain_len) {
            return Err(BuildError::BeyondLimits { what: "bytes of a frame", figure: plain_len, limit: SLOT_LEN });
        }
        let worth_it = plain.len().saturating_sub((plain.len() / 32).max(1));
        let compressed = match self.codec {
            Codec::Stored => None,
            Codec::Zstd => Some(self.compress_zstd(plain)?),
            Codec::Lz4 => Some(lz4_flex::block::compress(plain)),
        };
        if let Some(mut payload) = compressed.filter(|payload| payload.len() <= worth_it) {
            payload.reserve_exact(TRAILER_LEN);
            return Ok(EncodedFrame::new(payload, plain.len(), Encoding::Compressed));
        }
        let mut payload = Vec::with_capacity(plain.len().saturating_add(TRAILER_LEN));
        payload.extend_from_slice(plain);
        Ok(EncodedFrame::new(payload, plain.len(), Encoding::Stored))
    }

    fn compress_zstd(&self, plain: &[u8]) -> Result<Vec<u8>, BuildError> {
        let resting = self.contexts.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut compressor = match resting {
            Some(compressor) => compressor,
            None => FrameCompressor::new(self.level, self.dictionary.as_ref())?,
        };
        let compressed = compressor.compress(plain)?;
        self.contexts.lock().unwrap_or_else(PoisonError::into_inner).push(compressor);
        Ok(compressed)
    }
}

/// Where one frame lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameRef {
    /// Its number in the shard, from 0.
    pub number: u32,
    /// The addresses that belong to it. It holds at most so many bytes; how many, decoding tells.
    pub plain: Range<u64>,
    /// Its bytes in the object, the trailer among them.
    pub stored: Range<u64>,
}

impl FrameRef {
    pub(super) fn new(number: u32, stored: Range<u64>) -> Self {
        let address = address_of(number);
        Self { number, plain: address..address.saturating_add(SLOT_LEN), stored }
    }
}

/// A frame whose checksum has been found right.
#[derive(Debug)]
pub(super) struct ProvenFrame<'a> {
    payload: &'a [u8],
    plain_len: usize,
    encoding: Encoding,
}

/// Proves a frame's bytes. They are copied only where they are compressed, or by who asks for it.
pub(super) fn prove<'a>(frame: &FrameRef, stored: &'a [u8]) -> Result<ProvenFrame<'a>, FormatError> {
    let damaged = |detail: String| FormatError::damaged("frame", format!("frame {}: {detail}", frame.number));
    let expected = frame.stored.end.saturating_sub(frame.stored.start);
    if to_u64(stored.len()) != expected {
        return Err(damaged(format!("{} bytes where {expected} were expected", stored.len())));
    }
    let Some((rest, crc)) = stored.split_last_chunk() else {
        return Err(damaged("too short".to_owned()));
    };
    let Some((payload, field)) = rest.split_last_chunk() else {
        return Err(damaged("too short".to_owned()));
    };
    let field = u32::from_le_bytes(*field);
    if frame_crc(crc32c::crc32c(payload), field, frame.number) != u32::from_le_bytes(*crc) {
        return Err(damaged("its checksum is wrong".to_owned()));
    }
    let plain_len = u64::from(field & !COMPRESSED_BIT);
    if !(1..=SLOT_LEN).contains(&plain_len) {
        return Err(FormatError::beyond_limits("frame", format!("{plain_len} plain bytes where {SLOT_LEN} may be")));
    }
    let plain_len = to_usize(plain_len);
    let encoding = if field & COMPRESSED_BIT == 0 { Encoding::Stored } else { Encoding::Compressed };
    if encoding == Encoding::Stored && payload.len() != plain_len {
        return Err(damaged(format!("{plain_len} bytes stored as {}", payload.len())));
    }
    Ok(ProvenFrame { payload, plain_len, encoding })
}

impl ProvenFrame<'_> {
    /// The plain bytes.
    pub(super) fn decode(
        &self,
        codec: Codec,
        dictionary: Option<&DecoderDictionary<'static>>,
    ) -> Result<Bytes, FormatError> {
        match (self.encoding, codec) {
            (Encoding::Stored, Codec::Stored | Codec::Zstd | Codec::Lz4) => Ok(Bytes::copy_from_slice(self.payload)),
            (Encoding::Compressed, Codec::Zstd) => codec::decompress_zstd(self.payload, self.plain_len, dictionary)
                .map(Bytes::from)
                .map_err(|detail| FormatError::damaged("frame", detail)),
            (Encoding::Compressed, Codec::Lz4) => decompress_lz4(self.payload, self.plain_len),
            (Encoding::Compressed, Codec::Stored) => {
                Err(FormatError::damaged("frame", "compressed in a shard without a codec"))
            }
        }
    }

    /// The payload's place within the stored bytes, where it is the plain bytes already.
    pub(super) fn plain_in_place(&self) -> Option<Range<usize>> {
        (self.encoding == Encoding::Stored).then_some(0..self.plain_len)
    }

    /// The frame as it is, to be put into another shard of the same codec without a dictionary.
    pub(super) fn to_encoded(&self) -> EncodedFrame {
        let mut payload = Vec::with_capacity(self.payload.len().saturating_add(TRAILER_LEN));
        payload.extend_from_slice(self.payload);
        EncodedFrame::new(payload, self.plain_len, self.encoding)
    }
}

fn decompress_lz4(payload: &[u8], plain_len: usize) -> Result<Bytes, FormatError> {
    let mut plain = vec![0; plain_len];
    match lz4_flex::block::decompress_into(payload, &mut plain) {
        Ok(written) if written == plain_len => Ok(Bytes::from(plain)),
        Ok(written) => {
            Err(FormatError::damaged("frame", format!("{written} bytes come out where {plain_len} were promised")))
        }
        Err(error) => Err(FormatError::damaged("frame", error.to_string())),
    }
}
