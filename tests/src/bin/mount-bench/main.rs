//! The client side of `scripts/bench mount` and `scripts/bench s3`: makes data sets and measures how fast they are read. Costs so little itself
//! that what is measured is the file system. Prints one line of JSON.

#![expect(
    clippy::arithmetic_side_effects,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a measuring program: real clocks, small numbers, a result on stdout"
)]

mod decode;
mod files;
mod numbers;
mod outcome;
mod ranges;
mod read;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::outcome::Failure;

/// Measures file systems for `scripts/bench mount`.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

/// Which files of a data set are read, by how many threads.
#[derive(Debug, clap::Args)]
struct Load {
    /// How many files the data set has.
    #[arg(long)]
    files: u32,
    /// How many of them are read, each once, in random order.
    #[arg(long)]
    operations: usize,
    /// How many threads read.
    #[arg(long, default_value_t = 1)]
    clients: usize,
    /// Decides which files and in which order.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Writes files of one size: text that compresses to about a third.
    Make {
        directory: PathBuf,
        #[arg(long)]
        files: u32,
        #[arg(long)]
        size: u64,
    },
    /// Opens and reads files of a directory.
    Read {
        directory: PathBuf,
        #[command(flatten)]
        load: Load,
        #[arg(long)]
        size: usize,
        /// Reads them all once before, without counting.
        #[arg(long)]
        warm: bool,
    },
    /// Reads 4 KiB at random places of one open file, which is read as a whole before.
    Pread {
        file: PathBuf,
        #[arg(long)]
        operations: usize,
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Reads one file from its beginning to its end, 1 MiB at a time.
    Sequential { file: PathBuf },
    /// Decodes the frames that hold files of an archive, from memory.
    Decode {
        archive: PathBuf,
        /// The day, `YYYYMMDD`.
        #[arg(long)]
        date: desfmt::Date,
        #[command(flatten)]
        load: Load,
    },
    /// Sends range requests for the shards of an archive in a bucket.
    Ranges {
        #[command(flatten)]
        asked: ranges::Asked,
    },
}

fn main() -> Result<(), Failure> {
    let outcome = match Arguments::parse().task {
        Task::Make { directory, files, size } => files::make(&directory, files, size)?,
        Task::Read { directory, load, size, warm } => read::many(&directory, &load, size, warm)?,
        Task::Pread { file, operations, seed } => read::places(&file, operations, seed)?,
        Task::Sequential { file } => read::sequential(&file)?,
        Task::Decode { archive, date, load } => decode::many(&archive, date, &load)?,
        Task::Ranges { asked } => ranges::send(&asked)?,
    };
    println!("{outcome}");
    Ok(())
}
