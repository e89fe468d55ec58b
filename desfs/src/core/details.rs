//! Extended attributes `user.des.*`, for mounts with `-o xattr`.

use desstore::{Details, FileEntry};

use crate::core::{FileSystem, FsError};
use crate::inode::Node;

/// The text of an attribute, where the file has it.
type Value = fn(&FileEntry, &Details) -> Option<String>;

/// The attributes that a file can have.
const ATTRIBUTES: [(&str, Value); 8] = [
    ("user.des.uid", |file, _| Some(file.uid.as_str().to_owned())),
    ("user.des.shard", |_, details| Some(details.key.to_string())),
    ("user.des.codec", |_, details| Some(details.codec.clone())),
    ("user.des.size", |_, details| Some(details.len.to_string())),
    ("user.des.stored_size", |_, details| Some(details.stored_len.to_string())),
    ("user.des.digest", |_, details| details.digest.map(|digest| format!("blake3:{}", digest.to_hex()))),
    ("user.des.created_at", |_, details| Some(details.created_at.to_string())),
    ("user.des.metadata", |_, details| details.metadata.clone()),
];

impl FileSystem {
    /// The value of an extended attribute. Names of others (`security.*`, `system.*`) cost no request.
    pub async fn extended_attribute(&self, inode: u64, name: &[u8]) -> Result<Vec<u8>, FsError> {
        let Some((_, value)) = ATTRIBUTES.iter().find(|(known, _)| known.as_bytes() == name) else {
            return Err(FsError::NoAttribute);
        };
        let (file, details) = self.details(inode).await?.ok_or(FsError::NoAttribute)?;
        value(&file, &details).map(String::into_bytes).ok_or(FsError::NoAttribute)
    }

    /// The names of the extended attributes of an inode, each ended by NUL.
    pub async fn extended_attribute_names(&self, inode: u64) -> Result<Vec<u8>, FsError> {
        let Some((file, details)) = self.details(inode).await? else { return Ok(Vec::new()) };
        let present = ATTRIBUTES.iter().filter(|(_, value)| value(&file, &details).is_some());
        Ok(present.flat_map(|(name, _)| [name.as_bytes(), b"\0"]).flatten().copied().collect())
    }

    /// What is known of a file; `None` for a directory.
    async fn details(&self, inode: u64) -> Result<Option<(FileEntry, Details)>, FsError> {
        let Node::File(date, birth) = self.node(inode)? else { return Ok(None) };
        let file = self.archive.file(date, birth).await?.ok_or(FsError::Stale)?;
        let details = self.archive.details(date, birth).await?.ok_or(FsError::Stale)?;
        Ok(Some((file, details)))
    }
}
