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

/// How much of the stream one frame gathers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Framing {
    /// [`FrameSize::default`], or [`limits::WIDE_FRAME_BYTES`] in shards of small files that become clearly smaller by it.
    #[default]
    BySample,
    /// As the user says.
    Of(FrameSize),
}

impl Framing {
    fn narrow(self) -> FrameSize {
        match self {
            Self::BySample => FrameSize::default(),
            Self::Of(size) => size,
        }
    }

    fn wide(self) -> Option<FrameSize> {
        match self {
            Self::BySample => FrameSize::new(limits::WIDE_FRAME_BYTES),
            Self::Of(_) => None,
        }
    }
}

impl From<FrameSize> for Framing {
    fn from(size: FrameSize) -> Self {
        Self::Of(size)
    }
}

/// How a shard is cut and compressed.
#[derive(Debug, Clone)]
pub(crate) struct ShardCodec {
    pub(crate) codec: Codec,
    pub(crate) frame_size: FrameSize,
    pub(crate) dictionary: Option<Dictionary>,
}

impl ShardCodec {
    const fn plain(codec: Codec, frame_size: FrameSize) -> Self {
        Self { codec, frame_size, dictionary: None }
    }

    /// Chooses for a shard of so many bytes.
    pub(crate) fn choose(
        compression: Compression,
        framing: Framing,
        sample: &Sample<'_>,
        shard_bytes: u64,
    ) -> Result<Self, BuildError> {
        let narrow = framing.narrow();
        match compression.choice {
            CodecChoice::Stored => return Ok(Self::plain(Codec::Stored, narrow)),
            CodecChoice::Lz4 => return Ok(Self::plain(Codec::Lz4, narrow)),
            CodecChoice::Auto | CodecChoice::Zstd => {}
        }
        let frames = frames_of(&sample.judged, narrow)?;
        let plain_bytes = total(&frames);
        let zstd = encoded_bytes(Codec::Zstd, compression.level, None, &frames)?;
        if compression.choice == CodecChoice::Auto && plain_bytes > 0 {
            if zstd.saturating_mul(100) > plain_bytes.saturating_mul(97) {
                return Ok(Self::plain(Codec::Stored, narrow));
            }
            // Where zstd gains much, lz4 never comes near it.
            let is_close = zstd.saturating_mul(100) > plain_bytes.saturating_mul(70);
            if is_close && encoded_bytes(Codec::Lz4, 0, None, &frames)?.saturating_mul(100) <= zstd.saturating_mul(102)
            {
                return Ok(Self::plain(Codec::Lz4, narrow));
            }
        }
        let dictionary = dictionary_of(&sample.training, shard_bytes);
        let judge = Judge { level: compression.level, dictionary: dictionary.as_ref(), shard_bytes };
        let chosen = judge.weigh(&frames, zstd, 0)?;
        let Some(wide) = framing.wide() else {
            return Ok(chosen.codec(narrow, dictionary));
        };
        let frames = frames_of(&sample.judged, wide)?;
        let zstd = encoded_bytes(Codec::Zstd, compression.level, None, &frames)?;
        let wider = judge.weigh(&frames, zstd, limits::WIDE_FRAME_DICTIONARY_PERCENT)?;
        let limit = chosen.cost.saturating_mul(100 - limits::WIDE_FRAME_GAIN_PERCENT);
        let is_worth_it = wider.cost.saturating_mul(100) <= limit;
        Ok(if is_worth_it { wider.codec(wide, dictionary) } else { chosen.codec(narrow, dictionary) })
    }
}

/// Weighs ways to cut a shard by its sample.
struct Judge<'a> {
    level: i32,
    dictionary: Option<&'a Dictionary>,
    shard_bytes: u64,
}

/// What zstd makes of a shard that is cut in some way.
struct Verdict {
    /// Bytes that the shard is expected to take.
    cost: u128,
    with_dictionary: bool,
}

impl Verdict {
    fn codec(&self, frame_size: FrameSize, dictionary: Option<Dictionary>) -> ShardCodec {
        let dictionary = dictionary.filter(|_| self.with_dictionary);
        ShardCodec { codec: Codec::Zstd, frame_size, dictionary }
    }
}

impl Judge<'_> {
    /// Decides about the dictionary for these frames of the sample, which take `plain` bytes without one. It must save so
    /// many hundredths.
    fn weigh(&self, frames: &[Vec<u8>], plain: u64, gain_percent: u128) -> Result<Verdict, BuildError> {
        let sampled = u128::from(total(frames).max(1));
        let of_shard = |bytes: u64| u128::from(bytes) * u128::from(self.shard_bytes) / sampled;
        let without = Verdict { cost: of_shard(plain), with_dictionary: false };
        let Some(dictionary) = self.dictionary else {
            return Ok(without);
        };
        let encoded = encoded_bytes(Codec::Zstd, self.level, Some(dictionary), frames)?;
        // Its own length, twice: what a small sample promises is not always kept.
        let own = u128::try_from(dictionary.as_bytes().len()).unwrap_or(u128::MAX) * 2;
        let with = Verdict { cost: of_shard(encoded).saturating_add(own), with_dictionary: true };
        let limit = without.cost.saturating_mul(100 - gain_percent);
        Ok(if with.cost.saturating_mul(100) < limit { with } else { without })
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
        let codec = chosen_with(choice, FrameSize::default().into(), files, copies);
        (codec.codec, codec.dictionary.is_some())
    }

    fn chosen_with(choice: CodecChoice, framing: Framing, files: &[Vec<u8>], copies: u64) -> ShardCodec {
        let part = |skip| files.iter().skip(skip).step_by(2).map(|file| Cow::Borrowed(file.as_slice())).collect();
        let sample = Sample { training: part(0), judged: part(1) };
        let compression = Compression { choice, level: Compression::LEVEL_DEFAULT };
        let bytes = files.iter().map(|file| u64::try_from(file.len()).unwrap()).sum::<u64>() * copies;
        ShardCodec::choose(compression, framing, &sample, bytes).unwrap()
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

    fn dialects(count: u64) -> Vec<Vec<u8>> {
        let random = SeededRandom::new(9);
        let words = |dialect: u64| {
            (0..60).map(move |word| format!("{:x} ", (dialect * 60 + word).wrapping_mul(0x9e37_79b9_7f4a_7c15)))
        };
        (0..count)
            .map(|number| {
                let words: Vec<String> = words(number / 100).collect();
                let pick = |_| words[usize::try_from(random.next() % 60).unwrap()].as_str();
                (0..60).map(pick).collect::<String>().into_bytes()
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
    fn small_files_get_wide_frames_where_these_make_them_smaller_and_the_user_does_not_object() {
        let wide = FrameSize::new(limits::WIDE_FRAME_BYTES).unwrap();
        let size = |framing, files: &[Vec<u8>]| chosen_with(CodecChoice::Auto, framing, files, 1_000).frame_size;

        // Each 100 files have words of their own, so that neighbours help more than any dictionary.
        assert_eq!(size(Framing::BySample, &dialects(2_000)), wide);
        assert_eq!(size(FrameSize::default().into(), &dialects(2_000)), FrameSize::default());
        // Files too large for sharing a wide frame have one of their own either way.
        let large: Vec<Vec<u8>> = dialects(2_000).chunks(100).map(<[Vec<u8>]>::concat).collect();
        assert_eq!(size(Framing::BySample, &large), FrameSize::default());
        assert_eq!(size(Framing::BySample, &noise(200)), FrameSize::default());
    }

    #[test]
    fn the_user_has_the_last_word() {
        assert_eq!(chosen(CodecChoice::Stored, &letters(400), 100), (Codec::Stored, false));
        assert_eq!(chosen(CodecChoice::Lz4, &letters(400), 100), (Codec::Lz4, false));
        assert_eq!(chosen(CodecChoice::Zstd, &noise(200), 100), (Codec::Zstd, false));
    }
}
