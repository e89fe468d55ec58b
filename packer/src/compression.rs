//! Which codec a shard gets, decided by a sample of its own files.

use std::borrow::Cow;

use desfmt::v3::{BuildError, Codec, Dictionary, FrameCutter, FrameEncoder, FrameSize};

use crate::build::Sample;
use crate::limits;

/// What the user wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CodecChoice {
    /// What the sample says is best.
    Auto,
    /// Zstandard, with a dictionary where that pays.
    Zstd,
    /// LZ4: less small, and faster to read.
    Lz4,
    /// None at all.
    Stored,
}

/// A choice and the level it is to work at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compression {
    /// Which codec.
    pub choice: CodecChoice,
    /// How hard zstd tries; 3 is its own default.
    pub level: i32,
}

impl Compression {
    /// The level of zstd that is used where none is given.
    pub const LEVEL_DEFAULT: i32 = 3;
}

/// What a shard is compressed with.
#[derive(Debug, Clone)]
pub(crate) struct ShardCodec {
    pub(crate) codec: Codec,
    pub(crate) dictionary: Option<Dictionary>,
}

impl ShardCodec {
    const fn plain(codec: Codec) -> Self {
        Self { codec, dictionary: None }
    }

    /// Chooses for a shard of so many bytes.
    pub(crate) fn choose(
        compression: Compression,
        frame_size: FrameSize,
        sample: &Sample<'_>,
        shard_bytes: u64,
    ) -> Result<Self, BuildError> {
        match compression.choice {
            CodecChoice::Stored => return Ok(Self::plain(Codec::Stored)),
            CodecChoice::Lz4 => return Ok(Self::plain(Codec::Lz4)),
            CodecChoice::Auto | CodecChoice::Zstd => {}
        }
        let frames = frames_of(&sample.judged, frame_size)?;
        let plain_bytes = total(&frames);
        let zstd = encoded_bytes(Codec::Zstd, compression.level, None, &frames)?;
        if compression.choice == CodecChoice::Auto && plain_bytes > 0 {
            if zstd.saturating_mul(100) > plain_bytes.saturating_mul(97) {
                return Ok(Self::plain(Codec::Stored));
            }
            // Where zstd gains much, lz4 never comes near it.
            let is_close = zstd.saturating_mul(100) > plain_bytes.saturating_mul(70);
            if is_close && encoded_bytes(Codec::Lz4, 0, None, &frames)?.saturating_mul(100) <= zstd.saturating_mul(102)
            {
                return Ok(Self::plain(Codec::Lz4));
            }
        }
        let Some(dictionary) = dictionary_of(&sample.training, shard_bytes) else {
            return Ok(Self::plain(Codec::Zstd));
        };
        let with = encoded_bytes(Codec::Zstd, compression.level, Some(&dictionary), &frames)?;
        let saved = u128::from(zstd.saturating_sub(with)) * u128::from(shard_bytes) / u128::from(plain_bytes.max(1));
        // Its own length, twice: what a small sample promises is not always kept.
        let cost = u128::try_from(dictionary.as_bytes().len()).unwrap_or(u128::MAX) * 2;
        Ok(Self { codec: Codec::Zstd, dictionary: (saved > cost).then_some(dictionary) })
    }
}

/// A dictionary of a shard's own files, where it is large enough to earn one.
///
/// The heads of files are what files of one kind have most in common, so a dictionary of nothing but heads, which costs no
/// time at all, comes within a hundredth of what zstd's trainer makes.
fn dictionary_of(training: &[Cow<'_, [u8]>], shard_bytes: u64) -> Option<Dictionary> {
    if shard_bytes < limits::DICTIONARY_SHARD_BYTES || training.len() < limits::DICTIONARY_FILES {
        return None;
    }
    let heads: Vec<&[u8]> = training.iter().map(|file| head(file, limits::TRAINING_FILE_BYTES)).collect();
    if shard_bytes >= limits::TRAINING_SHARD_BYTES {
        let budget = (shard_bytes / limits::TRAINING_SHARE).min(limits::TRAINING_BYTES_MAX);
        let trained = Dictionary::train(&evenly(&heads, budget), Dictionary::LEN_DEFAULT);
        if trained.is_some() {
            return trained;
        }
    }
    let len_max = u64::try_from(Dictionary::LEN_DEFAULT).unwrap_or(u64::MAX);
    let each = (bytes_of(&heads) / u64::try_from(heads.len()).unwrap_or(u64::MAX) / 4).clamp(256, 1_024);
    let parts: Vec<&[u8]> = heads.iter().map(|file| head(file, each)).collect();
    let mut bytes = evenly(&parts, len_max).concat();
    bytes.truncate(Dictionary::LEN_DEFAULT);
    Dictionary::from_bytes(&bytes)
}

fn head(bytes: &[u8], len: u64) -> &[u8] {
    bytes.get(..usize::try_from(len).unwrap_or(usize::MAX)).unwrap_or(bytes)
}

/// Some of the parts, spread over all, of about so many bytes together.
fn evenly<'a>(parts: &[&'a [u8]], bytes: u64) -> Vec<&'a [u8]> {
    let all = bytes_of(parts);
    let mut chosen = Vec::new();
    let (mut passed, mut taken) = (0_u64, 0_u64);
    for part in parts {
        let len = u64::try_from(part.len()).unwrap_or(u64::MAX);
        // Taken as far as it is passed, in proportion.
        if u128::from(taken) * u128::from(all) <= u128::from(passed) * u128::from(bytes) && taken < bytes {
            taken += len;
            chosen.push(*part);
        }
        passed += len;
    }
    chosen
}

fn bytes_of(parts: &[&[u8]]) -> u64 {
    parts.iter().map(|part| u64::try_from(part.len()).unwrap_or(u64::MAX)).sum()
}

/// The frames that some files would lie in.
fn frames_of(files: &[Cow<'_, [u8]>], frame_size: FrameSize) -> Result<Vec<Vec<u8>>, BuildError> {
    let mut cutter = FrameCutter::new(frame_size);
    let mut frames = Vec::new();
    for file in files {
        cutter.push(file, &mut frames)?;
        cutter.end_file(&mut frames)?;
    }
    cutter.finish(&mut frames)?;
    Ok(frames)
}

fn encoded_bytes(
    codec: Codec,
    level: i32,
    dictionary: Option<&Dictionary>,
    frames: &[Vec<u8>],
) -> Result<u64, BuildError> {
    let encoder = FrameEncoder::new(codec, level, dictionary)?;
    frames.iter().try_fold(0, |sum, frame| Ok(sum + encoder.encode(frame)?.stored_len()))
}

fn total(frames: &[Vec<u8>]) -> u64 {
    frames.iter().map(|frame| u64::try_from(frame.len()).unwrap_or(u64::MAX)).sum()
}

#[cfg(test)]
mod tests {
    use desstore::{Randomness, SeededRandom};

    use super::*;

    /// The codec chosen for a shard of `copies` times these files, and whether it has a dictionary.
    fn chosen(choice: CodecChoice, files: &[Vec<u8>], copies: u64) -> (Codec, bool) {
        let part = |skip| files.iter().skip(skip).step_by(2).map(|file| Cow::Borrowed(file.as_slice())).collect();
        let sample = Sample { training: part(0), judged: part(1) };
        let compression = Compression { choice, level: Compression::LEVEL_DEFAULT };
        let bytes = files.iter().map(|file| u64::try_from(file.len()).unwrap()).sum::<u64>() * copies;
        let codec = ShardCodec::choose(compression, FrameSize::default(), &sample, bytes).unwrap();
        (codec.codec, codec.dictionary.is_some())
    }

    fn letters(count: u64) -> Vec<Vec<u8>> {
        let random = SeededRandom::new(7);
        (0..count)
            .map(|number| {
                let words: Vec<String> = (0..60).map(|_| format!("<w{}>", random.next() % 5_000)).collect();
                format!("Dear customer {number}, thank you for your letter. {}", words.join(" ")).into_bytes()
            })
            .collect()
    }

    fn noise(count: usize) -> Vec<Vec<u8>> {
        let random = SeededRandom::new(8);
        (0..count)
            .map(|_| {
                let mut bytes = vec![0; 2_000];
                random.fill(&mut bytes);
                bytes
            })
            .collect()
    }

    #[test]
    fn texts_of_one_kind_get_zstd_and_many_of_them_a_dictionary() {
        assert_eq!(chosen(CodecChoice::Auto, &letters(400), 20), (Codec::Zstd, true));
        assert_eq!(chosen(CodecChoice::Zstd, &letters(400), 20), (Codec::Zstd, true));
        // Large enough for zstd's own trainer.
        assert_eq!(chosen(CodecChoice::Auto, &letters(400), 1_000), (Codec::Zstd, true));
        assert_eq!(chosen(CodecChoice::Auto, &letters(400), 1), (Codec::Zstd, false));
        assert_eq!(chosen(CodecChoice::Auto, &[], 1), (Codec::Zstd, false));
    }

    #[test]
    fn what_cannot_be_compressed_is_stored() {
        assert_eq!(chosen(CodecChoice::Auto, &noise(200), 100), (Codec::Stored, false));
    }

    #[test]
    fn the_user_has_the_last_word() {
        assert_eq!(chosen(CodecChoice::Stored, &letters(400), 100), (Codec::Stored, false));
        assert_eq!(chosen(CodecChoice::Lz4, &letters(400), 100), (Codec::Lz4, false));
        assert_eq!(chosen(CodecChoice::Zstd, &noise(200), 100), (Codec::Zstd, false));
    }
}
