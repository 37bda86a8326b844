//! A list of chunks.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::{chunk::Chunk, gzip};
use crate::{
    digest::sha256,
    http::{
        Representation,
        etag::{ContentId, FORMAT_VERSION, content_id_of},
    },
};

/// A complete list, ordered by id.
#[derive(Debug)]
pub(crate) struct ChunkedList {
    chunks: Box<[Arc<Chunk>]>,
    /// Identifies the content: a digest of the chunks' digests.
    pub(crate) content_id: ContentId,
    /// The CRC-32 of the list as JSON.
    crc32: u32,
    json_bytes: usize,
    /// The size of the gzip body, once all chunks are compressed.
    gzip_bytes: OnceLock<usize>,
    memory_bytes: usize,
    compressed_bytes: usize,
    has_json: bool,
}

/// What became of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RowChange {
    pub(crate) id: i64,
    /// The JSON of the row, or `None` if it was deleted.
    pub(crate) json: Option<Bytes>,
}

impl ChunkedList {
    /// Returns the list of these chunks. All but the last must be [complete](super::Rows::is_complete).
    ///
    /// The JSON of a list larger than `max_json_bytes` is dropped. It is restored when the list is at most half as large:
    /// a size that varies around the limit would otherwise drop and restore it each time.
    pub(crate) fn new(mut chunks: Vec<Arc<Chunk>>, max_json_bytes: usize) -> Self {
        let sum = |bytes: fn(&Chunk) -> usize, chunks: &[Arc<Chunk>]| chunks.iter().map(|chunk| bytes(chunk)).sum();
        // the first chunk follows the bracket without a comma
        let json_bytes = 2 + usize::saturating_sub(sum(Chunk::json_bytes, &chunks), 1);
        let had_json = chunks.iter().all(|chunk| chunk.json().is_some());
        let has_json = json_bytes <= if had_json { max_json_bytes } else { max_json_bytes / 2 };
        chunks.iter_mut().for_each(if has_json { restore_json } else { drop_json });
        let is_compressed = chunks.iter().all(|chunk| chunk.is_compressed());
        let list = Self {
            content_id: content_id(&chunks),
            crc32: gzip::crc32(chunks.iter().map(|chunk| chunk.crc())),
            json_bytes,
            gzip_bytes: OnceLock::new(),
            memory_bytes: sum(Chunk::memory_bytes, &chunks),
            compressed_bytes: sum(Chunk::compressed_bytes, &chunks),
            has_json,
            chunks: chunks.into(),
        };
        if is_compressed {
            list.compress();
        }
        list
    }

    /// Compresses the chunks that are not compressed. Returns the size of the gzip body in bytes.
    pub(crate) fn compress(&self) -> usize {
        *self.gzip_bytes.get_or_init(|| {
            let deflated_bytes: usize = self.chunks.iter().map(|chunk| chunk.deflated().len()).sum();
            gzip::HEAD.len() + deflated_bytes.saturating_sub(gzip::COMMA_BLOCK.len()) + gzip::TAIL_BYTES
        })
    }

    /// Whether all chunks are compressed, so that a gzip body costs nothing.
    pub(crate) fn is_compressed(&self) -> bool {
        self.gzip_bytes.get().is_some()
    }

    pub(crate) fn chunks(&self) -> &[Arc<Chunk>] {
        &self.chunks
    }

    /// Whether the JSON is in memory, and not only the compressed bytes.
    pub(crate) fn has_json(&self) -> bool {
        self.has_json
    }

    /// Returns the CRC-32 of the list as JSON.
    pub(super) fn crc32(&self) -> u32 {
        self.crc32
    }

    /// Returns the size of the list as JSON.
    pub(crate) fn json_bytes(&self) -> usize {
        self.json_bytes
    }

    /// Returns the size of the body in bytes.
    pub(crate) fn body_bytes(&self, representation: Representation) -> usize {
        match representation {
            Representation::Identity => self.json_bytes,
            Representation::Gzip => self.compress(),
        }
    }

    /// Returns the number of bytes that the chunks take in memory.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.memory_bytes
    }

    /// Returns the number of bytes that the chunks take in memory without their JSON.
    pub(crate) fn compressed_bytes(&self) -> usize {
        self.compressed_bytes
    }
}

/// Keeps the compressed bytes of a chunk only.
pub(crate) fn drop_json(chunk: &mut Arc<Chunk>) {
    if chunk.json().is_some() {
        *chunk = Arc::new(chunk.with_json(None));
    }
}

/// Decompresses the JSON of a chunk that has none.
fn restore_json(chunk: &mut Arc<Chunk>) {
    if chunk.json().is_none() {
        *chunk = Arc::new(chunk.with_json(Some(chunk.to_json())));
    }
}

/// Returns the digest of the format and of the chunks' digests.
fn content_id(chunks: &[Arc<Chunk>]) -> ContentId {
    let format = FORMAT_VERSION.to_be_bytes();
    let digests = chunks.iter().map(|chunk| &chunk.digest()[..]);
    let parts: Vec<&[u8]> = std::iter::once(&format[..]).chain(digests).collect();
    content_id_of(&sha256(&parts))
}
