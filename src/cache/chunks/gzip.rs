//! The gzip format (RFC 1952) of a list whose chunks are compressed already.
//!
//! The list is a single member, because many clients read no further than the first one. Its deflate stream consists of
//! an opening bracket, the blocks of each chunk, and a closing bracket as the final block.

use bytes::Bytes;
use crc32fast::Hasher;
use flate2::{Compress, Compression, FlushCompress, Status};

/// A list is compressed once per version, but while a request waits for it.
pub(crate) const GZIP_LEVEL: Compression = Compression::new(4);
pub(super) const HEADER_BYTES: usize = 10;
/// Compression method deflate, no flags, no time, unknown system; then the opening bracket.
pub(super) const HEAD: [u8; 16] = {
    let [.., bracket] = stored_block(b'[', false);
    [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255, 0, 1, 0, 0xfe, 0xff, bracket]
};
/// The comma before a chunk.
pub(super) const COMMA_BLOCK: [u8; 6] = stored_block(b',', false);
const CLOSE_BLOCK: [u8; 6] = stored_block(b']', true);
pub(super) const TAIL_BYTES: usize = CLOSE_BLOCK.len() + 8;

/// Returns one byte as a block of a deflate stream that is not compressed (RFC 1951, 3.2.4).
const fn stored_block(byte: u8, is_final: bool) -> [u8; 6] {
    [is_final as u8, 1, 0, 0xfe, 0xff, byte]
}

/// Returns the closing bracket and the trailer of a member that decompresses to `length` bytes.
pub(super) fn tail(crc32: u32, length: usize) -> Bytes {
    // the length modulo 2^32
    let length = (length as u64).to_le_bytes();
    [&CLOSE_BLOCK[..], &crc32.to_le_bytes(), &length[..4]].concat().into()
}

/// Returns the CRC-32 of a list from those of its chunks, each without the comma before it.
pub(super) fn crc32<'a>(chunks: impl Iterator<Item = &'a Hasher>) -> u32 {
    let mut crc = Hasher::new();
    let mut separator = b"[";
    for chunk in chunks {
        crc.update(separator);
        crc.combine(chunk);
        separator = b",";
    }
    if separator == b"[" {
        crc.update(separator);
    }
    crc.update(b"]");
    crc.finalize()
}

/// Compresses a JSON array as a list of one chunk is compressed.
pub(crate) fn compress_array(json: &[u8]) -> Vec<u8> {
    let rows = json.strip_prefix(b"[").and_then(|rows| rows.strip_suffix(b"]")).unwrap_or_default();
    debug_assert_eq!(rows.len() + 2, json.len(), "the text is an array");
    let blocks = if rows.is_empty() { Vec::new() } else { deflate(rows, &[]) };
    [&HEAD[..], &blocks, &tail(crc32fast::hash(json), json.len())].concat()
}

/// Returns `prefix` and `bytes` as blocks of a deflate stream that end at a byte and refer to no byte before them.
pub(super) fn deflate(bytes: &[u8], prefix: &[u8]) -> Vec<u8> {
    // more than incompressible input needs: the flush is complete only if output space is left
    let mut deflated = Vec::with_capacity(prefix.len() + bytes.len() + bytes.len() / 8 + 1024);
    deflated.extend_from_slice(prefix);
    let mut compress = Compress::new(GZIP_LEVEL, false);
    let status = compress.compress_vec(bytes, &mut deflated, FlushCompress::Sync);
    let is_complete = compress.total_in() == bytes.len() as u64 && deflated.len() < deflated.capacity();
    assert!(is_complete && matches!(status, Ok(Status::Ok)), "deflate did not complete: {status:?}");
    deflated
}
