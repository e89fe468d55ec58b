//! `docs/path.sql` on a real database, against `desfs path`.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use des_tests::{command, desfs, eventually, mount_point, run, run_within, seed};
use desstore::{Randomness, SeededRandom};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tempfile::TempDir;

const SOON: Duration = Duration::from_mins(1);

/// A server of its own, reached by a socket in its directory only.
struct Postgres {
    directory: TempDir,
    programs: PathBuf,
    server: Child,
}

impl Postgres {
    fn start() -> Self {
        let newest = fs::read_dir("/usr/lib/postgresql").expect("the package postgresql").map(|entry| entry.unwrap());
        let programs = newest.map(|entry| entry.path().join("bin")).max().expect("a version of PostgreSQL");
        let directory = mount_point();
        let passwd = fs::read_to_string("/etc/passwd").unwrap();
        let user = passwd.lines().find_map(|line| line.strip_prefix("postgres:x:")).expect("the user postgres");
        let numbers: Vec<u32> = user.split(':').take(2).map(|number| number.parse().unwrap()).collect();
        chown(directory.path(), Some(numbers[0]), Some(numbers[1])).unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let data = directory.path().join("data");
        let mut initdb = as_postgres(&programs.join("initdb"));
        initdb.arg("--pgdata").arg(&data).args(["--encoding=UTF8", "--locale=C.UTF-8", "--auth=trust", "--no-sync"]);
        run_within(SOON, initdb.current_dir("/")).success();
        let mut server = as_postgres(&programs.join("postgres"));
        server.arg("-D").arg(&data).arg("-k").arg(directory.path()).args([
            "-c",
            "listen_addresses=",
            "-c",
            "fsync=off",
        ]);
        let log = fs::File::create(directory.path().join("log")).unwrap();
        let server = server.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let postgres = Self { directory, programs, server };
        eventually(SOON, "PostgreSQL answers", || run(&mut postgres.psql("SELECT 1")).code() == 0);
        postgres
    }

    fn psql(&self, query: &str) -> Command {
        let mut psql = as_postgres(&self.programs.join("psql"));
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h"]).arg(self.directory.path());
        psql.args(["-c", query]).current_dir("/");
        psql
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // SIGQUIT: at once, without a checkpoint.
        let _gone = kill_process(Pid::from_child(&self.server), Signal::QUIT);
        drop(self.server.wait());
    }
}

/// The server does not run as root. In place, so that a signal reaches it.
fn as_postgres(program: &Path) -> Command {
    let mut setpriv = command("setpriv");
    setpriv.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(program);
    setpriv
}

/// Uids that hurt, and a few hundred that a seed decides, of characters and lengths that matter.
fn uids() -> Vec<String> {
    let mut uids: Vec<String> = [
        "INV-2024-000017",
        "0017",
        ".",
        "..",
        "...",
        ".hidden",
        "a/b",
        "/",
        "%",
        "%2F",
        "%%",
        "100%/..",
        " ",
        "a\nb",
        "\n",
        "a\tb",
        "\\",
        "'",
        "\"",
        "$1",
        "~",
        "caf\u{e9}",
        "cafe\u{301}",
        "\u{1f600}",
        "\u{0663}\u{0664}",
        "a\u{7f}b",
    ]
    .map(str::to_owned)
    .to_vec();
    let tail = "~003F-0123456789abcdef";
    for len in 228..=236 {
        uids.push(format!("{}{tail}", "x".repeat(len)));
        uids.push(format!("{}{tail}\n", "x".repeat(len)));
        uids.push(format!("{}{}", "x".repeat(len), tail.to_uppercase()));
        uids.push(format!("{}\u{e9}{tail}", "x".repeat(len - 2)));
        uids.push(format!("{}/{tail}", "x".repeat(len - 3)));
    }
    let random = SeededRandom::new(seed());
    let pick = |bound: u64| usize::try_from(random.next() % bound).unwrap();
    let alphabet =
        ['a', 'Z', '7', '/', '%', '.', '~', '-', ' ', '\n', '\u{e9}', '\u{20ac}', '\u{1f600}', '2', 'F', 'E'];
    for _ in 0..250 {
        let len = if pick(3) == 0 { 60 + pick(200) } else { 1 + pick(20) };
        uids.push((0..len).map(|_| alphabet[pick(16)]).collect());
    }
    uids
}

const TIMES: [&str; 6] = [
    "2024-01-15T00:00:00+00:00",
    "2024-02-29T23:59:59.999999+00:00",
    "2024-01-15T00:30:00+02:00",
    "2023-12-31T23:30:00-05:30",
    "0001-01-01T00:00:00+00:00",
    "9999-12-31T23:59:59.999999+00:00",
];

#[test]
fn the_function_of_the_database_tells_what_desfs_path_tells() {
    let postgres = Postgres::start();
    let function = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/path.sql")).unwrap();
    run(&mut postgres.psql(&function)).success();
    let rows: Vec<_> = uids().into_iter().zip(TIMES.iter().cycle()).map(|(uid, at)| json!([uid, at])).collect();
    let rows_text = serde_json::to_string(&rows).unwrap().replace('\'', "''");
    let query = format!(
        "SET TimeZone = 'Asia/Tokyo'; SELECT json_agg(des_path(entry ->> 0, (entry ->> 1)::timestamptz) ORDER BY place) \
         FROM json_array_elements('{rows_text}'::json) WITH ORDINALITY AS entries (entry, place)"
    );

    let told = run(&mut postgres.psql(&query)).success().stdout;

    let told: Vec<Option<String>> = serde_json::from_str(&told).unwrap();
    assert_eq!(told.len(), rows.len());
    let (mut equal, mut cut) = (0, 0);
    for (row, told) in rows.iter().zip(told) {
        let (uid, at) = (row[0].as_str().unwrap(), row[1].as_str().unwrap());
        let outcome = run(desfs().args(["path", "--", uid, at]));
        if let Some(path) = told {
            assert_eq!(outcome.success().stdout, format!("{path}\n"), "{row}");
            equal += 1;
        } else {
            assert_eq!((outcome.code(), outcome.stderr.contains("--archive")), (1, true), "{row} {outcome:?}");
            cut += 1;
        }
    }
    assert!(equal > 200 && cut > 20, "{equal} {cut}");
}

#[test]
fn the_function_of_the_database_is_null_where_there_can_be_no_file() {
    let postgres = Postgres::start();
    let function = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/path.sql")).unwrap();
    run(&mut postgres.psql(&function)).success();

    for arguments in [
        "'', now()",
        "NULL, now()",
        "'a', NULL",
        "'a', 'infinity'",
        "'a', '-infinity'",
        "'a', '0001-12-31 BC'",
        "'a', '10000-01-02'",
    ] {
        let told = run(&mut postgres.psql(&format!("SELECT des_path({arguments}) IS NULL"))).success().stdout;
        assert_eq!(told, "t\n", "{arguments}");
    }
    let index = "CREATE TABLE files (uid text, created_at timestamptz, path text GENERATED ALWAYS AS \
                 (des_path(uid, created_at)) STORED)";
    run(&mut postgres.psql(index)).success();
}
