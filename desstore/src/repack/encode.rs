//! Frames on their way into a new shard: compressed by several threads, or taken over as they are, and given back in order.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use desfmt::v3::{BuildError, EncodedFrame, FrameEncoder};

/// How much content is compressed by one thread at a time.
const BATCH_BYTES: usize = 256 << 10;

/// How much content may be under way.
const WINDOW_BYTES: usize = 16 << 20;

type Encoded = Result<Vec<EncodedFrame>, BuildError>;

struct Work {
    plain: Vec<Vec<u8>>,
    reply: Sender<Encoded>,
}

enum Slot {
    Ready(Vec<EncodedFrame>),
    UnderWay(Receiver<Encoded>, usize),
}

/// A queue of frames.
pub(super) struct FrameQueue {
    encoder: FrameEncoder,
    work: Option<Sender<Work>>,
    workers: Vec<JoinHandle<()>>,
    gathered: Vec<Vec<u8>>,
    gathered_bytes: usize,
    slots: VecDeque<Slot>,
    bytes_under_way: usize,
}

impl FrameQueue {
    /// Starts as many threads as wanted; with one, the caller compresses himself.
    pub(super) fn new(encoder: FrameEncoder, threads: usize) -> Self {
        let (work, take) = channel::<Work>();
        let take = Arc::new(Mutex::new(take));
        let count = if threads > 1 { threads } else { 0 };
        let started = (0..count).map(|_| {
            let (take, encoder) = (Arc::clone(&take), encoder.clone());
            std::thread::spawn(move || {
                loop {
                    let next = take.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok(Work { plain, reply }) = next else { return };
                    let answer = plain.iter().map(|frame| encoder.encode(frame)).collect();
                    // Whoever asked may have given up.
                    drop(reply.send(answer));
                }
            })
        });
        let workers: Vec<_> = started.collect();
        Self {
            encoder,
            work: (!workers.is_empty()).then_some(work),
            workers,
            gathered: Vec::new(),
            gathered_bytes: 0,
            slots: VecDeque::new(),
            bytes_under_way: 0,
        }
    }

    /// Takes plain frames.
    pub(super) fn push_plain(&mut self, frames: &mut Vec<Vec<u8>>) -> Result<(), BuildError> {
        for frame in frames.drain(..) {
            self.gathered_bytes = self.gathered_bytes.saturating_add(frame.len());
            self.gathered.push(frame);
            if self.gathered_bytes >= BATCH_BYTES {
                self.send()?;
            }
        }
        Ok(())
    }

    /// Takes a frame as it is.
    pub(super) fn push_copied(&mut self, frame: EncodedFrame) -> Result<(), BuildError> {
        self.send()?;
        let len = usize::try_from(frame.stored_len()).unwrap_or(usize::MAX);
        self.bytes_under_way = self.bytes_under_way.saturating_add(len);
        match self.slots.back_mut() {
            Some(Slot::Ready(frames)) => frames.push(frame),
            Some(Slot::UnderWay(..)) | None => self.slots.push_back(Slot::Ready(vec![frame])),
        }
        Ok(())
    }

    fn send(&mut self) -> Result<(), BuildError> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let plain = std::mem::take(&mut self.gathered);
        let bytes = std::mem::take(&mut self.gathered_bytes);
        let slot = match &self.work {
            None => Slot::Ready(plain.iter().map(|frame| self.encoder.encode(frame)).collect::<Encoded>()?),
            Some(work) => {
                let (reply, answer) = channel();
                work.send(Work { plain, reply }).map_err(|_| lost())?;
                self.bytes_under_way = self.bytes_under_way.saturating_add(bytes);
                Slot::UnderWay(answer, bytes)
            }
        };
        self.slots.push_back(slot);
        Ok(())
    }

    /// Hands out what is finished, in order; waits where too much is under way, or for all of it at the end.
    pub(super) fn take<E: From<BuildError>>(
        &mut self,
        all: bool,
        done: &mut impl FnMut(EncodedFrame) -> Result<(), E>,
    ) -> Result<(), E> {
        if all {
            self.send()?;
        }
        let bytes_max = if all { 0 } else { WINDOW_BYTES };
        while let Some(slot) = self.slots.pop_front() {
            let frames = match slot {
                Slot::Ready(frames) => {
                    let bytes = frames.iter().map(EncodedFrame::stored_len).fold(0, u64::saturating_add);
                    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
                    self.bytes_under_way = self.bytes_under_way.saturating_sub(bytes);
                    frames
                }
                Slot::UnderWay(answer, bytes) => match answer.try_recv() {
                    Err(TryRecvError::Empty) if self.bytes_under_way <= bytes_max && !all => {
                        self.slots.push_front(Slot::UnderWay(answer, bytes));
                        return Ok(());
                    }
                    Err(TryRecvError::Empty) => {
                        self.bytes_under_way = self.bytes_under_way.saturating_sub(bytes);
                        answer.recv().map_err(|_| lost())??
                    }
                    Ok(encoded) => {
                        self.bytes_under_way = self.bytes_under_way.saturating_sub(bytes);
                        encoded?
                    }
                    Err(TryRecvError::Disconnected) => return Err(lost().into()),
                },
            };
            for frame in frames {
                done(frame)?;
            }
        }
        Ok(())
    }
}

impl Drop for FrameQueue {
    fn drop(&mut self) {
        self.work = None;
        for worker in self.workers.drain(..) {
            if worker.join().is_err() {
                tracing::error!("a thread that compressed frames died");
            }
        }
    }
}

fn lost() -> BuildError {
    BuildError::Compressor { detail: "a thread that compressed frames died".to_owned() }
}
