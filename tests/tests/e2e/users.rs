//! Mounts by ordinary users, who go through fusermount3(1).

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use des_tests::{
    Mount, NOBODY, Packed, as_user, command, daemons_on, desfs, eventually, mount_point, mounts_on, run_within,
};
use rustix::process::{Signal, kill_process};
use tempfile::TempDir;

const SOON: Duration = Duration::from_secs(20);

/// An archive and a mount point that belong to a user who is not root.
struct Theirs {
    packed: Packed,
    point: TempDir,
    mount: Mount,
}

impl Theirs {
    fn new(seed: u64) -> Self {
        let (packed, point) = (Packed::random(seed, 10), mount_point());
        packed.give_to(NOBODY, point.path());
        let mount = Mount::guard(point.path());
        Self { packed, point, mount }
    }

    fn path(&self) -> &Path {
        self.point.path()
    }

    fn desfs(&self, point: &Path) -> Command {
        let mut desfs_as_user = by_user(desfs().get_program());
        desfs_as_user.arg(self.packed.archive()).arg(point);
        desfs_as_user
    }

    fn mount(&self) {
        run_within(SOON, &mut self.desfs(self.path())).success();
        let source = self.packed.archive().to_str().unwrap().to_owned();
        assert_eq!(mounts_on(self.path()), [("fuse.desfs".to_owned(), source)]);
    }

    fn is_gone(&self) -> bool {
        mounts_on(self.path()).is_empty() && daemons_on(self.path()).is_empty()
    }
}

fn by_user(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut setpriv = command("setpriv");
    setpriv.args([format!("--reuid={NOBODY}"), format!("--regid={NOBODY}")]).arg("--clear-groups").arg(program);
    setpriv
}

#[test]
fn a_user_mounts_reads_deletes_and_unmounts() {
    let theirs = Theirs::new(120);
    theirs.mount();
    let file = theirs.packed.corpus.files[0].clone();
    let path = theirs.mount.file(&file.day, &file.uid);

    as_user(NOBODY, || {
        theirs.packed.assert_shown_in(theirs.path(), &[]);
        fs::remove_file(&path).unwrap();
        theirs.packed.assert_shown_in(theirs.path(), &[(&file.day, &file.uid)]);
    });
    // The kernel lets nobody else in, not even root.
    assert_eq!(fs::read_dir(theirs.path()).map(drop).unwrap_err().kind(), ErrorKind::PermissionDenied);

    run_within(SOON, by_user("umount").arg(theirs.path())).success();
    eventually(SOON, "the daemon ends", || theirs.is_gone());
}

#[test]
fn a_daemon_of_a_user_unmounts_when_it_is_asked_to_end() {
    let theirs = Theirs::new(121);
    theirs.mount();

    kill_process(theirs.mount.daemon(), Signal::TERM).unwrap();

    eventually(SOON, "the mount is gone", || theirs.is_gone());
}

#[test]
fn a_daemon_of_a_user_that_is_asked_to_end_does_not_wait_for_ever_for_who_uses_its_mount() {
    let theirs = Theirs::new(125);
    theirs.mount();
    let file = &theirs.packed.corpus.files[0];
    let path = theirs.mount.file(&file.day, &file.uid);
    let open = as_user(NOBODY, || fs::File::open(path)).unwrap();

    kill_process(theirs.mount.daemon(), Signal::TERM).unwrap();

    eventually(SOON, "the mount is gone", || mounts_on(theirs.path()).is_empty());
    drop(open);
    eventually(SOON, "the daemon ends", || theirs.is_gone());
}

#[test]
fn a_dead_mount_of_a_user_is_replaced() {
    let theirs = Theirs::new(122);
    theirs.mount();
    kill_process(theirs.mount.daemon(), Signal::KILL).unwrap();
    eventually(SOON, "the daemon is dead", || daemons_on(theirs.path()).is_empty());

    theirs.mount();

    as_user(NOBODY, || theirs.packed.assert_shown_in(theirs.path(), &[]));
}

#[test]
fn a_user_is_told_which_directory_is_not_theirs() {
    let theirs = Theirs::new(123);
    let of_root = mount_point();

    let outcome = run_within(SOON, &mut theirs.desfs(of_root.path())).exits(1);

    let reason = outcome.one_line_of_reason();
    assert!(reason.contains("no write access to mountpoint"), "{reason}");
    assert!(mounts_on(of_root.path()).is_empty());
}

#[test]
fn others_look_in_only_where_root_lets_users_allow_it() {
    let theirs = Theirs::new(124);
    let configuration = theirs.packed.place().join("fuse.conf");
    let mut mount = command("unshare");
    let script = "mount --bind \"$1\" /etc/fuse.conf && point=$2 && shift 2 && \"$@\" && findmnt -n -o OPTIONS \"$point\" && umount \"$point\"";
    mount.args(["--mount", "--propagation=private", "bash", "-c", script, "bash"]);
    mount.arg(&configuration).arg(theirs.path());
    let mount_as_user = theirs.desfs(theirs.path());
    mount.arg(mount_as_user.get_program()).args(mount_as_user.get_args()).args(["-o", "allow_other"]);

    fs::write(&configuration, "").unwrap();
    let outcome = run_within(SOON, &mut mount).exits(1);
    let reason = outcome.one_line_of_reason();
    assert!(reason.contains("user_allow_other"), "{reason}");

    fs::write(&configuration, "user_allow_other\n").unwrap();
    let options = run_within(SOON, &mut mount).success().stdout;
    assert!(options.contains("allow_other") && options.contains("noexec"), "{options}");
}
