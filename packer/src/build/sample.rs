//! Some of a shard's files, to choose its codec by: all of a small shard, files spread evenly over a large one.

use std::borrow::Cow;

use desfmt::Digest;
use desfmt::v3::Mtime;

use crate::error::PackError;
use crate::limits;
use crate::source::Source;
use crate::todo::Todo;

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
    files: std::collections::VecDeque<(usize, Loaded)>,
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
            let Ok(source) = Source::open(&row) else { continue };
            let (mtime, mut content) = (source.mtime(), Vec::new());
            if let Ok(digest) = source.read(&mut content, |_| Ok::<_, PackError>(()))? {
                preloaded.files.push_back((position, Loaded { content, digest, mtime }));
            }
        }
        Ok(Some(preloaded))
    }

    /// A part of the files, in proportion to the shard: judging all would cost as much as packing all.
    pub(super) fn samples(&self) -> Vec<Cow<'_, [u8]>> {
        self.files.iter().map(|(_, file)| Cow::Borrowed(file.content.as_slice())).collect()
    }

    /// The file of a row, if it was read.
    pub(super) fn take(&mut self, position: usize) -> Option<Loaded> {
        let (front, _) = self.files.front()?;
        if *front == position { self.files.pop_front().map(|(_, file)| file) } else { None }
    }
}

/// Files from all over a large shard. What cannot be read is left to be reported later.
pub(super) fn spread(todo: &Todo) -> Result<Vec<Cow<'static, [u8]>>, PackError> {
    let share = (todo.bytes_left() / limits::SAMPLE_BYTES).max(1);
    let mut samples = Vec::new();
    let mut passed = 0_u64;
    let mut next_at = 0_u64;
    let mut rows = todo.rows();
    while let Some((_, row)) = rows.next_row(todo)? {
        let part = row.len.min(limits::SAMPLE_FILE_BYTES);
        passed += part;
        if passed <= next_at || part == 0 {
            continue;
        }
        next_at = passed + part * (share - 1);
        if let Ok(mut source) = Source::open(&row)
            && let Ok(head) = source.head(part)
        {
            samples.push(Cow::Owned(head));
        }
    }
    Ok(samples)
}
