//! A part of a file.

use std::{fs::File, io, os::unix::fs::FileExt, sync::Arc};

/// Bytes of a block, without those that overlap the next one.
pub(crate) const BLOCK_BYTES: usize = 64 * 1024;

/// The bytes of a file that hold a table. An upload as a form has other bytes before and after them.
#[derive(Clone)]
pub(crate) struct FileRange {
    pub(crate) file: Arc<File>,
    pub(crate) start: u64,
    pub(crate) length: u64,
}

impl FileRange {
    /// Returns the range of a complete file.
    pub(crate) fn whole(file: &Arc<File>) -> io::Result<Self> {
        Ok(Self { file: Arc::clone(file), start: 0, length: file.metadata()?.len() })
    }

    /// Reads bytes from `offset` in the range on. Returns their number, 0 at the end of the range.
    pub(crate) fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let remaining = usize::try_from(self.length.saturating_sub(offset)).unwrap_or(usize::MAX);
        let length = buffer.len().min(remaining);
        self.file.read_at(&mut buffer[..length], self.start + offset)
    }

    /// Returns up to `length` bytes from `offset` on: fewer at the end of the range.
    pub(crate) fn bytes_at(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let (mut bytes, mut filled) = (vec![0; length], 0);
        while filled < length {
            match self.read_at(&mut bytes[filled..], offset + filled as u64)? {
                0 => break,
                read => filled += read,
            }
        }
        bytes.truncate(filled);
        Ok(bytes)
    }

    /// Returns the blocks from `offset` on, each with its own offset. The first `overlap` bytes of the next block follow
    /// those of each.
    pub(crate) fn blocks(&self, offset: u64, overlap: usize) -> impl Iterator<Item = io::Result<(u64, Vec<u8>)>> {
        let offsets = (offset..self.length).step_by(BLOCK_BYTES);
        offsets.map(move |offset| Ok((offset, self.bytes_at(offset, BLOCK_BYTES + overlap)?)))
    }
}
