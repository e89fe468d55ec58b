//! The values of mount options. Each parser says what it wants when it does not get it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use desfmt::BucketBits;

/// Who may delete, beside what the modes of the directories say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Permission {
    /// Whoever the modes let.
    Everyone,
    /// Nobody.
    Nobody,
    /// Of those whom the modes let, these users.
    Users(BTreeSet<u32>),
}

/// How many deletions are let through in a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeleteLimit {
    /// How many.
    pub count: u32,
    /// In which time.
    pub period: Duration,
}

pub(super) fn parse_bits(text: &str) -> Result<BucketBits, String> {
    text.parse().ok().and_then(BucketBits::new).ok_or_else(|| format!("{text:?} is not a number from 0 to 16"))
}

/// A user's number, or a name of `/etc/passwd`.
pub(super) fn parse_user(text: &str) -> Result<u32, String> {
    parse_id(text, "user", Path::new("/etc/passwd"))
}

/// A group's number, or a name of `/etc/group`.
pub(super) fn parse_group(text: &str) -> Result<u32, String> {
    parse_id(text, "group", Path::new("/etc/group"))
}

fn parse_id(text: &str, what: &str, names: &Path) -> Result<u32, String> {
    let id = match text.parse::<u32>() {
        Ok(id) => Some(id),
        Err(_) => std::fs::read_to_string(names).ok().and_then(|names| id_of_name(&names, text)),
    };
    // The highest number means "unchanged" to the kernel.
    id.filter(|id| *id != u32::MAX)
        .ok_or_else(|| format!("{text:?} is neither the number of a {what} nor a name in {}", names.display()))
}

/// Both files hold lines of `NAME:PASSWORD:NUMBER:...`.
fn id_of_name(names: &str, name: &str) -> Option<u32> {
    let mut lines = names.lines().map(|line| line.split(':'));
    lines.find_map(|mut fields| if fields.next() == Some(name) { fields.nth(1)?.parse().ok() } else { None })
}

pub(super) fn parse_umask(text: &str) -> Result<u16, String> {
    match u16::from_str_radix(text, 8) {
        Ok(umask) if umask <= 0o777 && !text.starts_with('+') => Ok(umask),
        Ok(_) | Err(_) => Err(format!("{text:?} is not an octal number from 0 to 777")),
    }
}

/// When a deletion is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unlinking {
    /// When it is durable in the store.
    Durable,
    /// When it is durable in a journal on this host.
    Journal,
}

pub(super) fn parse_unlinking(text: &str) -> Result<Unlinking, String> {
    match text {
        "durable" => Ok(Unlinking::Durable),
        "journal" => Ok(Unlinking::Journal),
        other => Err(format!("{other:?} is neither durable nor journal")),
    }
}

/// A path that means the same wherever the process is.
pub(super) fn parse_directory(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if path.is_absolute() { Ok(path) } else { Err(format!("{text:?} is no absolute path of a directory")) }
}

/// `allow`, `deny`, or users separated by `:` or `+`.
pub(super) fn parse_permission(text: &str) -> Result<Permission, String> {
    match text {
        "allow" => Ok(Permission::Everyone),
        "deny" => Ok(Permission::Nobody),
        list => parse_list(list)?
            .iter()
            .map(|id| parse_user(id).map_err(|reason| format!("must be allow, deny or USER:USER...; {reason}")))
            .collect::<Result<_, _>>()
            .map(Permission::Users),
    }
}

/// `N/s`, `N/m`, `N/h` or `N/d`.
pub(super) fn parse_limit(text: &str) -> Result<DeleteLimit, String> {
    let refused = || format!("{text:?} is not a limit such as 1000/h");
    let (count, unit) = text.split_once('/').ok_or_else(refused)?;
    let count: u32 = count.parse().map_err(|_| refused())?;
    let period = match unit {
        "s" => Duration::from_secs(1),
        "m" => Duration::from_mins(1),
        "h" => Duration::from_hours(1),
        "d" => Duration::from_hours(24),
        _ => return Err(refused()),
    };
    if count == 0 {
        Err("0 would let nothing through; say delete=deny".to_owned())
    } else {
        Ok(DeleteLimit { count, period })
    }
}

/// Words separated by `:` or `+`, since a comma ends the option.
pub(super) fn parse_list(text: &str) -> Result<BTreeSet<String>, String> {
    let words: BTreeSet<String> = text.split([':', '+']).map(str::to_owned).collect();
    if words.contains("") { Err(format!("{text:?} is not a list such as a:b:c")) } else { Ok(words) }
}
