//! Memory maps, made by a process of python: in this workspace mapping would need unsafe code.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use des_tests::command;
use serde_json::json;

const SCRIPT: &str = "
import json, mmap, sys
mappings = {}
for line in sys.stdin:
    order = json.loads(line)
    if 'path' in order:
        with open(order['path'], 'rb') as file:
            mappings[order['id']] = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        answer = str(len(mappings[order['id']]))
    elif 'offset' in order:
        found = mappings[order['id']][order['offset']:order['offset'] + order['len']]
        with open(order['expected'], 'rb') as file:
            file.seek(order['offset'])
            answer = str(found == file.read(order['len']))
    else:
        mappings.clear()
        answer = ''
    print(answer, flush=True)
";

/// A process that maps files and tells what it sees in them.
#[derive(Debug)]
pub(super) struct Mapper {
    process: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Mapper {
    pub(super) fn start() -> Self {
        let mut python = command("python3");
        let mut process =
            python.args(["-c", SCRIPT]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python3");
        let (orders, answers) = (process.stdin.take().expect("a pipe"), process.stdout.take().expect("a pipe"));
        Self { process, orders, answers: BufReader::new(answers) }
    }

    /// Maps a file that is not empty; returns the length of the mapping.
    pub(super) fn map(&mut self, id: usize, path: &Path) -> usize {
        self.ask(&json!({ "id": id, "path": path })).parse().expect("a length")
    }

    /// Whether a part of a mapping holds what another file holds there.
    pub(super) fn is_as_in(&mut self, id: usize, expected: &Path, offset: usize, len: usize) -> bool {
        self.ask(&json!({ "id": id, "expected": expected, "offset": offset, "len": len })) == "True"
    }

    /// Unmaps everything.
    pub(super) fn clear(&mut self) {
        self.ask(&json!({}));
    }

    fn ask(&mut self, order: &serde_json::Value) -> String {
        writeln!(self.orders, "{order}").expect("the mapper lives");
        let mut answer = String::new();
        let len = self.answers.read_line(&mut answer).expect("the mapper lives");
        assert!(len > 0, "the mapper died of {order}");
        answer.trim_end().to_owned()
    }
}

impl Drop for Mapper {
    fn drop(&mut self) {
        // It may have died of what the test is about.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
