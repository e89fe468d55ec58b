//! What mount options permit and forbid, asked of the kernel: deleting, listing, running programs.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use des_tests::{Mount, NOBODY, Packed, SOMEBODY, as_user, command, run};
use rustix::io::Errno;

const DAY: &str = "20240301";

/// A user who is neither the owner nor nobody.
const ANOTHER: u32 = 54_322;

fn ten_files() -> Packed {
    Packed::of(|corpus| {
        for number in 0..10 {
            corpus.add(DAY, &format!("file-{number}"), format!("content {number}"));
        }
    })
}

fn unlink(mount: &Mount, user: u32, number: usize) -> Result<(), Errno> {
    let path = mount.file(DAY, &format!("file-{number}"));
    as_user(user, || rustix::fs::unlink(&path))
}

#[test]
fn delete_names_who_may_of_those_whom_the_modes_let() {
    let packed = ten_files();
    let mount = packed.mount(&format!("allow_other,gid={SOMEBODY},umask=0,delete={SOMEBODY}:{NOBODY}"));

    assert_eq!(unlink(&mount, SOMEBODY, 0), Ok(()), "in the group, and named");
    assert_eq!(unlink(&mount, NOBODY, 1), Err(Errno::ACCESS), "named, but the modes do not let him");
    assert_eq!(unlink(&mount, 0, 1), Err(Errno::PERM), "not even root, who is not named");

    packed.assert_shown_in(mount.path(), &[(DAY, "file-0")]);
}

#[test]
fn delete_deny_lets_nobody() {
    let packed = ten_files();
    let mount = packed.mount(&format!("allow_other,uid={SOMEBODY},delete=deny"));

    assert_eq!(unlink(&mount, 0, 0), Err(Errno::ROFS));
    assert_eq!(unlink(&mount, SOMEBODY, 0), Err(Errno::ACCESS), "the mode of the day says so before");
    assert_eq!(fs::metadata(mount.path().join(DAY)).unwrap().permissions().mode() & 0o777, 0o555);

    packed.assert_shown_in(mount.path(), &[]);
}

#[test]
fn without_gid_the_group_deletes_nothing_and_with_it_it_does() {
    let packed = ten_files();
    let closed = packed.mount(&format!("allow_other,uid={ANOTHER}"));
    let open = packed.mount(&format!("allow_other,uid={ANOTHER},gid={SOMEBODY}"));

    assert_eq!(unlink(&closed, SOMEBODY, 0), Err(Errno::ACCESS));
    assert_eq!(unlink(&open, SOMEBODY, 0), Ok(()));
    assert_eq!(unlink(&open, ANOTHER, 1), Ok(()));
}

#[test]
fn delete_limit_stops_an_rm_in_the_wrong_place() {
    let packed = ten_files();
    let mount = packed.mount("delete_limit=3/h");

    let outcome = run(command("rm").arg("-rf").arg(mount.path().join(DAY)));

    assert_eq!(outcome.code(), 1);
    assert!(outcome.stderr.contains("quota"), "{outcome:?}");
    assert_eq!(fs::read_dir(mount.path().join(DAY)).unwrap().count(), 7);
    mount.unmount();
    assert_eq!(fs::read_dir(packed.mount("").path().join(DAY)).unwrap().count(), 7);
}

/// A copy of ls(1) by another name: the kernel calls a program by the name of its file. Another process makes it: if this
/// one did, what a neighbouring test starts could hold the open copy for a moment, and the kernel runs nothing that is open
/// for writing.
fn lister(place: &Path, name: &str) -> PathBuf {
    let program = place.join(name);
    run(command("cp").arg("/bin/ls").arg(&program)).success();
    program
}

#[test]
fn a_denied_program_lists_nothing_and_others_do() {
    let packed = ten_files();
    let mount = packed.mount("deny_comm=updatedb:mlocate");
    let day = mount.path().join(DAY);
    for name in ["updatedb", "mlocate"] {
        let program = lister(packed.place(), name);
        for directory in [mount.path(), day.as_path()] {
            let refused = run(command(program.to_str().unwrap()).arg(directory));
            assert_ne!(refused.code(), 0);
            assert!(refused.stderr.contains("Permission denied") && refused.stdout.is_empty(), "{refused:?}");
        }
        // What it knows by name it can read.
        let known = run(command(program.to_str().unwrap()).arg("-l").arg(day.join("file-3"))).success();
        assert!(known.stdout.contains("file-3"), "{known:?}");
    }

    let allowed = lister(packed.place(), "updatedb2");
    assert_eq!(run(command(allowed.to_str().unwrap()).arg(&day)).success().stdout.lines().count(), 10);
}

#[test]
fn programs_run_from_the_mount_only_with_allow_exec() {
    let packed = Packed::of(|corpus| {
        corpus.add(DAY, "program", "#!/bin/sh\necho it runs\n");
    });
    for (options, runs) in [("", false), ("exec", false), ("dev,suid", false), ("allow_exec", true)] {
        let mount = packed.mount(options);
        let program = mount.file(DAY, "program");

        let mut sh = command("sh");
        let outcome = run(sh.args(["-c", "exec \"$0\""]).arg(&program));

        assert_eq!(outcome.code() == 0, runs, "{options}: {outcome:?}");
        if runs {
            assert_eq!(outcome.stdout, "it runs\n");
            // Writing to a program that runs, or to any file, is still refused.
            assert!(fs::write(&program, "other").is_err());
        }
        let options_shown = run(command("findmnt").args(["-n", "-o", "OPTIONS"]).arg(mount.path())).success().stdout;
        let has = |word: &str| options_shown.trim_end().split(',').any(|option| option == word);
        assert!(has("nosuid") && has("nodev") && has("noexec") != runs, "{options}: {options_shown}");
    }
}

#[test]
fn owner_and_group_by_name_are_those_of_the_system() {
    let packed = ten_files();
    let mount = packed.mount("allow_other,uid=nobody,gid=nogroup,umask=022");

    let found = run(command("stat").args(["-c", "%U:%G %a"]).arg(mount.path().join(DAY))).success().stdout;
    assert_eq!(found, "nobody:nogroup 755\n");
    assert_eq!(unlink(&mount, NOBODY, 0), Ok(()));
}
