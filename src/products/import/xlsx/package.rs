//! The zip package of a workbook (ECMA-376, part 2).
//!
//! All reads are limited while unpacking: a few kilobytes of zip can expand to gigabytes of XML, and the sizes that a
//! file declares need not be true.

use std::{
    collections::HashMap,
    io::{BufReader, Read},
};

use zip::{ZipArchive, result::ZipError};

use super::part::XmlPart;
use crate::{
    error::{Error, Result},
    products::import::{
        cancel::{CancellableFile, CancellationToken, Limit, Limited},
        error::{import_error, read_error},
        file_range::FileRange,
    },
};

/// The archive takes about ten times as much memory for it.
const DIRECTORY_LIMIT: Limit = Limit { bytes: 1 << 20, exceeded: "The zip directory of the file is larger than 1 MiB" };
const MAX_PARTS: usize = 4096;
/// The part that names the media type of an OpenDocument file.
const MEDIA_TYPE_PART: &str = "mimetype";
const OPEN_DOCUMENT: &[u8] = b"application/vnd.oasis.opendocument.";

/// The package of a workbook.
pub(crate) struct Package {
    archive: ZipArchive<BufReader<CancellableFile>>,
    /// The indexes of the parts in the archive, by their normalized names.
    parts: HashMap<String, usize>,
}

impl Package {
    /// Opens a file that begins like a zip archive.
    pub(crate) fn open(file: &FileRange, token: &CancellationToken) -> Result<Self> {
        // checks the size of the directory; the archive itself is read without this limit
        ZipArchive::new(Limited::new(CancellableFile::new(file, token), DIRECTORY_LIMIT)).map_err(zip_error)?;
        let archive = ZipArchive::new(BufReader::new(CancellableFile::new(file, token))).map_err(zip_error)?;
        if archive.len() > MAX_PARTS {
            return Err(import_error(format!("The file has more than {MAX_PARTS} parts")));
        }
        let mut parts = HashMap::new();
        for (index, name) in archive.file_names().enumerate() {
            // of several parts with one name, the first
            parts.entry(normalize_part_name("", &name.map_err(zip_error)?)).or_insert(index);
        }
        let mut this = Self { archive, parts };
        this.reject_open_document()?;
        Ok(this)
    }

    /// Returns whether the package has a part.
    pub(crate) fn has_part(&self, name: &str) -> bool {
        self.parts.contains_key(name)
    }

    /// Opens a part by its normalized name, if the package has it. `limit` applies to its unpacked bytes.
    pub(crate) fn part(&mut self, name: &str, limit: Limit) -> Result<Option<XmlPart<'_>>> {
        let Some(index) = self.parts.get(name) else { return Ok(None) };
        let file = self.archive.by_index(*index).map_err(zip_error)?;
        XmlPart::new(file, limit, format!("The part {name}")).map(Some)
    }

    fn reject_open_document(&mut self) -> Result<()> {
        let Some(index) = self.parts.get(MEDIA_TYPE_PART) else { return Ok(()) };
        let mut start = Vec::new();
        let part = self.archive.by_index(*index).map_err(zip_error)?;
        part.take(OPEN_DOCUMENT.len() as u64).read_to_end(&mut start).map_err(|error| read_error(&error))?;
        if start == OPEN_DOCUMENT {
            return Err(import_error("The file is an OpenDocument file (.ods). Save it as an XLSX workbook or as CSV"));
        }
        Ok(())
    }
}

/// Returns the name of the part that `target` means in a part of `folder`, with `/` between its segments and in lower case:
/// names are compared without regard to case (ECMA-376, part 2, 6.2.2.3). Backslashes are separators, too, because some
/// programs write them.
pub(crate) fn normalize_part_name(folder: &str, target: &str) -> String {
    let is_absolute = target.starts_with(['/', '\\']);
    let base = if is_absolute { "" } else { folder };
    let mut segments: Vec<&str> = Vec::new();
    for segment in base.split(['/', '\\']).chain(target.split(['/', '\\'])) {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            segment => segments.push(segment),
        }
    }
    segments.join("/").to_lowercase()
}

pub(crate) fn not_a_workbook() -> Error {
    import_error("The file is a zip archive, but not an XLSX workbook")
}

fn zip_error(error: ZipError) -> Error {
    match error {
        ZipError::Io(error) => read_error(&error),
        error => import_error(format!("The file cannot be unpacked: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn part_names_are_resolved_and_compared_without_case() {
        for (folder, target) in [
            ("xl", "worksheets/sheet1.xml"),
            ("xl", "./worksheets/sheet1.xml"),
            ("xl", "../xl/Worksheets/SHEET1.XML"),
            ("xl/", "/xl/worksheets/sheet1.xml"),
            ("xl", "worksheets\\sheet1.xml"),
            ("xl", "\\xl\\worksheets\\sheet1.xml"),
            ("", "xl//worksheets/./sheet1.xml"),
            ("", "../../xl/worksheets/sheet1.xml"),
        ] {
            assert_eq!(normalize_part_name(folder, target), "xl/worksheets/sheet1.xml", "{folder} {target}");
        }
    }
}
