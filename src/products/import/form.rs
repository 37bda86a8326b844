//! Finds the file in an uploaded form (RFC 7578).
//!
//! The form is on disk already, as any upload is. The file in it is not copied: it is a range of the form. So the size
//! of a form takes no memory; libraries for forms keep in memory what they have not split.

use httparse::{EMPTY_HEADER, Status, parse_headers};
use memchr::memmem;

use super::{
    content::Content,
    file_range::{BLOCK_BYTES, FileRange},
    upload_type::{declared_charset, form_error, parameter},
};
use crate::error::{Error, Result};

/// Bytes of the headers of a part.
const MAX_HEAD_BYTES: usize = 16 * 1024;
const MAX_HEADERS: usize = 16;
/// Parts of a form: all but one are errors.
const MAX_PARTS: usize = 32;
const MAX_NAME_CHARACTERS: usize = 100;
/// Blanks after a delimiter, and the two bytes that follow them.
const MAX_PADDING_BYTES: usize = 64;

/// Returns the table in the only file of a form. Fails for a form with other fields, because they would be ignored.
pub(crate) fn find_file(form: &FileRange, boundary: &str) -> Result<Content> {
    let parts = split(form, boundary)?;
    let mut files = Vec::new();
    let is_only_part = parts.len() == 1;
    for part in parts {
        if part.has_file_name || is_only_part {
            files.push(part);
        } else {
            let message = "Unknown field. The form may hold only a file; options belong in the query string.";
            return Err(Error::field(&part.name, message));
        }
    }
    match <[Part; 1]>::try_from(files) {
        Ok([file]) => Content::detect(file.range, declared_charset(&file.content_type)?),
        Err(files) if files.is_empty() => Err(Error::field("file", "No file was submitted.")),
        Err(_) => Err(Error::field("file", "The form may hold only one file.")),
    }
}

/// A field of a form.
struct Part {
    name: String,
    has_file_name: bool,
    /// The `Content-Type` of the part, or an empty text.
    content_type: String,
    range: FileRange,
}

/// Splits a form into its parts.
fn split(form: &FileRange, boundary: &str) -> Result<Vec<Part>> {
    let delimiter = format!("\r\n--{boundary}").into_bytes();
    let mut parts = Vec::new();
    // the first delimiter may be at the beginning of the form, without a line break before it
    let start = form.bytes_at(0, delimiter.len() + MAX_PADDING_BYTES).map_err(Error::unavailable)?;
    let first = start.strip_prefix(&delimiter[2..]);
    let mut next = match first.and_then(|following| after_delimiter(following, (start.len() - following.len()) as u64))
    {
        Some(next) => Some(next),
        None => find_delimiter(form, &delimiter, 0)?.map(|(_, next)| next),
    };
    while let Some(Next::Part(start)) = next {
        if parts.len() == MAX_PARTS {
            return Err(form_error("Too many parts"));
        }
        let (mut part, content_start) = read_head(form, start)?;
        // the line break before the delimiter may be that after the head
        let found = find_delimiter(form, &delimiter, content_start.saturating_sub(2))?;
        let (end, after) = found.ok_or_else(incomplete)?;
        part.range.start = form.start + content_start;
        part.range.length = end.saturating_sub(content_start);
        parts.push(part);
        next = Some(after);
    }
    match next {
        Some(_) => Ok(parts),
        None => Err(incomplete()),
    }
}

/// What follows a delimiter.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// A part, whose head starts at this offset.
    Part(u64),
    End,
}

/// Returns the offset of the next delimiter and what follows it.
fn find_delimiter(form: &FileRange, delimiter: &[u8], offset: u64) -> Result<Option<(u64, Next)>> {
    let finder = memmem::Finder::new(delimiter);
    for block in form.blocks(offset, delimiter.len() + MAX_PADDING_BYTES) {
        let (offset, block) = block.map_err(Error::unavailable)?;
        for found in finder.find_iter(&block).filter(|found| *found < BLOCK_BYTES) {
            let end = found + delimiter.len();
            if let Some(next) = after_delimiter(&block[end..], offset + end as u64) {
                return Ok(Some((offset + found as u64, next)));
            }
        }
    }
    Ok(None)
}

/// Returns what follows a delimiter that ends at `offset`, or `None` if it is only the beginning of a longer text.
/// `following` begins with the bytes at `offset`.
fn after_delimiter(following: &[u8], offset: u64) -> Option<Next> {
    if following.starts_with(b"--") {
        return Some(Next::End);
    }
    let is_padding = |byte: &&u8| matches!(byte, b' ' | b'\t');
    let padding = following.iter().take(MAX_PADDING_BYTES - 2).take_while(is_padding).count();
    following[padding..].starts_with(b"\r\n").then_some(Next::Part(offset + padding as u64 + 2))
}

/// Reads the headers of a part that starts at `offset`. Returns the part, without its range, and the offset of its content.
fn read_head(form: &FileRange, offset: u64) -> Result<(Part, u64)> {
    let bytes = form.bytes_at(offset, MAX_HEAD_BYTES).map_err(Error::unavailable)?;
    let mut headers = [EMPTY_HEADER; MAX_HEADERS];
    let (length, headers) = match parse_headers(&bytes, &mut headers) {
        Ok(Status::Complete(parsed)) => parsed,
        Ok(Status::Partial) if bytes.len() < MAX_HEAD_BYTES => return Err(incomplete()),
        Ok(Status::Partial) | Err(_) => return Err(form_error("Invalid headers of a part")),
    };
    let value = |name: &str| {
        let header = headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        header.map_or_else(String::new, |header| String::from_utf8_lossy(header.value).into_owned())
    };
    let encoding = value("Content-Transfer-Encoding");
    if !matches!(encoding.trim().to_ascii_lowercase().as_str(), "" | "binary" | "8bit" | "7bit") {
        return Err(form_error("A part has a Content-Transfer-Encoding, which is not decoded"));
    }
    let disposition = value("Content-Disposition");
    let has_file_name = ["filename", "filename*"].iter().any(|name| parameter(&disposition, name).is_some());
    let name = parameter(&disposition, "name").unwrap_or_default().chars().take(MAX_NAME_CHARACTERS).collect();
    let part = Part { name, has_file_name, content_type: value("Content-Type"), range: form.clone() };
    Ok((part, offset + length as u64))
}

fn incomplete() -> Error {
    form_error("The form is incomplete")
}

#[cfg(test)]
mod tests {
    use std::{io::Write, sync::Arc};

    use super::*;

    /// Returns the parts of a form with the boundary `b`: their names, whether they are files, and their contents.
    fn parts(form: &[u8]) -> Result<Vec<(String, bool, Vec<u8>)>> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(form).unwrap();
        let parts = split(&FileRange::whole(&Arc::new(file)).unwrap(), "b")?;
        let content = |range: &FileRange| range.bytes_at(0, usize::try_from(range.length).unwrap()).unwrap();
        Ok(parts.into_iter().map(|part| (part.name, part.has_file_name, content(&part.range))).collect())
    }

    #[test]
    fn parts_are_ranges_between_delimiters() {
        let file = b"--b\r\nContent-Disposition: form-data; name=\"f\"; filename=\"x\"\r\n\r\nA,\"--b\r\n--bc\"\r\n\r\n--b--\r\n";
        assert_eq!(parts(file).unwrap(), [("f".to_owned(), true, b"A,\"--b\r\n--bc\"\r\n".to_vec())]);
        let two = b"preamble\r\n--b \t\r\ncontent-disposition: form-data; name=a\r\n\r\n\r\n--b\r\n\r\n--b--";
        let expected = [("a".to_owned(), false, Vec::new()), (String::new(), false, Vec::new())];
        assert_eq!(parts(two).unwrap(), expected);
        assert_eq!(parts(b"--b--").unwrap(), []);
    }

    #[test]
    fn delimiter_is_found_across_searched_blocks() {
        for length in BLOCK_BYTES - 80..BLOCK_BYTES + 10 {
            let mut form = b"--b\r\n\r\n".to_vec();
            form.resize(form.len() + length, b'x');
            form.extend_from_slice(b"\r\n--b--");
            assert_eq!(parts(&form).unwrap()[0].2.len(), length);
        }
    }

    #[test]
    fn damaged_forms_are_rejected() {
        let long_head = format!("--b\r\nx: {}\r\n\r\na\r\n--b--", "x".repeat(MAX_HEAD_BYTES));
        let many_parts = "--b\r\n\r\na\r\n".repeat(MAX_PARTS + 1) + "--b--";
        let encoded = "--b\r\nContent-Transfer-Encoding: base64\r\n\r\na\r\n--b--";
        for form in ["", "--c\r\n", "--b\r\n", "--b\r\n\r\na", "--b\r\n\r\na\r\n--b", &long_head, &many_parts, encoded]
        {
            assert!(parts(form.as_bytes()).is_err(), "{form:.80}");
        }
    }
}
