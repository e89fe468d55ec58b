//! What became of every row of a batch, in a file that has no name: however many rows there are, memory stays small.
//!
//! The packer writes it as it goes, shard after shard in the order of uids, so that reading it back walks through the
//! shards forwards.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

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
    out: Mutex<BufWriter<File>>,
}

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
        Ok(Self { out: Mutex::new(BufWriter::with_capacity(256 << 10, file)) })
    }

    /// Takes one account.
    pub(crate) fn push(&self, account: &Account) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(256);
        encode(account, &mut bytes);
        let len = u32::try_from(bytes.len()).map_err(|_| io::ErrorKind::InvalidData)?;
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        out.write_all(&len.to_le_bytes())?;
        out.write_all(&bytes)
    }

    /// Ends the ledger; what was written is read from the beginning.
    pub(crate) fn read(&self) -> io::Result<Accounts> {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        out.flush()?;
        let mut file = out.get_ref().try_clone()?;
        file.rewind()?;
        Ok(Accounts { from: BufReader::with_capacity(256 << 10, file) })
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
    from: BufReader<File>,
}

impl Accounts {
    /// The next accounts, at most so many; none at the end.
    pub(crate) fn next_chunk(&mut self, count: usize) -> io::Result<Vec<Account>> {
        let mut chunk = Vec::new();
        while chunk.len() < count {
            let mut len = [0; 4];
            match self.from.read_exact(&mut len) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
                Err(error) => return Err(error),
            }
            let mut bytes = vec![0; usize::try_from(u32::from_le_bytes(len)).unwrap_or(usize::MAX)];
            self.from.read_exact(&mut bytes)?;
            chunk.push(decode(&bytes).ok_or(io::ErrorKind::InvalidData)?);
        }
        Ok(chunk)
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

    #[test]
    fn accounts_read_back_as_they_were_written_and_no_file_is_left() {
        let spool = tempfile::tempdir().unwrap();
        let digest = blake3::hash(b"content");
        let account = |uid: &str, len, claimed| Account {
            day: "20240115".parse().unwrap(),
            created_at: Timestamp::from_micros(-7),
            uid: uid.to_owned(),
            len,
            source: "/data/\u{e9}".to_owned(),
            claimed,
        };
        let mut written = vec![
            account("a", Some(0), Claimed::Packed(digest, "20240115_0_0000.des".to_owned())),
            account("b", Some(7), Claimed::Present(digest)),
            account("", None, Claimed::Deleted),
        ];
        written.extend(KINDS.map(|kind| account("c", None, Claimed::Failed(kind, "why".to_owned()))));
        let ledger = Ledger::create(spool.path()).unwrap();
        for account in &written {
            ledger.push(account).unwrap();
        }

        let mut accounts = ledger.read().unwrap();
        let mut found = accounts.next_chunk(2).unwrap();
        assert_eq!(found.len(), 2);
        found.extend(accounts.next_chunk(100).unwrap());

        assert_eq!(found, written);
        assert!(accounts.next_chunk(1).unwrap().is_empty());
        assert_eq!(fs::read_dir(spool.path()).unwrap().count(), 0);
    }
}
