//! Mounting and unmounting for ordinary users, who may not call mount(2): through fusermount3(1), which is set-user-id root
//! and decides what they may (a mount point of their own, `allow_other` only where `/etc/fuse.conf` has `user_allow_other`).
//!
//! How the program is asked is a convention of libfuse (`lib/mount.c`): it is told in an environment variable which of its
//! descriptors is a socket, and sends the opened `/dev/fuse` through it.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use crate::exit::Failure;
use crate::options::MountOptions;

const PROGRAM: &str = "fusermount3";

/// mount(8) clears the environment of its helpers.
const DIRECTORIES: &str = "/usr/local/bin:/usr/bin:/bin";

/// Where the program finds the number of the socket's descriptor: it is standard input, which nobody else inherits.
const SOCKET_VARIABLE: (&str, &str) = ("_FUSE_COMMFD", "0");

/// Mounts, and gives the connection to the kernel.
pub(super) fn mount(source: &str, target: &Path, options: &MountOptions) -> Result<OwnedFd, Failure> {
    let (ours, theirs) = UnixStream::pair().map_err(|error| Failure::system(error.to_string()))?;
    let mut command = program();
    command.arg("-o").arg(arguments(source, options)).arg("--").arg(target);
    let run = command.env(SOCKET_VARIABLE.0, SOCKET_VARIABLE.1).stdin(Stdio::from(OwnedFd::from(theirs))).output();
    // Its end of the socket is closed with it.
    drop(command);
    let output = run.map_err(|error| {
        Failure::usage(format!(
            "only root can mount by itself, and for others {PROGRAM} does it, of the package fuse3: {error}; \
             or let systemd mount (x-systemd.automount)"
        ))
    })?;
    if !output.status.success() {
        return Err(Failure::usage(complaint(&output.stderr)));
    }
    receive(&ours).map_err(|error| Failure::mount(format!("{PROGRAM} gave no connection to the kernel: {error}")))
}

/// Unmounts; `lazily` also while somebody uses it.
pub(super) fn unmount(target: &Path, lazily: bool) -> io::Result<()> {
    let mut command = program();
    command.arg("-u");
    if lazily {
        command.arg("-z");
    }
    let output = command.arg("--").arg(target).stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let complaint = complaint(&output.stderr);
    // It tells the error of umount(2) in words only.
    let busy = io::Error::from(Errno::BUSY).to_string();
    let is_busy = complaint.rsplit(": ").next().is_some_and(|last| !last.is_empty() && busy.starts_with(last));
    let kind = if is_busy { io::ErrorKind::ResourceBusy } else { io::ErrorKind::Other };
    Err(io::Error::new(kind, complaint))
}

fn program() -> Command {
    let mut command = Command::new(PROGRAM);
    command.env_clear().env("PATH", DIRECTORIES).env("LC_ALL", "C");
    command
}

/// The same mount as [`super::attach`] makes by itself. Backslash and comma are escaped as fusermount3 reads them.
fn arguments(source: &str, options: &MountOptions) -> String {
    let source = source.replace('\\', "\\\\").replace(',', "\\,");
    let mut text = format!("fsname={source},subtype=desfs,default_permissions,nosuid,nodev,noatime");
    for (given, option) in
        [(options.allow_other, ",allow_other"), (!options.exec, ",noexec"), (options.read_only, ",ro")]
    {
        if given {
            text.push_str(option);
        }
    }
    text
}

fn complaint(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let text = text.trim();
    if text.is_empty() { format!("{PROGRAM} failed and did not say why") } else { text.to_owned() }
}

fn receive(socket: &UnixStream) -> io::Result<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut rights = RecvAncillaryBuffer::new(&mut space);
    // It has ended, so all that it sent is there.
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    recvmsg(socket, &mut [IoSliceMut::new(&mut [0])], &mut rights, flags)?;
    for message in rights.drain() {
        if let RecvAncillaryMessage::ScmRights(mut descriptors) = message
            && let Some(device) = descriptors.next()
        {
            return Ok(device);
        }
    }
    Err(io::ErrorKind::UnexpectedEof.into())
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;
    use std::os::fd::AsFd;

    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

    use super::*;

    #[test]
    fn the_connection_arrives_through_the_socket_and_nothing_else_is_taken_for_it() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        assert_eq!(receive(&ours).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let null = std::fs::File::open("/dev/null").unwrap();
        let descriptors = [null.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut rights = SendAncillaryBuffer::new(&mut space);
        assert!(rights.push(SendAncillaryMessage::ScmRights(&descriptors)));
        sendmsg(&theirs, &[IoSlice::new(b"x")], &mut rights, SendFlags::empty()).unwrap();

        let received = rustix::fs::fstat(receive(&ours).unwrap()).unwrap();
        assert_eq!(received.st_rdev, rustix::fs::fstat(&null).unwrap().st_rdev);

        sendmsg(&theirs, &[IoSlice::new(b"x")], &mut SendAncillaryBuffer::default(), SendFlags::empty()).unwrap();
        assert_eq!(receive(&ours).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_source_with_commas_stays_one_option() {
        let options = MountOptions { allow_other: true, read_only: true, ..MountOptions::default() };
        assert_eq!(
            arguments("/srv/a,b\\c", &options),
            "fsname=/srv/a\\,b\\\\c,subtype=desfs,default_permissions,nosuid,nodev,noatime,allow_other,noexec,ro"
        );
    }
}
