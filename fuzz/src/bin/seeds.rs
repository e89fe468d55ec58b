//! Writes the seeds of all targets: `seeds CORPUS GOLDEN`, or the names of the targets: `seeds`.

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.as_slice() {
        [] => des_fuzz::names().for_each(|name| println!("{name}")),
        [corpus, golden] => {
            if let Err(error) = des_fuzz::write_seeds(Path::new(corpus), Path::new(golden)) {
                eprintln!("{error}");
                return ExitCode::FAILURE;
            }
        }
        _ => return ExitCode::from(2),
    }
    ExitCode::SUCCESS
}
