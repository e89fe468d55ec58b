//! Acting as another user: one thread takes on other credentials, for the kernel's permission checks count those of the
//! calling thread.

use std::thread;

use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

/// A user who owns nothing.
pub const NOBODY: u32 = 65_534;

/// A user who is not root; mounts are given to them by `uid=`.
pub const SOMEBODY: u32 = 54_321;

/// Does something as a user, with the group of the same number and no other groups.
pub fn as_user<T: Send>(user: u32, act: impl FnOnce() -> T + Send) -> T {
    let (uid, gid) = (Uid::from_raw(user), Gid::from_raw(user));
    thread::scope(|scope| {
        let thread = scope.spawn(move || {
            set_thread_groups(&[]).expect("giving up groups; the tests must run as root");
            set_thread_res_gid(gid, gid, gid).expect("taking on a group");
            set_thread_res_uid(uid, uid, uid).expect("taking on a user");
            act()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
