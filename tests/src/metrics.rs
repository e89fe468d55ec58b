//! What a program tells over HTTP, read as figures.

use std::io::{Read, Write};
use std::net::TcpStream;

/// What a program on a port of this machine answers, head and all.
pub fn ask_http(port: u16, path: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the program listens");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("asking");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

/// All figures that a program told at one moment.
#[derive(Debug, Clone)]
pub struct Metrics(String);

impl Metrics {
    /// Asks a program on a port of this machine.
    pub fn of(port: u16) -> Self {
        Self(ask_http(port, "/metrics"))
    }

    /// What a program left in a file.
    pub fn in_text(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// The sum of all figures of a name, or of those whose labels hold every one of some texts such as `zone="a"`. Nothing
    /// was counted where nothing is told.
    pub fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        let mut sum = 0.0;
        for line in self.0.lines() {
            let Some(rest) = line.strip_prefix(name) else { continue };
            let Some((found, figure)) = rest.rsplit_once(' ') else { continue };
            let is_it = found.is_empty() || found.starts_with('{');
            if is_it && labels.iter().all(|label| found.contains(label)) {
                sum += figure.parse::<f64>().expect("a figure");
            }
        }
        sum
    }

    /// Asserts that each figure is larger than it was.
    #[track_caller]
    pub fn assert_grown_since(&self, before: &Self, figures: &[(&str, &[&str])]) {
        for (name, labels) in figures {
            let (then, now) = (before.sum(name, labels), self.sum(name, labels));
            assert!(now > then, "{name} {labels:?} was {then} and is {now}\n{}", self.0);
        }
    }
}
