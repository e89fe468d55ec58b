//! Hands a mount from the process that makes it to the one that serves it.
//!
//! mount(2) has to be called in the machine's own mount namespace, with the right to mount; serving needs neither. So under
//! systemd `desfs --attach` runs first, with all rights: it mounts and leaves the connection to the kernel in the store of
//! descriptors that systemd keeps for the service. `desfs --attached` then serves from within a sandbox and finds the
//! connection as its standard input.

use std::fs::OpenOptions;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use rustix::fs::FileType;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use sd_notify::NotifyState;

use crate::config::Config;
use crate::exit::Failure;
use crate::mount::{self, Attached, Claim};

/// How the connection is called in the store.
const NAME: &str = "desfs";

/// The device number of `/dev/fuse`, the same on every Linux.
const FUSE_DEVICE: (u32, u32) = (10, 229);

/// Mounts, and leaves the connection to systemd. It must be served soon: until then whoever looks at the mount waits.
pub fn give(config: &Config) -> Result<(), Failure> {
    let socket = supervisor(config.supervisor.as_deref())?;
    let target = mount::resolve(&config.mount_point)?;
    if mount::claim(&config.source_text, &target)? == Claim::MountedAlready {
        let (source, target) = (&config.source_text, target.display());
        return Err(Failure::mount(format!("{source} is mounted on {target} already; unmount it first")));
    }
    let Attached { device, mount_point } = mount::attach(&config.source_text, &target, &config.options)?;
    // Before the kernel agrees with the daemon on it.
    mount_point.widen_read_ahead();
    store(&socket, &device).map_err(|error| {
        drop(mount_point.detach());
        Failure::system(format!("systemd does not take the connection: {error}"))
    })
}

fn supervisor(address: Option<&str>) -> Result<UnixDatagram, Failure> {
    let missing =
        "--attach is for a systemd service with FileDescriptorStoreMax= and NotifyAccess=exec; no NOTIFY_SOCKET";
    let address = address.ok_or_else(|| Failure::usage(missing))?;
    let connect = || {
        let address = match address.strip_prefix('@') {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(address)?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.connect_addr(&address)?;
        Ok(socket)
    };
    connect().map_err(|error: io::Error| Failure::system(format!("NOTIFY_SOCKET {address}: {error}")))
}

fn store(socket: &UnixDatagram, device: &OwnedFd) -> io::Result<()> {
    // What an earlier start may have left would come first.
    socket.send(format!("FDSTOREREMOVE=1\nFDNAME={NAME}").as_bytes())?;
    let message = format!("FDSTORE=1\nFDNAME={NAME}");
    let descriptors = [device.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut rights = SendAncillaryBuffer::new(&mut space);
    if !rights.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(io::ErrorKind::OutOfMemory.into());
    }
    sendmsg(socket, &[IoSlice::new(message.as_bytes())], &mut rights, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Takes the connection over, which is standard input. The store then lets go of it, so that the mount is known to be dead
/// when this process is.
pub fn take() -> Result<OwnedFd, Failure> {
    let taken = || {
        let input = rustix::stdio::stdin();
        let found = rustix::fs::fstat(input.as_fd())?;
        let number = (rustix::fs::major(found.st_rdev), rustix::fs::minor(found.st_rdev));
        if FileType::from_raw_mode(found.st_mode) != FileType::CharacterDevice || number != FUSE_DEVICE {
            return Ok(None);
        }
        let device = rustix::io::fcntl_dupfd_cloexec(input, 3)?;
        rustix::stdio::dup2_stdin(OpenOptions::new().read(true).open("/dev/null")?)?;
        sd_notify::notify(&[NotifyState::Custom(&format!("FDSTOREREMOVE=1\nFDNAME={NAME}"))])?;
        Ok(Some(device))
    };
    match taken() {
        Ok(Some(device)) => Ok(device),
        Ok(None) => {
            Err(Failure::usage("--attached needs the connection of a mount as its standard input (see --attach)"))
        }
        Err(error) => Err(io_failure(&error)),
    }
}

fn io_failure(error: &io::Error) -> Failure {
    Failure::system(format!("the connection of the mount cannot be taken over: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_arrives_with_its_name() {
        let place = tempfile::tempdir().unwrap();
        let address = place.path().join("notify");
        let listener = UnixDatagram::bind(&address).unwrap();
        let file = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());

        store(&supervisor(address.to_str()).unwrap(), &file).unwrap();

        for expected in ["FDSTOREREMOVE=1\nFDNAME=desfs", "FDSTORE=1\nFDNAME=desfs"] {
            let mut message = [0; 100];
            let len = listener.recv(&mut message).unwrap();
            assert_eq!(std::str::from_utf8(&message[..len]).unwrap(), expected);
        }
    }

    #[test]
    fn without_systemd_there_is_no_handing_over() {
        assert!(supervisor(None).unwrap_err().to_string().contains("NOTIFY_SOCKET"));
        assert!(supervisor(Some("/nowhere/notify")).is_err());
    }
}
