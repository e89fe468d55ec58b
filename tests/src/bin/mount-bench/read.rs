//! Reading: many small files in random order, places of one file, one file from end to end.

use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::time::{Duration, Instant};

use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};

use crate::Load;
use crate::files::name;
use crate::numbers::Numbers;
use crate::outcome::{Failure, Outcome};

/// Opens, reads and closes each of the files.
pub(crate) fn many(directory: &Path, load: &Load, size: usize, warm: bool) -> Result<Outcome, Failure> {
    let chosen = Numbers::new(load.seed).distinct(load.files, load.operations);
    let paths: Vec<PathBuf> = chosen.iter().map(|number| directory.join(name(*number))).collect();
    if warm {
        drop(in_parallel(load.clients, &paths, |path, buffer| read_one(path, size, buffer))?);
    }
    in_parallel(load.clients, &paths, |path, buffer| read_one(path, size, buffer))
}

fn open(path: &Path) -> Result<OwnedFd, Failure> {
    let opened = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    opened.map_err(|error| format!("{}: {error}", path.display()).into())
}

fn read_one(path: &Path, size: usize, buffer: &mut Vec<u8>) -> Result<usize, Failure> {
    let file = open(path)?;
    // One more than there should be: a full buffer could hide that there is more.
    buffer.resize(size + 1, 0);
    let len = rustix::io::read(&file, buffer.as_mut_slice())?;
    if len == size { Ok(len) } else { Err(format!("{}: {len} bytes instead of {size}", path.display()).into()) }
}

/// Does an operation with each item, shared out among threads that start together.
pub(crate) fn in_parallel<Item: Sync>(
    clients: usize,
    items: &[Item],
    operation: impl Fn(&Item, &mut Vec<u8>) -> Result<usize, Failure> + Sync,
) -> Result<Outcome, Failure> {
    let barrier = Barrier::new(clients + 1);
    let client = |items: &[Item]| {
        let mut buffer = Vec::new();
        let mut outcome = Outcome { latencies: Vec::with_capacity(items.len()), ..Outcome::default() };
        barrier.wait();
        let mut before = Instant::now();
        for item in items {
            outcome.bytes += u64::try_from(operation(item, &mut buffer)?)?;
            let now = Instant::now();
            outcome.latencies.push(now - before);
            before = now;
        }
        Ok::<_, Failure>(outcome)
    };
    std::thread::scope(|scope| {
        let share = items.len().div_ceil(clients).max(1);
        let mut parts = items.chunks(share);
        // Each client has a share, be it an empty one: all wait for all.
        let threads: Vec<_> = (0..clients)
            .map(|_| {
                let part = parts.next().unwrap_or_default();
                scope.spawn(move || client(part))
            })
            .collect();
        barrier.wait();
        let began = Instant::now();
        let mut total = Outcome::default();
        for thread in threads {
            let outcome = thread.join().map_err(|_| "a client panicked")??;
            total.bytes += outcome.bytes;
            total.latencies.extend(outcome.latencies);
        }
        Ok(Outcome { operations: items.len(), elapsed: began.elapsed(), ..total })
    })
}

/// Reads 4 KiB at random places.
pub(crate) fn places(path: &Path, operations: usize, seed: u64) -> Result<Outcome, Failure> {
    const PLACE_BYTES: u32 = 4_096;
    drop(sequential(path)?);
    let file = open(path)?;
    let places = u64::try_from(rustix::fs::fstat(&file)?.st_size)? / u64::from(PLACE_BYTES);
    let mut numbers = Numbers::new(seed);
    let offsets: Vec<u64> = (0..operations).map(|_| numbers.below(places) * u64::from(PLACE_BYTES)).collect();
    let mut buffer = [0; 4_096];
    let began = Instant::now();
    for offset in &offsets {
        if rustix::io::pread(&file, &mut buffer, *offset)? != buffer.len() {
            return Err("a short read".into());
        }
    }
    let bytes = u64::try_from(operations)? * u64::from(PLACE_BYTES);
    Ok(Outcome { operations, bytes, elapsed: began.elapsed(), ..Outcome::default() })
}

/// Reads a file as a whole.
pub(crate) fn sequential(path: &Path) -> Result<Outcome, Failure> {
    let file = open(path)?;
    let mut buffer = vec![0; 1 << 20];
    let (mut bytes, mut operations, mut elapsed) = (0, 0, Duration::ZERO);
    let began = Instant::now();
    loop {
        let len = rustix::io::read(&file, buffer.as_mut_slice())?;
        elapsed = began.elapsed().max(elapsed);
        if len == 0 {
            return Ok(Outcome { operations, bytes, elapsed, ..Outcome::default() });
        }
        operations += 1;
        bytes += u64::try_from(len)?;
    }
}
