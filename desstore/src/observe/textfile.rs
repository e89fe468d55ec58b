//! Metrics in a file, for the textfile collector of `node_exporter`: for programs that end before anybody asks.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use prometheus::Registry;

/// Writes all metrics to a file. Whoever reads it sees the old metrics or the new ones, never a part.
pub fn write_textfile(registry: &Registry, path: &Path) -> io::Result<()> {
    let text = super::encode(registry).map_err(io::Error::other)?;
    let unfinished = beside(path)?;
    let written = write(&unfinished, &text).and_then(|()| std::fs::rename(&unfinished, path));
    if written.is_err() {
        // The cause is told; what is left over is only a file that the collector does not read.
        drop(std::fs::remove_file(&unfinished));
    }
    written
}

/// In the same directory, and with an ending that the collector passes over.
fn beside(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no file is named"))?;
    let mut name = name.to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    Ok(path.with_file_name(name))
}

fn write(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(text)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use prometheus::IntCounter;

    use super::*;

    #[test]
    fn the_file_is_replaced_and_nothing_is_left_beside_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("des.prom");
        std::fs::write(&path, "old").unwrap();
        let registry = Registry::new();
        registry.register(Box::new(IntCounter::new("des_example_total", "An example.").unwrap())).unwrap();

        write_textfile(&registry, &path).unwrap();

        assert!(std::fs::read_to_string(&path).unwrap().contains("des_example_total 0"));
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_directory_that_is_not_there_is_an_error() {
        assert!(write_textfile(&Registry::new(), Path::new("/nowhere/at/all.prom")).is_err());
    }
}
