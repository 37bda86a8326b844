//! What an upload contains. Its bytes decide, not what the client calls them.

use std::io;

use encoding_rs::Encoding;
use memchr::memmem;

use super::{
    decode::charset_of_text,
    error::{import_error, read_error},
    file_range::FileRange,
};
use crate::{
    error::{Error, Result},
    products::files::format::FileFormat,
};

/// Bytes at the beginning of a file that decide its format.
const START_BYTES: usize = 512;
const ZIP: &[u8] = b"PK\x03\x04";
/// An OLE compound file: the formats of Office before 2007, and encrypted workbooks (MS-OFFCRYPTO).
const COMPOUND_FILE: &[u8] = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1";
/// The name of the stream that holds an encrypted workbook. Compound files have names in UTF-16LE.
const ENCRYPTED_PACKAGE: &str = "EncryptedPackage";
/// The first bytes of other formats, with their names.
const OTHER_FORMATS: [(&[u8], &str); 10] = [
    (b"%PDF-", "a PDF file"),
    (b"\x1f\x8b", "compressed with gzip"),
    (b"PK\x05\x06", "an empty zip archive"),
    (b"PK\x07\x08", "a part of a zip archive"),
    (b"\x89PNG", "an image"),
    (b"\xff\xd8\xff", "an image"),
    (b"GIF8", "an image"),
    (b"{", "JSON"),
    (b"[", "JSON"),
    (b"PAR1", "a Parquet file"),
];

/// The table that an upload contains.
#[derive(Clone)]
pub(crate) struct Content {
    pub(crate) range: FileRange,
    pub(crate) format: FileFormat,
    /// The charset of a CSV file without a byte order mark; `None` is UTF-8.
    pub(crate) charset: Option<&'static Encoding>,
}

impl Content {
    /// Recognizes the format of a file. Fails with a 400 for one that cannot be imported. `charset` is the declared one.
    pub(crate) fn detect(range: FileRange, charset: Option<&'static Encoding>) -> Result<Self> {
        let start = range.bytes_at(0, START_BYTES).map_err(Error::unavailable)?;
        if start.starts_with(ZIP) {
            return Ok(Self { range, format: FileFormat::Xlsx, charset: None });
        }
        if start.starts_with(COMPOUND_FILE) {
            return Err(compound_file_error(&range));
        }
        match other_format(&start, charset) {
            Some(found) => Err(import_error(format!("The file is {found}. Upload an XLSX workbook or CSV"))),
            None => Ok(Self { range, format: FileFormat::Csv, charset }),
        }
    }
}

/// Returns what a file is that cannot be imported, or `None` for a text.
fn other_format(start: &[u8], charset: Option<&'static Encoding>) -> Option<&'static str> {
    if start.is_empty() {
        return Some("empty");
    }
    if let Some((_, name)) = OTHER_FORMATS.iter().find(|(magic, _)| start.starts_with(magic)) {
        return Some(*name);
    }
    let is_multibyte = charset_of_text(start, charset).is_some();
    let mut first_line = start.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
    if !is_multibyte && first_line.contains(&0) {
        let is_utf16 = first_line.len() > 1 && memchr::memchr_iter(0, first_line).count() * 3 > first_line.len();
        return Some(if is_utf16 { "UTF-16 without a byte order mark" } else { "a binary file" });
    }
    first_line = first_line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(first_line).trim_ascii_start();
    match first_line {
        [b'<', b'?', ..] => Some("XML"),
        [b'<', ..] => Some("HTML or XML"),
        _ => None,
    }
}

/// Returns the error for a compound file.
fn compound_file_error(range: &FileRange) -> Error {
    let name: Vec<u8> = ENCRYPTED_PACKAGE.encode_utf16().flat_map(u16::to_le_bytes).collect();
    match contains(range, &name) {
        Ok(true) => import_error("The workbook is protected by a password. Save it without a password"),
        Ok(false) => {
            import_error("The file is a workbook of an old format (.xls). Save it as an XLSX workbook or as CSV")
        }
        Err(error) => read_error(&error),
    }
}

/// Returns whether a file contains these bytes.
fn contains(range: &FileRange, needle: &[u8]) -> io::Result<bool> {
    let finder = memmem::Finder::new(needle);
    for block in range.blocks(0, needle.len()) {
        if finder.find(&block?.1).is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}
