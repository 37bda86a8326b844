//! Keeps a workbook from costing more than its file is worth: a few kilobytes of zip can hold gigabytes of XML.
//!
//! What the library reads as a whole (the workbook's own parts, the shared texts, the styles) is measured first, by
//! unpacking it. Sheets are read as a stream; there it is enough to bound the packed bytes that one cell may take, since
//! deflate packs at most 1,032 bytes into one.

use std::{
    borrow::Cow,
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom},
    os::unix::fs::FileExt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use zip::ZipArchive;

use super::rows::malformed;
use crate::error::Result;

/// The list of a zip's parts.
const DIRECTORY_BYTES: u64 = 4 << 20;
/// Texts that cells share, unpacked.
const SHARED_TEXT_BYTES: u64 = 64 << 20;
/// Any other part that is read as a whole, unpacked.
const PART_BYTES: u64 = 4 << 20;
/// What one cell, and what stands before the first one, may take of the file.
const CELL_BYTES: u64 = 256 << 10;
/// A part's share of an entry in the table of shared texts cannot be less: `<si/>`.
const SHARED_TEXT_LEAST: usize = 5;

const SHEETS: &str = "xl/worksheets/";
const PICTURES: &str = "xl/media/";
const SHARED_TEXTS: &str = "xl/sharedstrings.xml";
const PACKAGE: &str = "_rels/.rels";

/// A file, from its beginning, that may be read up to an allowance.
pub(super) struct Metered {
    file: Arc<File>,
    place: u64,
    allowance: Allowance,
}

/// How many bytes of a file may still be read.
#[derive(Clone)]
pub(super) struct Allowance(Arc<AtomicU64>);

impl Allowance {
    /// From here on one more cell.
    pub(super) fn cell(&self) {
        self.0.store(CELL_BYTES, Relaxed);
    }
}

impl Metered {
    /// All of the file, in any order and again.
    pub(super) fn whole(file: &Arc<File>) -> Self {
        Self::new(file, u64::MAX)
    }

    fn new(file: &Arc<File>, bytes: u64) -> Self {
        Self { file: Arc::clone(file), place: 0, allowance: Allowance(Arc::new(AtomicU64::new(bytes))) }
    }

    /// For changing what may be read.
    pub(super) fn allowance(&self) -> Allowance {
        self.allowance.clone()
    }
}

impl Read for Metered {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.allowance.0.load(Relaxed);
        if left == 0 && !buffer.is_empty() {
            return Err(io::Error::other("it is packed too tightly"));
        }
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.file.read_at(&mut buffer[..most], self.place)?;
        self.place += read as u64;
        self.allowance.0.fetch_sub(read as u64, Relaxed);
        Ok(read)
    }
}

impl Seek for Metered {
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

/// Refuses a workbook whose parts, but for the sheets, are larger than any that is meant well.
pub(super) fn inspect(file: &Arc<File>) -> Result<()> {
    let metered = Metered::new(file, DIRECTORY_BYTES);
    let allowance = metered.allowance();
    let mut archive = ZipArchive::new(BufReader::new(metered)).map_err(malformed)?;
    allowance.0.store(u64::MAX, Relaxed);
    let names: Result<Vec<String>, _> = archive.file_names().map(|name| name.map(Cow::into_owned)).collect();
    for name in names.map_err(malformed)? {
        let known = name.replace('\\', "/").to_ascii_lowercase();
        if known.starts_with(SHEETS) || known.starts_with(PICTURES) {
            continue;
        }
        let most = if known == SHARED_TEXTS { SHARED_TEXT_BYTES } else { PART_BYTES };
        let part = archive.by_name(&name).map_err(malformed)?.take(most + 1);
        // the two in which more is looked at are texts
        let size = match known.as_str() {
            PACKAGE => check_package(&text_of(part)?)?,
            SHARED_TEXTS => check_shared_texts(&text_of(part)?)?,
            _ => io::copy(&mut { part }, &mut io::sink()).map_err(malformed)?,
        };
        if size > most {
            return Err(malformed("a part of the workbook is too large"));
        }
    }
    Ok(())
}

fn text_of(mut part: impl Read) -> Result<String> {
    let mut text = String::new();
    part.read_to_string(&mut text).map_err(malformed)?;
    Ok(text)
}

/// The workbook's own part may not be one of those that were not measured.
fn check_package(text: &str) -> Result<u64> {
    let text = text.to_ascii_lowercase();
    if ["&", "worksheets", "media", "sharedstrings"].iter().any(|word| text.contains(word)) {
        return Err(malformed("the workbook is not where workbooks are"));
    }
    Ok(text.len() as u64)
}

/// The library makes room for as many texts as the table says it has.
fn check_shared_texts(text: &str) -> Result<u64> {
    for (place, word) in text.match_indices("uniqueCount") {
        let value = text[place + word.len()..].trim_start_matches(|letter: char| "= \t\r\n\"'".contains(letter));
        let digits = value.split(|letter: char| !letter.is_ascii_digit()).next().unwrap_or_default();
        if digits.parse::<usize>().is_ok_and(|count| count > text.len() / SHARED_TEXT_LEAST) {
            return Err(malformed("the table of shared texts is not as long as it says"));
        }
    }
    Ok(text.len() as u64)
}
