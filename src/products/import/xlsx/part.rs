//! Reads an XML part as events.

use std::io::{BufRead, BufReader};

use quick_xml::{
    Reader, XmlVersion,
    events::{BytesStart, Event},
};
use zip::read::ZipFile;

use crate::{
    error::{Error, Result},
    products::import::{
        cancel::{CancellableFile, Limit, Limited},
        decode::{Utf8Reader, charset_of_xml},
        error::{import_error, read_error},
    },
};

/// Nested elements of a part. A sheet of an export has seven levels.
const MAX_DEPTH: usize = 64;
/// Bytes of an element's name. The reader keeps the names of all open elements.
const MAX_ELEMENT_NAME_BYTES: usize = 256;
/// One tag, or the text between two tags, unpacked. A cell has at most 32,767 UTF-16 units of at most 7 bytes each.
const EVENT_LIMIT: Limit = Limit { bytes: 1 << 20, exceeded: "The file contains an XML tag or text larger than 1 MiB" };

/// The unpacked bytes of a part.
type Unpacked<'a> = BufReader<Limited<ZipFile<'a, BufReader<CancellableFile>>>>;

/// Reads a part event by event.
pub(crate) struct XmlPart<'a> {
    reader: Reader<Limited<Utf8Reader<Unpacked<'a>>>>,
    buffer: Vec<u8>,
    /// The number of open elements.
    depth: usize,
}

impl<'a> XmlPart<'a> {
    /// `limit` applies to the unpacked bytes of the part.
    pub(crate) fn new(file: ZipFile<'a, BufReader<CancellableFile>>, limit: Limit) -> Result<Self> {
        let mut unpacked = BufReader::new(Limited::new(file, limit));
        let charset = charset_of_xml(unpacked.fill_buf().map_err(|error| read_error(&error))?);
        let mut reader = Reader::from_reader(Limited::new(Utf8Reader::new(unpacked, charset), EVENT_LIMIT));
        reader.config_mut().expand_empty_elements = true;
        Ok(Self { reader, buffer: Vec::new(), depth: 0 })
    }

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
        self.reader.get_ref().inner().inner().get_ref().remaining()
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

fn xml_error(error: quick_xml::Error) -> Error {
    match error {
        quick_xml::Error::Io(error) => read_error(&error),
        error => import_error(format!("The file contains invalid XML: {error}")),
    }
}
