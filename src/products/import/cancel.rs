//! Readers that can be cancelled and limited.

use std::{
    io::{self, BufRead, Read, Seek, SeekFrom},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use super::file_range::FileRange;

/// Cancels a [`CancellableFile`] of another thread.
#[derive(Clone, Default)]
pub(crate) struct CancellationToken(Arc<AtomicBool>);

/// Cancels its token when it is dropped.
#[derive(Default)]
pub(crate) struct CancelOnDrop(CancellationToken);

impl CancelOnDrop {
    pub(crate) fn token(&self) -> CancellationToken {
        self.0.clone()
    }
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.0.store(true, Relaxed);
    }
}

/// Reads a file from its beginning, independently of other readers of the same file. Fails once it is cancelled.
pub(crate) struct CancellableFile {
    file: FileRange,
    offset: u64,
    token: CancellationToken,
}

impl CancellableFile {
    pub(crate) fn new(file: &FileRange, token: &CancellationToken) -> Self {
        Self { file: file.clone(), offset: 0, token: token.clone() }
    }
}

impl Read for CancellableFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.token.0.load(Relaxed) {
            return Err(io::Error::other("the import was cancelled"));
        }
        let read = self.file.read_at(buffer, self.offset)?;
        self.offset += read as u64;
        Ok(read)
    }
}

impl Seek for CancellableFile {
    fn seek(&mut self, target: SeekFrom) -> io::Result<u64> {
        let offset = match target {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::Current(delta) => self.offset.checked_add_signed(delta),
            SeekFrom::End(delta) => self.file.length.checked_add_signed(delta),
        };
        self.offset = offset.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.offset)
    }
}

/// The number of bytes that may be read.
#[derive(Clone, Copy)]
pub(crate) struct Limit {
    pub(crate) bytes: u64,
    /// The message when the limit is exceeded: a sentence without its full stop.
    pub(crate) exceeded: &'static str,
}

/// Fails instead of reading more than a limit.
pub(crate) struct Limited<R> {
    inner: R,
    limit: Limit,
    remaining: u64,
}

impl<R> Limited<R> {
    pub(crate) fn new(inner: R, limit: Limit) -> Self {
        Self { inner, limit, remaining: limit.bytes }
    }

    pub(crate) fn inner(&self) -> &R {
        &self.inner
    }

    /// Returns the number of bytes that may still be read.
    pub(crate) fn remaining(&self) -> u64 {
        self.remaining
    }

    /// Starts counting from zero again.
    pub(crate) fn reset(&mut self) {
        self.remaining = self.limit.bytes;
    }

    /// Returns the number of bytes that the next read may return, or an error when nothing remains.
    fn max_read(&self) -> io::Result<usize> {
        match self.remaining {
            0 => Err(io::Error::new(io::ErrorKind::FileTooLarge, self.limit.exceeded)),
            remaining => Ok(usize::try_from(remaining).unwrap_or(usize::MAX)),
        }
    }
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let length = self.max_read()?.min(buffer.len());
        let read = self.inner.read(&mut buffer[..length])?;
        self.remaining -= read as u64;
        Ok(read)
    }
}

impl<R: BufRead> BufRead for Limited<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let length = self.max_read()?;
        self.inner.fill_buf().map(|bytes| &bytes[..bytes.len().min(length)])
    }

    fn consume(&mut self, bytes: usize) {
        self.remaining -= bytes as u64;
        self.inner.consume(bytes);
    }
}

impl Seek for Limited<CancellableFile> {
    fn seek(&mut self, target: SeekFrom) -> io::Result<u64> {
        self.inner.seek(target)
    }
}
