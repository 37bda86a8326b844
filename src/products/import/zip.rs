//! The parts of a workbook (ECMA-376, part 2: a zip of XML) as events, within bounds: a few kilobytes of zip can hold
//! gigabytes of XML, and what a file says of itself need not be true.
//!
//! Reading stops for good when nobody waits for it any more.

use std::{fs::File, io::BufReader, os::unix::fs::FileExt, sync::Arc};

use quick_xml::{Reader, XmlVersion, events::Event};
use zip::{ZipArchive, read::ZipFile, result::ZipError};

use super::{
    cancel::{Cancel, CancellableFile, Limited},
    error::malformed,
};
use crate::error::Result;

/// What a zip begins with.
const MAGIC: &[u8] = b"PK\x03\x04";
/// The list of a zip's parts.
const DIRECTORY_BYTES: u64 = 4 << 20;
/// One tag, or one text between two, unpacked. A cell holds 32,767 UTF-16 units, each of which takes at most 7 bytes.
const EVENT_BYTES: u64 = 1 << 20;

/// A workbook's parts.
pub(crate) struct Package {
    archive: ZipArchive<BufReader<CancellableFile>>,
}

impl Package {
    pub(crate) fn open(file: &Arc<File>, cancel: &Cancel) -> Result<Self> {
        let mut magic = [0; MAGIC.len()];
        if file.read_exact_at(&mut magic, 0).is_err() || magic != MAGIC {
            return Err(malformed("not a workbook"));
        }
        // once within bounds, and then without them
        ZipArchive::new(Limited::new(CancellableFile::new(file, cancel), DIRECTORY_BYTES)).map_err(malformed)?;
        let archive = ZipArchive::new(BufReader::new(CancellableFile::new(file, cancel))).map_err(malformed)?;
        Ok(Self { archive })
    }

    /// A part by its name, of at most so many bytes unpacked.
    pub(crate) fn part(&mut self, name: &str, bytes: u64) -> Result<Option<XmlPart<'_>>> {
        let file = match self.archive.by_name(name) {
            Ok(file) => file,
            Err(ZipError::FileNotFound) => return Ok(None),
            Err(error) => return Err(malformed(error)),
        };
        let part = BufReader::new(Limited::new(file, bytes));
        let mut reader = Reader::from_reader(Limited::new(part, EVENT_BYTES));
        reader.config_mut().expand_empty_elements = true;
        Ok(Some(XmlPart { reader, buffer: Vec::new() }))
    }
}

/// A part as it is unpacked, up to its bound.
type Unpacked<'a> = BufReader<Limited<ZipFile<'a, BufReader<CancellableFile>>>>;

/// One part, event by event.
pub(crate) struct XmlPart<'a> {
    reader: Reader<Limited<Unpacked<'a>>>,
    buffer: Vec<u8>,
}

impl XmlPart<'_> {
    /// The next event; elements without content come as a start and an end.
    pub(crate) fn next(&mut self) -> Result<Event<'_>> {
        self.buffer.clear();
        self.reader.get_mut().left = EVENT_BYTES;
        self.reader.read_event_into(&mut self.buffer).map_err(malformed)
    }

    /// Bytes, unpacked, that may still be read.
    pub(crate) fn left(&self) -> u64 {
        self.reader.get_ref().inner.get_ref().left
    }
}

/// The value of an attribute by its name without prefix.
pub(crate) fn attribute(event: &quick_xml::events::BytesStart<'_>, name: &str) -> Result<Option<String>> {
    for attribute in event.attributes().with_checks(false) {
        let attribute = attribute.map_err(malformed)?;
        if attribute.key.local_name().as_ref() == name {
            return Ok(Some(attribute.normalized_value(XmlVersion::Implicit1_0).map_err(malformed)?.into_owned()));
        }
    }
    Ok(None)
}
