//! Reads an XML part as events.

use std::{
    fmt::{self, Display, Formatter},
    io::{BufRead, BufReader, ErrorKind},
};

use quick_xml::{
    Reader, XmlVersion,
    events::{BytesStart, Event},
    name::QName,
};
use zip::read::ZipFile;

use crate::{
    error::{Error, Result},
    products::import::{
        cancel::{CancellableFile, Limit, Limited},
        decode::{Utf8Reader, charset_of_xml},
        error::import_error,
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

/// What an error message names: a part, and the row that is read.
struct Place {
    part: String,
    /// 0 before the first row, and in parts without rows.
    row: u32,
}

impl Display for Place {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        match self.row {
            0 => formatter.write_str(&self.part),
            row => write!(formatter, "{}, row {row},", self.part),
        }
    }
}

/// Reads a part event by event.
pub(crate) struct XmlPart<'a> {
    reader: Reader<Limited<Utf8Reader<Unpacked<'a>>>>,
    buffer: Vec<u8>,
    place: Place,
    /// The number of open elements.
    depth: usize,
}

impl<'a> XmlPart<'a> {
    /// `limit` applies to the unpacked bytes of the part.
    pub(crate) fn new(file: ZipFile<'a, BufReader<CancellableFile>>, limit: Limit, place: String) -> Result<Self> {
        let place = Place { part: place, row: 0 };
        let mut unpacked = BufReader::new(Limited::new(file, limit));
        let charset = charset_of_xml(unpacked.fill_buf().map_err(|error| part_error(error.into(), &place))?);
        let mut reader = Reader::from_reader(Limited::new(Utf8Reader::new(unpacked, charset), EVENT_LIMIT));
        reader.config_mut().expand_empty_elements = true;
        Ok(Self { reader, buffer: Vec::new(), place, depth: 0 })
    }

    /// Sets the name of the part in messages.
    pub(crate) fn set_name(&mut self, name: String) {
        self.place.part = name;
    }

    /// Sets the row that is read, from 1, for messages.
    pub(crate) fn set_row(&mut self, row: u32) {
        self.place.row = row;
    }

    /// Returns the next event. An empty element is returned as a start and an end.
    pub(crate) fn next(&mut self) -> Result<Event<'_>> {
        self.buffer.clear();
        self.reader.get_mut().reset();
        let event = self.reader.read_event_into(&mut self.buffer).map_err(|error| part_error(error, &self.place))?;
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

/// Returns the value of an attribute without a namespace.
pub(crate) fn attribute(element: &BytesStart<'_>, name: &str) -> Result<Option<String>> {
    find_attribute(element, |key| key.as_ref() == name)
}

/// Returns the value of an attribute with any prefix or none: a file chooses the prefixes of its namespaces.
pub(crate) fn attribute_in_namespace(element: &BytesStart<'_>, name: &str) -> Result<Option<String>> {
    find_attribute(element, |key| key.local_name().as_ref() == name)
}

fn find_attribute(element: &BytesStart<'_>, is_wanted: impl Fn(QName<'_>) -> bool) -> Result<Option<String>> {
    for attribute in element.attributes().with_checks(false) {
        let attribute = attribute.map_err(|error| xml_error(error.into()))?;
        if is_wanted(attribute.key) {
            let value = attribute.normalized_value(XmlVersion::Implicit1_0).map_err(xml_error)?;
            return Ok(Some(value.into_owned()));
        }
    }
    Ok(None)
}

fn xml_error(error: quick_xml::Error) -> Error {
    part_error(error, &"The file")
}

/// Returns the error of a part that is damaged or exceeds a limit.
fn part_error(error: quick_xml::Error, place: &dyn Display) -> Error {
    match error {
        quick_xml::Error::Io(error) if error.kind() == ErrorKind::FileTooLarge => import_error(error),
        quick_xml::Error::Io(error) => import_error(format!("{place} cannot be read: {error}")),
        error => import_error(format!("{place} contains invalid XML: {error}")),
    }
}
