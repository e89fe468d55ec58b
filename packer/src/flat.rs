//! Format 2: the flat files of the ancestor, in a local directory, for readers that know nothing else.
//!
//! ```text
//! DIR/YYYYMMDD_HH_NNNN.des     shards; a new one gets the next free number, none is ever overwritten
//! DIR/_bigFiles/<sha256>       contents above 10 MiB, each once
//! ```
//!
//! The layout has no manifest, so nothing is atomic beyond a single shard, and one run at a time may write. A shard is
//! linked to its name when all of it and its big files are durable. Files that the directory holds already are found in
//! the indexes of their group's shards and not packed again; a uid that a sidecar calls deleted is left out.

mod build;
mod known;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use desfmt::legacy::LegacyName;
use desfmt::{BucketBits, Group, layout};
use desstore::Clock;
use rayon::iter::{ParallelBridge, ParallelIterator};

use crate::error::PackError;
use crate::issue::Outcome;
use crate::pack::{Config, Done, Run};
use crate::plan::{ShardPlan, ShardPlans};
use crate::progress::Progress;
use crate::proof::Proof;
use crate::report::{Published, Report};
use crate::rows::RowLog;
use crate::source::{Unpackable, digest_of};
use crate::todo::Todo;

use build::FlatBuilder;
use known::{KnownGroup, State};

/// The ancestor's number of bits where none is given.
const BITS_DEFAULT: u8 = 8;

/// The least number of bits that the ancestor takes.
const BITS_MIN: u8 = 4;

/// Packs into a flat directory. Blocks. On an error, the shards that were linked before it stay.
pub fn run(config: Config, directory: &Path, clock: &dyn Clock, progress: Arc<Progress>) -> Result<Report, PackError> {
    let started = clock.monotonic();
    let bits = config.bits.or_else(|| BucketBits::new(BITS_DEFAULT)).filter(|bits| bits.get() >= BITS_MIN);
    let bits = bits.ok_or_else(|| PackError::refused(format!("format 2 knows n_bits from {BITS_MIN} to 16")))?;
    let _alone = if config.dry_run { None } else { Some(claim(directory)?) };
    let run = Run::prepare(config, Proof::given(), progress)?;
    let outcome = pack(&run, directory, bits);
    run.conclude(outcome, clock.monotonic().saturating_sub(started))
}

fn pack(run: &Run, directory: &Path, bits: BucketBits) -> Result<Done, PackError> {
    let intake = run.read_input()?;
    let (plan, sorted) = run.plan(&intake, bits)?;
    let published = if run.config.dry_run {
        Published::default()
    } else {
        FlatRun::open(run, directory, bits)?.execute(&sorted)?
    };
    Ok(Done { rows: intake.count, plan, published })
}

/// Takes the directory for this run alone; held until the file is dropped.
fn claim(directory: &Path) -> Result<File, PackError> {
    let failed = |source| PackError::spool(directory, source);
    fs::create_dir_all(directory).map_err(failed)?;
    if directory.join(layout::identity().as_str()).try_exists().map_err(failed)? {
        return Err(PackError::refused("this is an archive of DES (there is a des.json); format 2 has no place in it"));
    }
    let handle = File::open(directory).map_err(failed)?;
    match handle.try_lock() {
        Ok(()) => Ok(handle),
        Err(fs::TryLockError::WouldBlock) => {
            Err(PackError::refused("another run writes here; a flat directory takes one at a time"))
        }
        Err(fs::TryLockError::Error(source)) => Err(failed(source)),
    }
}

/// A run over a flat directory.
struct FlatRun<'a> {
    run: &'a Run,
    directory: &'a Path,
    bits: BucketBits,
    /// The shards that are there, ascending.
    shards: Vec<LegacyName>,
    /// Held while a name is found and taken.
    naming: Mutex<()>,
}

impl<'a> FlatRun<'a> {
    fn open(run: &'a Run, directory: &'a Path, bits: BucketBits) -> Result<Self, PackError> {
        let failed = |source| PackError::spool(directory, source);
        let mut shards = Vec::new();
        for entry in fs::read_dir(directory).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            match LegacyName::parse(&name.to_string_lossy(), bits) {
                Ok(name) => shards.push(name),
                Err(desfmt::legacy::LegacyNameError::Other) => {}
                Err(error @ desfmt::legacy::LegacyNameError::OtherBits { .. }) => {
                    return Err(PackError::refused(format!("{}: {error}", name.to_string_lossy())));
                }
            }
        }
        shards.sort_unstable();
        Ok(Self { run, directory, bits, shards, naming: Mutex::new(()) })
    }

    fn execute(&self, sorted: &RowLog) -> Result<Published, PackError> {
        let mut plans = ShardPlans::new(sorted, self.bits, self.run.config.shard_limits);
        let plans = std::iter::from_fn(|| plans.next_shard().transpose());
        self.run.pool.install(|| {
            let packed = plans
                .par_bridge()
                .map(|plan| self.pack(sorted, plan.map_err(|source| PackError::spool("rows", source))?));
            packed.try_reduce(Published::default, |mut sum, one| {
                sum.add(one);
                Ok(sum)
            })
        })
    }

    /// The shards of a group that were there when the run began. Those of this run hold none of its other rows.
    fn shards_of(&self, group: Group) -> impl Iterator<Item = &LegacyName> {
        let start = self.shards.partition_point(|name| name.group < group);
        self.shards.iter().skip(start).take_while(move |name| name.group == group)
    }

    fn pack(&self, sorted: &RowLog, plan: ShardPlan) -> Result<Published, PackError> {
        let group = plan.group;
        let mut todo = Todo::new(sorted.clone(), plan, self.run);
        let known = KnownGroup::open(self.directory, self.shards_of(group))?;
        let mut published = Published { present: settle_known(&mut todo, &known)?, ..Published::default() };
        let builder = FlatBuilder::new(self.directory, &self.run.spool, self.run.config.compression);
        if let Some(built) = builder.build(&mut todo)? {
            self.link(group, built.file.path())?;
            published.add(Published {
                files: built.files,
                bytes_in: built.bytes_in,
                bytes_out: built.bytes_out,
                shards: 1,
                ..Published::default()
            });
            self.run.progress.shard_done(built.files, built.bytes_in, built.bytes_out);
        }
        Ok(published)
    }

    /// Gives a finished shard the next free name of its group.
    fn link(&self, group: Group, file: &Path) -> Result<(), PackError> {
        let _naming = self.naming.lock().unwrap_or_else(PoisonError::into_inner);
        let highest = self.shards_of(group).map(|name| name.split).max();
        let mut split = highest.map_or(0, |split| split.saturating_add(1));
        loop {
            let path = self.directory.join(LegacyName { group, split }.to_string());
            match fs::hard_link(file, &path) {
                Ok(()) => return sync_directory(self.directory),
                // Another split of this run.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => split = split.saturating_add(1),
                Err(source) => return Err(PackError::spool(path, source)),
            }
        }
    }
}

/// Makes the names in a directory durable.
fn sync_directory(directory: &Path) -> Result<(), PackError> {
    File::open(directory).and_then(|handle| handle.sync_all()).map_err(|source| PackError::spool(directory, source))
}

/// Settles what the directory knows already; says how many files it has as the source has them.
fn settle_known(todo: &mut Todo, known: &KnownGroup) -> Result<u64, PackError> {
    let mut present = 0;
    let mut buffer = Vec::new();
    let mut rows = todo.rows();
    while let Some((position, row)) = rows.next_row(todo)? {
        match known.state(row.uid.as_str())? {
            State::Absent => {}
            State::Deleted => {
                todo.settle(position, Outcome::Deleted, &row, "a sidecar says that the uid was deleted");
            }
            State::Present { len, digest } => match digest_of(&row, todo.sources(), &mut buffer) {
                Err(Unpackable(reason)) => todo.settle(position, Outcome::Failed, &row, reason),
                Ok(found) if found == digest && row.len == len => {
                    todo.settle_present(position, &row, digest);
                    present += 1;
                }
                Ok(_) => {
                    let reason = format!("a shard holds other content of {len} bytes under this uid; it stays");
                    todo.settle(position, Outcome::Conflict, &row, reason);
                }
            },
        }
    }
    Ok(present)
}

/// Where the big files of a flat directory lie.
fn big_files(directory: &Path) -> PathBuf {
    directory.join(desfmt::legacy::BIG_FILES_PREFIX)
}

#[cfg(test)]
mod tests;
