//! Columns of other types and names, and how pages are read.

use std::fs;

use des_tests::run;

use super::stage::Stage;

/// A table of its own beside the usual one, with a row for each of some files.
fn move_table(create: &str, insert: &str, settings: &str) -> (Stage, String) {
    let mut stage = Stage::of(60, 200);
    stage.sql(create);
    stage.sql(&format!("INSERT INTO {insert} FROM (SELECT *, row_number() OVER (ORDER BY uid) AS n FROM files) AS f"));
    let config = stage.place().join("other.toml");
    let text = format!(
        "[database]\nurl = '{}'\n{settings}\n[sources]\nroots = ['{}']\n[archive]\nuri = '{}'\nn_bits = 1\n",
        stage.server.url(),
        stage.sources().display(),
        stage.archive().display()
    );
    fs::write(&config, text).unwrap();
    let mut migrate = des_tests::command("des-migrate");
    let outcome = run(migrate.arg("--config").arg(&config).arg("--quiet")).success();
    stage.files.sort_by(|a, b| a.uid.cmp(&b.uid));
    (stage, outcome.stdout)
}

#[test]
fn numbers_and_odd_names_are_columns_too() {
    let (mut stage, told) = move_table(
        "CREATE SCHEMA \"App\"; CREATE TABLE \"App\".\"my \"\"files\"\"\" (\"Id\" bigint PRIMARY KEY, \
         \"made at\" timestamptz NOT NULL, \"where\" varchar(200), archived boolean); \
         CREATE INDEX ON \"App\".\"my \"\"files\"\"\" (\"made at\", \"Id\");",
        "\"App\".\"my \"\"files\"\"\" SELECT n, created_at, path, CASE WHEN n % 10 = 0 THEN true END",
        "table = 'App.my \"files\"'\nuid_column = 'Id'\ncreated_at_column = 'made at'\nlocation_column = 'where'\n\
         archived_column = 'archived'\npage_size = 7\n[migration]\nmark_archived = true",
    );

    assert!(told.contains("moved      180 files"), "{told}");
    assert_eq!(stage.ask("SELECT count(*) FROM \"App\".\"my \"\"files\"\"\" WHERE archived"), "200");
    let config = stage.place().join("other.toml");
    let text = fs::read_to_string(&config).unwrap() + "[cleanup]\ndelay = 0\n";
    fs::write(&config, text).unwrap();
    let mut cleanup = des_tests::command("des-migrate");
    let cleaned = run(cleanup.arg("--config").arg(&config).args(["cleanup", "--quiet"])).exits(1);
    assert!(cleaned.stdout.contains("removed    180 sources"), "{}", cleaned.stdout);
    // What others have marked the archive need not hold, and then it stays.
    assert!(cleaned.stdout.contains("kept       20"), "{}", cleaned.stdout);
    // uids are the numbers of the rows in their order.
    let mut number = 0;
    stage.files.retain_mut(|file| {
        number += 1;
        file.uid = number.to_string();
        number % 10 != 0
    });
    stage.assert_shown(&[]);
}

#[test]
fn a_time_without_zone_is_local_to_the_zone_that_is_named() {
    let (stage, told) = move_table(
        "CREATE TABLE wall (uid uuid, created_at timestamp, path text); CREATE INDEX ON wall (created_at, uid);",
        "wall SELECT ('00000000-0000-0000-0000-' || lpad(n::text, 12, '0'))::uuid, \
         created_at AT TIME ZONE 'America/New_York' + CASE WHEN n <= 10 THEN interval '12 hours' ELSE interval '0' END, path",
        "table = 'wall'\nlocation_column = 'path'\ncreated_at_zone = 'America/New_York'\npage_size = 11",
    );

    assert!(told.contains("moved      200 files"), "{told}");
    // 10:xx UTC and 22:xx UTC both lie in the day that they were of, whatever the clocks of New York showed.
    assert_eq!(stage.ask("SELECT count(*) FROM des_migration_day"), "5");
    stage.assert_all_archived();
    stage.assert_nothing_twice(200);
}

#[test]
fn pages_are_read_by_one_index_without_sorting() {
    let stage = Stage::of(61, 5_000);

    let checked = run(&mut stage.migrate("config check")).success().stdout;

    println!("{checked}");
    assert!(checked.contains("one index gives the rows in order"), "{checked}");
    assert!(checked.contains("Index Scan using files_order on files"), "{checked}");
    assert!(checked.contains("Index Cond: ((ROW(created_at, uid) > ROW("), "{checked}");
    for word in ["Sort", "Seq Scan", "Offset"] {
        assert!(!checked.contains(word), "{word}: {checked}");
    }
    stage.sql("DROP INDEX files_order");
    let checked = run(&mut stage.migrate("config check")).success().stdout;
    assert!(checked.contains("needs an index on (created_at, uid)"), "{checked}");
}

#[test]
fn what_is_missing_is_told_with_its_remedy() {
    let stage = Stage::new();
    for (more, arguments, code, reason) in [
        ("", "--quiet", 1, "des-migrate init"),
        ("", "exceptions list --stage x", 2, "migrate, sweep or cleanup"),
        ("", "exceptions ack --by me", 2, "--all"),
        ("[cleanup]\nenable = true", "--quiet", 2, "enabled"),
    ] {
        let outcome = run(&mut stage.migrate_with(more, arguments)).exits(code);
        assert!(outcome.stderr.contains(reason), "{arguments}: {}", outcome.stderr);
    }
    stage.sql("ALTER TABLE files DROP COLUMN sha256");
    let outcome = run(&mut stage.migrate("--quiet")).exits(1);
    assert!(outcome.stderr.contains("no column \"sha256\" (database.checksum_column)"), "{}", outcome.stderr);
    stage.server.stop("fast");
    run(&mut stage.migrate("status")).exits(1);
}
