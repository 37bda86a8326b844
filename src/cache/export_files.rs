//! Finished export files on disk, by version: an export of an unchanged catalogue copies a file.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, Weak},
};

use hyper::header::HeaderValue;
use prometheus_client::metrics::counter::Counter;

use super::single_flight::SingleFlight;
use crate::{
    error::{Error, Result},
    sync::lock,
};

/// Live files may always take this many bytes, so that exports work when the cache's capacity is 0.
const MIN_LIVE_BYTES: u64 = 256 << 20;
/// The limit of cached files of any size, because each holds a file descriptor.
const MAX_FILES: usize = 64;

/// A cache of finished files that evicts the least recently used.
///
/// The files have no names in the directory (`O_TMPFILE`), so a killed process leaves none behind.
pub(crate) struct ExportFileCache {
    dir: PathBuf,
    capacity: u64,
    /// The most recently used file is the last.
    cached: Mutex<Vec<Arc<File>>>,
    /// The files on disk, either cached or being read.
    live: Mutex<Vec<Weak<File>>>,
    single_flight: SingleFlight<String, Arc<File>>,
    /// The number of files created.
    pub(crate) created: Counter,
}

/// A finished file. Its descriptor is closed when it is neither cached nor being read.
#[derive(Debug)]
pub(crate) struct File {
    /// The version that the file shows, in a form that its creator chooses.
    pub(crate) name: String,
    pub(crate) etag: HeaderValue,
    pub(crate) file: fs::File,
    /// The length of the file.
    pub(crate) bytes: u64,
}

/// A file that has just been created.
#[derive(Debug)]
pub(crate) struct NewFile {
    pub(crate) name: String,
    pub(crate) etag: HeaderValue,
    pub(crate) file: fs::File,
}

impl ExportFileCache {
    /// Creates a cache of at most [`MAX_FILES`] files and `capacity` bytes in `dir`, by default the system's directory
    /// for temporary files.
    pub(crate) fn new(dir: Option<PathBuf>, capacity: u64) -> Arc<Self> {
        let dir = dir.unwrap_or_else(std::env::temp_dir);
        Arc::new(Self {
            dir,
            capacity,
            cached: Mutex::default(),
            live: Mutex::default(),
            single_flight: SingleFlight::default(),
            created: Counter::default(),
        })
    }

    /// Returns the directory in which files are created.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    fn cached(&self) -> MutexGuard<'_, Vec<Arc<File>>> {
        lock(&self.cached)
    }

    /// Returns the size of the cached files.
    pub(crate) fn bytes(&self) -> u64 {
        self.cached().iter().map(|file| file.bytes).sum()
    }

    /// Returns the size of the files on disk, including evicted files that are still being read.
    fn live_bytes(&self) -> u64 {
        let mut live = lock(&self.live);
        live.retain(|file| file.strong_count() > 0);
        live.iter().filter_map(Weak::upgrade).map(|file| file.bytes).sum()
    }

    /// Returns the cached file of this name.
    pub(crate) fn get(&self, name: &str) -> Option<Arc<File>> {
        let mut cached = self.cached();
        let index = cached.iter().position(|file| file.name == name)?;
        let file = cached.remove(index);
        cached.push(Arc::clone(&file));
        Some(file)
    }

    /// Returns the cached file of this name, or the file that `create` returns, whose name may be another. Concurrent
    /// calls share one creation.
    pub(crate) async fn get_or_create<F>(
        self: &Arc<Self>,
        name: String,
        create: impl FnOnce() -> F + Send + 'static,
    ) -> Result<Arc<File>>
    where
        F: Future<Output = Result<NewFile>> + Send + 'static,
    {
        if let Some(file) = self.get(&name) {
            return Ok(file);
        }
        // slow downloads keep evicted files on disk: these may take as much again as the cache itself
        if self.live_bytes() > self.capacity.saturating_mul(2).max(MIN_LIVE_BYTES) {
            return Err(Error::unavailable("exports that are being downloaded take too much disk space"));
        }
        let this = Arc::clone(self);
        self.single_flight.run(name, move || async move { this.insert(create().await?) }).await
    }

    fn insert(&self, NewFile { name, etag, file }: NewFile) -> Result<Arc<File>> {
        let bytes = file.metadata().map_err(Error::unavailable)?.len();
        self.created.inc();
        let file = Arc::new(File { name, etag, file, bytes });
        lock(&self.live).push(Arc::downgrade(&file));
        let mut cached = self.cached();
        cached.push(Arc::clone(&file));
        while cached.len() > MAX_FILES || cached.iter().map(|file| file.bytes).sum::<u64>() > self.capacity {
            cached.remove(0);
        }
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn files_being_read_count_towards_the_disk_limit() {
        let files = ExportFileCache::new(None, 100);
        let create = |name: &str| {
            let name = name.to_owned();
            move || async move {
                let file = tempfile::tempfile().map_err(Error::unavailable)?;
                // a sparse file takes no space
                file.set_len(MIN_LIVE_BYTES + 1).map_err(Error::unavailable)?;
                Ok(NewFile { name, etag: HeaderValue::from_static("\"etag\""), file })
            }
        };
        let first = files.get_or_create("one".to_owned(), create("one")).await.unwrap();
        assert_eq!(files.bytes(), 0, "the file exceeds the capacity and is not cached");
        assert!(files.get_or_create("two".to_owned(), create("two")).await.is_err(), "the first file is still open");
        drop(first);
        assert!(files.get_or_create("two".to_owned(), create("two")).await.is_ok());
    }
}
