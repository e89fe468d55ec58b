//! What lies in buckets and not in files: sources, each of which is fetched to the local disk when it is opened and gone
//! when it is closed, and manifests, which are read as a stream.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};

use desfmt::ObjectKey;
use desstore::{
    Fetched, Location, ObjectMeta, ObjectStore, S3Location, StoreError, StoreErrorKind, StoreOptions, Surroundings,
};
use tokio::runtime::Handle;
use tokio::sync::Mutex;

use super::stream::ObjectStream;
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
    roots: Option<Vec<S3Location>>,
    files: AtomicU64,
    stores: Mutex<HashMap<String, Arc<dyn ObjectStore>>>,
}

/// A source on the local disk.
#[derive(Debug)]
pub struct FetchedSource {
    /// A file without a name that holds its bytes, at its beginning.
    pub file: File,
    /// What the bucket says of the version that was fetched.
    pub meta: ObjectMeta,
}

/// A source in a bucket that cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BucketError {
    /// No root has it.
    #[error("the source lies beneath none of the roots")]
    Elsewhere,
    /// There is nothing of that name.
    #[error("the source does not exist")]
    Missing,
    /// See the words.
    #[error("the source cannot be read: {0}")]
    Failed(String),
}

impl From<StoreError> for BucketError {
    fn from(error: StoreError) -> Self {
        if error.kind == StoreErrorKind::NotFound { Self::Missing } else { Self::Failed(reason_of(&error)) }
    }
}

impl From<io::Error> for BucketError {
    fn from(error: io::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

impl Buckets {
    /// Fetches to a directory. `runtime` does the waiting; sources are opened on threads that may wait for it.
    pub fn new(runtime: Handle, options: StoreOptions, surroundings: Surroundings, directory: PathBuf) -> Self {
        let (files, stores) = (AtomicU64::new(0), Mutex::default());
        Self { runtime, options, surroundings, directory, roots: None, files, stores }
    }

    /// The same, where nothing is touched but what lies beneath some places.
    #[must_use]
    pub fn beneath(self, roots: Vec<S3Location>) -> Self {
        Self { roots: Some(roots), ..self }
    }

    /// True for a source that lies in a bucket.
    pub fn holds(source: &Path) -> bool {
        source.as_os_str().as_encoded_bytes().starts_with(SCHEME.as_bytes())
    }

    /// What a bucket says of `s3://BUCKET/KEY`. One request.
    pub async fn look(&self, uri: &Path) -> Result<ObjectMeta, BucketError> {
        let (store, key) = self.place(uri).await?;
        Ok(store.head(&key).await?)
    }

    /// The same, on a thread that is none of the runtime's.
    pub fn look_waiting(self: &Arc<Self>, uri: &Path) -> Result<ObjectMeta, BucketError> {
        let (buckets, uri) = (Arc::clone(self), uri.to_owned());
        self.wait(async move { buckets.look(&uri).await })
    }

    /// Fetches `s3://BUCKET/KEY`. One request, if it is no longer than `len` and that is not long.
    pub async fn fetch(&self, uri: &Path, len: u64) -> Result<FetchedSource, BucketError> {
        let (store, key) = self.place(uri).await?;
        let mut file = self.nameless_file()?;
        let meta = match fetch_short(store.as_ref(), &key, len).await? {
            Some(fetched) => {
                file.write_all(&fetched.bytes)?;
                fetched.meta
            }
            None => fetch_long(store.as_ref(), &key, &mut file).await?,
        };
        file.rewind()?;
        Ok(FetchedSource { file, meta })
    }

    /// The same, on a thread that is none of the runtime's.
    pub(crate) fn open(self: &Arc<Self>, uri: &Path, len: u64) -> Result<FetchedSource, BucketError> {
        let (buckets, uri) = (Arc::clone(self), uri.to_owned());
        self.wait(async move { buckets.fetch(&uri, len).await })
    }

    /// Removes `s3://BUCKET/KEY`; the bucket may keep older versions of it. One request.
    pub async fn remove(&self, uri: &Path) -> Result<(), BucketError> {
        let (store, key) = self.place(uri).await?;
        Ok(store.delete(&key).await?)
    }

    /// Reads `s3://BUCKET/KEY` from its beginning to its end. Neither is to be called on a thread of the runtime.
    pub(crate) fn stream(self: &Arc<Self>, uri: &Path) -> Result<ObjectStream, BucketError> {
        let (buckets, uri) = (Arc::clone(self), uri.to_owned());
        self.wait(async move {
            let (store, key, meta) = buckets.find(&uri).await?;
            Ok(ObjectStream::begin(&buckets.runtime, store, key, meta))
        })
    }

    /// Makes sure that `s3://BUCKET/KEY` is there and may be looked at.
    pub(crate) async fn look_up(&self, uri: &Path) -> Result<(), BucketError> {
        self.find(uri).await.map(drop)
    }

    async fn find(&self, uri: &Path) -> Result<(Arc<dyn ObjectStore>, ObjectKey, ObjectMeta), BucketError> {
        let (store, key) = self.place(uri).await?;
        let meta = match store.head(&key).await {
            Ok(meta) => meta,
            // An answer to HEAD cannot say what is wrong.
            Err(_) => store.get_tail(&key, 1).await?.meta,
        };
        Ok((store, key, meta))
    }

    fn wait<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, BucketError>> + Send + 'static,
    ) -> Result<T, BucketError> {
        let (sender, receiver) = mpsc::sync_channel(1);
        drop(self.runtime.spawn(async move {
            // Whoever asked has gone with the run.
            drop(sender.send(work.await));
        }));
        receiver.recv().map_err(|_| BucketError::Failed("the run ends".to_owned()))?
    }

    /// Where a source lies, if it may be touched.
    async fn place(&self, uri: &Path) -> Result<(Arc<dyn ObjectStore>, ObjectKey), BucketError> {
        let failed = |reason: &str| BucketError::Failed(reason.to_owned());
        let uri = uri.to_str().ok_or_else(|| failed("its name is not UTF-8"))?;
        let place = uri.strip_prefix(SCHEME).and_then(|rest| rest.split_once('/'));
        let (bucket, key) = place.ok_or_else(|| failed("it names no object"))?;
        let key = ObjectKey::new(key).map_err(|error| failed(&error.to_string()))?;
        let is_beneath = |root: &S3Location| root.bucket == bucket && key.as_str().starts_with(&root.prefix);
        if self.roots.as_ref().is_some_and(|roots| !roots.iter().any(is_beneath)) {
            return Err(BucketError::Elsewhere);
        }
        Ok((self.store(bucket).await?, key))
    }

    async fn store(&self, bucket: &str) -> Result<Arc<dyn ObjectStore>, BucketError> {
        let mut stores = self.stores.lock().await;
        if let Some(store) = stores.get(bucket) {
            return Ok(Arc::clone(store));
        }
        let place = Location::S3(S3Location { bucket: bucket.to_owned(), prefix: String::new() });
        let connected = place.connect(&self.options, &self.surroundings).await;
        let connected = connected.map_err(|error| BucketError::Failed(reason_of(&error)))?;
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

/// An object that is expected to be short, in one request; none where it turns out to be long. Stores that keep checksums
/// vouch for whole objects only.
async fn fetch_short(store: &dyn ObjectStore, key: &ObjectKey, len: u64) -> Result<Option<Fetched>, BucketError> {
    if len > PIECE_BYTES {
        return Ok(None);
    }
    match store.get(key, PIECE_BYTES).await {
        Ok(fetched) => Ok(Some(fetched)),
        Err(error) if error.kind == StoreErrorKind::Corrupt => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// One version of an object, piece by piece.
async fn fetch_long(store: &dyn ObjectStore, key: &ObjectKey, file: &mut File) -> Result<ObjectMeta, BucketError> {
    let meta = store.head(key).await?;
    let mut at = 0;
    while at < meta.len {
        let end = at.saturating_add(PIECE_BYTES).min(meta.len);
        let piece = store.get_range(key, at..end, Some(&meta.etag)).await?;
        file.write_all(&piece)?;
        at = end;
    }
    Ok(meta)
}
