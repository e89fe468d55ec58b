//! Programs that people run on archives, on packed data, each against the same program on the source.
//!
//! fio and a memory map are among the tests of reading; find, tar, rsync and their like among those of the real files.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use des_tests::{Mount, Outcome, Packed, command, des_pack, eventually, run, scratch, shown_name};
use tempfile::TempDir;

const DAY: &str = "20240301";

/// A directory of files that lie flat, packed into one day and mounted.
struct Flat {
    place: TempDir,
    mount: Mount,
}

impl Flat {
    /// Lets `fill` make the files.
    fn of(options: &str, fill: impl FnOnce(&Path)) -> Self {
        let place = scratch();
        let source = place.path().join("source");
        fs::create_dir(&source).unwrap();
        fill(&source);
        let archive = place.path().join("archive");
        let mut pack = des_pack(&archive);
        pack.args(["--created-at", DAY, "--uid", "name", "--input-dir"]).arg(&source);
        run(&mut pack).success();
        Self { mount: Mount::new(&archive, options), place }
    }

    fn source(&self) -> PathBuf {
        self.place.path().join("source")
    }

    fn day(&self) -> PathBuf {
        self.mount.path().join(DAY)
    }

    /// Runs a program on the source and on the mount; both must succeed and say the same.
    #[track_caller]
    fn same_on_both(&self, on: impl Fn(&Path) -> Command) -> String {
        let theirs = run(&mut on(&self.source())).success().stdout;
        let ours = run(&mut on(&self.day())).success().stdout;
        assert!(theirs == ours, "{:?} differs", on(&self.day()));
        ours
    }
}

fn shell(script: &str, arguments: &[&Path]) -> Command {
    let mut bash = command("bash");
    bash.args(["-euo", "pipefail", "-c", script, "bash"]).args(arguments);
    bash
}

#[test]
fn sqlite_queries_a_packed_database() {
    let flat = Flat::of("", |source| {
        let rows = "CREATE TABLE parts(id INTEGER PRIMARY KEY, name TEXT, price REAL, note BLOB);
                    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 40000)
                    INSERT INTO parts SELECT i, 'part ' || (i * 7919 % 40009), i / 8.0, zeroblob(i % 300) FROM n;
                    CREATE INDEX by_name ON parts(name);";
        run(command("sqlite3").arg(source.join("parts.db")).arg(rows)).success();
    });
    let queries = [
        "PRAGMA integrity_check",
        "SELECT * FROM parts WHERE name = 'part 4711'",
        "SELECT count(*), sum(id), sum(length(note)), min(name) FROM parts",
        "SELECT group_concat(id) FROM (SELECT id FROM parts WHERE name BETWEEN 'part 2' AND 'part 3' ORDER BY name)",
    ];

    // Immutable it neither locks nor looks for a journal; without that it does both.
    for mode in ["immutable=1", "mode=ro"] {
        for query in queries {
            let answer = flat.same_on_both(|directory| {
                let mut sqlite = command("sqlite3");
                sqlite.arg(format!("file:{}?{mode}", directory.join("parts.db").display())).arg(query);
                sqlite
            });
            assert!(!answer.trim().is_empty(), "{query}");
        }
    }
    let uri = format!("file:{}?mode=rw", flat.day().join("parts.db").display());
    assert_ne!(run(command("sqlite3").arg(uri).arg("DELETE FROM parts")).code(), 0);
}

#[test]
fn python_imports_from_the_mount() {
    let flat = Flat::of("", |source| {
        for number in 0..40 {
            let import = if number == 0 { String::new() } else { format!("import module_{}", number - 1) };
            let code = format!("{import}\nNUMBER = {number}\ndef answer():\n    return {number} * 2 + 1\n");
            fs::write(source.join(format!("module_{number}.py")), code).unwrap();
        }
        let zip = "import zipfile, sys\n\
                   with zipfile.ZipFile(sys.argv[1], 'w', zipfile.ZIP_DEFLATED) as zip:\n\
                   \x20   zip.writestr('package/__init__.py', 'from package.inner import VALUE')\n\
                   \x20   zip.writestr('package/inner.py', 'VALUE = \"from a zip\"')\n";
        run(command("python3").args(["-c", zip]).arg(source.join("package.zip"))).success();
    });
    let program = "import sys; sys.path.insert(0, sys.argv[1]); sys.path.insert(0, sys.argv[1] + '/package.zip')\n\
                   import module_39, package\n\
                   print(module_39.answer(), package.VALUE, len([m for m in sys.modules if m.startswith('module_')]))";

    let said = flat.same_on_both(|directory| {
        let mut python = command("python3");
        python.args(["-c", program]).arg(directory).env("PYTHONDONTWRITEBYTECODE", "1");
        python
    });

    assert_eq!(said, "79 from a zip 40\n");
    // Where it wants to leave compiled modules behind, it does without.
    let mut python = command("python3");
    run(python.args(["-c", program]).arg(flat.day())).success();
    assert!(!flat.day().join("__pycache__").try_exists().unwrap());
}

#[test]
fn programs_and_libraries_run_from_a_mount_with_allow_exec_only() {
    let fill = |source: &Path| {
        fs::copy("/bin/uname", source.join("uname")).unwrap();
        fs::write(source.join("script"), "#!/bin/sh\necho from a script\n").unwrap();
        run(&mut shell("cp \"$(ldd /bin/ls | awk '/libselinux/ { print $3 }')\" \"$1\"/library.so", &[source]))
            .success();
    };
    let load = "import ctypes, sys; ctypes.CDLL(sys.argv[1]); print('loaded')";

    let with = Flat::of("allow_exec", fill);
    let at = |name: &str| with.day().join(name).display().to_string();
    assert_eq!(run(&mut command(&at("uname"))).success().stdout, "Linux\n");
    assert_eq!(run(&mut command(&at("script"))).success().stdout, "from a script\n");
    assert_eq!(run(command("python3").args(["-c", load, &at("library.so")])).success().stdout, "loaded\n");

    let without = Flat::of("", fill);
    let at = |name: &str| without.day().join(name).display().to_string();
    assert_eq!(run(command("sh").args(["-c", &at("uname")])).code(), 126);
    assert_ne!(run(command("python3").args(["-c", load, &at("library.so")])).code(), 0);
}

fn git(directory: &Path, arguments: &[&str]) -> Command {
    let mut git = command("git");
    git.arg("-C").arg(directory).arg("--no-optional-locks").args(arguments);
    git.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1").env("HOME", "/nonexistent");
    for role in ["AUTHOR", "COMMITTER"] {
        git.env(format!("GIT_{role}_NAME"), "Someone").env(format!("GIT_{role}_EMAIL"), "someone@example.org");
        git.env(format!("GIT_{role}_DATE"), "1700000000 +0000");
    }
    git
}

#[test]
fn git_reads_a_repository_whose_packs_are_on_the_mount() {
    let work = scratch();
    let repository = work.path().join("repository");
    run(&mut git(work.path(), &["init", "--quiet", "--initial-branch=main", "repository"])).success();
    for round in 0..30 {
        for file in 0..10 {
            let lines: Vec<_> =
                (0..200).map(|line| format!("line {line} of {file}, {}", (round * line) % 17)).collect();
            let text = lines.join(
                "
",
            );
            fs::write(repository.join(format!("file-{file}.txt")), text).unwrap();
        }
        run(&mut git(&repository, &["add", "."])).success();
        run(&mut git(&repository, &["commit", "--quiet", "--message", &format!("Round {round}")])).success();
    }
    run(&mut git(&repository, &["gc", "--quiet", "--aggressive"])).success();
    let flat = Flat::of("", |source| {
        run(&mut git(
            &repository,
            &["bundle", "create", "--quiet", source.join("all.bundle").to_str().unwrap(), "--all"],
        ))
        .success();
        let packs = repository.join(".git/objects/pack");
        run(&mut shell("cp -p \"$1\"/* \"$2\"", &[&packs, source])).success();
    });
    // The same repository with its packs on the mount, which is flat: git's directory of packs is a link to the day.
    let linked = work.path().join("linked");
    run(&mut shell(
        "cp -a \"$1\" \"$2\"; rm -r \"$2/.git/objects/pack\"; ln -s \"$3\" \"$2/.git/objects/pack\"",
        &[&repository, &linked, &flat.day()],
    ))
    .success();

    for arguments in [
        &["log", "--patch", "--stat"][..],
        &["fsck", "--full", "--strict"],
        &["status", "--short"],
        &["cat-file", "--batch-all-objects", "--batch-check"],
        &["verify-pack", "--verbose", ".git/objects/pack"],
    ] {
        let arguments: Vec<_> = if arguments[0] == "verify-pack" {
            let mut index = fs::read_dir(flat.day()).unwrap().map(|entry| entry.unwrap().file_name());
            let index = index.find(|name| name.to_string_lossy().ends_with(".idx")).unwrap();
            vec!["verify-pack".to_owned(), format!(".git/objects/pack/{}", index.to_string_lossy())]
        } else {
            arguments.iter().map(|&argument| argument.to_owned()).collect()
        };
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let theirs = run(&mut git(&repository, &arguments)).success().stdout;
        let ours = run(&mut git(&linked, &arguments)).success().stdout;
        assert!(theirs == ours, "git {arguments:?}");
    }
    let bundle = flat.day().join("all.bundle");
    run(&mut git(&repository, &["bundle", "verify", "--quiet", bundle.to_str().unwrap()])).success();
    run(&mut git(work.path(), &["clone", "--quiet", bundle.to_str().unwrap(), "cloned"])).success();
    let head = |at: &str| run(&mut git(&work.path().join(at), &["rev-parse", "HEAD^{tree}"])).success().stdout;
    assert_eq!(head("cloned"), head("repository"));
}

/// nginx under strace, so that its use of sendfile(2) is proven, on a socket in a directory of its own.
struct Nginx {
    place: TempDir,
    process: std::process::Child,
}

impl Nginx {
    fn serve(root: &Path) -> Self {
        let place = scratch();
        let at = place.path().display();
        let configuration = format!(
            "daemon off; master_process off; pid {at}/pid; error_log {at}/errors;
             events {{ worker_connections 64; }}
             http {{
                 access_log off; sendfile on; sendfile_max_chunk 512k; default_type application/octet-stream;
                 client_body_temp_path {at}/b; proxy_temp_path {at}/p; fastcgi_temp_path {at}/f;
                 uwsgi_temp_path {at}/u; scgi_temp_path {at}/s;
                 server {{ listen unix:{at}/socket; root {}; autoindex on; }}
             }}",
            root.display()
        );
        fs::write(place.path().join("nginx.conf"), configuration).unwrap();
        let mut nginx = command("strace");
        nginx.args(["-f", "-e", "trace=sendfile", "-o"]).arg(place.path().join("calls"));
        nginx.arg("nginx").arg("-c").arg(place.path().join("nginx.conf"));
        let process = nginx.stdin(Stdio::null()).stderr(Stdio::null()).spawn().expect("strace and nginx");
        let socket = place.path().join("socket");
        eventually(Duration::from_secs(20), "nginx answers", || UnixStream::connect(&socket).is_ok());
        Self { place, process }
    }

    /// The status line and the body of an answer.
    fn get(&self, path: &str, header: &str) -> (String, Vec<u8>) {
        let mut connection = UnixStream::connect(self.place.path().join("socket")).unwrap();
        write!(connection, "GET {path} HTTP/1.0\r\nHost: localhost\r\n{header}\r\n").unwrap();
        let mut answer = Vec::new();
        connection.read_to_end(&mut answer).unwrap();
        let end = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
        let status = String::from_utf8_lossy(&answer[..end]).lines().next().unwrap().to_owned();
        (status, answer.split_off(end + 4))
    }

    /// What strace(1) has written of its calls.
    fn calls(&self) -> String {
        fs::read_to_string(self.place.path().join("calls")).unwrap()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let pid = fs::read_to_string(self.place.path().join("pid")).unwrap_or_default();
        drop(command("kill").args(["-TERM", pid.trim()]).status());
        drop(self.process.wait());
    }
}

/// A uid as nginx wants the path of its file: the shown name, with the bytes that are not plain escaped once more.
fn as_url(path: &str) -> String {
    let escaped = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'/' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    path.bytes().map(escaped).collect()
}

#[test]
fn nginx_serves_the_mount_with_sendfile() {
    let mut packed = Packed::random(81, 150);
    packed.corpus.add(DAY, "large", (0..3_000_001_usize).map(|n| n.to_le_bytes()[n % 3]).collect::<Vec<_>>());
    packed.pack("large");
    let mount = packed.mount("");
    let nginx = Nginx::serve(mount.path());

    std::thread::scope(|scope| {
        for part in packed.corpus.files.chunks(40) {
            let nginx = &nginx;
            scope.spawn(move || {
                for file in part {
                    let url = as_url(&format!("/{}/{}", file.day, shown_name(&file.uid)));
                    let (status, body) = nginx.get(&url, "");
                    assert_eq!(status, "HTTP/1.1 200 OK", "{url}");
                    assert!(body == file.bytes, "{url}");
                }
            });
        }
    });

    let (status, body) = nginx.get(&format!("/{DAY}/large"), "Range: bytes=1048500-2097200\r\n");
    assert_eq!(status, "HTTP/1.1 206 Partial Content");
    assert!(body == packed.corpus.files.last().unwrap().bytes[1_048_500..=2_097_200]);
    assert_eq!(nginx.get(&format!("/{DAY}/missing"), "").0, "HTTP/1.1 404 Not Found");
    let victim = mount.file(DAY, "large");
    fs::remove_file(victim).unwrap();
    assert_eq!(nginx.get(&format!("/{DAY}/large"), "").0, "HTTP/1.1 404 Not Found");
    assert!(nginx.calls().contains("sendfile("), "it uses sendfile");
}

#[test]
fn every_way_of_copying_copies_right() {
    let flat = Flat::of("", |source| {
        let zeros_between =
            |index: usize| if (index / 70_000).is_multiple_of(2) { 0 } else { index.to_le_bytes()[0] | 1 };
        fs::write(source.join("holes"), (0..1_300_007).map(zeros_between).collect::<Vec<_>>()).unwrap();
        fs::write(source.join("tiny"), "tiny").unwrap();
        fs::write(source.join("empty"), "").unwrap();
    });
    let target = flat.place.path().join("target");
    let by_python = |call: &str| {
        format!(
            "import os, sys\n\
             with open(sys.argv[1], 'rb') as source, open(sys.argv[2], 'wb') as target:\n\
             \x20   reader, writer = os.pipe()\n\
             \x20   done, size = 0, os.fstat(source.fileno()).st_size\n\
             \x20   while done < size:\n\
             \x20       {call}\n\
             \x20       assert count > 0\n\
             \x20       done += count\n"
        )
    };
    let sendfile = by_python("count = os.sendfile(target.fileno(), source.fileno(), done, 1 << 20)");
    let splice = by_python(
        "count = os.splice(source.fileno(), writer, 1 << 16, offset_src=done); assert os.splice(reader, target.fileno(), count) == count",
    );

    for file in ["holes", "tiny", "empty"] {
        let (from, expected) = (flat.day().join(file), fs::read(flat.source().join(file)).unwrap());
        let copied = |how: &str, outcome: Outcome| {
            outcome.success();
            assert!(fs::read(&target).unwrap() == expected, "{file} by {how}");
        };
        for how in [
            "cp --reflink=auto \"$1\" \"$2\"",
            "cp --sparse=always \"$1\" \"$2\"",
            "cp --archive \"$1\" \"$2\"",
            "dd if=\"$1\" of=\"$2\" bs=1M iflag=direct status=none",
            "dd if=\"$1\" of=\"$2\" bs=777 status=none",
            "cat \"$1\" | cat > \"$2\"",
            "tail --bytes=+1 \"$1\" > \"$2\"",
            "install --mode=600 \"$1\" \"$2\"",
            "rsync --inplace --times \"$1\" \"$2\"",
        ] {
            // What was copied with its mode cannot be written again by all of them.
            copied(how, run(&mut shell(&format!("rm -f \"$2\"; {how}"), &[&from, &target])));
        }
        for (how, script) in [("sendfile", &sendfile), ("splice", &splice)] {
            copied(how, run(command("python3").arg("-c").arg(script).args([&from, &target])));
        }
    }
    let reflink = run(command("cp").arg("--reflink=always").arg(flat.day().join("holes")).arg(&target));
    assert_ne!(reflink.code(), 0, "there is nothing to share blocks with");
}
