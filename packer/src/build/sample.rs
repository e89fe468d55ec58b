//! Some of a shard's files, to choose its codec by.
//!
//! The sample consists of *runs*: files that follow each other in the shard, as they will lie in frames together. Some of
//! them are for making a dictionary, others for judging, so that no dictionary is praised for what it knows by heart.

use std::collections::VecDeque;

use desfmt::Digest;
use desfmt::v3::Mtime;

use crate::error::PackError;
use crate::limits;
use crate::source::Source;
use crate::todo::Todo;

/// Contents of some files, or of their first part.
#[derive(Debug, Default)]
pub(crate) struct Sample<'a> {
    /// To make a dictionary of, from all over the shard.
    pub(crate) training: Vec<std::borrow::Cow<'a, [u8]>>,
    /// To judge by, in runs.
    pub(crate) judged: Vec<std::borrow::Cow<'a, [u8]>>,
}

/// A file that was read before its turn.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) content: Vec<u8>,
    pub(super) digest: Digest,
    pub(super) mtime: Mtime,
}

/// All files of a small shard, so that none is read twice.
#[derive(Debug, Default)]
pub(super) struct Preloaded {
    files: VecDeque<(usize, Loaded)>,
}

impl Preloaded {
    /// Reads a small shard whole; `None` for a larger one. A file that cannot be read is left to be reported later.
    pub(super) fn read(todo: &Todo) -> Result<Option<Self>, PackError> {
        if todo.bytes_left() > limits::PRELOAD_BYTES {
            return Ok(None);
        }
        let mut preloaded = Self::default();
        let mut rows = todo.rows();
        while let Some((position, row)) = rows.next_row(todo)? {
            if row.len > limits::WHOLE_FILE_BYTES {
                continue;
            }
            let Ok(source) = Source::open(&row, todo.sources()) else { continue };
            let (mtime, mut content) = (source.mtime(), Vec::new());
            if let Ok(digest) = source.read(&mut content, |_| Ok::<_, PackError>(()))? {
                preloaded.files.push_back((position, Loaded { content, digest, mtime }));
            }
        }
        Ok(Some(preloaded))
    }

    /// A part of the files: judging all of a small shard would cost as much as packing it.
    pub(super) fn sample(&self, bytes: u64) -> Sample<'_> {
        let mut chooser = RunChooser::new(bytes);
        let mut sample = Sample::default();
        for (_, file) in &self.files {
            let len = u64::try_from(file.content.len()).unwrap_or(u64::MAX);
            match chooser.choose(len) {
                Choice::Skip | Choice::Train => sample.training.push(file.content.as_slice().into()),
                Choice::Judge => sample.judged.push(head_of(&file.content, limits::SAMPLE_FILE_BYTES).into()),
            }
        }
        sample
    }

    /// The file of a row, if it was read.
    pub(super) fn take(&mut self, position: usize) -> Option<Loaded> {
        let (front, _) = self.files.front()?;
        if *front == position { self.files.pop_front().map(|(_, file)| file) } else { None }
    }
}

fn head_of(content: &[u8], len: u64) -> &[u8] {
    content.get(..usize::try_from(len).unwrap_or(usize::MAX)).unwrap_or(content)
}

/// Files from all over a large shard. What cannot be read is left to be reported later.
pub(super) fn spread(todo: &Todo) -> Result<Sample<'static>, PackError> {
    let mut chooser = RunChooser::new(todo.bytes_left());
    let mut sample = Sample::default();
    let mut rows = todo.rows();
    while let Some((_, row)) = rows.next_row(todo)? {
        let (to, len) = match chooser.choose(row.len) {
            Choice::Skip => continue,
            Choice::Train => (&mut sample.training, limits::TRAINING_FILE_BYTES),
            Choice::Judge => (&mut sample.judged, limits::SAMPLE_FILE_BYTES),
        };
        if let Ok(mut source) = Source::open(&row, todo.sources())
            && let Ok(head) = source.head(row.len.min(len))
        {
            to.push(head.into());
        }
    }
    Ok(sample)
}

/// What a file of the shard is taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Choice {
    Skip,
    Train,
    Judge,
}

/// Chooses runs of files, evenly over the bytes of a shard.
#[derive(Debug)]
pub(crate) struct RunChooser {
    /// The distance between the beginnings of two runs.
    distance: u64,
    /// Bytes of the files so far.
    passed: u64,
    next_run: u64,
    /// Bytes that the current run still wants.
    wanted: u64,
    runs: u64,
}

impl RunChooser {
    pub(crate) fn new(shard_bytes: u64) -> Self {
        let sample = (shard_bytes / limits::SAMPLE_SHARE).clamp(limits::SAMPLE_BYTES_MIN, limits::SAMPLE_BYTES_MAX);
        let runs = (sample / limits::SAMPLE_RUN_BYTES).max(limits::JUDGED_SHARE);
        Self { distance: (shard_bytes / runs).max(1), passed: 0, next_run: 0, wanted: 0, runs: 0 }
    }

    pub(crate) fn choose(&mut self, len: u64) -> Choice {
        if self.passed >= self.next_run {
            self.next_run = self.passed + self.distance;
            self.runs += 1;
            self.wanted = if self.is_judged() { limits::JUDGED_RUN_BYTES } else { limits::SAMPLE_RUN_BYTES };
        }
        self.passed += len;
        if self.wanted == 0 {
            return Choice::Skip;
        }
        self.wanted = self.wanted.saturating_sub(len.min(limits::SAMPLE_FILE_BYTES));
        if self.is_judged() { Choice::Judge } else { Choice::Train }
    }

    const fn is_judged(&self) -> bool {
        self.runs.is_multiple_of(limits::JUDGED_SHARE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many files are taken for what, and how many runs there are.
    fn chosen(lens: &[u64]) -> (usize, usize, u64) {
        let mut chooser = RunChooser::new(lens.iter().sum());
        let choices: Vec<_> = lens.iter().map(|len| chooser.choose(*len)).collect();
        let count = |wanted| choices.iter().filter(|choice| **choice == wanted).count();
        (count(Choice::Train), count(Choice::Judge), chooser.runs)
    }

    #[test]
    fn a_sample_is_a_small_part_in_two_halves() {
        let (train, judge, runs) = chosen(&vec![2_000; 100_000]);
        assert!((250..600).contains(&train) && (250..600).contains(&judge), "{train} {judge}");
        assert!((40..80).contains(&runs), "{runs}");
        let (train, judge, _) = chosen(&vec![12_000; 250]);
        assert!((3..20).contains(&train) && (3..20).contains(&judge), "{train} {judge}");
    }

    #[test]
    fn large_files_count_by_their_first_part() {
        let (train, judge, _) = chosen(&[50 << 20; 20]);
        assert!(train > 2 && judge > 2, "{train} {judge}");
    }
}
