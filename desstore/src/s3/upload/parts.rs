//! Large files: uploaded in parts, several at once, and made an object by one last request. An upload that fails is taken
//! back; one whose process dies leaves a note beside its file, by which the next run takes it back.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use desfmt::ObjectKey;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::{Condition, read_file, sum_of, unreadable, written_version};
use crate::error::{StoreError, StoreErrorKind};
use crate::location::S3Location;
use crate::s3::S3Store;
use crate::s3::date::DateTap;
use crate::s3::failure::Failure;
use crate::store::Receipt;

/// Parts under way at once.
const PARTS_IN_FLIGHT: usize = 4;

/// More parts than a store takes are not asked for.
const PARTS_MAX: u64 = 9_000;

/// How often a part is sent before the whole upload fails.
const ATTEMPTS_MAX: u32 = 4;
const PAUSE: Duration = Duration::from_millis(200);

/// A key has never had more unfinished uploads than this.
const PAGES_MAX: usize = 100;

/// An upload that was begun; taken back when dropped, unless it is finished.
struct Begun {
    store: S3Store,
    key: ObjectKey,
    upload: String,
    note: PathBuf,
    is_settled: bool,
}

impl Drop for Begun {
    fn drop(&mut self) {
        if self.is_settled {
            return;
        }
        let (store, key, upload, note) =
            (self.store.clone(), self.key.clone(), std::mem::take(&mut self.upload), std::mem::take(&mut self.note));
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            drop(runtime.spawn(async move {
                match store.abort(&key, &upload).await {
                    Ok(()) => drop(std::fs::remove_file(note)),
                    Err(failure) => tracing::warn!(%key, error = %failure.reason, "an unfinished upload stays"),
                }
            }));
        }
    }
}

impl Begun {
    async fn take_back(mut self) {
        match self.store.abort(&self.key, &self.upload).await {
            Ok(()) => drop(std::fs::remove_file(&self.note)),
            Err(failure) => tracing::warn!(key = %self.key, error = %failure.reason, "an unfinished upload stays"),
        }
        self.is_settled = true;
    }

    fn finish(mut self) {
        self.is_settled = true;
        drop(std::fs::remove_file(&self.note));
    }
}

impl S3Store {
    pub(super) async fn put_parts(
        &self,
        key: &ObjectKey,
        path: &Path,
        len: u64,
        condition: &Condition,
        id: &str,
    ) -> Result<Receipt, Failure> {
        if *condition == Condition::Absent {
            // Not every server heeds the condition of the last request; and nothing need be uploaded to be refused.
            match self.head_object(key, None).await {
                Ok(_) => return Err(Failure::rule(StoreErrorKind::PreconditionFailed, "it is there")),
                Err(failure) if failure.kind == StoreErrorKind::NotFound => {}
                Err(failure) => return Err(failure),
            }
        }
        let begun = self.begin(key, path, id).await?;
        let outcome = match self.upload_parts(&begun, path, len).await {
            Ok(parts) => self.complete(&begun, parts, condition).await,
            Err(failure) => Err(failure),
        };
        match outcome {
            Ok(receipt) => {
                begun.finish();
                Ok(receipt)
            }
            Err(failure) => {
                begun.take_back().await;
                Err(failure)
            }
        }
    }

    async fn begin(&self, key: &ObjectKey, path: &Path, id: &str) -> Result<Begun, Failure> {
        let note = note_beside(path, &format!("{} {}", self.shared.server, self.shared.location));
        let text = format!("{}\n{key}\n", self.shared.location);
        // A note is whole or is none: half a note tells nobody what to take back, and would stay for ever.
        let unfinished = note.with_extension("unfinished");
        std::fs::write(&unfinished, text)
            .and_then(|()| std::fs::rename(&unfinished, &note))
            .map_err(|error| unreadable(&note, &error))?;
        let request = self.shared.client.create_multipart_upload().bucket(self.bucket()).key(self.full_key(key));
        let sent = self.dress(key, id).on_create(request).send().await;
        let answer = sent.map_err(|error| Failure::of(&error, &self.asked("s3:PutObject")))?;
        let upload = answer.upload_id().map(str::to_owned);
        let upload = upload.ok_or_else(|| Failure::rule(StoreErrorKind::Unavailable, "an upload without a name"))?;
        Ok(Begun { store: self.clone(), key: key.clone(), upload, note, is_settled: false })
    }

    async fn upload_parts(&self, begun: &Begun, path: &Path, len: u64) -> Result<Vec<CompletedPart>, Failure> {
        let part_len = self.shared.options.part_bytes.max(len.div_ceil(PARTS_MAX)).max(1);
        let permits = Arc::new(Semaphore::new(PARTS_IN_FLIGHT));
        let mut tasks = JoinSet::new();
        let died = |error: &dyn std::fmt::Display| Failure::rule(StoreErrorKind::Unavailable, error.to_string());
        for (number, from) in (1_i32..).zip((0..len).step_by(usize::try_from(part_len).unwrap_or(usize::MAX))) {
            let (store, key, upload, path) = (self.clone(), begun.key.clone(), begun.upload.clone(), path.to_owned());
            let permits = Arc::clone(&permits);
            tasks.spawn(async move {
                let _permit = permits.acquire_owned().await.map_err(|error| died(&error))?;
                let part = Part { key, upload, number };
                store.upload_part(&part, &path, (from, part_len.min(len.saturating_sub(from)))).await
            });
        }
        let mut parts = Vec::new();
        while let Some(ended) = tasks.join_next().await {
            // The others are dropped with the set.
            parts.push(ended.map_err(|error| died(&error))??);
        }
        parts.sort_unstable_by_key(|part: &CompletedPart| part.part_number());
        Ok(parts)
    }

    async fn upload_part(&self, part: &Part, path: &Path, (from, len): (u64, u64)) -> Result<CompletedPart, Failure> {
        let bytes = read_file(path, from, len).await?;
        let sum = sum_of(&bytes);
        let mut pause = PAUSE;
        let mut attempt = 1;
        loop {
            let request = self.shared.uploads.upload_part().bucket(self.bucket()).key(self.full_key(&part.key));
            let request = request.upload_id(&part.upload).part_number(part.number).content_md5(&sum);
            let failure = match request.body(ByteStream::from(bytes.clone())).send().await {
                Ok(answer) => {
                    let etag = written_version(answer.e_tag())?;
                    return Ok(CompletedPart::builder().part_number(part.number).e_tag(etag.0).build());
                }
                Err(error) => Failure::of(&error, &self.asked("s3:PutObject")),
            };
            if !failure.kind.is_transient() || attempt >= ATTEMPTS_MAX {
                return Err(failure);
            }
            tracing::debug!(key = %part.key, number = part.number, reason = %failure.reason, "a part once more");
            self.shared.surroundings.clock.sleep(pause.max(failure.retry_after.unwrap_or_default())).await;
            pause = pause.saturating_mul(3);
            attempt = attempt.saturating_add(1);
        }
    }

    async fn complete(
        &self,
        begun: &Begun,
        parts: Vec<CompletedPart>,
        condition: &Condition,
    ) -> Result<Receipt, Failure> {
        let tap = DateTap::default();
        let whole = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
        let request = self.shared.uploads.complete_multipart_upload().bucket(self.bucket());
        let request = request.key(self.full_key(&begun.key)).upload_id(&begun.upload).multipart_upload(whole);
        let request = request.set_if_match(condition.if_match()).set_if_none_match(condition.if_none_match());
        let sent = request.customize().interceptor(tap.clone()).send().await;
        let answer = sent.map_err(|error| Failure::of(&error, &self.asked("s3:PutObject")))?;
        Ok(Receipt { etag: written_version(answer.e_tag())?, at: tap.time()? })
    }

    async fn abort(&self, key: &ObjectKey, upload: &str) -> Result<(), Failure> {
        let request = self.shared.client.abort_multipart_upload().bucket(self.bucket()).key(self.full_key(key));
        match request.upload_id(upload).send().await {
            Ok(_) => Ok(()),
            Err(error) => {
                let is_gone = error.raw_response().is_some_and(|raw| raw.status().as_u16() == 404);
                if is_gone { Ok(()) } else { Err(Failure::of(&error, &self.asked("s3:AbortMultipartUpload"))) }
            }
        }
    }

    /// Takes back all unfinished uploads of an object and says how many there were. One that is alive begins anew.
    pub async fn abort_uploads(&self, key: &ObjectKey) -> Result<usize, StoreError> {
        let full = self.full_key(key);
        let mut aborted = 0_usize;
        for _ in 0..PAGES_MAX {
            let request = self.shared.client.list_multipart_uploads().bucket(self.bucket()).prefix(&full);
            let answer = request.send().await.map_err(|error| {
                Failure::of(&error, &self.asked("s3:ListBucketMultipartUploads")).during("abort", key)
            })?;
            let found: Vec<&str> = answer
                .uploads()
                .iter()
                .filter(|one| one.key() == Some(full.as_str()))
                .filter_map(|one| one.upload_id())
                .collect();
            if found.is_empty() {
                break;
            }
            for upload in found {
                self.abort(key, upload).await.map_err(|failure| failure.during("abort", key))?;
                aborted = aborted.saturating_add(1);
            }
        }
        Ok(aborted)
    }

    /// How many uploads of objects that begin with a prefix are unfinished.
    pub async fn uploads_below(&self, prefix: &str) -> Result<usize, StoreError> {
        let prefix = format!("{}{prefix}", self.shared.location.prefix);
        let request = self.shared.client.list_multipart_uploads().bucket(self.bucket()).prefix(&prefix);
        let answer = request.send().await.map_err(|error| {
            Failure::of(&error, &self.asked("s3:ListBucketMultipartUploads")).during("uploads", &prefix)
        })?;
        Ok(answer.uploads().len())
    }

    /// The ending of a note beside a file whose upload was begun.
    pub const NOTE: &str = "upload";

    /// The notes in a directory of uploads to this place, each with the object that it tells of.
    pub fn noted_uploads(&self, directory: &Path) -> std::io::Result<Vec<(PathBuf, ObjectKey)>> {
        noted(directory, &self.shared.location)
    }
}

/// Which part of which upload.
struct Part {
    key: ObjectKey,
    upload: String,
    number: i32,
}

/// Where the note of an upload lies. One file may be on its way to several places.
fn note_beside(path: &Path, place: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.", &blake3::hash(place.as_bytes()).to_hex()[..8]));
    name.push(S3Store::NOTE);
    PathBuf::from(name)
}

fn noted(directory: &Path, location: &S3Location) -> std::io::Result<Vec<(PathBuf, ObjectKey)>> {
    let mut keys = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != S3Store::NOTE) {
            continue;
        }
        // One that was just taken away needs nothing.
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        let mut lines = text.lines();
        if lines.next() == Some(location.to_string().as_str())
            && let Some(key) = lines.next().and_then(|key| ObjectKey::new(key).ok())
        {
            keys.push((path, key));
        }
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_on_its_way_to_two_places_has_a_note_for_each() {
        let path = Path::new("/spool/0.des");
        let (first, second) = (note_beside(path, "http://a s3://bucket"), note_beside(path, "http://b s3://bucket"));

        assert_ne!(first, second);
        assert!([first, second].iter().all(|note| note.extension().is_some_and(|ending| ending == S3Store::NOTE)));
    }

    #[test]
    fn notes_of_other_places_are_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let here = S3Location { bucket: "bucket".to_owned(), prefix: "a/".to_owned() };
        for (name, text) in [
            ("0.des.upload", "s3://bucket/a\nshards/x.des\n"),
            ("1.des.upload", "s3://bucket/b\nshards/y.des\n"),
            ("2.des.upload", ""),
            ("3.des", "s3://bucket/a\nshards/z.des\n"),
        ] {
            std::fs::write(directory.path().join(name), text).unwrap();
        }

        let keys = noted(directory.path(), &here).unwrap();

        assert_eq!(keys, [(directory.path().join("0.des.upload"), ObjectKey::new("shards/x.des").unwrap())]);
    }
}
