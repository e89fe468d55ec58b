//! Stands before a PostgreSQL server and cuts connections between a commit and its acknowledgement.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// A proxy; it lives as long as the test's process.
#[derive(Debug)]
pub struct PostgresProxy {
    port: u16,
    rule: Arc<Rule>,
}

#[derive(Debug, Default)]
struct Rule {
    statement: Mutex<String>,
    left: AtomicU32,
    cuts: AtomicU32,
}

impl PostgresProxy {
    /// Stands before the server at a port of this machine.
    pub fn before(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        let rule = Arc::new(Rule::default());
        let shared = Arc::clone(&rule);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let rule = Arc::clone(&shared);
                thread::spawn(move || serve(&client, server, &rule));
            }
        });
        Self { port, rule }
    }

    /// Where it listens.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Cuts so many connections on which a statement with this text is committed: the commit reaches the server, and its
    /// acknowledgement nobody.
    pub fn cut_after_commit_of(&self, statement: &str, times: u32) {
        statement.clone_into(&mut self.rule.statement.lock().expect("rule"));
        self.rule.left.store(times, Ordering::SeqCst);
    }

    /// How many connections were cut.
    pub fn cuts(&self) -> u32 {
        self.rule.cuts.load(Ordering::SeqCst)
    }
}

fn serve(client: &TcpStream, server: u16, rule: &Rule) {
    let Ok(upstream) = TcpStream::connect(("127.0.0.1", server)) else { return };
    let (Ok(mut from_server), Ok(mut to_client)) = (upstream.try_clone(), client.try_clone()) else { return };
    let is_cut = Arc::new(AtomicU32::new(0));
    let mute = Arc::clone(&is_cut);
    thread::spawn(move || {
        let mut buffer = [0; 16 << 10];
        while let Ok(count @ 1..) = from_server.read(&mut buffer) {
            if mute.load(Ordering::SeqCst) != 0 || to_client.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        drop(to_client.shutdown(Shutdown::Both));
    });
    let (mut from_client, mut to_server) = (client, &upstream);
    let mut buffer = [0; 16 << 10];
    let mut is_armed = false;
    while let Ok(count @ 1..) = from_client.read(&mut buffer) {
        let bytes = &buffer[..count];
        is_armed |= has(bytes, rule.statement.lock().expect("rule").as_bytes());
        let cuts = is_armed && has(bytes, b"COMMIT") && take_one(&rule.left);
        if cuts {
            is_cut.store(1, Ordering::SeqCst);
        }
        if to_server.write_all(bytes).is_err() {
            break;
        }
        if cuts {
            rule.cuts.fetch_add(1, Ordering::SeqCst);
            // The server has time to commit before its client is gone.
            thread::sleep(Duration::from_millis(300));
            break;
        }
    }
    drop(client.shutdown(Shutdown::Both));
    drop(upstream.shutdown(Shutdown::Both));
}

fn take_one(left: &AtomicU32) -> bool {
    left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
}

fn has(bytes: &[u8], text: &[u8]) -> bool {
    !text.is_empty() && bytes.windows(text.len()).any(|window| window == text)
}
