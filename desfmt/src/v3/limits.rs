//! What a v3 shard may hold at most. The writer refuses to go beyond, the reader refuses to follow.

/// Entries of a shard: a birth ordinal has 22 bits.
pub const ENTRIES_MAX: u32 = 1 << 22;

/// Bits of an address that count within a frame.
pub const SLOT_BITS: u32 = 20;

/// Plain bytes of a frame at most, and the distance between the addresses of two frames. One reply to a small read
/// inside a huge file costs one frame, so it must not be large; larger ones compress no better.
pub const SLOT_LEN: u64 = 1 << SLOT_BITS;

/// Frames of a shard: 64 TiB of full ones.
pub const FRAMES_MAX: u32 = 1 << 26;

/// Where addresses end: so many frames, each with its slot. Far below 2^63, so that no sum of two overflows.
pub const ADDRESS_MAX: u64 = SLOT_LEN << 26;

/// Frames that one page of the frame table describes. A fixed number, so that a page is found without a search.
pub const PAGE_FRAMES: u32 = 1_024;

/// Entries after which the writer closes an index page.
pub const PAGE_ENTRIES: usize = 512;

/// Entries of an index page that a reader accepts, so that a later writer may choose larger pages.
pub const PAGE_ENTRIES_MAX: u32 = 4_096;

/// Bytes of uids and metadata after which the writer closes an index page, so that long ones do not make huge pages.
pub const PAGE_TEXT_TARGET: usize = 128 << 10;

/// Bytes of uids in an index page, spelled out: more than the target and one more entry.
pub const PAGE_UIDS_LEN_MAX: u64 = 1 << 20;

/// Bytes of metadata in a cold page: more than the target and one more entry.
pub const PAGE_METADATA_LEN_MAX: u64 = 1 << 20;

/// Bytes of one entry's metadata. Linux allows 64 KiB for one extended attribute.
pub const METADATA_LEN_MAX: usize = 65_535;

/// Bytes of a page as stored: above what incompressible columns of the largest page take.
pub const PAGE_STORED_LEN_MAX: u64 = 2 << 20;

/// Index pages of a shard: eight times what full pages need, for shards with long uids or metadata.
pub const INDEX_PAGES_MAX: u32 = 1 << 16;

/// Bytes of all the texts that tell index pages apart.
pub const SEPARATORS_LEN_MAX: u64 = 8 << 20;

/// Bytes of the directory as stored: above what the largest one takes.
pub const DIRECTORY_LEN_MAX: u64 = 24 << 20;

/// Shards that one shard can stem from. A merge of more would make births costly to find.
pub const ORIGINS_MAX: u32 = 1_024;

/// Origins times index pages: one number each is kept in memory.
pub const ORIGIN_CELLS_MAX: u64 = 2 << 20;

/// Bytes of a dictionary. 16 KiB is what is used; 64 KiB hardly gives more.
pub const DICTIONARY_LEN_MAX: usize = 128 << 10;

/// Bytes of index and frame-table pages that are still part of the tail, which every reader of a shard loads whole.
pub const RESIDENT_PAGES_LEN_MAX: u64 = 1 << 20;

/// Bytes of a tail: resident pages, dictionary, directory and footer at their largest.
pub const TAIL_LEN_MAX: u64 = RESIDENT_PAGES_LEN_MAX + DIRECTORY_LEN_MAX + (1 << 20);
