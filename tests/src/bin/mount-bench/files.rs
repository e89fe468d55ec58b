//! Data sets: directories of numbered files that are all of one size.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::Instant;

use crate::numbers::Numbers;
use crate::outcome::{Failure, Outcome};

/// The name of a file. The do-nothing file system gives the same ones.
pub(crate) fn name(number: u32) -> String {
    format!("f{number:07}")
}

/// Writes the files with two threads.
pub(crate) fn make(directory: &Path, files: u32, size: u64) -> Result<Outcome, Failure> {
    let began = Instant::now();
    let words = words();
    let half = files.div_ceil(2);
    std::thread::scope(|scope| {
        let parts = [0..half, half..files].map(|part| {
            let words = &words;
            scope.spawn(move || part.into_iter().try_for_each(|number| write(directory, number, size, words)))
        });
        parts.into_iter().try_for_each(|part| part.join().map_err(|_| "a writer panicked")?)
    })?;
    let operations = usize::try_from(files)?;
    Ok(Outcome { operations, bytes: u64::from(files) * size, elapsed: began.elapsed(), ..Outcome::default() })
}

fn write(directory: &Path, number: u32, size: u64, words: &[String]) -> Result<(), Failure> {
    let mut file = BufWriter::with_capacity(1 << 16, File::create(directory.join(name(number)))?);
    let mut numbers = Numbers::new(u64::from(number));
    let count = u64::try_from(words.len())?;
    let mut left = usize::try_from(size)?;
    while left > 0 {
        // The product of two numbers prefers small ones, as a language prefers some words.
        let at = numbers.below(count) * numbers.below(count) / count;
        let word = words.get(usize::try_from(at)?).ok_or("no such word")?.as_bytes();
        let part = word.get(..left).unwrap_or(word);
        file.write_all(part)?;
        left -= part.len();
    }
    file.flush()?;
    Ok(())
}

/// A few thousand words of 3 to 10 letters, each with a space behind it.
fn words() -> Vec<String> {
    let mut numbers = Numbers::new(4_711);
    (0..4_096_u32)
        .map(|_| {
            let len = 3 + numbers.below(8);
            let letters =
                (0..len).map(|_| char::from_u32(u32::from(b'a') + u32::try_from(numbers.below(26)).unwrap_or(0)));
            letters.flatten().chain([' ']).collect()
        })
        .collect()
}
