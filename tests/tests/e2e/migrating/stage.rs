//! A table of files that the test knows, a server that holds it, and a configuration for `des-migrate`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use des_tests::{Mount, Outcome, Postgres, command, postgres_url, run, scratch, shown_name};
use desstore::{Randomness, SeededRandom};
use tempfile::TempDir;

/// One row and its file.
#[derive(Debug, Clone)]
pub(super) struct File {
    pub(super) day: &'static str,
    pub(super) uid: String,
    pub(super) path: PathBuf,
    pub(super) bytes: Vec<u8>,
}

/// Everything that a migration needs.
pub(super) struct Stage {
    place: TempDir,
    pub(super) server: Postgres,
    pub(super) files: Vec<File>,
    /// Where the database is reached; a proxy may stand there.
    pub(super) port: u16,
}

pub(super) const DAYS: [&str; 5] = ["20240301", "20240302", "20240303", "20240307", "20240308"];

/// Files of one directory.
const DIRECTORY_FILES: usize = 1_000;

impl Stage {
    /// An empty table.
    pub(super) fn new() -> Self {
        let server = Postgres::start();
        server
            .connect()
            .batch_execute(
                "CREATE TABLE files (uid text, created_at timestamptz, path text, size bigint, sha256 text);
                 CREATE INDEX files_order ON files (created_at, uid);",
            )
            .unwrap();
        let port = server.port();
        let stage = Self { place: scratch(), server, files: Vec::new(), port };
        fs::create_dir_all(stage.sources()).unwrap();
        stage
    }

    /// A table of so many files, initialised state included.
    pub(super) fn of(seed: u64, count: usize) -> Self {
        let mut stage = Self::new();
        stage.add(seed, count);
        run(&mut stage.migrate("init")).success();
        stage
    }

    pub(super) fn place(&self) -> &Path {
        self.place.path()
    }

    pub(super) fn sources(&self) -> PathBuf {
        self.place().join("sources")
    }

    pub(super) fn archive(&self) -> PathBuf {
        self.place().join("archive")
    }

    /// Adds files of a median of 2 KiB over five days, half of them text and half noise.
    pub(super) fn add(&mut self, seed: u64, count: usize) {
        let random = SeededRandom::new(seed);
        let first = self.files.len();
        let mut rows = String::new();
        for number in first..first + count {
            let day = DAYS[number % DAYS.len()];
            let directory = self.sources().join(format!("{:03}", number / DIRECTORY_FILES));
            if number % DIRECTORY_FILES == 0 || number == first {
                fs::create_dir_all(&directory).unwrap();
            }
            let len = (1 << (8 + random.next() % 6)) | (random.next() % 256);
            let mut bytes = vec![0; usize::try_from(len).unwrap()];
            random.fill(&mut bytes);
            if number % 2 == 0 {
                for byte in &mut bytes {
                    *byte = b'a' + *byte % 8;
                }
            }
            let uid = if number % 3 == 0 { format!("{}", 5_000_000 + number) } else { format!("scan/{number:07}.xml") };
            let path = directory.join(format!("{number}.dat"));
            fs::write(&path, &bytes).unwrap();
            let (year, rest) = day.split_at(4);
            let (month, date) = rest.split_at(2);
            // Some rows share their time, so that pages begin and end within it.
            let second = number % 3_600 / 7 * 7;
            writeln!(
                rows,
                "{uid}\t{year}-{month}-{date} 10:{:02}:{:02}.5+00\t{}\t{len}\t\\N",
                second / 60,
                second % 60,
                path.display()
            )
            .unwrap();
            self.files.push(File { day, uid, path, bytes });
        }
        let mut client = self.server.connect();
        let mut copy = client.copy_in("COPY files FROM STDIN").unwrap();
        copy.write_all(rows.as_bytes()).unwrap();
        copy.finish().unwrap();
        client.batch_execute("ANALYZE files").unwrap();
    }

    /// The row of a file, in SQL.
    pub(super) fn sql(&self, statements: &str) {
        self.server.connect().batch_execute(statements).unwrap();
    }

    /// One value from the database, as text.
    pub(super) fn ask(&self, query: &str) -> String {
        let row = self.server.connect().query_one(&format!("SELECT ({query})::text"), &[]).unwrap();
        row.get::<_, Option<String>>(0).unwrap_or_default()
    }

    /// Writes a configuration with some more lines, and gives its path.
    pub(super) fn config(&self, more: &str) -> PathBuf {
        let path = self.place().join(format!("migrate-{}.toml", blake3_like(more)));
        let text = format!(
            "[database]\nurl = '{}'\ntable = 'files'\nlocation_column = 'path'\nsize_column = 'size'\n\
             checksum_column = 'sha256'\nchecksum_algorithm = 'sha256'\npage_size = 500\n\
             [sources]\nroots = ['{}']\n[archive]\nuri = '{}'\nn_bits = 1\n{more}\n",
            postgres_url(self.port),
            self.sources().display(),
            self.archive().display(),
        );
        // Programs that were started with it may be reading it right now.
        let written = path.with_extension("new");
        fs::write(&written, text).unwrap();
        fs::rename(&written, &path).unwrap();
        path
    }

    /// `des-migrate` with some arguments.
    pub(super) fn migrate(&self, arguments: &str) -> Command {
        self.migrate_with("[cleanup]\ndelay = 0\n", arguments)
    }

    /// The same with more lines of configuration.
    pub(super) fn migrate_with(&self, more: &str, arguments: &str) -> Command {
        let mut migrate = command("des-migrate");
        migrate.arg("--config").arg(self.config(more)).args(arguments.split_whitespace());
        migrate.env_remove("DES_WORKER").stdin(Stdio::null());
        migrate
    }

    /// Moves all that is due, which must succeed.
    #[track_caller]
    pub(super) fn moved(&self) -> Outcome {
        run(&mut self.migrate("--quiet")).success()
    }

    /// Asserts that a mount shows all files but some, and nothing else.
    #[track_caller]
    pub(super) fn assert_shown(&self, without: &[&str]) {
        let mount = Mount::new(&self.archive(), "");
        let mut shown: BTreeMap<&str, usize> = BTreeMap::new();
        for file in self.files.iter().filter(|file| !without.contains(&file.uid.as_str())) {
            let path = mount.path().join(file.day).join(shown_name(&file.uid));
            let found = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            assert!(found == file.bytes, "wrong bytes in {}", path.display());
            *shown.entry(file.day).or_default() += 1;
        }
        for (day, count) in shown {
            assert_eq!(fs::read_dir(mount.path().join(day)).unwrap().count(), count, "entries of {day}");
        }
    }

    /// Asserts that each file is in one live shard only.
    #[track_caller]
    pub(super) fn assert_nothing_twice(&self, files: usize) {
        des_tests::assert_each_file_is_in_one_live_shard(&self.archive(), files);
    }

    /// Asserts that the cutoff is where it belongs when everything is moved.
    #[track_caller]
    pub(super) fn assert_all_archived(&self) {
        let until = "SELECT archived_until = date_trunc('day', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' \
                     - interval '7 days' FROM des_archive_config";
        assert_eq!(
            self.ask(until),
            "true",
            "the cutoff is {}",
            self.ask("SELECT archived_until FROM des_archive_config")
        );
        assert_eq!(self.ask("SELECT count(*) FROM des_migration_day WHERE state <> 'finished'"), "0");
    }
}

/// A short name for a text.
fn blake3_like(text: &str) -> String {
    let sum = text.bytes().fold(0_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)));
    format!("{sum:x}")
}
