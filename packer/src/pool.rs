//! The threads that compress, shared by all shards that are being built.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};

use desfmt::v3::{BuildError, EncodedFrame, FrameEncoder};

use crate::limits;

/// As many threads as shards are built at once; each shard has its share of the bytes that may wait.
#[derive(Debug)]
pub(crate) struct Pool {
    threads: rayon::ThreadPool,
    window_bytes: usize,
}

impl Pool {
    pub(crate) fn new(threads: NonZeroUsize) -> Result<Self, rayon::ThreadPoolBuildError> {
        let builder = rayon::ThreadPoolBuilder::new().num_threads(threads.get());
        let threads_built = builder.thread_name(|index| format!("compress-{index}")).build()?;
        let window_bytes = (limits::PLAIN_BYTES_IN_FLIGHT / threads).max(4 * limits::BATCH_BYTES);
        Ok(Self { threads: threads_built, window_bytes })
    }

    /// Runs something that divides itself among the threads.
    pub(crate) fn install<T: Send>(&self, run: impl FnOnce() -> T + Send) -> T {
        self.threads.install(run)
    }
}

/// Compresses the frames of one shard and gives them back in order.
#[derive(Debug)]
pub(crate) struct FrameQueue<'a> {
    pool: &'a Pool,
    encoder: FrameEncoder,
    gathered: Vec<Vec<u8>>,
    gathered_bytes: usize,
    under_way: VecDeque<Batch>,
    bytes_under_way: usize,
}

#[derive(Debug)]
struct Batch {
    plain_bytes: usize,
    answer: Receiver<Result<Vec<EncodedFrame>, BuildError>>,
}

impl<'a> FrameQueue<'a> {
    pub(crate) fn new(pool: &'a Pool, encoder: FrameEncoder) -> Self {
        Self { pool, encoder, gathered: Vec::new(), gathered_bytes: 0, under_way: VecDeque::new(), bytes_under_way: 0 }
    }

    /// Takes frames; `done` receives those before them that are finished. Waits where too much is under way.
    pub(crate) fn push<E: From<BuildError>>(
        &mut self,
        frames: &mut Vec<Vec<u8>>,
        done: &mut impl FnMut(EncodedFrame) -> Result<(), E>,
    ) -> Result<(), E> {
        for frame in frames.drain(..) {
            self.gathered_bytes += frame.len();
            self.gathered.push(frame);
            if self.gathered_bytes >= limits::BATCH_BYTES {
                self.send();
            }
        }
        self.collect(self.pool.window_bytes, done)
    }

    /// Waits for all frames.
    pub(crate) fn finish<E: From<BuildError>>(
        mut self,
        done: &mut impl FnMut(EncodedFrame) -> Result<(), E>,
    ) -> Result<(), E> {
        self.send();
        self.collect(0, done)
    }

    fn send(&mut self) {
        if self.gathered.is_empty() {
            return;
        }
        let frames = std::mem::take(&mut self.gathered);
        let plain_bytes = std::mem::take(&mut self.gathered_bytes);
        let encoder = self.encoder.clone();
        let (reply, answer) = sync_channel(1);
        self.pool.threads.spawn(move || {
            let result = frames.iter().map(|frame| encoder.encode(frame)).collect();
            // Whoever asked may have given up.
            drop(reply.send(result));
        });
        self.bytes_under_way += plain_bytes;
        self.under_way.push_back(Batch { plain_bytes, answer });
    }

    /// Hands out what is finished, and waits until at most so many plain bytes are under way.
    fn collect<E: From<BuildError>>(
        &mut self,
        bytes_max: usize,
        done: &mut impl FnMut(EncodedFrame) -> Result<(), E>,
    ) -> Result<(), E> {
        while let Some(batch) = self.under_way.front() {
            let must_wait = self.bytes_under_way > bytes_max;
            let result = match batch.answer.try_recv() {
                Ok(result) => result,
                Err(TryRecvError::Empty) if !must_wait => return Ok(()),
                Err(TryRecvError::Empty) => batch.answer.recv().unwrap_or_else(|_| Err(lost())),
                Err(TryRecvError::Disconnected) => Err(lost()),
            };
            self.bytes_under_way -= batch.plain_bytes;
            self.under_way.pop_front();
            for frame in result? {
                done(frame)?;
            }
        }
        Ok(())
    }
}

fn lost() -> BuildError {
    BuildError::Compressor { detail: "a compressor thread died".to_owned() }
}
