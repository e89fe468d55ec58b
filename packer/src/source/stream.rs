//! An object read from its beginning to its end, on a thread that may wait, in pieces that are fetched ahead.

use std::io::{self, Read};
use std::sync::Arc;

use bytes::{Buf, Bytes};
use desfmt::ObjectKey;
use desstore::{ObjectMeta, ObjectStore};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::program::reason_of;

/// How much is fetched at a time. One piece is being read, one waits, one is on its way.
const PIECE_BYTES: u64 = 4 << 20;

/// One version of an object, as a stream.
#[derive(Debug)]
pub(crate) struct ObjectStream {
    pieces: mpsc::Receiver<Result<Bytes, String>>,
    piece: Bytes,
    left: u64,
}

impl ObjectStream {
    /// Begins to fetch. Nothing is fetched any more once it is dropped.
    pub(super) fn begin(runtime: &Handle, store: Arc<dyn ObjectStore>, key: ObjectKey, meta: ObjectMeta) -> Self {
        let (sender, pieces) = mpsc::channel(1);
        let left = meta.len;
        drop(runtime.spawn(fetch(store, key, meta, sender)));
        Self { pieces, piece: Bytes::new(), left }
    }
}

async fn fetch(
    store: Arc<dyn ObjectStore>,
    key: ObjectKey,
    meta: ObjectMeta,
    pieces: mpsc::Sender<Result<Bytes, String>>,
) {
    let mut at = 0;
    while at < meta.len {
        let end = at.saturating_add(PIECE_BYTES).min(meta.len);
        let piece = store.get_range(&key, at..end, Some(&meta.etag)).await.map_err(|error| reason_of(&error));
        let is_last = piece.is_err();
        // Whoever reads may have seen enough.
        if pieces.send(piece).await.is_err() || is_last {
            return;
        }
        at = end;
    }
}

impl Read for ObjectStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.piece.is_empty() && self.left > 0 {
            let piece = self.pieces.blocking_recv().ok_or_else(|| io::Error::other("the run ends"))?;
            self.piece = piece.map_err(io::Error::other)?;
            self.left = self.left.saturating_sub(u64::try_from(self.piece.len()).unwrap_or(u64::MAX));
        }
        let count = self.piece.len().min(buffer.len());
        if let Some(space) = buffer.get_mut(..count) {
            self.piece.copy_to_slice(space);
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use desfmt::Timestamp;
    use desstore::{ManualClock, MemoryStore, Payload};

    use super::*;

    /// A store with an object of so many bytes, and threads to fetch it with.
    fn stored(len: usize) -> (tokio::runtime::Runtime, Arc<dyn ObjectStore>, ObjectKey, Vec<u8>) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let store: Arc<dyn ObjectStore> =
            Arc::new(MemoryStore::new(Arc::new(ManualClock::new(Timestamp::from_micros(0)))));
        let key = ObjectKey::new("lists/manifest.json").unwrap();
        let content: Vec<u8> = (0..len).map(|at| u8::try_from(at % 251).unwrap()).collect();
        runtime.block_on(store.put(&key, Payload::Bytes(content.clone().into()))).unwrap();
        (runtime, store, key, content)
    }

    fn begin(runtime: &tokio::runtime::Runtime, store: &Arc<dyn ObjectStore>, key: &ObjectKey) -> ObjectStream {
        let meta = runtime.block_on(store.head(key)).unwrap();
        ObjectStream::begin(runtime.handle(), Arc::clone(store), key.clone(), meta)
    }

    #[test]
    fn an_object_of_any_length_is_read_to_its_end() {
        let piece = usize::try_from(PIECE_BYTES).unwrap();
        for len in [0, 1, piece - 1, piece, piece + 1, 3 * piece + 7] {
            let (runtime, store, key, content) = stored(len);

            let mut found = Vec::new();
            begin(&runtime, &store, &key).read_to_end(&mut found).unwrap();

            assert!(found == content, "{len}");
        }
    }

    #[test]
    fn an_object_that_is_replaced_while_it_is_read_is_an_error_and_no_mixture() {
        let (runtime, store, key, content) = stored(usize::try_from(6 * PIECE_BYTES).unwrap());
        let mut stream = begin(&runtime, &store, &key);
        let mut head = [0; 10];
        stream.read_exact(&mut head).unwrap();
        assert_eq!(head, content[..10]);

        runtime.block_on(store.put(&key, Payload::Bytes("another".into()))).unwrap();

        assert!(stream.read_to_end(&mut Vec::new()).is_err());
    }
}
