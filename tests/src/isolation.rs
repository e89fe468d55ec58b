//! Tests run in mount and process namespaces of their own: what they mount never shows outside, whatever daemon is left
//! ends with them, and mount(8) finds the programs of this build without their being installed.
//!
//! mount(8) clears the environment of its helpers, so that `PATH` cannot lead it to our programs. In the namespace their
//! directory lies over `/usr/local/sbin`, where the helper looks. The hosts file there has a name for the bucket of the tests'
//! server, as a domain of one's own gives each bucket one.

use std::env;
use std::path::Path;
use std::process::{Command, exit};

use crate::s3_server::BUCKET_HOST;

/// Set in the namespaces.
const MARK: &str = "DES_TESTS_ISOLATED";

/// Runs as the first process of the namespaces, where it also reaps the daemons that lose their parents. All users can open
/// `/dev/fuse` there, as udev sees to it elsewhere.
const FIRST: &str = r#"
mount --bind "$1" /usr/local/sbin || exit 1
hosts=$(mktemp) && { cat /etc/hosts; echo "127.0.0.1 $2"; } > "$hosts" && mount --bind "$hosts" /etc/hosts && rm "$hosts" || exit 1
shift 2
if [ "$(stat -c %a /dev/fuse)" != 666 ]; then
    place=$(mktemp -d) && mount -t tmpfs -o mode=755 tmpfs "$place" && mknod -m 666 "$place/fuse" c 10 229 || exit 1
    mount --bind "$place/fuse" /dev/fuse && umount -l "$place" && rmdir "$place" || exit 1
fi
"$@"
exit $?
"#;

/// True in the namespaces.
pub(crate) fn is_on() -> bool {
    env::var_os(MARK).is_some()
}

/// Runs this test program again in namespaces of their own, with the same arguments, and ends as that run ends.
pub(crate) fn run_again_in_it(test: &Path, programs: &Path) -> ! {
    assert!(rustix::process::geteuid().is_root(), "these tests mount file systems: run them as root");
    assert!(Path::new("/dev/fuse").try_exists().unwrap_or(false), "/dev/fuse is missing: try modprobe fuse");
    let mut again = Command::new("unshare");
    again.args(["--mount", "--propagation=private", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    again
        .args(["bash", "-c", FIRST, "bash"])
        .arg(programs)
        .arg(BUCKET_HOST)
        .arg(test)
        .args(env::args_os().skip(1))
        .env(MARK, "1");
    let status = again.status().expect("unshare(1)");
    exit(status.code().unwrap_or(1))
}
