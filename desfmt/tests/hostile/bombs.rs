//! Few bytes that ask for much: each is refused within a second of processor time and 64 MiB of memory.
//!
//! Each bomb goes off in a process of its own, since only a fresh one can tell how much memory something took: the
//! highest resident size, which also counts what the C code of zstd allocates.

mod lying;
mod packed;

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use bytes::Bytes;
use desfmt::FormatError;

const MEMORY_MAX_KIB: u64 = 64 << 10;
const PROCESSOR_MAX_MS: u64 = 1_000;

/// Tells the process that runs it which bomb to take from its input.
const VARIABLE: &str = "DES_TEST_BOMB";

/// Bytes, and what a reader does with them.
struct Bomb {
    what: &'static str,
    build: fn() -> Vec<u8>,
    read: fn(&Bytes) -> Result<(), FormatError>,
}

fn all() -> Vec<Bomb> {
    packed::bombs().into_iter().chain(lying::bombs()).collect()
}

/// What a bomb did to the process that read it.
#[derive(Debug)]
struct Outcome {
    refused: bool,
    memory_kib: u64,
    processor_ms: u64,
}

#[test]
fn every_bomb_is_refused_within_a_second_and_64_mib() {
    let mut too_much = Vec::new();
    for (number, bomb) in all().iter().enumerate() {
        let bytes = (bomb.build)();
        let outcome = run_alone(number, &bytes);
        let Outcome { refused, memory_kib, processor_ms } = outcome;
        println!("{:<50} {:>9} bytes {memory_kib:>6} KiB {processor_ms:>4} ms", bomb.what, bytes.len());
        if !refused || memory_kib > MEMORY_MAX_KIB || processor_ms > PROCESSOR_MAX_MS {
            too_much.push((bomb.what, outcome));
        }
    }
    assert!(too_much.is_empty(), "{too_much:#?}");
}

fn run_alone(number: usize, bytes: &[u8]) -> Outcome {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "bombs::one_bomb_in_a_process_of_its_own", "--nocapture", "--test-threads=1"])
        .env(VARIABLE, format!("{number} {}", bytes.len()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(bytes).unwrap();
    drop(input);
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}: {text}", all()[number].what);
    let line = text.lines().find_map(|line| line.split_once("outcome ")).expect("an outcome").1;
    let mut figures = line.split(' ').map_while(|figure| figure.parse::<u64>().ok());
    let mut next = || figures.next().unwrap();
    Outcome { refused: next() == 1, memory_kib: next(), processor_ms: next() }
}

/// Does nothing unless [`every_bomb_is_refused_within_a_second_and_64_mib`] has started it.
#[test]
fn one_bomb_in_a_process_of_its_own() {
    let Some(variable) = std::env::var_os(VARIABLE) else { return };
    let (number, len) = variable.to_str().unwrap().split_once(' ').unwrap();
    let mut bytes = vec![0; len.parse().unwrap()];
    std::io::stdin().read_exact(&mut bytes).unwrap();
    let bytes = Bytes::from(bytes);
    let bomb = &all()[number.parse::<usize>().unwrap()];

    // Lowers the highest resident size to the present one.
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let (memory_before, processor_before) = (status_kib("VmRSS:"), processor_ms());
    let read = (bomb.read)(&bytes);
    let memory = status_kib("VmHWM:").saturating_sub(memory_before);
    let processor = processor_ms() - processor_before;

    println!("outcome {} {memory} {processor} {:?}", u8::from(read.is_err()), read.err());
}

fn status_kib(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// What this thread has used, by the scheduler's count.
fn processor_ms() -> u64 {
    let figures = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    figures.split(' ').next().unwrap().parse::<u64>().unwrap() / 1_000_000
}
