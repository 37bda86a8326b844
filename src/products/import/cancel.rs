//! A file whose readers can be stopped and limited.

use std::{
    fs::File,
    io::{self, BufRead, Read, Seek, SeekFrom},
    os::unix::fs::FileExt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

/// Tells a reader of files to stop.
#[derive(Clone, Default)]
pub(crate) struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// From here on nobody waits.
    pub(crate) fn now(&self) {
        self.0.store(true, Relaxed);
    }
}

/// A file, from its beginning.
pub(crate) struct CancellableFile {
    file: Arc<File>,
    place: u64,
    cancel: Cancel,
}

impl CancellableFile {
    pub(crate) fn new(file: &Arc<File>, cancel: &Cancel) -> Self {
        Self { file: Arc::clone(file), place: 0, cancel: cancel.clone() }
    }
}

impl Read for CancellableFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.cancel.0.load(Relaxed) {
            return Err(io::Error::other("nobody waits for it"));
        }
        let read = self.file.read_at(buffer, self.place)?;
        self.place += read as u64;
        Ok(read)
    }
}

impl Seek for CancellableFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let place = match to {
            SeekFrom::Start(place) => Some(place),
            SeekFrom::Current(by) => self.place.checked_add_signed(by),
            SeekFrom::End(by) => self.file.metadata()?.len().checked_add_signed(by),
        };
        self.place = place.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.place)
    }
}

/// Reads no more than it is allowed to.
pub(crate) struct Limited<R> {
    pub(crate) inner: R,
    /// Bytes.
    pub(crate) left: u64,
}

impl<R> Limited<R> {
    pub(crate) fn new(inner: R, left: u64) -> Self {
        Self { inner, left }
    }

    /// How much may be read at a time: something, or it is an error.
    fn most(&self) -> io::Result<usize> {
        match self.left {
            0 => Err(io::Error::other("it is larger than any that is meant well")),
            left => Ok(usize::try_from(left).unwrap_or(usize::MAX)),
        }
    }
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let most = self.most()?.min(buffer.len());
        let read = self.inner.read(&mut buffer[..most])?;
        self.left -= read as u64;
        Ok(read)
    }
}

impl<R: BufRead> BufRead for Limited<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let most = self.most()?;
        self.inner.fill_buf().map(|bytes| &bytes[..bytes.len().min(most)])
    }

    fn consume(&mut self, bytes: usize) {
        self.left -= bytes as u64;
        self.inner.consume(bytes);
    }
}

impl Seek for Limited<CancellableFile> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.inner.seek(to)
    }
}
