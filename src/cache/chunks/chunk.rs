//! A chunk of a list: rows as JSON and compressed.

use std::{ops::Range, sync::OnceLock};

use bytes::Bytes;
use crc32fast::Hasher;
use flate2::{Decompress, FlushDecompress, Status};

use super::{
    gzip::{COMMA_BLOCK, deflate},
    rows::{RowIndex, Rows},
};
use crate::digest::sha256;

/// An immutable run of the rows of a list.
#[derive(Debug)]
pub(crate) struct Chunk {
    /// The rows, each after a comma. `None` if only the compressed bytes are kept.
    json: Option<Bytes>,
    /// [`COMMA_BLOCK`], then the rest of the JSON as blocks of a deflate stream that end at a byte. They refer to no
    /// byte before them, so they decompress after any other blocks. Set when they are needed for the first time: while
    /// no client accepts gzip, a change costs no compression.
    deflated: OnceLock<Bytes>,
    index: RowIndex,
    json_bytes: usize,
    /// The CRC-32 of the JSON without the first comma.
    crc: Hasher,
    /// The SHA-256 of the JSON.
    digest: [u8; 32],
}

impl Chunk {
    /// Creates a chunk of `rows`, which must not be empty. Hashes them and does not compress them.
    pub(crate) fn new(rows: Rows) -> Self {
        let Rows { json, mut index } = rows;
        index.shrink();
        let mut crc = Hasher::new();
        crc.update(&json[1..]);
        Self {
            deflated: OnceLock::new(),
            index,
            json_bytes: json.len(),
            crc,
            digest: sha256(&[&json]),
            // a copy has no unused capacity
            json: Some(Bytes::copy_from_slice(&json)),
        }
    }

    /// Returns the same chunk with this JSON, or with its compressed bytes only.
    pub(super) fn with_json(&self, json: Option<Bytes>) -> Self {
        if json.is_none() {
            self.deflated();
        }
        let index = RowIndex::clone(&self.index);
        let (deflated, crc) = (self.deflated.clone(), self.crc.clone());
        Self { json, deflated, index, json_bytes: self.json_bytes, crc, digest: self.digest }
    }

    /// Returns the rows, each after a comma, or `None` if only the compressed bytes are kept.
    pub(super) fn json(&self) -> Option<&Bytes> {
        self.json.as_ref()
    }

    /// Returns the rows, each after a comma. Decompresses them if only the compressed bytes are kept.
    pub(super) fn to_json(&self) -> Bytes {
        self.json.clone().unwrap_or_else(|| inflate(self.deflated(), self.json_bytes))
    }

    /// Returns blocks of a deflate stream that decompress to the rows, each after a comma. Compresses them if nothing has
    /// needed them before.
    pub(crate) fn deflated(&self) -> &Bytes {
        self.deflated.get_or_init(|| {
            let json = self.json.as_ref().unwrap_or_else(|| unreachable!("JSON is dropped after compression"));
            Bytes::copy_from_slice(&deflate(&json[1..], &COMMA_BLOCK))
        })
    }

    pub(super) fn is_compressed(&self) -> bool {
        self.deflated.get().is_some()
    }

    /// Returns the number of bytes of the rows, each after a comma.
    pub(super) fn json_bytes(&self) -> usize {
        self.json_bytes
    }

    /// Returns the number of bytes that the chunk takes in memory.
    pub(super) fn memory_bytes(&self) -> usize {
        self.compressed_bytes() + self.json.as_ref().map_or(0, Bytes::len)
    }

    /// Returns the number of bytes that the chunk takes in memory without its JSON. Before it is compressed, the size of
    /// the JSON counts, which is more.
    pub(crate) fn compressed_bytes(&self) -> usize {
        size_of::<Self>() + self.deflated.get().map_or(self.json_bytes, Bytes::len) + self.index.memory_bytes()
    }

    /// Returns the id of each row, and the range of its JSON.
    pub(super) fn rows(&self) -> impl Iterator<Item = (i64, Range<usize>)> {
        self.index.ids.iter().enumerate().map(|(row, id)| {
            let range = self.index.range(row);
            // after the comma
            (*id, range.start + 1..range.end)
        })
    }

    /// Whether the chunk consists of exactly these rows.
    pub(super) fn has_rows(&self, rows: &Rows) -> bool {
        self.index == rows.index
            && self.json.as_ref().map_or_else(|| self.digest == sha256(&[&rows.json]), |json| *json == rows.json)
    }

    /// Whether the chunk ends after its last row, whatever follows.
    pub(super) fn is_complete(&self) -> bool {
        self.index.is_complete()
    }

    pub(super) fn crc(&self) -> &Hasher {
        &self.crc
    }

    pub(super) fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    pub(super) fn last_id(&self) -> i64 {
        self.index.last_id()
    }
}

/// Returns the `json_bytes` bytes of rows, each after a comma, from their blocks.
fn inflate(deflated: &[u8], json_bytes: usize) -> Bytes {
    // one more byte: decompression ends at the end of the input and not at a full output
    let mut json = Vec::with_capacity(json_bytes + 1);
    let status = Decompress::new(false).decompress_vec(deflated, &mut json, FlushDecompress::None);
    assert!(json.len() == json_bytes && matches!(status, Ok(Status::Ok)), "inflate did not complete: {status:?}");
    json.into()
}
