//! A body that flows as the script says: in pieces, with pauses, or breaking off.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::Sleep;

/// What comes next.
#[derive(Debug)]
pub(super) enum Step {
    Send(Bytes),
    Wait(Duration),
    Break,
}

/// A body made of steps.
#[derive(Debug)]
pub(super) struct Flow {
    steps: VecDeque<Step>,
    sleep: Option<Pin<Box<Sleep>>>,
    len: u64,
}

impl Flow {
    /// `len` is what the answer announces.
    pub(super) fn new(steps: impl IntoIterator<Item = Step>, len: u64) -> Self {
        Self { steps: steps.into_iter().collect(), sleep: None, len }
    }
}

impl Body for Flow {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        loop {
            if let Some(sleep) = &mut self.sleep {
                std::task::ready!(sleep.as_mut().poll(context));
                self.sleep = None;
            }
            match self.steps.pop_front() {
                None => return Poll::Ready(None),
                Some(Step::Send(bytes)) if bytes.is_empty() => {}
                Some(Step::Send(bytes)) => return Poll::Ready(Some(Ok(Frame::data(bytes)))),
                Some(Step::Wait(time)) => self.sleep = Some(Box::pin(tokio::time::sleep(time))),
                Some(Step::Break) => return Poll::Ready(Some(Err(std::io::Error::other("as the script says")))),
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.len)
    }
}
