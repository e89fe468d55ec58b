//! Manifests: the ancestor's JSON array of `{uid, created_at, size_bytes, source_path}`, or the same rows one after the
//! other. A row may carry `metadata`, an object. Other keys are ignored, since manifests are often whole database rows.

use std::cell::Cell;
use std::fmt;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use desfmt::Uid;
use serde::Deserialize;
use serde::de::{Deserializer as _, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::{InputError, RowSink, broken};
use crate::limits;
use crate::rows::Row;
use crate::source::SCHEME;
use crate::source_time::TimeRules;

/// What reading a manifest needs to know.
pub(super) struct Manifest<'a> {
    pub(super) name: &'a Path,
    /// What relative source paths are relative to.
    pub(super) base: &'a Path,
    pub(super) rules: &'a TimeRules,
}

/// Reads all rows of a manifest.
pub(super) fn read(from: impl Read, manifest: &Manifest<'_>, sink: &mut dyn RowSink) -> Result<(), InputError> {
    let unreadable = |source| InputError::Unreadable { name: manifest.name.to_owned(), source };
    let mut buffered = BufReader::with_capacity(256 << 10, from);
    let Some(first) = first_character(&mut buffered).map_err(unreadable)? else {
        // More likely the output of a program that failed than a wish to pack nothing.
        let source = serde::de::Error::custom("it is empty; a manifest without rows is []");
        return Err(InputError::Syntax { name: manifest.name.to_owned(), row: 1, source });
    };
    let budget = Cell::new(limits::ROW_BYTES);
    let limited = BufReader::with_capacity(64 << 10, RowLimit { inner: buffered, budget: &budget });
    let mut rows = Rows { manifest, sink, budget: &budget, count: 0, spool_error: None };
    let read = if first == b'[' { read_array(limited, &mut rows) } else { read_lines(limited, &mut rows) };
    if let Some(source) = rows.spool_error {
        return Err(InputError::Spool { source });
    }
    read.map_err(|source| {
        if source.is_io() {
            unreadable(source.into())
        } else {
            InputError::Syntax { name: manifest.name.to_owned(), row: rows.count + 1, source }
        }
    })
}

/// The first character that is not white space, without taking it. Leading white space is taken.
fn first_character(from: &mut impl BufRead) -> io::Result<Option<u8>> {
    loop {
        let available = from.fill_buf()?;
        let Some(first) = available.first().copied() else {
            return Ok(None);
        };
        if !first.is_ascii_whitespace() {
            return Ok(Some(first));
        }
        from.consume(1);
    }
}

fn read_array(from: impl Read, rows: &mut Rows<'_>) -> serde_json::Result<()> {
    let mut deserializer = serde_json::Deserializer::from_reader(from);
    deserializer.deserialize_seq(rows)?;
    deserializer.end()
}

fn read_lines(from: impl Read, rows: &mut Rows<'_>) -> serde_json::Result<()> {
    for row in serde_json::Deserializer::from_reader(from).into_iter::<Box<RawValue>>() {
        let row = row?;
        if !row.get().starts_with('{') {
            return Err(serde::de::Error::custom("expected an array of rows, or one object after the other"));
        }
        rows.take(&row).map_err(serde::de::Error::custom)?;
    }
    Ok(())
}

/// Hands on rows while they are read: a manifest is never in memory whole.
struct Rows<'a> {
    manifest: &'a Manifest<'a>,
    sink: &'a mut dyn RowSink,
    budget: &'a Cell<u64>,
    count: u64,
    spool_error: Option<io::Error>,
}

impl Rows<'_> {
    /// Takes one element of the manifest. Fails only where rows cannot be spooled.
    fn take(&mut self, json: &RawValue) -> Result<(), &'static str> {
        self.count += 1;
        self.budget.set(limits::ROW_BYTES);
        let fields = match serde_json::from_str::<Fields<'_>>(json.get()) {
            Ok(fields) => fields,
            Err(error) => {
                // Line and column would be those within the row.
                let text = error.to_string();
                let reason = text.split_once(" at line ").map_or(text.as_str(), |(reason, _)| reason);
                self.sink.reject(broken(Some(self.count), None, None, reason));
                return Ok(());
            }
        };
        match fields.row(self.count, self.manifest) {
            Ok(row) => self.sink.accept(row).map_err(|error| {
                self.spool_error = Some(error);
                "rows cannot be spooled"
            }),
            Err(reason) => {
                let uid = fields.uid.and_then(|uid| uid_text(uid).ok());
                let source = fields.source_path.and_then(|path| serde_json::from_str(path.get()).ok());
                self.sink.reject(broken(Some(self.count), uid, source, reason));
                Ok(())
            }
        }
    }
}

impl<'de> Visitor<'de> for &mut Rows<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of rows")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        while let Some(row) = elements.next_element::<Box<RawValue>>()? {
            self.take(&row).map_err(serde::de::Error::custom)?;
        }
        Ok(())
    }
}

/// The parts of a row, not yet looked at: whatever one of them is, the others can still be named in the report.
#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow)]
    uid: Option<&'a RawValue>,
    #[serde(borrow)]
    created_at: Option<&'a RawValue>,
    #[serde(borrow)]
    size_bytes: Option<&'a RawValue>,
    #[serde(borrow)]
    source_path: Option<&'a RawValue>,
    #[serde(borrow)]
    metadata: Option<&'a RawValue>,
}

impl Fields<'_> {
    fn row(&self, number: u64, manifest: &Manifest<'_>) -> Result<Row, String> {
        let uid = Uid::new(uid_text(self.uid.ok_or("no uid")?)?).map_err(|error| error.to_string())?;
        let time: String = text(self.created_at.ok_or("no created_at")?, "created_at")?;
        let (created_at, date) = manifest.rules.read(&time)?;
        let len = self.size_bytes.ok_or("no size_bytes")?.get();
        let len = len.parse().map_err(|_| format!("size_bytes is {len}, not a whole number of bytes"))?;
        let path: String = text(self.source_path.ok_or("no source_path")?, "source_path")?;
        if path.is_empty() || path.contains('\0') || path.len() > limits::PATH_BYTES {
            return Err("source_path is no path".to_owned());
        }
        let metadata = self.metadata.filter(|json| json.get() != "null").map(compact_object).transpose()?;
        Ok(Row { date, uid, created_at, len, source: place(manifest.base, path), metadata, checksum: None, number })
    }
}

/// Where a source is: an object where it says so, else a file.
fn place(base: &Path, path: String) -> PathBuf {
    if path.starts_with(SCHEME) { PathBuf::from(path) } else { base.join(path) }
}

/// A uid is text, or a whole number, which stands for its decimal digits however many they are.
fn uid_text(json: &RawValue) -> Result<String, String> {
    let raw = json.get();
    if raw.starts_with('"') {
        return text(json, "uid");
    }
    let digits = raw.strip_prefix('-').unwrap_or(raw);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("the uid is {}, neither text nor a whole number", short(raw)));
    }
    Ok(if raw == "-0" { "0" } else { raw }.to_owned())
}

fn text(json: &RawValue, name: &str) -> Result<String, String> {
    serde_json::from_str(json.get()).map_err(|_| format!("{name} is {}, not text", short(json.get())))
}

/// The head of a value for a message.
fn short(json: &str) -> String {
    let head: String = json.chars().take(40).collect();
    if head.len() < json.len() { format!("{head}...") } else { head }
}

/// A JSON object without the white space between its parts.
fn compact_object(json: &RawValue) -> Result<Box<str>, String> {
    let raw = json.get();
    if !raw.starts_with('{') {
        return Err(format!("metadata is {}, not an object", short(raw)));
    }
    let mut compact = String::with_capacity(raw.len());
    let (mut in_string, mut escaped) = (false, false);
    for character in raw.chars() {
        if in_string {
            in_string = escaped || character != '"';
            escaped = !escaped && character == '\\';
        } else if character.is_ascii_whitespace() {
            continue;
        } else {
            in_string = character == '"';
        }
        compact.push(character);
    }
    // What passes as raw JSON may still hold escapes that are no characters.
    serde_json::from_str::<serde_json::Value>(&compact).map_err(|error| format!("metadata: {error}"))?;
    if compact.len() > limits::METADATA_BYTES {
        return Err(format!("metadata of {} bytes is longer than {}", compact.len(), limits::METADATA_BYTES));
    }
    Ok(compact.into_boxed_str())
}

/// Refuses to read on when one row alone has used up its budget, so that no manifest can fill the memory.
struct RowLimit<'a, R> {
    inner: R,
    budget: &'a Cell<u64>,
}

impl<R: Read> Read for RowLimit<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        let taken = u64::try_from(count).unwrap_or(u64::MAX);
        let Some(left) = self.budget.get().checked_sub(taken) else {
            let limit = limits::ROW_BYTES;
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("one row is longer than {limit} bytes")));
        };
        self.budget.set(left);
        Ok(count)
    }
}
