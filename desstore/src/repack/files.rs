//! The files that stay, for whoever decides how they are compressed.

use crate::archive::ArchiveError;

/// Files that can be walked through again and again.
pub(super) trait Files: std::fmt::Debug {
    /// Their plain bytes together.
    fn bytes(&self) -> u64;

    /// Goes over all of them in the order of their uids, see [`LiveFiles::for_each`].
    fn for_each(&mut self, want: &mut dyn FnMut(u64) -> u64, take: &mut dyn FnMut(Vec<u8>))
    -> Result<(), ArchiveError>;
}

/// The files that stay of one or several shards.
#[derive(Debug)]
pub struct LiveFiles<'a>(pub(super) &'a mut dyn Files);

impl LiveFiles<'_> {
    /// Their plain bytes together.
    pub fn bytes(&self) -> u64 {
        self.0.bytes()
    }

    /// Goes over all of them in the order of their uids. `want` gets the length of each and says how many bytes of its
    /// beginning `take` is to be given; with 0 it is passed over.
    pub fn for_each(
        &mut self,
        want: &mut dyn FnMut(u64) -> u64,
        take: &mut dyn FnMut(Vec<u8>),
    ) -> Result<(), ArchiveError> {
        self.0.for_each(want, take)
    }
}
