//! A table of files that the test knows, a server that holds it, and a configuration for `des-migrate`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use des_tests::{Mount, Outcome, Postgres, S3Place, command, postgres_url, run, scratch, shown_name};
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
    /// Where sources are read from, in the words of a configuration.
    pub(super) source_lines: String,
    /// Where the archive lies, in the words of a configuration.
    pub(super) archive_lines: String,
    /// What is mounted to see it, and with which options.
    pub(super) mounted: (PathBuf, String),
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
        let place = scratch();
        let (sources, archive) = (place.path().join("sources"), place.path().join("archive"));
        fs::create_dir_all(&sources).unwrap();
        Self {
            place,
            server,
            files: Vec::new(),
            port,
            source_lines: format!("roots = ['{}']", sources.display()),
            archive_lines: format!("uri = '{}'", archive.display()),
            mounted: (archive, String::new()),
        }
    }

    /// The same table with the archive in a bucket.
    pub(super) fn with_archive_at(mut self, place: &S3Place) -> Self {
        let spool = self.place().join("spool");
        self.archive_lines =
            format!("uri = '{}'\noptions = {}\nspool = '{}'", place.uri, options_of(place), spool.display());
        self.mounted = (place.uri.clone().into(), place.options());
        self
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
        let path = self.place().join(format!("migrate-{}.toml", name_of(more)));
        let text = format!(
            "[database]\nurl = '{}'\ntable = 'files'\nlocation_column = 'path'\nsize_column = 'size'\n\
             checksum_column = 'sha256'\nchecksum_algorithm = 'sha256'\npage_size = 500\n\
             [sources]\n{}\n[archive]\n{}\nn_bits = 1\n{more}\n",
            postgres_url(self.port),
            self.source_lines,
            self.archive_lines,
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

    /// Takes the archive and all state away, as if nothing had been moved.
    pub(super) fn begin_anew(&self) {
        self.sql(
            "DROP TABLE des_cleanup, des_migration_exception, des_migration_receipt, des_migration_day, \
             des_archive_config",
        );
        fs::remove_dir_all(self.archive()).unwrap();
        run(&mut self.migrate("init")).success();
    }

    /// Asserts that a mount shows all files but some, and nothing else.
    #[track_caller]
    pub(super) fn assert_shown(&self, without: &[&str]) {
        let mount = Mount::new(&self.mounted.0, &self.mounted.1);
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

/// How a bucket is reached, in the words of a configuration.
pub(super) fn options_of(place: &S3Place) -> String {
    let option = |option: &str| option.split_once('=').map(|(name, value)| format!("{name} = '{value}'"));
    let options: Vec<String> = place.options().split(',').filter_map(option).collect();
    format!("{{ {} }}", options.join(", "))
}

/// A short name for a text.
fn name_of(text: &str) -> String {
    let sum = text.bytes().fold(0_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)));
    format!("{sum:x}")
}
