//! Which codec a shard gets, decided by a sample of its own files.

use desfmt::v3::{BuildError, Codec, Dictionary, FrameCutter, FrameEncoder, FrameSize};

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

    /// Chooses for a shard of so many bytes, of which `samples` are some whole small files and heads of large ones.
    pub(crate) fn choose(
        compression: Compression,
        frame_size: FrameSize,
        samples: &[&[u8]],
        shard_bytes: u64,
    ) -> Result<Self, BuildError> {
        match compression.choice {
            CodecChoice::Stored => return Ok(Self::plain(Codec::Stored)),
            CodecChoice::Lz4 => return Ok(Self::plain(Codec::Lz4)),
            CodecChoice::Auto | CodecChoice::Zstd => {}
        }
        // Every other file trains, the others judge, so that the dictionary is not praised for what it has learnt by heart.
        let training: Vec<&[u8]> = samples.iter().step_by(2).copied().collect();
        let judged: Vec<&[u8]> = samples.iter().skip(1).step_by(2).copied().collect();
        let frames = frames_of(&judged, frame_size)?;
        let plain_bytes = total(&frames);
        let zstd = encoded_bytes(Codec::Zstd, compression.level, None, &frames)?;
        if compression.choice == CodecChoice::Auto && plain_bytes > 0 {
            if zstd.saturating_mul(100) > plain_bytes.saturating_mul(97) {
                return Ok(Self::plain(Codec::Stored));
            }
            let lz4 = encoded_bytes(Codec::Lz4, 0, None, &frames)?;
            if lz4.saturating_mul(100) <= zstd.saturating_mul(102) {
                return Ok(Self::plain(Codec::Lz4));
            }
        }
        let is_large = shard_bytes >= limits::DICTIONARY_SHARD_BYTES && samples.len() >= limits::DICTIONARY_SAMPLES;
        let trained = is_large.then(|| Dictionary::train(&training, Dictionary::LEN_DEFAULT)).flatten();
        let Some(dictionary) = trained else {
            return Ok(Self::plain(Codec::Zstd));
        };
        let with = encoded_bytes(Codec::Zstd, compression.level, Some(&dictionary), &frames)?;
        let saved = u128::from(zstd.saturating_sub(with)) * u128::from(shard_bytes) / u128::from(plain_bytes.max(1));
        let cost = u128::try_from(dictionary.as_bytes().len()).unwrap_or(u128::MAX);
        Ok(Self { codec: Codec::Zstd, dictionary: (saved > cost * 5 / 4).then_some(dictionary) })
    }
}

/// The frames that some files would lie in.
fn frames_of(files: &[&[u8]], frame_size: FrameSize) -> Result<Vec<Vec<u8>>, BuildError> {
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

    fn chosen(choice: CodecChoice, files: &[Vec<u8>], copies: u64) -> (Codec, bool) {
        let samples: Vec<&[u8]> = files.iter().map(Vec::as_slice).collect();
        let compression = Compression { choice, level: Compression::LEVEL_DEFAULT };
        let bytes = files.iter().map(|file| u64::try_from(file.len()).unwrap()).sum::<u64>() * copies;
        let codec = ShardCodec::choose(compression, FrameSize::default(), &samples, bytes).unwrap();
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
        assert_eq!(chosen(CodecChoice::Auto, &letters(400), 100), (Codec::Zstd, true));
        assert_eq!(chosen(CodecChoice::Zstd, &letters(400), 100), (Codec::Zstd, true));
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
