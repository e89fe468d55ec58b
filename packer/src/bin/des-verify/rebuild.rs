//! `--rebuild-manifest`, the way back when a manifest is lost, and `--adopt`, the way over from the ancestor.

use std::error::Error;
use std::io::{self, Write};
use std::sync::Arc;

use desfmt::Date;
use desstore::{ArchiveError, ArchiveWriter, Clock, ObjectStore, Randomness, RebuildOptions, SystemRandom};
use packer::program::{DONE, FAILED, reason_of};

use crate::NAME;
use crate::cli::Args;

pub(crate) async fn run(
    args: &Args,
    date: Date,
    store: Arc<dyn ObjectStore>,
    clock: Arc<dyn Clock>,
) -> Result<u8, Box<dyn Error + Send + Sync>> {
    let writer = ArchiveWriter::open(store, clock, Arc::new(SystemRandom)).await?;
    let writer = writer.ok_or("there is no des.json, so this is no archive of DES")?;
    let options =
        RebuildOptions { without_damaged: args.without_damaged, oldest_wins: args.oldest_wins, dry_run: args.dry_run };
    let rebuilt = match writer.rebuild_manifest(date, options).await {
        Ok(rebuilt) => rebuilt,
        // It could be looked at, and it is not sound enough.
        Err(error @ ArchiveError::Refused { .. }) => {
            writeln!(io::stderr(), "{NAME}: {}", reason_of(&error))?;
            return Ok(FAILED);
        }
        Err(error) => return Err(error.into()),
    };
    let mut out = io::BufWriter::new(io::stdout());
    for (objects, state) in [(&rebuilt.live, "live"), (&rebuilt.retired, "retired"), (&rebuilt.condemned, "condemned")]
    {
        for key in objects {
            writeln!(out, "{state}: {key}")?;
        }
    }
    for (key, reason) in &rebuilt.damaged {
        writeln!(out, "left out: {key}: {reason}")?;
    }
    let verb = if args.dry_run { "would be made" } else { "is made" };
    writeln!(out, "the manifest of {date} {verb} anew: {} shards, {} files", rebuilt.live.len(), rebuilt.files)?;
    out.flush()?;
    Ok(DONE)
}

/// Turns an archive of the ancestor into one of DES.
pub(crate) async fn adopt(
    args: &Args,
    store: Arc<dyn ObjectStore>,
    clock: Arc<dyn Clock>,
) -> Result<u8, Box<dyn Error + Send + Sync>> {
    let random: Arc<dyn Randomness> = Arc::new(SystemRandom);
    let adopted = match desstore::adopt(&store, args.n_bits, (&clock, &random), args.dry_run).await {
        Ok(adopted) => adopted,
        Err(error @ ArchiveError::Refused { .. }) => {
            writeln!(io::stderr(), "{NAME}: {}", reason_of(&error))?;
            return Ok(FAILED);
        }
        Err(error) => return Err(error.into()),
    };
    let verb = if args.dry_run { "would be adopted" } else { "adopted" };
    let desstore::Adopted { days, shards, files, stored_bytes, tombstones } = adopted;
    let mut out = io::stdout();
    writeln!(out, "{verb}: {days} days, {shards} shards, {files} files, {stored_bytes} bytes, {tombstones} deletions")?;
    Ok(DONE)
}
