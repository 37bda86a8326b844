//! Reads the XML parts of a workbook's zip package (ECMA-376, part 2) as events.
//!
//! All reads are limited while unpacking: a few kilobytes of zip can expand to gigabytes of XML, and the sizes that a
//! file declares need not be true.

use std::{fs::File, io::BufReader, os::unix::fs::FileExt, sync::Arc};

use quick_xml::{
    Reader, XmlVersion,
    events::{BytesStart, Event},
};
use zip::{ZipArchive, read::ZipFile, result::ZipError};

use crate::{
    error::{Error, Result},
    products::import::{
        cancel::{CancellableFile, CancellationToken, Limit, Limited},
        error::{import_error, read_error},
    },
};

/// The first bytes of a zip file.
const MAGIC: &[u8] = b"PK\x03\x04";
/// The archive takes about ten times as much memory for it.
const DIRECTORY_LIMIT: Limit = Limit { bytes: 1 << 20, exceeded: "The zip directory of the file is larger than 1 MiB" };
const MAX_PARTS: usize = 4096;
/// Nested elements of a part. A sheet of an export has seven levels.
const MAX_DEPTH: usize = 64;
/// Bytes of an element's name. The reader keeps the names of all open elements.
const MAX_ELEMENT_NAME_BYTES: usize = 256;
/// One tag, or the text between two tags, unpacked. A cell has at most 32,767 UTF-16 units of at most 7 bytes each.
const EVENT_LIMIT: Limit = Limit { bytes: 1 << 20, exceeded: "The file contains an XML tag or text larger than 1 MiB" };

/// The package of a workbook.
pub(crate) struct Package {
    archive: ZipArchive<BufReader<CancellableFile>>,
}

impl Package {
    pub(crate) fn open(file: &Arc<File>, token: &CancellationToken) -> Result<Self> {
        let mut magic = [0; MAGIC.len()];
        if file.read_exact_at(&mut magic, 0).is_err() || magic != MAGIC {
            return Err(not_a_workbook());
        }
        // checks the size of the directory; the archive itself is read without this limit
        ZipArchive::new(Limited::new(CancellableFile::new(file, token), DIRECTORY_LIMIT)).map_err(zip_error)?;
        let archive = ZipArchive::new(BufReader::new(CancellableFile::new(file, token))).map_err(zip_error)?;
        if archive.len() > MAX_PARTS {
            return Err(import_error(format!("The file has more than {MAX_PARTS} parts")));
        }
        Ok(Self { archive })
    }

    /// Opens a part by its name, if the package has it. `limit` applies to its unpacked bytes.
    pub(crate) fn part(&mut self, name: &str, limit: Limit) -> Result<Option<XmlPart<'_>>> {
        let file = match self.archive.by_name(name) {
            Ok(file) => file,
            Err(ZipError::FileNotFound) => return Ok(None),
            Err(error) => return Err(zip_error(error)),
        };
        let unpacked = BufReader::new(Limited::new(file, limit));
        let mut reader = Reader::from_reader(Limited::new(unpacked, EVENT_LIMIT));
        reader.config_mut().expand_empty_elements = true;
        Ok(Some(XmlPart { reader, buffer: Vec::new(), depth: 0 }))
    }
}

/// The unpacked bytes of a part.
type Unpacked<'a> = BufReader<Limited<ZipFile<'a, BufReader<CancellableFile>>>>;

/// Reads a part event by event.
pub(crate) struct XmlPart<'a> {
    reader: Reader<Limited<Unpacked<'a>>>,
    buffer: Vec<u8>,
    /// The number of open elements.
    depth: usize,
}

impl XmlPart<'_> {
    /// Returns the next event. An empty element is returned as a start and an end.
    pub(crate) fn next(&mut self) -> Result<Event<'_>> {
        self.buffer.clear();
        self.reader.get_mut().reset();
        let event = self.reader.read_event_into(&mut self.buffer).map_err(xml_error)?;
        match &event {
            Event::Start(start) => {
                self.depth += 1;
                if self.depth > MAX_DEPTH || start.name().as_ref().len() > MAX_ELEMENT_NAME_BYTES {
                    return Err(import_error("The file contains XML that is nested too deeply or has too long names"));
                }
            }
            Event::End(_) => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        Ok(event)
    }

    /// Returns the unpacked bytes that remain of the part's limit.
    pub(crate) fn remaining(&self) -> u64 {
        self.reader.get_ref().inner().get_ref().remaining()
    }
}

/// Returns the value of an attribute by its name without namespace prefix.
pub(crate) fn attribute(element: &BytesStart<'_>, name: &str) -> Result<Option<String>> {
    for attribute in element.attributes().with_checks(false) {
        let attribute = attribute.map_err(|error| xml_error(error.into()))?;
        if attribute.key.local_name().as_ref() == name {
            let value = attribute.normalized_value(XmlVersion::Implicit1_0).map_err(xml_error)?;
            return Ok(Some(value.into_owned()));
        }
    }
    Ok(None)
}

pub(crate) fn not_a_workbook() -> Error {
    import_error("The file is not an XLSX workbook")
}

fn zip_error(error: ZipError) -> Error {
    match error {
        ZipError::Io(error) => read_error(&error),
        error => import_error(format!("The file cannot be unpacked: {error}")),
    }
}

fn xml_error(error: quick_xml::Error) -> Error {
    match error {
        quick_xml::Error::Io(error) => read_error(&error),
        error => import_error(format!("The file contains invalid XML: {error}")),
    }
}
