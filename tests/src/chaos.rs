//! A proxy between a program and an S3 server that delays, refuses, cuts, garbles and counts, as a script says.
//!
//! What happens to a request is decided by a seed and the request's number, so a run can be had again. A signature stays
//! valid, because requests go on as they came.

mod body;
mod fault;
mod request;
mod serve;

use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use desstore::{Randomness, SeededRandom};

pub use fault::{Fault, Rule};
pub use request::{Asked, Kind};

/// What a proxy does to requests.
#[derive(Debug, Clone, Default)]
pub struct Script {
    /// Decides what happens to which request.
    pub seed: u64,
    /// The first rule that strikes decides.
    pub rules: Vec<Rule>,
    /// How long every answer is held back.
    pub latency: Duration,
    /// How fast bodies of answers flow, if not at full speed.
    pub bytes_per_second: Option<u64>,
}

/// One request that came through, and what became of it.
#[derive(Debug, Clone)]
pub struct Seen {
    /// What was asked for.
    pub asked: Asked,
    /// What the proxy did to it.
    pub fault: Option<Fault>,
    /// The status of the answer, if one was given.
    pub status: Option<u16>,
    /// The length of its body.
    pub bytes: u64,
}

/// A proxy that runs until it is dropped.
#[derive(Debug)]
pub struct ChaosProxy {
    state: Arc<State>,
    address: SocketAddr,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// What the connections share.
#[derive(Debug)]
struct State {
    upstream: String,
    script: Mutex<Script>,
    seen: Mutex<Vec<Seen>>,
    struck: Mutex<HashMap<usize, u64>>,
    /// The first content that was seen under a path, for answers from the past.
    past: Mutex<HashMap<String, (hyper::http::response::Parts, Bytes)>>,
    number: AtomicU64,
}

impl ChaosProxy {
    /// Starts a proxy to a server (`http://HOST:PORT`) on a free port.
    pub fn start(upstream: &str, script: Script) -> Self {
        Self::start_at(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), upstream, script)
    }

    /// Starts a proxy on a certain address.
    pub fn start_at(listen: SocketAddr, upstream: &str, script: Script) -> Self {
        let upstream = upstream.strip_prefix("http://").expect("a server without encryption").to_owned();
        let listener = TcpListener::bind(listen).expect("an address for the proxy");
        listener.set_nonblocking(true).expect("a listener that does not block");
        let address = listener.local_addr().expect("the address of the proxy");
        let state = Arc::new(State {
            upstream,
            script: Mutex::new(script),
            seen: Mutex::default(),
            struck: Mutex::default(),
            past: Mutex::default(),
            number: AtomicU64::new(0),
        });
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let served = Arc::clone(&state);
        let thread = std::thread::spawn(move || serve::run(listener, served, stopped));
        Self { state, address, stop: Some(stop), thread: Some(thread) }
    }

    /// Its URL.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Goes on by another script.
    pub fn follow(&self, script: Script) {
        *lock(&self.state.script) = script;
        lock(&self.state.struck).clear();
    }

    /// Everything that came through since the last call, oldest first.
    pub fn take_seen(&self) -> Vec<Seen> {
        std::mem::take(&mut lock(&self.state.seen))
    }

    /// How many requests of each kind came through since the last look.
    pub fn take_counts(&self) -> BTreeMap<Kind, usize> {
        counts(&self.take_seen())
    }
}

/// How many requests of each kind there were.
pub fn counts(seen: &[Seen]) -> BTreeMap<Kind, usize> {
    let mut counts = BTreeMap::new();
    for one in seen {
        *counts.entry(one.asked.kind).or_default() += 1;
    }
    counts
}

impl Drop for ChaosProxy {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

impl State {
    /// What is to happen to the next request.
    fn decide(&self, asked: &Asked) -> (Option<Fault>, Duration, Option<u64>) {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let script = lock(&self.script);
        let random = SeededRandom::new(script.seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut struck = lock(&self.struck);
        let mut fault = None;
        for (index, rule) in script.rules.iter().enumerate() {
            // Each rule draws, so that one more rule does not change what the others do.
            let is_drawn = random.next() % 1_000_000 < rule.per_million;
            let times = struck.entry(index).or_default();
            if is_drawn && rule.fits(asked) && rule.times_max.is_none_or(|most| *times < most) {
                *times += 1;
                fault = Some(rule.fault.clone());
                break;
            }
        }
        (fault, script.latency, script.bytes_per_second)
    }

    fn note(&self, seen: Seen) {
        lock(&self.seen).push(seen);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
