//! Adjacent frames of a shard as they are stored, fetched or on their way.

use std::fmt;
use std::ops::Range;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use tokio::task::AbortHandle;

use crate::error::StoreError;

/// What comes of a request for a piece.
pub(crate) type Fetched = Result<Bytes, StoreError>;

/// Which frames a piece holds, and where they lie in the object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) frames: Range<u32>,
    pub(crate) stored: Range<u64>,
}

impl Span {
    pub(crate) const fn bytes(&self) -> u64 {
        self.stored.end.saturating_sub(self.stored.start)
    }
}

/// A piece; clones share the request. It goes on while anyone waits for it.
#[derive(Clone)]
pub(crate) struct Piece {
    span: Span,
    fetch: Shared<BoxFuture<'static, Fetched>>,
}

impl fmt::Debug for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Piece").field("span", &self.span).finish_non_exhaustive()
    }
}

impl Piece {
    pub(super) fn new(span: Span, fetch: BoxFuture<'static, Fetched>) -> Self {
        Self { span, fetch: fetch.shared() }
    }

    pub(super) const fn span(&self) -> &Span {
        &self.span
    }

    /// Waits until it has arrived.
    pub(crate) async fn bytes(&self) -> Fetched {
        self.fetch.clone().await
    }

    /// The part of its bytes that a range of the object is.
    pub(crate) fn slice(&self, bytes: &Bytes, stored: &Range<u64>) -> Bytes {
        let within = |at: u64| {
            let at = at.saturating_sub(self.span.stored.start);
            usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len())
        };
        let start = within(stored.start);
        bytes.slice(start..within(stored.end).max(start))
    }

    pub(super) fn has_failed(&self) -> bool {
        self.fetch.peek().is_some_and(Result::is_err)
    }

    pub(super) fn downgrade(&self) -> WeakPiece {
        WeakPiece { span: self.span.clone(), fetch: self.fetch.downgrade() }
    }
}

/// A piece that lasts as long as somebody else wants it.
pub(super) struct WeakPiece {
    span: Span,
    /// None once it had arrived.
    fetch: Option<WeakShared<BoxFuture<'static, Fetched>>>,
}

impl fmt::Debug for WeakPiece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WeakPiece").field("span", &self.span).finish_non_exhaustive()
    }
}

impl WeakPiece {
    /// The piece, if it holds this frame and is still on its way.
    pub(super) fn upgrade_for(&self, frame: u32) -> Option<Piece> {
        if !self.span.frames.contains(&frame) {
            return None;
        }
        let fetch = self.fetch.as_ref()?.upgrade().filter(|fetch| fetch.peek().is_none())?;
        Some(Piece { span: self.span.clone(), fetch })
    }

    pub(super) fn is_in_flight(&self) -> bool {
        let fetch = self.fetch.as_ref().and_then(WeakShared::upgrade);
        fetch.is_some_and(|fetch| fetch.peek().is_none())
    }
}

/// A piece that is held for a walk, with the task that brings it. Dropping it ends the task.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) piece: Piece,
    task: AbortHandle,
}

impl Held {
    pub(super) const fn new(piece: Piece, task: AbortHandle) -> Self {
        Self { piece, task }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.task.abort();
    }
}
