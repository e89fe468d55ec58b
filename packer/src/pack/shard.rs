//! One shard from its plan to the archive.

use std::sync::Arc;

use desstore::{ArchiveWriter, BuiltShard, Outcome as PublishOutcome, UidState};

use super::{Run, blocking, entry_permits};
use crate::build::{Attempt, Builder};
use crate::error::PackError;
use crate::issue::Outcome;
use crate::limits;
use crate::plan::ShardPlan;
use crate::report::Published;
use crate::rows::RowLog;
use crate::source::{Unpackable, digest_of};
use crate::todo::Todo;

/// A planned shard on its way.
pub(super) struct ShardRun {
    run: Arc<Run>,
    writer: Arc<ArchiveWriter>,
    plan: ShardPlan,
    rows: RowLog,
}

impl ShardRun {
    pub(super) const fn new(run: Arc<Run>, writer: Arc<ArchiveWriter>, rows: RowLog, plan: ShardPlan) -> Self {
        Self { run, writer, plan, rows }
    }

    /// Surveys, builds, verifies and publishes; again without the files that others publish meanwhile.
    pub(super) async fn run(self) -> Result<Published, PackError> {
        let closed = |error: tokio::sync::AcquireError| PackError::Died { source: Box::new(error) };
        let _entries = self.run.entries.acquire_many(entry_permits(self.plan.volume.files)).await.map_err(closed)?;
        // Until the shard is published: its file lies in the spool as long.
        let space = self.run.config.space_for(self.plan.volume.bytes);
        let _space = self.run.space.acquire_many(space).await.map_err(closed)?;
        let mut todo = Todo::new(self.rows.clone(), self.plan.clone(), &self.run);
        let mut published = Published::default();
        for _ in 0..limits::ATTEMPTS {
            let (surveyed, survey) = Box::pin(self.survey(todo, &mut published)).await?;
            let (run, archive, group) = (Arc::clone(&self.run), self.writer.identity().archive, self.plan.group);
            let attempt;
            {
                let _job = self.run.jobs.acquire().await.map_err(closed)?;
                (attempt, todo) = blocking(move || {
                    let mut todo = surveyed;
                    let config = &run.config;
                    let builder = Builder {
                        archive,
                        group,
                        compression: config.compression,
                        framing: config.framing,
                        pool: &run.pool,
                        spool: &run.spool,
                    };
                    Ok((builder.build(&mut todo)?, todo))
                })
                .await?;
            }
            let built = match attempt {
                Attempt::Nothing => return Ok(published),
                Attempt::Again => continue,
                Attempt::Built(built) => built,
            };
            let shard = BuiltShard {
                group: self.plan.group,
                file: built.file.path().to_owned(),
                uids: Arc::clone(&built.uids),
                plain_len: built.plain_len,
                survey,
                body: built.body,
            };
            self.run.proof.passed().await?;
            match Box::pin(self.writer.publish(&shard)).await? {
                PublishOutcome::Published { name, adopted, .. } => {
                    let files = u64::try_from(built.uids.len()).unwrap_or(u64::MAX);
                    let (bytes_in, bytes_out) = (built.plain_len, shard.body.object_len());
                    published.add(Published {
                        files,
                        bytes_in,
                        bytes_out,
                        shards: 1,
                        adopted: u64::from(adopted),
                        ..Published::default()
                    });
                    self.run.progress.shard_done(files, bytes_in, bytes_out);
                    let digests = built.digests;
                    if !digests.is_empty() {
                        blocking(move || todo.tell_packed(&digests, name)).await?;
                    }
                    return Ok(published);
                }
                PublishOutcome::Overlap => todo.start_again(),
            }
        }
        Err(PackError::Overtaken { group: self.plan.group.to_string(), attempts: limits::ATTEMPTS })
    }

    /// Settles what the archive knows already.
    async fn survey(&self, todo: Todo, published: &mut Published) -> Result<(Todo, desstore::Survey), PackError> {
        let (todo, uids) = blocking(move || {
            let uids = todo.uids()?;
            Ok((todo, uids))
        })
        .await?;
        let mut survey = self.writer.survey(&self.plan.group, &uids).await?;
        let states = std::mem::take(&mut survey.states);
        if states.iter().all(|state| *state == UidState::Absent) {
            return Ok((todo, survey));
        }
        let (todo, known) = blocking(move || settle_known(todo, &states)).await?;
        published.add(known);
        Ok((todo, survey))
    }
}

/// Settles rows that are present or deleted, and counts those that are present as the source has them, or had them: a source
/// that was removed after it was packed is no failure.
fn settle_known(mut todo: Todo, states: &[UidState]) -> Result<(Todo, Published), PackError> {
    let mut rows = todo.rows();
    let mut states = states.iter();
    let mut buffer = Vec::new();
    let mut known = Published::default();
    while let Some((position, row)) = rows.next_row(&todo)? {
        match states.next() {
            None | Some(UidState::Absent) => {}
            Some(UidState::Deleted) => {
                let reason = "the uid was deleted from this day and cannot come back";
                todo.settle(position, Outcome::Deleted, &row, reason);
            }
            Some(UidState::Present { len, digest }) => match digest_of(&row, todo.sources(), &mut buffer) {
                Err(_) if todo.sources().is_missing(&row.source) && row.len == *len && !row.denies(digest) => {
                    todo.settle_present(position, &row, *digest);
                    known.present += 1;
                    known.sources_gone += 1;
                }
                Err(Unpackable(reason)) => todo.settle(position, Outcome::Failed, &row, reason),
                Ok(found) if found == *digest && row.len == *len => {
                    todo.settle_present(position, &row, found);
                    known.present += 1;
                }
                Ok(_) => {
                    let reason = format!("the archive holds other content of {len} bytes under this uid; it stays");
                    todo.settle(position, Outcome::Conflict, &row, reason);
                }
            },
        }
    }
    Ok((todo, known))
}
