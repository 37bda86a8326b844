//! Finished files on disk, by version: an unchanged catalogue costs a file copy. Bounded, one flight per file.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, Weak},
};

use prometheus_client::metrics::counter::Counter;

use super::single_flight::SingleFlight;
use crate::{
    error::{Error, Result},
    sync::lock,
};

/// So many bytes may always be there, so that exports work where none are kept.
const LEAST_THERE: u64 = 256 << 20;
/// So many files are kept, however small: each holds a descriptor.
const MAX_FILES: usize = 64;

/// Finished files. Those that were asked for least recently make room.
///
/// They have no names in the folder (`O_TMPFILE`): a process that dies leaves nothing behind.
pub(crate) struct ExportFileCache {
    folder: PathBuf,
    capacity: u64,
    kept: Mutex<Vec<Arc<File>>>,
    /// Files that are on disk: kept, or read by somebody.
    there: Mutex<Vec<Weak<File>>>,
    flights: SingleFlight<String, Arc<File>>,
    /// Files made.
    pub(crate) made: Counter,
}

/// A finished file.
#[derive(Debug)]
pub(crate) struct File {
    /// The version that it shows, in whatever form its maker writes it.
    pub(crate) name: String,
    /// Open as long as somebody reads it or it is kept.
    pub(crate) file: fs::File,
    /// Its length.
    pub(crate) bytes: u64,
}

impl ExportFileCache {
    /// In this folder, or where the system keeps temporary files; at most [`MAX_FILES`] and `capacity` bytes of files that
    /// nobody is reading just now.
    pub(crate) fn new(folder: Option<PathBuf>, capacity: u64) -> Arc<Self> {
        let folder = folder.unwrap_or_else(std::env::temp_dir);
        Arc::new(Self {
            folder,
            capacity,
            kept: Mutex::default(),
            there: Mutex::default(),
            flights: SingleFlight::default(),
            made: Counter::default(),
        })
    }

    /// Where files are made.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    fn kept(&self) -> MutexGuard<'_, Vec<Arc<File>>> {
        lock(&self.kept)
    }

    /// Bytes kept now.
    pub(crate) fn bytes(&self) -> u64 {
        self.kept().iter().map(|file| file.bytes).sum()
    }

    /// Bytes on disk, those of files that are only read among them.
    fn bytes_there(&self) -> u64 {
        let mut there = lock(&self.there);
        there.retain(|file| file.strong_count() > 0);
        there.iter().filter_map(Weak::upgrade).map(|file| file.bytes).sum()
    }

    /// The file of this name, if it is kept.
    pub(crate) fn get(&self, name: &str) -> Option<Arc<File>> {
        let mut kept = self.kept();
        let place = kept.iter().position(|file| file.name == name)?;
        // the last is the one asked for most recently
        let found = kept.remove(place);
        kept.push(Arc::clone(&found));
        Some(found)
    }

    /// The file of this name, kept or made now by `make`, which gives the name that it deserves and the file. Many that
    /// ask at once wait for one.
    pub(crate) async fn get_or_make<F>(
        self: &Arc<Self>,
        name: String,
        make: impl FnOnce() -> F + Send + 'static,
    ) -> Result<Arc<File>>
    where
        F: Future<Output = Result<(String, fs::File)>> + Send + 'static,
    {
        if let Some(file) = self.get(&name) {
            return Ok(file);
        }
        // what is read slowly stays as long as it is read: no more of it than could be kept besides
        if self.bytes_there() > self.capacity.saturating_mul(2).max(LEAST_THERE) {
            return Err(Error::unavailable("too much of the disk is taken by exports that are being read"));
        }
        let this = Arc::clone(self);
        self.flights
            .join(name, move || async move {
                let (name, file) = make().await?;
                this.keep(name, file)
            })
            .await
    }

    fn keep(&self, name: String, file: fs::File) -> Result<Arc<File>> {
        let bytes = file.metadata().map_err(Error::unavailable)?.len();
        self.made.inc();
        let file = Arc::new(File { name, file, bytes });
        lock(&self.there).push(Arc::downgrade(&file));
        let mut kept = self.kept();
        kept.push(Arc::clone(&file));
        while kept.len() > MAX_FILES || kept.iter().map(|file| file.bytes).sum::<u64>() > self.capacity {
            kept.remove(0);
        }
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_read_slowly_fills_no_disk() {
        let files = ExportFileCache::new(None, 100);
        let make = |name: &str| {
            let name = name.to_owned();
            move || async move {
                let file = tempfile::tempfile().map_err(Error::unavailable)?;
                // a hole: it takes no room
                file.set_len(LEAST_THERE + 1).map_err(Error::unavailable)?;
                Ok((name, file))
            }
        };
        let read = files.get_or_make("one".to_owned(), make("one")).await.unwrap();
        assert_eq!(files.bytes(), 0, "too large to keep");
        assert!(files.get_or_make("two".to_owned(), make("two")).await.is_err(), "somebody reads the first");
        drop(read);
        assert!(files.get_or_make("two".to_owned(), make("two")).await.is_ok());
    }
}
