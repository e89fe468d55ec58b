//! What the programs that change an archive do, each as its program does it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use desfmt::v3::{Codec, FrameSize};
use desfmt::{Group, ObjectKey, Uid};
use futures_util::future;

use super::files::{Batch, SourceFile, day};
use super::process::{Process, Trouble};
use crate::archive::{ArchiveError, Deletion};
use crate::fixture::body;
use crate::inventory::ReadManifest;
use crate::publish::{ArchiveWriter, BuiltShard, Outcome, UidState};
use crate::repack::{Chooser, Chosen, LiveFiles, RepackSettings, Thresholds};

/// How often a packer begins anew with what others have left.
const ATTEMPTS: usize = 4;

/// How long retired objects stay.
pub(super) const GRACE: Duration = Duration::from_hours(1);

/// `des-pack`: batches side by side in one process.
pub(super) async fn pack(process: Arc<Process>, batches: Vec<Batch>) -> Result<(), Trouble> {
    let writer = process.writer().await?;
    let packed = batches.iter().map(|batch| pack_batch(&process, &writer, batch));
    future::join_all(packed).await.into_iter().collect()
}

async fn pack_batch(process: &Process, writer: &ArchiveWriter, batch: &Batch) -> Result<(), Trouble> {
    let uids: Vec<Uid> = batch.files.iter().map(|file| file.uid.clone()).collect();
    let group = Group::of(day(), uids[0].as_str(), writer.identity().bits()).unwrap();
    for _ in 0..ATTEMPTS {
        let mut survey = writer.survey(&group, &uids).await?;
        let states = std::mem::take(&mut survey.states);
        let mut absent = Vec::new();
        for (file, state) in batch.files.iter().zip(states) {
            match state {
                UidState::Absent => absent.push(file),
                UidState::Present { digest, .. } if digest == file.digest() => published(process, &[file])?,
                // The archive holds other content under this uid; it stays.
                UidState::Present { .. } => {}
                UidState::Deleted => {
                    process.shared.book().oracle.check_deleted(file.uid.as_str()).map_err(Trouble::Violated)?;
                }
            }
        }
        if absent.is_empty() {
            return Ok(());
        }
        let spooled = Spooled(process.fresh_path());
        let shard = build(writer, &spooled, &absent, batch.codec);
        let shard = BuiltShard { group, survey, ..shard };
        match Box::pin(writer.publish(&shard)).await? {
            Outcome::Published { .. } => return published(process, &absent),
            Outcome::Overlap => {}
        }
    }
    Err(ArchiveError::refused("others came first at every attempt").into())
}

fn published(process: &Process, files: &[&SourceFile]) -> Result<(), Trouble> {
    let book = process.shared.book();
    files.iter().try_for_each(|file| book.oracle.check_published(file.uid.as_str())).map_err(Trouble::Violated)
}

/// A file in the spool that goes with whoever made it.
struct Spooled(PathBuf);

impl Drop for Spooled {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.0));
    }
}

fn build(writer: &ArchiveWriter, spooled: &Spooled, files: &[&SourceFile], codec: Codec) -> BuiltShard {
    let pairs: Vec<(&str, &[u8])> = files.iter().map(|file| (file.uid.as_str(), file.content.as_slice())).collect();
    let (bytes, body) = body(writer, &pairs, (codec, None), None);
    std::fs::write(&spooled.0, bytes).unwrap();
    BuiltShard {
        group: Group::of(day(), pairs[0].0, writer.identity().bits()).unwrap(),
        file: spooled.0.clone(),
        body,
        uids: files.iter().map(|file| file.uid.clone()).collect(),
        plain_len: files.iter().map(|file| u64::try_from(file.content.len()).unwrap()).sum(),
        survey: crate::publish::Survey::default(),
    }
}

/// `des-tombstones add`: many deletions at once.
pub(super) async fn delete_many(process: Arc<Process>, uids: Vec<Uid>) -> Result<(), Trouble> {
    let archive = process.mount().await?;
    archive.delete_many(day(), &uids, &Deletion::default()).await?;
    let mut book = process.shared.book();
    let now = process.shared.now();
    for uid in uids {
        book.oracle.check_deleted(uid.as_str()).map_err(Trouble::Violated)?;
        book.deleted.entry(uid.to_string()).or_default().push((now, Arc::clone(&process.name)));
    }
    Ok(())
}

/// `des-tombstones fold`.
pub(super) async fn fold(process: Arc<Process>) -> Result<(), Trouble> {
    process.writer().await?.fold(day()).await?;
    Ok(())
}

/// How a repacker is called.
#[derive(Debug, Clone, Copy)]
pub(super) struct RepackOrder {
    /// It folds before it repacks.
    pub(super) folds: bool,
    /// Every shard is compressed anew, whether anything in it is deleted or not.
    pub(super) all: bool,
    pub(super) thresholds: Thresholds,
}

/// `des-repack`: what is due, the shards side by side.
pub(super) async fn repack(process: Arc<Process>, order: RepackOrder) -> Result<(), Trouble> {
    let writer = process.writer().await?;
    if order.folds {
        writer.fold(day()).await?;
    }
    let thresholds = Thresholds { all: order.all, ..order.thresholds };
    let Some(plan) = writer.plan_repack(day(), &thresholds).await? else { return Ok(()) };
    let settings = settings(&process, order.all);
    let repacked = plan.jobs.iter().map(|job| writer.repack(day(), job, &settings));
    future::join_all(repacked).await.into_iter().try_for_each(|outcome| outcome.map(drop))?;
    Ok(())
}

/// `des-repack gc`.
pub(super) async fn collect(process: Arc<Process>) -> Result<(), Trouble> {
    let writer = process.writer().await?;
    let Some(garbage) = writer.plan_gc(day(), GRACE).await? else { return Ok(()) };
    Box::pin(writer.collect(&garbage, GRACE)).await?;
    Ok(())
}

/// `des-repack --rollback`: of the retired object at this place in the manifest, the newest first.
pub(super) async fn roll_back(process: Arc<Process>, place: usize) -> Result<(), Trouble> {
    let read = ReadManifest::read(process.gate.as_ref(), day()).await?;
    let retired = read.map_or_else(Vec::new, |read| read.manifest.retired);
    let Some(at) = place.checked_rem(retired.len()) else { return Ok(()) };
    let Some(object) = retired.iter().rev().nth(at) else { return Ok(()) };
    roll_back_to(process, object.key.clone()).await
}

/// `des-repack --rollback KEY`.
pub(super) async fn roll_back_to(process: Arc<Process>, key: ObjectKey) -> Result<(), Trouble> {
    let writer = process.writer().await?;
    Box::pin(writer.roll_back(day(), &key, &settings(&process, false))).await?;
    Ok(())
}

fn settings(process: &Process, recompress: bool) -> RepackSettings {
    RepackSettings {
        spool: process.spool.clone(),
        directory: None,
        threads: 1,
        frame_size: FrameSize::default(),
        level: 1,
        recompress,
        chooser: Arc::new(Plainly),
        rate: None,
        healers: Vec::new(),
    }
}

/// Stores what is to be compressed anew.
#[derive(Debug)]
struct Plainly;

impl Chooser for Plainly {
    fn choose(&self, _files: &mut LiveFiles<'_>) -> Result<Chosen, ArchiveError> {
        Ok(Chosen { codec: Codec::Stored, level: 1, dictionary: None, frame_size: FrameSize::default() })
    }
}
