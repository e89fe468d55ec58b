//! What des-verify keeps and tells: the book of when each shard was last found sound, the report, and the metrics.

mod book;
mod report;

pub use book::{Book, BookError};
pub use report::{Report, metrics_text, save_metrics};
