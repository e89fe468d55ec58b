//! What the end-to-end tests are built from: the real programs, files to pack, mounts that are always taken down again.
//!
//! A surprise anywhere here fails the test that ran into it, with all that is known in the message.

#![expect(
    clippy::arithmetic_side_effects,
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    clippy::panic,
    clippy::print_stdout,
    clippy::return_self_not_must_use,
    reason = "only tests use this: a surprise is a failed test, and real programs take real time"
)]

mod cgroup;
mod chaos;
mod corpus;
mod dataset;
mod getdents;
mod inspect;
mod isolation;
mod marks;
mod metrics;
mod mount;
mod names;
mod packed;
mod place;
mod postgres;
mod postgres_proxy;
mod process;
mod program;
mod s3_server;
mod tls_front;
mod tree;
mod user;
mod versions;

pub use cgroup::MemoryLimit;
pub use chaos::{Asked, ChaosProxy, Fault, Kind, Rule, Script, Seen, counts};
pub use corpus::{Corpus, SourceFile, seed};
pub use dataset::{DataSet, mixed_files, real_files};
pub use getdents::{Entry, list_from};
pub use inspect::assert_each_file_is_in_one_live_shard;
pub use marks::{has_dictionary, hiding_places, mark, marks_in};
pub use metrics::{Metrics, ask_http};
pub use mount::{Mount, daemons_on, mounts_on};
pub use names::shown_name;
pub use packed::{Packed, objects_below};
pub use place::{data_set, golden, mount_point, scratch, target_dir};
pub use postgres::{Postgres, free_port, url as postgres_url};
pub use postgres_proxy::PostgresProxy;
pub use process::{Resident, processor_time, resident};
pub use program::{Outcome, command, des_pack, desfs, eventually, programs_dir, run, run_within};
pub use s3_server::{S3Place, S3Server, s3_server};
pub use tls_front::TlsFront;
pub use tree::{assert_programs_agree, contents, files_below};
pub use user::{NOBODY, SOMEBODY, as_user};
pub use versions::{Kept, VersionedBucket};
