//! From rows of the table to rows of the packer: what cannot be understood goes into the ledger instead.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use desfmt::{Date, Uid};
use packer::{Buckets, Feed, InputError, Row, RowSink, Sources, limits};
use tokio::sync::mpsc;

use crate::ledger::{Account, Claimed, Ledger};
use crate::rows::SourceRow;
use crate::state::Kind;

/// Rows as they come from the scan; the end without a word means that the scan has failed.
pub(crate) type Pages = mpsc::Receiver<Page>;

/// What a scan hands over.
#[derive(Debug)]
pub(crate) enum Page {
    /// Some rows.
    Rows(Vec<SourceRow>),
    /// There are no more.
    End,
}

/// Feeds the packer.
#[derive(Debug)]
pub(crate) struct RowFeed {
    pages: Mutex<Option<Pages>>,
    ledger: Arc<Ledger>,
    sources: Sources,
    fed: AtomicU64,
}

/// A scan that ended before its end; its own error says why.
#[derive(Debug, thiserror::Error)]
#[error("the scan of the table ended early")]
struct Interrupted;

impl RowFeed {
    pub(crate) fn new(pages: Pages, ledger: Arc<Ledger>, sources: Sources) -> Self {
        Self { pages: Mutex::new(Some(pages)), ledger, sources, fed: AtomicU64::new(0) }
    }

    /// Turns a row into one that can be packed, or says what is wrong with it.
    fn understand(&self, row: &SourceRow) -> Result<Row, (Kind, String)> {
        let broken = |reason: String| (Kind::Row, reason);
        let uid = Uid::new(row.uid.as_str()).map_err(|error| broken(error.to_string()))?;
        let date = Date::of(row.created_at).ok_or_else(|| broken("the time is in no day".to_owned()))?;
        let path = row.source();
        if path.is_empty() {
            return Err(broken("the row says no place where the file is".to_owned()));
        }
        if path.contains('\0') || path.len() > limits::PATH_BYTES {
            return Err(broken("the place is no path".to_owned()));
        }
        if Buckets::holds(Path::new(path)) && self.sources.buckets.is_none() {
            return Err((Kind::File, "the file is in a bucket, and sources.roots names none".to_owned()));
        }
        let checksum = row.checksum.clone().map_err(broken)?;
        let len = match row.len.clone().map_err(broken)? {
            Some(len) => len,
            None => self.measure(Path::new(path))?,
        };
        let number = self.fed.fetch_add(1, Ordering::Relaxed) + 1;
        Ok(Row { date, uid, created_at: row.created_at, len, source: path.into(), metadata: None, checksum, number })
    }

    /// How long a file is that the table says no length of.
    fn measure(&self, path: &Path) -> Result<u64, (Kind, String)> {
        let failed = |reason: String| (Kind::File, reason);
        if Buckets::holds(path)
            && let Some(buckets) = &self.sources.buckets
        {
            let meta = buckets.look_waiting(path).map_err(|error| failed(error.to_string()))?;
            return Ok(meta.len);
        }
        let metadata = match &self.sources.roots {
            Some(roots) => {
                let file = roots.open_file(path).map_err(|error| failed(error.to_string()))?;
                file.metadata()
            }
            None => std::fs::symlink_metadata(path),
        };
        metadata.map(|metadata| metadata.len()).map_err(|error| failed(error.to_string()))
    }

    fn hand_over(&self, row: &SourceRow, sink: &mut dyn RowSink) -> std::io::Result<()> {
        match self.understand(row) {
            Ok(row) => sink.accept(row),
            Err((kind, reason)) => self.ledger.push(&Account {
                day: Date::of(row.created_at).unwrap_or_else(crate::days::first_day),
                created_at: row.created_at,
                uid: row.uid.clone(),
                len: row.len.clone().ok().flatten(),
                source: row.source().to_owned(),
                claimed: Claimed::Failed(kind, reason),
            }),
        }
    }
}

impl Feed for RowFeed {
    fn read(&self, sink: &mut dyn RowSink) -> Result<(), InputError> {
        let interrupted = || InputError::Feed { source: Box::new(Interrupted) };
        let pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut pages = pages.ok_or_else(interrupted)?;
        loop {
            match pages.blocking_recv() {
                Some(Page::Rows(rows)) => {
                    for row in &rows {
                        self.hand_over(row, sink).map_err(|source| InputError::Spool { source })?;
                    }
                }
                Some(Page::End) => return Ok(()),
                None => return Err(interrupted()),
            }
        }
    }
}
