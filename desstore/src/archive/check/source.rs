//! The bytes of a shard for a check that runs on a thread of its own: it asks, the asynchronous side fetches.
//!
//! What lies in order is read in order, in windows, and hashed as it passes by, so that a whole object is read once. What
//! is asked for out of order costs a request of its own.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use desfmt::{Digest, v3};
use tokio::sync::{mpsc, oneshot};

use crate::archive::error::ArchiveError;
use crate::error::{StoreError, StoreErrorKind};

/// How much is read at a time.
const WINDOW_BYTES: u64 = 8 << 20;

/// How much is read where pages are wanted, for the pages behind.
const PAGES_BYTES: u64 = 1 << 20;

/// A range that is wanted, and where it is to be sent.
pub(super) type Ask = (Range<u64>, oneshot::Sender<Result<Bytes, ArchiveError>>);

/// One end of a shard that lies elsewhere.
#[derive(Debug)]
pub(super) struct Remote {
    ask: mpsc::Sender<Ask>,
    key: String,
    object_len: u64,
    body_len: u64,
    is_read_whole: bool,
    window: (u64, Bytes),
    pages: (u64, Bytes),
    whole: blake3::Hasher,
    body: blake3::Hasher,
}

impl Remote {
    /// The shard of an object, of which all is hashed if it `is_read_whole`.
    pub(super) fn new(ask: mpsc::Sender<Ask>, key: String, object_len: u64, is_read_whole: bool) -> Self {
        let footer_len = u64::try_from(v3::FOOTER_LEN).unwrap_or(u64::MAX);
        Self {
            ask,
            key,
            object_len,
            body_len: object_len.saturating_sub(footer_len),
            is_read_whole,
            window: (0, Bytes::new()),
            pages: (0, Bytes::new()),
            whole: blake3::Hasher::new(),
            body: blake3::Hasher::new(),
        }
    }

    /// Reads what is left. The digests of the whole object and of its body.
    pub(super) fn finish(mut self) -> Result<(Digest, Digest), ArchiveError> {
        let end = self.object_len;
        while self.window_end() < end {
            let from = self.window_end();
            self.advance(from, from.saturating_add(1))?;
        }
        Ok((self.whole.finalize(), self.body.finalize()))
    }

    fn fetch(&self, range: Range<u64>) -> Result<Bytes, ArchiveError> {
        let gone = || StoreError::new(StoreErrorKind::Unavailable, "check", &self.key);
        let (reply, answer) = oneshot::channel();
        self.ask.blocking_send((range, reply)).map_err(|_| gone())?;
        answer.blocking_recv().map_err(|_| gone())?
    }

    fn window_end(&self) -> u64 {
        self.window.0.saturating_add(length(&self.window.1))
    }

    /// Reads on in order until `end` is passed, and keeps what lies behind `from`.
    fn advance(&mut self, from: u64, end: u64) -> Result<(), ArchiveError> {
        while self.window_end() < end {
            let start = self.window_end();
            let until = start.saturating_add(WINDOW_BYTES).min(self.object_len);
            if until <= start {
                let detail = format!("bytes up to {end} were looked for in {}", self.object_len);
                return Err(ArchiveError::inconsistent(&self.key, detail));
            }
            let fetched = self.fetch(start..until)?;
            self.whole.update(&fetched);
            let of_body = usize::try_from(self.body_len.saturating_sub(start)).unwrap_or(usize::MAX);
            self.body.update(fetched.get(..of_body).unwrap_or(&fetched));
            let kept = part(&self.window, from..start).unwrap_or_default();
            self.window = if kept.is_empty() {
                (start, fetched)
            } else {
                let mut joined = BytesMut::with_capacity(kept.len().saturating_add(fetched.len()));
                joined.extend_from_slice(&kept);
                joined.extend_from_slice(&fetched);
                (from, joined.freeze())
            };
        }
        Ok(())
    }
}

impl v3::ShardSource for Remote {
    type Error = ArchiveError;

    fn page(&mut self, range: Range<u64>) -> Result<Bytes, ArchiveError> {
        if self.is_read_whole && (range.start == 0 || self.object_len <= WINDOW_BYTES) {
            let end = if self.object_len <= WINDOW_BYTES { self.object_len } else { range.end };
            self.advance(0, end)?;
        }
        if let Some(bytes) = part(&self.window, range.clone()).or_else(|| part(&self.pages, range.clone())) {
            return Ok(bytes);
        }
        let ahead = if range.start == 0 { range.end } else { range.start.saturating_add(PAGES_BYTES) };
        let end = ahead.max(range.end).min(self.object_len.max(range.end));
        self.pages = (range.start, self.fetch(range.start..end)?);
        part(&self.pages, range)
            .ok_or_else(|| ArchiveError::inconsistent(&self.key, "a page was cut short by the store"))
    }

    fn frame(&mut self, range: Range<u64>) -> Result<Bytes, ArchiveError> {
        if range.end > self.window_end() {
            self.advance(range.start, range.end)?;
        }
        match part(&self.window, range.clone()) {
            Some(bytes) => Ok(bytes),
            // A content that was passed already, shared by another file.
            None => self.fetch(range),
        }
    }
}

fn part((start, bytes): &(u64, Bytes), range: Range<u64>) -> Option<Bytes> {
    let from = usize::try_from(range.start.checked_sub(*start)?).ok()?;
    let to = usize::try_from(range.end.checked_sub(*start)?).ok()?;
    (from <= to && to <= bytes.len()).then(|| bytes.slice(from..to))
}

fn length(bytes: &Bytes) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}
