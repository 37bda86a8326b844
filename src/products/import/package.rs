//! The parts of a workbook (ECMA-376, part 2: a zip of XML) as events, within bounds: a few kilobytes of zip can hold
//! gigabytes of XML, and what a file says of itself need not be true.
//!
//! Reading stops for good when nobody waits for it any more.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom},
    os::unix::fs::FileExt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use quick_xml::{Reader, XmlVersion, events::Event};
use zip::{ZipArchive, read::ZipFile, result::ZipError};

use super::rows::malformed;
use crate::error::Result;

/// What a zip begins with.
const MAGIC: &[u8] = b"PK\x03\x04";
/// The list of a zip's parts.
const DIRECTORY_BYTES: u64 = 4 << 20;
/// One tag, or one text between two, unpacked. A cell holds 32,767 UTF-16 units, each of which takes at most 7 bytes.
const EVENT_BYTES: u64 = 1 << 20;

/// Tells a reader of files to stop.
#[derive(Clone, Default)]
pub(super) struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// From here on nobody waits.
    pub(super) fn now(&self) {
        self.0.store(true, Relaxed);
    }
}

/// A file, from its beginning.
pub(super) struct Source {
    file: Arc<File>,
    place: u64,
    cancel: Cancel,
}

impl Source {
    pub(super) fn new(file: &Arc<File>, cancel: &Cancel) -> Self {
        Self { file: Arc::clone(file), place: 0, cancel: cancel.clone() }
    }
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.cancel.0.load(Relaxed) {
            return Err(io::Error::other("nobody waits for it"));
        }
        let read = self.file.read_at(buffer, self.place)?;
        self.place += read as u64;
        Ok(read)
    }
}

impl Seek for Source {
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
pub(super) struct Allowed<R> {
    inner: R,
    /// Bytes.
    pub(super) left: u64,
}

impl<R> Allowed<R> {
    pub(super) fn new(inner: R, left: u64) -> Self {
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

impl<R: Read> Read for Allowed<R> {
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

impl<R: BufRead> BufRead for Allowed<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let most = self.most()?;
        self.inner.fill_buf().map(|bytes| &bytes[..bytes.len().min(most)])
    }

    fn consume(&mut self, bytes: usize) {
        self.left -= bytes as u64;
        self.inner.consume(bytes);
    }
}

impl Seek for Allowed<Source> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.inner.seek(to)
    }
}

/// A workbook's parts.
pub(super) struct Package {
    archive: ZipArchive<BufReader<Source>>,
}

impl Package {
    pub(super) fn open(file: &Arc<File>, cancel: &Cancel) -> Result<Self> {
        let mut magic = [0; MAGIC.len()];
        if file.read_exact_at(&mut magic, 0).is_err() || magic != MAGIC {
            return Err(malformed("not a workbook"));
        }
        // once within bounds, and then without them
        ZipArchive::new(Allowed::new(Source::new(file, cancel), DIRECTORY_BYTES)).map_err(malformed)?;
        let archive = ZipArchive::new(BufReader::new(Source::new(file, cancel))).map_err(malformed)?;
        Ok(Self { archive })
    }

    /// A part by its name, of at most so many bytes unpacked.
    pub(super) fn part(&mut self, name: &str, bytes: u64) -> Result<Option<Part<'_>>> {
        let file = match self.archive.by_name(name) {
            Ok(file) => file,
            Err(ZipError::FileNotFound) => return Ok(None),
            Err(error) => return Err(malformed(error)),
        };
        let part = BufReader::new(Allowed::new(file, bytes));
        let mut reader = Reader::from_reader(Allowed::new(part, EVENT_BYTES));
        reader.config_mut().expand_empty_elements = true;
        Ok(Some(Part { reader, buffer: Vec::new() }))
    }
}

/// A part as it is unpacked, up to its bound.
type Unpacked<'a> = BufReader<Allowed<ZipFile<'a, BufReader<Source>>>>;

/// One part, event by event.
pub(super) struct Part<'a> {
    reader: Reader<Allowed<Unpacked<'a>>>,
    buffer: Vec<u8>,
}

impl Part<'_> {
    /// The next event; elements without content come as a start and an end.
    pub(super) fn next(&mut self) -> Result<Event<'_>> {
        self.buffer.clear();
        self.reader.get_mut().left = EVENT_BYTES;
        self.reader.read_event_into(&mut self.buffer).map_err(malformed)
    }

    /// Bytes, unpacked, that may still be read.
    pub(super) fn left(&self) -> u64 {
        self.reader.get_ref().inner.get_ref().left
    }
}

/// The value of an attribute by its name without prefix.
pub(super) fn attribute(event: &quick_xml::events::BytesStart<'_>, name: &str) -> Result<Option<String>> {
    for attribute in event.attributes().with_checks(false) {
        let attribute = attribute.map_err(malformed)?;
        if attribute.key.local_name().as_ref() == name {
            return Ok(Some(attribute.normalized_value(XmlVersion::Implicit1_0).map_err(malformed)?.into_owned()));
        }
    }
    Ok(None)
}
