//! The mount table of the kernel, `/proc/self/mountinfo` (see proc(5)).

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mount {
    /// `MAJOR:MINOR` of its device.
    pub(super) device: String,
    /// Where it is mounted.
    pub(super) path: PathBuf,
    /// Its type.
    pub(super) file_system: String,
    /// What is mounted.
    pub(super) source: OsString,
}

/// Reads the table. Asks no file system anything.
pub(super) fn read() -> io::Result<Vec<Mount>> {
    Ok(parse(&std::fs::read("/proc/self/mountinfo")?))
}

/// The mount on top of all others at a path.
pub(super) fn top_at<'a>(mounts: &'a [Mount], path: &Path) -> Option<&'a Mount> {
    mounts.iter().rev().find(|mount| mount.path == path)
}

fn parse(text: &[u8]) -> Vec<Mount> {
    text.split(|byte| *byte == b'\n').filter_map(parse_line).collect()
}

/// `ID PARENT MAJOR:MINOR ROOT MOUNTPOINT OPTIONS [TAG...] - TYPE SOURCE OPTIONS`
fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let device = String::from_utf8(fields.nth(2)?.to_vec()).ok()?;
    let path = PathBuf::from(unescape(fields.nth(1)?));
    fields.by_ref().find(|field| *field == b"-")?;
    let file_system = unescape(fields.next()?).into_string().ok()?;
    let source = unescape(fields.next()?);
    Some(Mount { device, path, file_system, source })
}

/// Undoes the `\ooo` by which the kernel writes space, tab, newline, `#` and backslash.
fn unescape(field: &[u8]) -> OsString {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        rest = tail;
        let octal = (*first == b'\\').then(|| tail.first_chunk::<3>().copied()).flatten().and_then(octal_byte);
        match octal {
            Some(byte) => {
                bytes.push(byte);
                rest = tail.get(3..).unwrap_or_default();
            }
            None => bytes.push(*first),
        }
    }
    OsString::from_vec(bytes)
}

fn octal_byte(digits: [u8; 3]) -> Option<u8> {
    u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 8).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"22 1 254:0 / / rw,noatime shared:1 - ext4 /dev/vda rw
61 22 0:40 / /mnt/with\\040space rw,nosuid shared:9 master:3 - fuse.desfs /srv/my\\040archive rw,user_id=0
62 22 0:41 / /mnt/a rw - autofs systemd-1 rw,fd=31
63 62 0:42 / /mnt/a rw,nosuid - fuse.desfs s3://bucket/prefix rw,user_id=0

broken line
";

    #[test]
    fn mounts_are_read_as_they_are_typed() {
        let mounts = parse(TABLE);
        let mount = top_at(&mounts, Path::new("/mnt/with space")).unwrap();
        assert_eq!((mount.device.as_str(), mount.file_system.as_str()), ("0:40", "fuse.desfs"));
        assert_eq!(mount.source, "/srv/my archive");
        assert_eq!(mounts.len(), 4);
    }

    #[test]
    fn the_mount_on_top_hides_the_others() {
        let mounts = parse(TABLE);
        assert_eq!(top_at(&mounts, Path::new("/mnt/a")).unwrap().source, "s3://bucket/prefix");
        assert_eq!(top_at(&mounts, Path::new("/mnt/b")), None);
    }

    #[test]
    fn a_backslash_that_is_no_escape_stays() {
        assert_eq!(unescape(b"a\\9b\\134c\\"), "a\\9b\\c\\");
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_the_table_panic(bytes: Vec<u8>) {
            drop(parse(&bytes));
        }
    }
}
