//! How much memory and how many retries packing may take, whatever the input is.

/// Rows of the input that are sorted in memory at once, in bytes; more go to disk in sorted runs.
pub const SORT_BYTES: usize = 64 << 20;

/// Rows that a log keeps in memory before it moves to disk, in bytes.
pub const LOG_BYTES: usize = 32 << 20;

/// All read buffers of a merge together, in bytes.
pub const MERGE_BYTES: usize = 32 << 20;

/// Files of a directory whose attributes are asked for side by side.
pub const FILES_WALKED_AT_ONCE: usize = 4_096;

/// One row of a manifest, in bytes of JSON. The longest legal uid written in `\u` escapes, a path and metadata fit.
pub const ROW_BYTES: u64 = 4 << 20;

/// Metadata of one file, in bytes of JSON: what fits into an extended attribute.
pub const METADATA_BYTES: usize = 65_535;

/// The longest path that the kernel takes, in bytes.
pub const PATH_BYTES: usize = 4_095;

/// Entries of one shard. Some 200 bytes of memory are spent on each while it is built.
pub const SHARD_ENTRIES: u64 = 1 << 20;

/// Uids and metadata of one shard, in bytes; long uids weigh more than they are long. They are kept in memory while it is
/// built, and the format limits the uids that tell index pages apart.
pub const SHARD_INDEX_BYTES: u64 = 64 << 20;

/// Entries of all shards that are being built at once.
pub const ENTRIES_IN_FLIGHT: u64 = 1 << 20;

/// The default size of a shard, in bytes of content: one `rm` may cost its rewrite.
pub const SHARD_BYTES: u64 = 256 << 20;

/// An archive gets as many groups a day as keep an expected shard at this size, in bytes of content.
pub const SHARD_BYTES_EXPECTED: u64 = 64 << 20;

/// Shards that are surveyed or published while others are built. They take space in the spool, hardly any memory, and the
/// more of them wait for the disk together, the less each waits.
pub const SHARDS_PUBLISHING: usize = 8;

/// Plain bytes of all shards that wait for a compressor or for the disk.
pub const PLAIN_BYTES_IN_FLIGHT: usize = 64 << 20;

/// Files up to this length are read whole, in bytes; larger ones are streamed.
pub const WHOLE_FILE_BYTES: u64 = 1 << 20;

/// Plain bytes that one compressor takes at once.
pub const BATCH_BYTES: usize = 256 << 10;

/// Rows that are looked up in the archive at once.
pub const SURVEY_ROWS: usize = 4_096;

/// How often a shard is planned again because others packed some of its files meanwhile.
pub const ATTEMPTS: u32 = 16;

/// Rows of the report that are kept in memory; the report file has all of them.
pub const ISSUES_KEPT: usize = 1_000;

/// A shard below this gets no dictionary, in bytes of content: it could not earn its own length.
pub const DICTIONARY_SHARD_BYTES: u64 = 1 << 20;

/// Fewer sampled files than this give no dictionary.
pub const DICTIONARY_FILES: usize = 16;

/// A shard below this gets a dictionary of heads of its files, in bytes of content: zstd's trainer would take a larger part
/// of the packing time than the twentieth that it may.
pub const TRAINING_SHARD_BYTES: u64 = 48 << 20;

/// What zstd's trainer gets to see, as a part of the shard and in bytes at most. It takes 60 ns for each byte, packing 10.
pub const TRAINING_SHARE: u64 = 256;
/// See [`TRAINING_SHARE`].
pub const TRAINING_BYTES_MAX: u64 = 512 << 10;

/// What a dictionary is made from of one file, in bytes.
pub const TRAINING_FILE_BYTES: u64 = 4 << 10;

/// A shard up to this length is read into memory before its codec is chosen, in bytes, so that no file is read twice.
pub const PRELOAD_BYTES: u64 = 8 << 20;

/// The sample is this part of a shard, within limits in bytes.
pub const SAMPLE_SHARE: u64 = 24;
/// See [`SAMPLE_SHARE`].
pub const SAMPLE_BYTES_MIN: u64 = 128 << 10;
/// See [`SAMPLE_SHARE`].
pub const SAMPLE_BYTES_MAX: u64 = 1 << 20;

/// Files that are sampled side by side, in bytes: enough for a frame or two.
pub const SAMPLE_RUN_BYTES: u64 = 16 << 10;

/// Files that are sampled side by side to judge by, in bytes: enough for a wide frame.
pub const JUDGED_RUN_BYTES: u64 = WIDE_FRAME_BYTES;

/// One of so many runs is for judging.
pub const JUDGED_SHARE: u64 = 4;

/// What a frame gathers in shards of small files that become clearly smaller by it, in bytes. Decoding one takes some 40 us,
/// a fourth part of that with the default.
pub const WIDE_FRAME_BYTES: u64 = 32 << 10;

/// How much smaller a shard must become by wide frames, in hundredths.
pub const WIDE_FRAME_GAIN_PERCENT: u128 = 2;

/// How much smaller a shard of wide frames must become by a dictionary, in hundredths: with one, compressing them takes nearly
/// twice as long, and repacking cannot take frames over.
pub const WIDE_FRAME_DICTIONARY_PERCENT: u128 = 3;

/// What is sampled of one file, in bytes.
pub const SAMPLE_FILE_BYTES: u64 = 64 << 10;
