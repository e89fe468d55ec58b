//! How uids are shown as file names, and found again by them.
//!
//! A uid is its own name where Linux allows it. `/`, NUL and `%` are written `%2F`, `%00` and `%25`; the uids `.` and `..`
//! are written `%2E` and `%2E%2E`. What is then longer than 255 bytes is cut and ends in `~GGGG-` and 16 hexadecimal digits:
//! the group, by which the uid is routed, and the head of its hash in this archive, by which it is told from its
//! neighbours. A uid that happens to look like such a name has its `~` written `%7E`.
//!
//! The mapping is one to one: [`Naming::decode`] accepts only what [`Naming::encode`] writes.

use desfmt::{ArchiveId, Bucket, BucketBits, Uid, UidHasher, bucket_of};

/// The longest file name, in bytes.
pub const NAME_LEN_MAX: usize = 255;

/// `~GGGG-` and 16 hexadecimal digits.
const TAIL_LEN: usize = 22;

/// How much of a long uid is shown at most, in bytes.
const PREFIX_LEN_MAX: usize = NAME_LEN_MAX - TAIL_LEN;

/// How much of a long uid is shown at least: the longest unit (a character of UTF-8) may not fit by three bytes.
const PREFIX_LEN_MIN: usize = PREFIX_LEN_MAX - 3;

/// What the names of an archive depend on.
#[derive(Debug, Clone)]
pub struct Naming {
    hasher: UidHasher,
    bits: BucketBits,
}

/// What a file name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileName {
    /// A uid that is shown whole.
    Whole(Uid),
    /// A uid that is shown cut.
    Cut(CutName),
}

/// What a cut name tells of its uid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CutName {
    /// The bucket that the uid is routed to.
    pub bucket: Bucket,
    /// The beginning of the uid.
    pub prefix: String,
    /// The whole name.
    name: String,
}

impl Naming {
    /// The names of an archive.
    pub fn new(archive: ArchiveId, bits: BucketBits) -> Self {
        Self { hasher: UidHasher::new(archive), bits }
    }

    /// The file name of a uid: 1 to 255 bytes, without `/` and NUL.
    pub fn encode(&self, uid: &Uid) -> String {
        let escaped = match whole_name(uid) {
            Ok(name) => return name,
            Err(escaped) => escaped,
        };
        // A uid of the archive can always be routed; another one gets a name that no lookup finds.
        let bucket = bucket_of(uid.as_str(), self.bits).map_or(0, Bucket::number);
        format!("{}~{bucket:04X}-{}", prefix_of(&escaped), self.hash_head(uid))
    }

    /// What a file name stands for; `None` where no uid has this name.
    pub fn decode(&self, name: &[u8]) -> Option<FileName> {
        let name = std::str::from_utf8(name).ok()?;
        if name.is_empty() || name.len() > NAME_LEN_MAX {
            return None;
        }
        if let Some(tilde) = tail_start(name) {
            return self.decode_cut(name, tilde).map(FileName::Cut);
        }
        let uid = Uid::new(unescape(name)?).ok()?;
        (self.encode(&uid) == name).then_some(FileName::Whole(uid))
    }

    /// True when a cut name is the name of this uid.
    pub fn is_cut_name_of(&self, name: &CutName, uid: &Uid) -> bool {
        uid.as_str().starts_with(&name.prefix) && self.encode(uid) == name.name
    }

    fn decode_cut(&self, name: &str, tilde: usize) -> Option<CutName> {
        let (shown, tail) = name.split_at_checked(tilde)?;
        let bucket = Bucket::new(u32::from_str_radix(tail.get(1..5)?, 16).ok()?, self.bits)?;
        let prefix = unescape(shown)?;
        (escape(&prefix) == shown).then(|| CutName { bucket, prefix, name: name.to_owned() })
    }

    fn hash_head(&self, uid: &Uid) -> String {
        let mut hash = self.hasher.hash(uid.as_str()).to_string();
        hash.truncate(16);
        hash
    }
}

/// The file name of a uid that is shown whole, which is the same in every archive; else the escaped uid.
pub fn whole_name(uid: &Uid) -> Result<String, String> {
    let escaped = escape(uid.as_str());
    match tail_start(&escaped) {
        None if escaped.len() <= NAME_LEN_MAX => Ok(escaped),
        // The escape makes it two bytes longer.
        Some(tilde) if escaped.len() + 2 <= NAME_LEN_MAX => Ok(escape_tilde(&escaped, tilde)),
        None | Some(_) => Err(escaped),
    }
}

/// Writes what a file name cannot hold as `%` and two digits.
fn escape(text: &str) -> String {
    match text {
        "." => return "%2E".to_owned(),
        ".." => return "%2E%2E".to_owned(),
        _ if !text.contains(['/', '\0', '%']) => return text.to_owned(),
        _ => {}
    }
    let mut escaped = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        match character {
            '/' => escaped.push_str("%2F"),
            '\0' => escaped.push_str("%00"),
            '%' => escaped.push_str("%25"),
            other => escaped.push(other),
        }
    }
    escaped
}

/// Reads what [`escape`] and [`escape_tilde`] write. Spellings that they never write are caught by writing again.
fn unescape(name: &str) -> Option<String> {
    let mut text = String::with_capacity(name.len());
    let mut pieces = name.split('%');
    text.push_str(pieces.next()?);
    for piece in pieces {
        let (digits, rest) = piece.split_at_checked(2)?;
        text.push(match digits {
            "2F" => '/',
            "00" => '\0',
            "25" => '%',
            "2E" => '.',
            "7E" => '~',
            _ => return None,
        });
        text.push_str(rest);
    }
    Some(text)
}

/// Where the tail of a cut name begins, if the text looks like one: so long, and ending so.
fn tail_start(text: &str) -> Option<usize> {
    let start = text.len().checked_sub(TAIL_LEN).filter(|start| *start >= PREFIX_LEN_MIN)?;
    let [b'~', group @ .., b'-', _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] = text.as_bytes().get(start..)? else {
        return None;
    };
    let hash = text.as_bytes().get(start + 6..)?;
    let is_tail = group.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'A'..=b'F'))
        && hash.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    is_tail.then_some(start)
}

fn escape_tilde(text: &str, tilde: usize) -> String {
    let (before, tail) = text.split_at_checked(tilde).unwrap_or((text, ""));
    format!("{before}%7E{}", tail.strip_prefix('~').unwrap_or(tail))
}

/// The longest beginning of an escaped text that fits and splits neither a character nor an escape.
fn prefix_of(escaped: &str) -> &str {
    let mut end = 0;
    let mut characters = escaped.char_indices();
    while let Some((start, character)) = characters.next() {
        let mut unit_end = start + character.len_utf8();
        if character == '%' {
            unit_end = characters.by_ref().take(2).last().map_or(unit_end, |(last, digit)| last + digit.len_utf8());
        }
        if unit_end > PREFIX_LEN_MAX {
            break;
        }
        end = unit_end;
    }
    escaped.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests;
