//! The chaos proxy by itself, for benches and for trying things by hand.

#![expect(clippy::print_stdout, reason = "a tool of the benches, whose answers go to stdout")]

use std::net::SocketAddr;
use std::time::Duration;

use clap::Parser;
use des_tests::{ChaosProxy, Fault, Rule, Script, counts};

/// Stands between a program and an S3 server. Prints a line of counts on standard output whenever it reads one from
/// standard input, and ends with that.
#[derive(Debug, Parser)]
struct Args {
    /// Where to listen.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// The server, such as `http://127.0.0.1:8333`.
    #[arg(long)]
    upstream: String,
    /// How many milliseconds every answer is held back.
    #[arg(long, default_value_t = 0)]
    latency_ms: u64,
    /// How many bytes of a body flow in a second.
    #[arg(long)]
    bytes_per_second: Option<u64>,
    /// Percent of requests that are answered with 503.
    #[arg(long, default_value_t = 0)]
    slow_down: u64,
    /// Percent of answers that break off.
    #[arg(long, default_value_t = 0)]
    breaks: u64,
    /// What decides which.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() {
    let args = Args::parse();
    let rules =
        vec![Rule::percent(args.slow_down, Fault::Status(503, None)), Rule::percent(args.breaks, Fault::CloseInBody)];
    let latency = Duration::from_millis(args.latency_ms);
    let script = Script { seed: args.seed, rules, latency, bytes_per_second: args.bytes_per_second };
    let proxy = ChaosProxy::start_at(args.listen, &args.upstream, script);
    println!("{}", proxy.endpoint());
    for _line in std::io::stdin().lines() {
        let seen = proxy.take_seen();
        let bytes: u64 = seen.iter().map(|one| one.bytes).sum();
        let mut parts = vec![format!("\"requests\": {}, \"bytes\": {bytes}", seen.len())];
        parts.extend(counts(&seen).iter().map(|(kind, count)| format!("\"{kind:?}\": {count}")));
        println!("{{{}}}", parts.join(", "));
    }
}
