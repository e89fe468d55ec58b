//! An archive of very many days: listing, looking up and reading, and what the daemon needs for it.
//!
//! `DES_DAYS` says how many; 400 if it does not.

use std::fs;
use std::io::Write;

use des_tests::{Mount, command, des_pack, processor_time, resident, run, scratch, seed};
use desstore::{Randomness, SeededRandom};
use serde_json::json;

const FILES_A_DAY: usize = 3;

/// `YYYYMMDD` of a day, counted from the first of January 1990, in a calendar of 28 days a month.
fn day(number: usize) -> String {
    format!("{:04}{:02}{:02}", 1990 + number / 336, number % 336 / 28 + 1, number % 28 + 1)
}

fn content(day: usize, file: usize) -> String {
    format!("file {file} of day {day}\n")
}

#[test]
fn thousands_of_days_are_listed_and_read_in_little_memory() {
    let days: usize = std::env::var("DES_DAYS").map_or(400, |days| days.parse().unwrap());
    let place = scratch();
    let (archive, manifest) = (place.path().join("archive"), place.path().join("manifest.jsonl"));
    let mut rows = std::io::BufWriter::new(fs::File::create(&manifest).unwrap());
    for number in 0..days {
        let date = day(number);
        for file in 0..FILES_A_DAY {
            let path = place.path().join(format!("{date}-{file}"));
            fs::write(&path, content(number, file)).unwrap();
            let created_at = format!("{}-{}-{}T12:00:00Z", &date[..4], &date[4..6], &date[6..]);
            let uid = format!("file-{file}");
            let size = content(number, file).len();
            let row = json!({ "uid": uid, "created_at": created_at, "size_bytes": size, "source_path": path });
            writeln!(rows, "{row}").unwrap();
        }
    }
    rows.into_inner().unwrap();
    run(des_pack(&archive).arg("--input-json").arg(&manifest)).success();
    let mount = Mount::new(&archive, "memory=64M");
    let daemon = mount.daemon();
    let in_mount = |name: &str, arguments: &[&str]| {
        let before = processor_time(daemon);
        let lines = run(command(name).args(arguments).current_dir(mount.path())).success().stdout.lines().count();
        let took = processor_time(daemon).saturating_sub(before);
        println!("{name} {arguments:?}: {lines} lines, {took:?} of the daemon, {} KiB", resident(daemon).bytes >> 10);
        lines
    };

    assert_eq!(in_mount("ls", &["-f"]), days + 2);
    assert_eq!(in_mount("ls", &["-f"]), days + 2, "and again");
    assert_eq!(in_mount("ls", &["-l"]), days + 1);
    assert_eq!(in_mount("find", &[".", "-type", "f"]), days * FILES_A_DAY);
    assert_eq!(in_mount("find", &[".", "-size", "-2", "-type", "f"]), days * FILES_A_DAY);
    // A line for each day's name, one for its total, and one between days.
    assert_eq!(in_mount("ls", &["-lR"]), days * (FILES_A_DAY + 4) + 2);
    let random = SeededRandom::new(seed());
    let below = |bound: usize| usize::try_from(random.next() % u64::try_from(bound).unwrap()).unwrap();
    for _ in 0..days * 2 {
        let (number, file) = (below(days), below(FILES_A_DAY));
        let path = mount.file(&day(number), &format!("file-{file}"));
        assert_eq!(fs::metadata(&path).unwrap().len(), u64::try_from(content(number, file).len()).unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), content(number, file));
        let missing = mount.file(&day(number), "no-such-file");
        assert_eq!(fs::metadata(missing).unwrap_err().kind(), std::io::ErrorKind::NotFound);
    }

    let resident = resident(daemon);
    println!("{days} days: {} KiB resident, {} at most", resident.bytes >> 10, resident.bytes_max >> 10);
    assert!(resident.bytes_max <= (64 + 64) << 20, "{resident:?}");
    mount.unmount();
}
