//! Rows that are fed by another program, and a witness that must know what became of each.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use desfmt::{Date, Uid};
use desstore::{Archive, Deletion, ReadOptions, SystemClock, SystemRandom};

use crate::pack::Config;
use crate::pack::testing::{World, memory};
use crate::{Checksum, Fate, Feed, Input, InputError, Outcome, Roots, Row, RowSink, Sources, Witness};

#[derive(Debug)]
struct Rows(Vec<Row>);

impl Feed for Rows {
    fn read(&self, sink: &mut dyn RowSink) -> Result<(), InputError> {
        for row in &self.0 {
            sink.accept(row.clone()).map_err(|source| InputError::Spool { source })?;
        }
        Ok(())
    }
}

#[derive(Debug, Default)]
struct Notes(Mutex<BTreeMap<u64, String>>);

impl Witness for Notes {
    fn settled(&self, row: &Row, fate: &Fate<'_>) -> io::Result<()> {
        let note = match fate {
            Fate::Packed { digest, .. } => format!("packed {}", digest.to_hex()),
            Fate::Present { digest } => format!("present {}", digest.to_hex()),
            Fate::LeftOut { outcome, reason } => format!("{outcome:?}: {reason}"),
        };
        assert_eq!(self.0.lock().unwrap().insert(row.number, note), None, "told twice of {row:?}");
        Ok(())
    }
}

fn rows(world: &World, uids: &[&str]) -> Vec<Row> {
    let date: Date = "20240301".parse().unwrap();
    let row = |(uid, number): (&&str, u64)| Row {
        date,
        uid: Uid::new(*uid).unwrap(),
        created_at: date.start(),
        len: 5,
        source: world.path(uid),
        metadata: None,
        checksum: None,
        number,
    };
    uids.iter().zip(1..).map(row).collect()
}

fn config(world: &World, rows: Vec<Row>) -> (Config, Arc<Notes>) {
    let notes = Arc::new(Notes::default());
    let roots = Roots::open(&[world.path("")], false).unwrap();
    let config = Config {
        input: Input::Feed(Arc::new(Rows(rows))),
        sources: Sources { roots: Some(Arc::new(roots)), ..Sources::default() },
        witness: Some(Arc::<Notes>::clone(&notes)),
        ..world.config()
    };
    (config, notes)
}

#[tokio::test]
async fn a_witness_is_told_once_of_every_row() {
    let world = World::new();
    for uid in ["a", "b", "c", "d", "e"] {
        std::fs::write(world.path(uid), format!("{uid}1234")).unwrap();
    }
    let store = memory();
    let (first, notes) = config(&world, rows(&world, &["a", "b", "c"]));
    world.pack_as(first, &store).await.unwrap();
    let digest = |content: &str| blake3::hash(content.as_bytes()).to_hex();
    assert_eq!(notes.0.lock().unwrap()[&2], format!("packed {}", digest("b1234")));
    let (clock, random) = (Arc::new(SystemClock::new()), Arc::new(SystemRandom));
    let archive = Archive::open(Arc::clone(&store), ReadOptions::default(), clock, random).await.unwrap();
    let day = "20240301".parse().unwrap();
    archive.delete(day, &Uid::new("b").unwrap(), &Deletion::default()).await.unwrap();
    std::fs::write(world.path("c"), "other").unwrap();

    let mut again = rows(&world, &["a", "b", "c", "d", "missing", "outside", "e"]);
    again[5].source = PathBuf::from("/etc/passwd");
    again[6].checksum = Some(Checksum::Blake3([0; 32]));
    let (second, notes) = config(&world, again);
    let report = world.pack_as(second, &store).await.unwrap();

    let notes = notes.0.lock().unwrap();
    let note = |number: u64| notes[&number].as_str();
    assert_eq!(note(1), format!("present {}", digest("a1234")));
    assert!(note(2).starts_with(&format!("{:?}", Outcome::Deleted)), "{}", note(2));
    assert!(note(3).starts_with(&format!("{:?}", Outcome::Conflict)), "{}", note(3));
    assert_eq!(note(4), format!("packed {}", digest("d1234")));
    assert_eq!(note(5), "Failed: the source does not exist");
    assert_eq!(note(6), "Failed: the source lies beneath none of the roots");
    assert_eq!(note(7), "Failed: the source has another BLAKE3 than its row says");
    assert_eq!((report.files, report.present, report.left_out()), (1, 1, 5));
}

/// Stands for a disk that is full.
#[derive(Debug)]
struct Deaf;

impl Witness for Deaf {
    fn settled(&self, _row: &Row, _fate: &Fate<'_>) -> io::Result<()> {
        Err(io::ErrorKind::StorageFull.into())
    }
}

#[tokio::test]
async fn a_run_whose_witness_heard_nothing_has_failed() {
    let world = World::new();
    std::fs::write(world.path("a"), "a1234").unwrap();
    let (config, _) = config(&world, rows(&world, &["a"]));
    let config = Config { witness: Some(Arc::new(Deaf)), ..config };

    assert!(world.pack_as(config, &memory()).await.is_err());
}
