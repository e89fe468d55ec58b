//! Mount options: ours, typed; those of mount(8), systemd and other file systems, accepted without effect; an unknown one
//! refused by name. `docs/mount.md` says what each does.

mod values;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

pub use values::{DeleteLimit, Permission, Unlinking};

use crate::limits::CACHE_SIZE_DEFAULT;
use values::{
    parse_bits, parse_directory, parse_group, parse_limit, parse_list, parse_permission, parse_umask, parse_unlinking,
    parse_user,
};

use desfmt::BucketBits;
use desstore::values::{parse_bytes, parse_duration};
use desstore::{DISK_CACHE_BYTES_MIN, StoreOptions};

/// Everything that `-o` can say.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of its own")]
pub struct MountOptions {
    /// `ro`: nothing can be deleted.
    pub read_only: bool,
    /// `allow_exec`, `exec`: programs can be run from the mount.
    pub exec: bool,
    /// `allow_other`: users other than the one who mounts may look in.
    pub allow_other: bool,
    /// `xattr`: extended attributes `user.des.*` are shown.
    pub xattr: bool,
    /// `strict`: opening a file for writing fails, at the price of one more round trip for each open.
    pub strict: bool,
    /// `n_bits=N`: the number of bits of an archive of the Python ancestor, which does not record it.
    pub legacy_bits: BucketBits,
    /// `ttl=TIME`: how long what another host changes may go unseen.
    pub ttl: Duration,
    /// `uid=USER`: the owner of all files; the one who mounts if not given.
    pub owner: Option<u32>,
    /// `gid=GROUP`: the group of all files, which may then delete as the owner may.
    pub group: Option<u32>,
    /// `umask=OCTAL`: mode bits that are taken away everywhere.
    pub umask: u16,
    /// `memory=SIZE`: what all caches together may hold, if that was said.
    pub memory_bytes: Option<u64>,
    /// `cache_dir=DIR`: where pieces of what was fetched from a far store are kept on disk.
    pub cache_directory: Option<PathBuf>,
    /// `cache_size=SIZE`: what that may take.
    pub cache_bytes: u64,
    /// `deadline=TIME`: how long a request may wait for the store before it fails.
    pub deadline: Duration,
    /// `delete=allow|deny|USER:USER...`: who may delete, beside what the modes say.
    pub delete: Permission,
    /// `unlink=durable|journal`: when a deletion is acknowledged.
    pub unlinking: Unlinking,
    /// `journal=DIR`: where the journal of `unlink=journal` lies.
    pub journal: Option<PathBuf>,
    /// `delete_limit=N/h`: how many files may be deleted in a time.
    pub delete_limit: Option<DeleteLimit>,
    /// `deny_comm=NAME:NAME...`: programs that may not list directories.
    pub denied_programs: BTreeSet<String>,
    /// `log=FILE`: where a mount in the background writes its log.
    pub log: Option<PathBuf>,
    /// How a bucket is reached.
    pub store: StoreOptions,
}

impl Default for MountOptions {
    fn default() -> Self {
        Self {
            read_only: false,
            exec: false,
            allow_other: false,
            xattr: false,
            strict: false,
            legacy_bits: LEGACY_BITS_DEFAULT,
            ttl: Duration::from_mins(1),
            owner: None,
            group: None,
            umask: 0,
            memory_bytes: None,
            cache_directory: None,
            cache_bytes: CACHE_SIZE_DEFAULT,
            deadline: Duration::from_secs(30),
            delete: Permission::Everyone,
            unlinking: Unlinking::Durable,
            journal: None,
            delete_limit: None,
            denied_programs: BTreeSet::new(),
            log: None,
            store: StoreOptions::default(),
        }
    }
}

/// What the ancestor uses unless told otherwise.
const LEGACY_BITS_DEFAULT: BucketBits = match BucketBits::new(8) {
    Some(bits) => bits,
    None => unreachable!(),
};

/// An option that cannot be accepted, in words for the one who typed it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    /// Nobody knows it.
    #[error("unknown mount option {name:?}{}", suggestion(*.nearest))]
    Unknown {
        /// The option as typed.
        name: String,
        /// The option of ours that is spelled most like it.
        nearest: Option<&'static str>,
    },
    /// The value is missing, or there must be none, or it is out of range.
    #[error("mount option {name}: {reason}")]
    Value {
        /// The option.
        name: String,
        /// What it should look like.
        reason: String,
    },
    /// It is known, and refused on purpose.
    #[error("mount option {name}: {reason}")]
    Refused {
        /// The option.
        name: String,
        /// Why, and what to do instead.
        reason: &'static str,
    },
}

fn suggestion(nearest: Option<&'static str>) -> String {
    nearest.map_or_else(String::new, |nearest| format!("; did you mean {nearest:?}?"))
}

/// Options that take a value.
const WITH_VALUE: [&str; 15] = [
    "n_bits",
    "ttl",
    "uid",
    "gid",
    "umask",
    "memory",
    "cache_dir",
    "cache_size",
    "deadline",
    "delete",
    "unlink",
    "journal",
    "delete_limit",
    "deny_comm",
    "log",
];

/// Options of ours without a value.
const FLAGS: [&str; 8] = ["ro", "rw", "exec", "noexec", "allow_exec", "allow_other", "xattr", "strict"];

/// Options that are right as they are: they speak to mount(8) or systemd, or ask for what is so anyway.
const IGNORED: [&str; 34] = [
    "_netdev",
    "nofail",
    "auto",
    "noauto",
    "user",
    "nouser",
    "users",
    "owner",
    "group",
    "defaults",
    "dev",
    "nodev",
    "suid",
    "nosuid",
    "atime",
    "noatime",
    "diratime",
    "nodiratime",
    "relatime",
    "norelatime",
    "strictatime",
    "nostrictatime",
    "lazytime",
    "nolazytime",
    "sync",
    "async",
    "dirsync",
    "mand",
    "nomand",
    "iversion",
    "noiversion",
    "silent",
    "loud",
    "default_permissions",
];

/// Beginnings of options that speak to others.
const IGNORED_PREFIXES: [&str; 5] = ["x-", "X-", "comment=", "uhelper=", "helper="];

/// Options that people may well try, with the reason why not.
const REFUSED: [(&str, &str); 7] = [
    ("remount", "nothing can be changed while mounted; unmount it and mount it again with the new options"),
    ("allow_root", "use allow_other; the modes and default_permissions decide who may read"),
    ("auto_unmount", "not built; a mount left by a dead daemon is replaced by the next mount"),
    ("nonempty", "not needed: a mount point need not be empty"),
    ("subtype", "the type is always fuse.desfs"),
    ("fsname", "the source is always shown as typed"),
    ("bind", "mount(8) does this by itself; it is not an option of desfs"),
];

impl MountOptions {
    /// Reads the arguments of all `-o`, each a list separated by commas. Later ones win. With `sloppy`, unknown
    /// options are ignored.
    pub fn parse<'a>(arguments: impl IntoIterator<Item = &'a str>, sloppy: bool) -> Result<Self, OptionError> {
        Self::default().and(arguments, sloppy)
    }

    /// The same, beginning with options that are set already.
    pub fn and<'a>(mut self, arguments: impl IntoIterator<Item = &'a str>, sloppy: bool) -> Result<Self, OptionError> {
        for option in arguments.into_iter().flat_map(|list| list.split(',')).filter(|option| !option.is_empty()) {
            match self.apply(option) {
                Err(OptionError::Unknown { .. }) if sloppy => {}
                result => result?,
            }
        }
        Ok(self)
    }

    fn apply(&mut self, option: &str) -> Result<(), OptionError> {
        if IGNORED.contains(&option) || IGNORED_PREFIXES.iter().any(|prefix| option.starts_with(prefix)) {
            return Ok(());
        }
        let (name, value) = match option.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (option, None),
        };
        if let Some((_, reason)) = REFUSED.iter().find(|(refused, _)| *refused == name) {
            return Err(OptionError::Refused { name: name.to_owned(), reason });
        }
        if StoreOptions::knows(name) {
            let refused = |error: desstore::OptionError| OptionError::Value { name: error.name, reason: error.reason };
            return self.store.set(name, value).map_err(refused);
        }
        let outcome = match (WITH_VALUE.contains(&name), value) {
            (true, Some(value)) => self.set_value(name, value),
            (true, None) => Err(format!("needs a value: {name}=VALUE")),
            (false, Some(_)) if FLAGS.contains(&name) || IGNORED.contains(&name) => Err("takes no value".to_owned()),
            (false, None) if FLAGS.contains(&name) => {
                self.set_flag(name);
                Ok(())
            }
            (false, _) => {
                return Err(OptionError::Unknown { name: name.to_owned(), nearest: nearest_option(name) });
            }
        };
        outcome.map_err(|reason| OptionError::Value { name: name.to_owned(), reason })
    }

    fn set_flag(&mut self, name: &str) {
        match name {
            "ro" => self.read_only = true,
            "rw" => self.read_only = false,
            // mount(8) takes `exec` for what is so anyway and does not hand it on.
            "exec" | "allow_exec" => self.exec = true,
            "noexec" => self.exec = false,
            "allow_other" => self.allow_other = true,
            "xattr" => self.xattr = true,
            "strict" => self.strict = true,
            other => debug_assert!(false, "{other} is listed as a flag and not handled"),
        }
    }

    fn set_value(&mut self, name: &str, value: &str) -> Result<(), String> {
        match name {
            "n_bits" => self.legacy_bits = parse_bits(value)?,
            "ttl" => self.ttl = parse_duration(value)?,
            "uid" => self.owner = Some(parse_user(value)?),
            "gid" => self.group = Some(parse_group(value)?),
            "umask" => self.umask = parse_umask(value)?,
            "memory" => self.memory_bytes = Some(parse_bytes(value)?),
            "cache_dir" => self.cache_directory = Some(parse_directory(value)?),
            "cache_size" => self.cache_bytes = parse_cache_size(value)?,
            "deadline" => self.deadline = parse_duration(value)?,
            "delete" => self.delete = parse_permission(value)?,
            "delete_limit" => self.delete_limit = Some(parse_limit(value)?),
            "unlink" => self.unlinking = parse_unlinking(value)?,
            "journal" => self.journal = Some(parse_directory(value)?),
            "deny_comm" => self.denied_programs.extend(parse_list(value)?),
            "log" => self.log = Some(PathBuf::from(value)),
            other => debug_assert!(false, "{other} is listed as an option and not handled"),
        }
        if self.deadline.is_zero() {
            return Err("must be longer than nothing".to_owned());
        }
        Ok(())
    }
}

fn parse_cache_size(value: &str) -> Result<u64, String> {
    let bytes = parse_bytes(value)?;
    if bytes < DISK_CACHE_BYTES_MIN {
        return Err(format!("must be at least {}M", DISK_CACHE_BYTES_MIN >> 20));
    }
    Ok(bytes)
}

/// The option of ours that needs the fewest edits, if it needs at most two and keeps some letters.
fn nearest_option(name: &str) -> Option<&'static str> {
    WITH_VALUE
        .iter()
        .chain(&FLAGS)
        .chain(&IGNORED)
        .chain(&StoreOptions::WITH_VALUE)
        .chain(&StoreOptions::FLAGS)
        .map(|known| (edits(name, known), *known))
        .filter(|(edits, known)| *edits <= 2 && *edits < known.len())
        .min()
        .map(|(_, known)| known)
}

/// How many letters must be inserted, dropped or replaced to make one word of the other (Levenshtein).
fn edits(one: &str, other: &str) -> usize {
    let mut row: Vec<usize> = (0..=other.chars().count()).collect();
    for (index, letter) in one.chars().enumerate() {
        let mut diagonal = index;
        let mut left = index + 1;
        let mut next = vec![left];
        for (above, letter_other) in row.iter().skip(1).zip(other.chars()) {
            left = (above + 1).min(left + 1).min(diagonal + usize::from(letter != letter_other));
            diagonal = *above;
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests;
