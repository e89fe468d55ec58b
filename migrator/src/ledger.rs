//! What became of every row of a batch, in a file that has no name: however many rows there are, memory stays small.
//!
//! The packer writes it as it goes, shard after shard in the order of uids, so that reading it back walks through the
//! shards forwards. It is read while it is being written: whoever reads waits for whoever writes.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use desfmt::{Date, Digest, Timestamp};
use packer::{Fate, Outcome, Row, Witness};

use crate::state::Kind;

/// What became of a row, before it is proven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Claimed {
    /// The packer says that it packed it, into this shard.
    Packed(Digest, String),
    /// The packer says that it was there.
    Present(Digest),
    /// It was deleted from the archive.
    Deleted,
    /// It was not moved.
    Failed(Kind, String),
}

/// One row's account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) day: Date,
    pub(crate) created_at: Timestamp,
    pub(crate) uid: String,
    /// How long the file is, where that is known.
    pub(crate) len: Option<u64>,
    pub(crate) source: String,
    pub(crate) claimed: Claimed,
}

/// Takes accounts from several threads.
#[derive(Debug)]
pub(crate) struct Ledger {
    writing: Mutex<Writing>,
    grown: Condvar,
}

#[derive(Debug)]
struct Writing {
    out: BufWriter<File>,
    /// How many bytes were written.
    len: u64,
    /// At which length readers are woken.
    awaited: u64,
    has_ended: bool,
}

/// How much must have been written before it is read, unless that is the end.
const WAKE_BYTES: u64 = 64 << 10;

/// How much is read at once.
const PIECE_BYTES: u64 = 256 << 10;

/// Makes names of files unique within this process.
static NUMBER: AtomicU64 = AtomicU64::new(0);

impl Ledger {
    /// Begins a ledger below a directory, which is made.
    pub(crate) fn create(spool: &Path) -> io::Result<Self> {
        fs::create_dir_all(spool)?;
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = spool.join(format!("ledger-{}-{number}", std::process::id()));
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path)?;
        fs::remove_file(&path)?;
        let out = BufWriter::with_capacity(256 << 10, file);
        let writing = Mutex::new(Writing { out, len: 0, awaited: 0, has_ended: false });
        Ok(Self { writing, grown: Condvar::new() })
    }

    /// Takes one account.
    pub(crate) fn push(&self, account: &Account) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(256);
        encode(account, &mut bytes);
        let len = u32::try_from(bytes.len()).map_err(|_| io::ErrorKind::InvalidData)?;
        let mut writing = self.writing();
        writing.out.write_all(&len.to_le_bytes())?;
        writing.out.write_all(&bytes)?;
        writing.len += 4 + u64::from(len);
        if writing.len >= writing.awaited {
            // Once for each time that somebody waits.
            writing.awaited = u64::MAX;
            self.grown.notify_all();
        }
        Ok(())
    }

    /// Says that nothing more is going to be written.
    pub(crate) fn end(&self) {
        self.writing().has_ended = true;
        self.grown.notify_all();
    }

    /// Reads the ledger from its beginning.
    pub(crate) fn read(self: &Arc<Self>) -> io::Result<Accounts> {
        let file = self.writing().out.get_ref().try_clone()?;
        Ok(Accounts { ledger: Arc::clone(self), file, at: 0, piece: Vec::new(), taken: 0 })
    }

    /// Waits until there is something to be read after `at`, and says how far one may read: no further at the end.
    fn readable(&self, at: u64) -> io::Result<u64> {
        let mut writing = self.writing();
        while !writing.has_ended && writing.len < at.saturating_add(WAKE_BYTES) {
            writing.awaited = writing.awaited.min(at.saturating_add(WAKE_BYTES));
            writing = self.grown.wait(writing).unwrap_or_else(PoisonError::into_inner);
        }
        writing.out.flush()?;
        Ok(writing.len)
    }

    fn writing(&self) -> MutexGuard<'_, Writing> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Witness for Ledger {
    fn settled(&self, row: &Row, fate: &Fate<'_>) -> io::Result<()> {
        let claimed = match fate {
            Fate::Packed { digest, shard } => Claimed::Packed(*digest, shard.to_string()),
            Fate::Present { digest } => Claimed::Present(*digest),
            Fate::LeftOut { outcome: Outcome::Deleted, .. } => Claimed::Deleted,
            Fate::LeftOut { outcome: Outcome::Conflict, reason } => {
                Claimed::Failed(Kind::Conflict, (*reason).to_owned())
            }
            Fate::LeftOut { outcome: Outcome::Failed, reason } => Claimed::Failed(Kind::File, (*reason).to_owned()),
        };
        self.push(&Account {
            day: row.date,
            created_at: row.created_at,
            uid: row.uid.to_string(),
            len: Some(row.len),
            source: row.source.to_string_lossy().into_owned(),
            claimed,
        })
    }
}

/// Reads a ledger.
#[derive(Debug)]
pub(crate) struct Accounts {
    ledger: Arc<Ledger>,
    /// Shares its position with whoever writes, so it is read at places.
    file: File,
    /// Where the next piece begins.
    at: u64,
    piece: Vec<u8>,
    /// How much of the piece was handed out.
    taken: usize,
}

impl Accounts {
    /// The next accounts, at most so many, as soon as there are some; none at the end. Blocks.
    pub(crate) fn next_chunk(&mut self, count: usize) -> io::Result<Vec<Account>> {
        let mut chunk = Vec::new();
        while chunk.len() < count {
            if let Some(bytes) = self.next_bytes() {
                chunk.push(decode(bytes).ok_or(io::ErrorKind::InvalidData)?);
            } else if !chunk.is_empty() || !self.fetch()? {
                break;
            }
        }
        Ok(chunk)
    }

    /// The bytes of the next account, where all of them are in the piece.
    fn next_bytes(&mut self) -> Option<&[u8]> {
        let (len, rest) = self.piece.get(self.taken..)?.split_first_chunk::<4>()?;
        let bytes = rest.get(..usize::try_from(u32::from_le_bytes(*len)).ok()?)?;
        self.taken += 4 + bytes.len();
        Some(bytes)
    }

    /// Reads on behind what is left of the piece; false at the end.
    fn fetch(&mut self) -> io::Result<bool> {
        let end = self.ledger.readable(self.at)?.min(self.at.saturating_add(PIECE_BYTES));
        self.piece.drain(..self.taken.min(self.piece.len()));
        self.taken = 0;
        let have = self.piece.len();
        let more = usize::try_from(end.saturating_sub(self.at)).unwrap_or(usize::MAX);
        if more == 0 {
            return if have == 0 { Ok(false) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
        }
        self.piece.resize(have + more, 0);
        self.file.read_exact_at(self.piece.get_mut(have..).unwrap_or_default(), self.at)?;
        self.at = end;
        Ok(true)
    }
}

fn encode(account: &Account, out: &mut Vec<u8>) {
    let (tag, digest, text) = match &account.claimed {
        Claimed::Packed(digest, shard) => (0, Some(digest), shard.as_str()),
        Claimed::Present(digest) => (1, Some(digest), ""),
        Claimed::Deleted => (2, None, ""),
        Claimed::Failed(kind, reason) => (3 + kind_tag(*kind), None, reason.as_str()),
    };
    out.push(tag);
    out.extend_from_slice(digest.map_or(&[0; 32], |digest| digest.as_bytes()));
    out.extend_from_slice(&account.day.number().to_le_bytes());
    out.extend_from_slice(&account.created_at.micros().to_le_bytes());
    out.extend_from_slice(&account.len.map_or(u64::MAX, |len| len.min(u64::MAX - 1)).to_le_bytes());
    for text in [account.uid.as_str(), account.source.as_str(), text] {
        out.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes());
        out.extend_from_slice(text.as_bytes());
    }
}

const KINDS: [Kind; 4] = [Kind::Row, Kind::File, Kind::Conflict, Kind::Unproven];

/// Only what can befall a row before it is proven is written.
fn kind_tag(kind: Kind) -> u8 {
    KINDS.iter().zip(0..).find(|(one, _)| **one == kind).map_or(0, |(_, tag)| tag)
}

fn decode(mut bytes: &[u8]) -> Option<Account> {
    fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
        let (head, rest) = bytes.split_first_chunk::<N>()?;
        *bytes = rest;
        Some(*head)
    }
    fn text(bytes: &mut &[u8]) -> Option<String> {
        let len = usize::try_from(u32::from_le_bytes(take(bytes)?)).ok()?;
        let (head, rest) = bytes.split_at_checked(len)?;
        *bytes = rest;
        String::from_utf8(head.to_vec()).ok()
    }
    let [tag] = take(&mut bytes)?;
    let digest = Digest::from_bytes(take(&mut bytes)?);
    let day = Date::from_number(u32::from_le_bytes(take(&mut bytes)?))?;
    let created_at = Timestamp::from_micros(i64::from_le_bytes(take(&mut bytes)?));
    let len = Some(u64::from_le_bytes(take(&mut bytes)?)).filter(|len| *len != u64::MAX);
    let (uid, source, told) = (text(&mut bytes)?, text(&mut bytes)?, text(&mut bytes)?);
    let claimed = match tag {
        0 => Claimed::Packed(digest, told),
        1 => Claimed::Present(digest),
        2 => Claimed::Deleted,
        other => Claimed::Failed(*KINDS.get(usize::from(other.checked_sub(3)?))?, told),
    };
    Some(Account { day, created_at, uid, len, source, claimed })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(uid: &str, len: Option<u64>, claimed: Claimed) -> Account {
        Account {
            day: "20240115".parse().unwrap(),
            created_at: Timestamp::from_micros(-7),
            uid: uid.to_owned(),
            len,
            source: "/data/\u{e9}".to_owned(),
            claimed,
        }
    }

    #[test]
    fn accounts_read_back_as_they_were_written_and_no_file_is_left() {
        let spool = tempfile::tempdir().unwrap();
        let digest = blake3::hash(b"content");
        let mut written = vec![
            account("a", Some(0), Claimed::Packed(digest, "20240115_0_0000.des".to_owned())),
            account("b", Some(7), Claimed::Present(digest)),
            account("", None, Claimed::Deleted),
        ];
        written.extend(KINDS.map(|kind| account("c", None, Claimed::Failed(kind, "why".to_owned()))));
        let ledger = Arc::new(Ledger::create(spool.path()).unwrap());
        for account in &written {
            ledger.push(account).unwrap();
        }
        ledger.end();

        let mut accounts = ledger.read().unwrap();
        let mut found = accounts.next_chunk(2).unwrap();
        assert_eq!(found.len(), 2);
        found.extend(accounts.next_chunk(100).unwrap());

        assert_eq!(found, written);
        assert!(accounts.next_chunk(1).unwrap().is_empty());
        assert_eq!(fs::read_dir(spool.path()).unwrap().count(), 0);
    }

    #[test]
    fn it_is_read_while_it_is_written() {
        let spool = tempfile::tempdir().unwrap();
        let ledger = Arc::new(Ledger::create(spool.path()).unwrap());
        let mut accounts = ledger.read().unwrap();
        let count = 20_000;
        let reading = std::thread::spawn(move || {
            let mut found = Vec::new();
            loop {
                let chunk = accounts.next_chunk(1_000).unwrap();
                if chunk.is_empty() {
                    return found;
                }
                found.extend(chunk.into_iter().map(|account| account.uid));
            }
        });
        // The longest uid is far longer than what is read at once.
        let uid = |number: usize| if number == 777 { "u".repeat(400_000) } else { number.to_string() };

        for number in 0..count {
            ledger.push(&account(&uid(number), None, Claimed::Deleted)).unwrap();
        }
        ledger.end();

        assert_eq!(reading.join().unwrap(), (0..count).map(uid).collect::<Vec<_>>());
    }
}
