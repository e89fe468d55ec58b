//! Sources that lie in buckets: each is fetched to the local disk when it is opened, and gone when it is closed.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};

use desfmt::{ObjectKey, Timestamp};
use desstore::{Location, ObjectStore, S3Location, StoreOptions, Surroundings};
use tokio::runtime::Handle;
use tokio::sync::Mutex;

use crate::program::reason_of;

/// What such sources begin with.
pub(crate) const SCHEME: &str = "s3://";

/// How much is fetched at a time.
const PIECE_BYTES: u64 = 8 << 20;

/// Reads sources from buckets, all of them reached alike.
#[derive(Debug)]
pub struct Buckets {
    runtime: Handle,
    options: StoreOptions,
    surroundings: Surroundings,
    directory: PathBuf,
    files: AtomicU64,
    stores: Mutex<HashMap<String, Arc<dyn ObjectStore>>>,
}

/// A source on the local disk.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub(crate) file: File,
    pub(crate) modified: Timestamp,
}

impl Buckets {
    /// Fetches to a directory. `runtime` does the waiting; sources are opened on threads that may wait for it.
    pub fn new(runtime: Handle, options: StoreOptions, surroundings: Surroundings, directory: PathBuf) -> Self {
        Self { runtime, options, surroundings, directory, files: AtomicU64::new(0), stores: Mutex::default() }
    }

    /// Fetches `s3://BUCKET/KEY`. Not to be called on a thread of the runtime.
    pub(crate) fn open(self: &Arc<Self>, uri: &Path) -> Result<Fetched, String> {
        let uri = uri.to_str().ok_or("its name is not UTF-8")?;
        let (bucket, key) =
            uri.strip_prefix(SCHEME).and_then(|rest| rest.split_once('/')).ok_or("it names no object")?;
        let key = ObjectKey::new(key).map_err(|error| error.to_string())?;
        let (sender, receiver) = mpsc::sync_channel(1);
        let (buckets, bucket) = (Arc::clone(self), bucket.to_owned());
        drop(self.runtime.spawn(async move {
            let fetched = buckets.fetch(&bucket, &key).await;
            // Whoever asked has gone with the run.
            drop(sender.send(fetched));
        }));
        receiver.recv().map_err(|_| "the run ends".to_owned())?
    }

    async fn fetch(&self, bucket: &str, key: &ObjectKey) -> Result<Fetched, String> {
        let store = self.store(bucket).await?;
        let meta = store.head(key).await.map_err(|error| reason_of(&error))?;
        let mut file = self.nameless_file().map_err(|error| error.to_string())?;
        let mut at = 0;
        while at < meta.len {
            let end = at.saturating_add(PIECE_BYTES).min(meta.len);
            let piece = store.get_range(key, at..end, Some(&meta.etag)).await.map_err(|error| reason_of(&error))?;
            file.write_all(&piece).map_err(|error| error.to_string())?;
            at = end;
        }
        file.rewind().map_err(|error| error.to_string())?;
        Ok(Fetched { file, modified: meta.modified })
    }

    async fn store(&self, bucket: &str) -> Result<Arc<dyn ObjectStore>, String> {
        let mut stores = self.stores.lock().await;
        if let Some(store) = stores.get(bucket) {
            return Ok(Arc::clone(store));
        }
        let place = Location::S3(S3Location { bucket: bucket.to_owned(), prefix: String::new() });
        let connected = place.connect(&self.options, &self.surroundings).await.map_err(|error| reason_of(&error))?;
        stores.insert(bucket.to_owned(), Arc::clone(&connected.store));
        Ok(connected.store)
    }

    /// A file that is gone when it is closed.
    fn nameless_file(&self) -> io::Result<File> {
        fs::create_dir_all(&self.directory)?;
        let number = self.files.fetch_add(1, Ordering::Relaxed);
        let path = self.directory.join(format!("source-{}-{number}", std::process::id()));
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path)?;
        fs::remove_file(&path)?;
        Ok(file)
    }
}
