//! Where FUSE begins: the only place that knows fuser. It turns requests into calls of [`FileSystem`](crate::core) and
//! answers into replies, and holds the settings by which the kernel caches as much as it may.
//!
//! A request is polled once on the thread that received it. What is cached, or comes from a local store, is answered right
//! there; only what must wait becomes a task, which owns its reply. A reply that is dropped, by a panic for instance, is
//! answered with EIO by fuser, so that no request is left hanging (hence never `panic = "abort"`).

mod answer;
mod attributes;
mod invalidation;
mod null;
mod operations;
mod session;

pub use null::{NullTree, serve_null};
pub use session::{Session, Settings};
