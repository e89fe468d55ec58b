//! A PostgreSQL server of one's own: a fresh cluster in a temporary directory, on a free port, with fsync on, that is stopped
//! and taken away with the test.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use postgres::{Client, NoTls};
use tempfile::TempDir;

use crate::{eventually, run};

/// A running server.
#[derive(Debug)]
pub struct Postgres {
    place: TempDir,
    port: u16,
}

/// The directory of the newest version that is installed.
fn programs() -> PathBuf {
    let root = Path::new("/usr/lib/postgresql");
    let versions = fs::read_dir(root).unwrap_or_else(|error| {
        panic!("{}: {error}; the Debian package postgresql is needed (scripts/test installs it)", root.display())
    });
    let newest = versions.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok()).max();
    root.join(newest.expect("a version of PostgreSQL").to_string()).join("bin")
}

/// A program of the server, run as its user: it refuses to run as root.
fn program(name: &str) -> Command {
    let mut command = Command::new("runuser");
    command.args(["-u", "postgres", "--"]).arg(programs().join(name));
    command.env("LC_ALL", "C.UTF-8").env("TZ", "UTC0").current_dir("/");
    command
}

/// A port that nobody listened at a moment ago.
pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address").port()
}

impl Postgres {
    /// Makes a cluster and starts it.
    pub fn start() -> Self {
        // The first use of a program starts this process anew in namespaces of its own: no server must be left behind.
        crate::programs_dir();
        let place = tempfile::Builder::new().prefix("des-postgres-").tempdir().expect("place of the cluster");
        fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).expect("mode of the place");
        let data = place.path().join("data");
        fs::create_dir(&data).expect("directory of the cluster");
        run(Command::new("chown").arg("postgres:").arg(&data)).success();
        run(program("initdb")
            .args(["--auth=trust", "--username=postgres", "--encoding=UTF8", "--no-sync", "-D"])
            .arg(&data))
        .success();
        let server = Self { place, port: free_port() };
        server.begin();
        server
    }

    /// A standby that follows another server.
    pub fn follow(primary: &Self) -> Self {
        let place = tempfile::Builder::new().prefix("des-postgres-").tempdir().expect("place of the cluster");
        fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).expect("mode of the place");
        run(Command::new("chown").arg("postgres:").arg(place.path())).success();
        let data = place.path().join("data");
        let port = primary.port.to_string();
        run(program("pg_basebackup")
            .args(["-h", "127.0.0.1", "-U", "postgres", "-R", "-X", "stream", "-c", "fast", "-p", &port, "-D"])
            .arg(&data))
        .success();
        let server = Self { place, port: free_port() };
        server.begin();
        server
    }

    /// The directory of the cluster.
    pub fn data(&self) -> PathBuf {
        self.place.path().join("data")
    }

    /// Starts the server that was stopped.
    pub fn begin(&self) {
        let options = format!(
            "-p {} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=on -c max_connections=60 \
             -c shared_buffers=64MB",
            self.port
        );
        let log = self.data().join("log");
        run(program("pg_ctl")
            .args(["-w", "-t", "120", "-o", &options, "-l"])
            .arg(log)
            .arg("-D")
            .arg(self.data())
            .arg("start"))
        .success();
    }

    /// Stops the server: `fast`, or `immediate` as if the power had gone.
    pub fn stop(&self, mode: &str) {
        run(program("pg_ctl").args(["-w", "-m", mode, "-D"]).arg(self.data()).arg("stop")).success();
    }

    /// Makes a standby the writer.
    pub fn promote(&self) {
        run(program("pg_ctl").args(["-w", "-D"]).arg(self.data()).arg("promote")).success();
    }

    /// Where it listens.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Its URL.
    pub fn url(&self) -> String {
        url(self.port)
    }

    /// A connection.
    pub fn connect(&self) -> Client {
        let mut client = None;
        eventually(Duration::from_secs(20), "a connection to the server", || {
            client = Client::connect(&self.url(), NoTls).ok();
            client.is_some()
        });
        client.expect("a connection")
    }
}

/// The URL of a server, or of something that stands before it.
pub fn url(port: u16) -> String {
    format!("postgres://postgres@127.0.0.1:{port}/postgres")
}

impl Drop for Postgres {
    fn drop(&mut self) {
        drop(program("pg_ctl").args(["-m", "immediate", "-D"]).arg(self.data()).arg("stop").output());
    }
}
