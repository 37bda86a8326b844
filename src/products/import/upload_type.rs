//! The `Content-Type` of an upload.

use encoding_rs::{Encoding, REPLACEMENT};
use hyper::header;

use crate::{
    error::{Error, Result},
    http::Request,
    products::files::format::{CSV_MEDIA_TYPE, OCTET_STREAM_MEDIA_TYPE, XLSX_MEDIA_TYPE},
};

/// The media types of a file. Browsers on Windows send CSV files as those of Excel.
const FILE_MEDIA_TYPES: [&str; 4] =
    [XLSX_MEDIA_TYPE, CSV_MEDIA_TYPE, "application/vnd.ms-excel", OCTET_STREAM_MEDIA_TYPE];
const FORM_MEDIA_TYPE: &str = "multipart/form-data";
/// RFC 2046, 5.1.1.
const MAX_BOUNDARY_BYTES: usize = 70;

/// What a body is, by its `Content-Type`.
pub(crate) enum UploadType {
    /// A file. A CSV file without a byte order mark has this charset; `None` is UTF-8.
    File { charset: Option<&'static Encoding> },
    /// A form with a file (RFC 7578).
    Form { boundary: String },
}

impl UploadType {
    /// Returns a 415 for other media types and unknown charsets, and a 400 for a form without a boundary.
    pub(crate) fn from_request(request: &Request) -> Result<Self> {
        let content_type = request.header(&header::CONTENT_TYPE).unwrap_or_default();
        let media_type = request.media_type();
        if media_type == FORM_MEDIA_TYPE {
            let boundary = parameter(content_type, "boundary").unwrap_or_default();
            if boundary.is_empty() || boundary.len() > MAX_BOUNDARY_BYTES {
                return Err(form_error("Invalid boundary in multipart"));
            }
            return Ok(Self::Form { boundary });
        }
        if !FILE_MEDIA_TYPES.contains(&media_type.as_str()) {
            return Err(request.unsupported_media_type());
        }
        Ok(Self::File { charset: declared_charset(content_type)? })
    }
}

/// Returns the charset that a `Content-Type` names, if it does. Fails with a 415 for an unknown one.
pub(crate) fn declared_charset(content_type: &str) -> Result<Option<&'static Encoding>> {
    let Some(label) = parameter(content_type, "charset") else { return Ok(None) };
    charset_of_label(&label).map(Some).ok_or_else(|| Error::UnsupportedMediaType(content_type.to_owned()))
}

/// Returns the charset with this WHATWG name, such as `windows-1251`.
pub(crate) fn charset_of_label(label: &str) -> Option<&'static Encoding> {
    Encoding::for_label(label.as_bytes()).filter(|charset| *charset != REPLACEMENT)
}

/// Returns a 400 for a form that cannot be read, with Django REST framework's wording.
pub(crate) fn form_error(cause: &str) -> Error {
    Error::Malformed(format!("Multipart form parse error - {cause}"))
}

/// Returns a parameter of a header such as `text/csv; charset="utf-8"`, without its quotes.
pub(crate) fn parameter(header: &str, name: &str) -> Option<String> {
    let mut rest = header.split_once(';')?.1;
    loop {
        let (key, after) = rest.split_once('=')?;
        // a parameter without a value may come before
        let key = key.rsplit(';').next().unwrap_or_default().trim();
        let (value, remaining) = parameter_value(after.trim_start());
        if key.eq_ignore_ascii_case(name) {
            return Some(value);
        }
        rest = remaining;
    }
}

/// Splits a value, quoted or not, from the parameters that follow it.
fn parameter_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let (value, rest) = text.split_once(';').unwrap_or((text, ""));
        return (value.trim().to_owned(), rest);
    };
    let (mut value, mut characters) = (String::new(), quoted.chars());
    while let Some(character) = characters.next() {
        match character {
            '"' => break,
            '\\' => value.extend(characters.next()),
            character => value.push(character),
        }
    }
    (value, characters.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_found_with_and_without_quotes() {
        for (header, name, value) in [
            ("text/csv; charset=utf-8", "charset", Some("utf-8")),
            ("text/csv;header=present; CHARSET = \"Windows-1251\" ;x=1", "charset", Some("Windows-1251")),
            ("form-data; name=\"a; filename=\\\"b\\\"\"", "filename", None),
            ("form-data; name=\"a\"; filename=\"b;c.csv\"", "filename", Some("b;c.csv")),
            ("form-data; flag; name=a", "name", Some("a")),
            ("form-data; name=\"open", "name", Some("open")),
            ("text/csv", "charset", None),
            ("text/csv;", "charset", None),
            ("charset=utf-8", "charset", None),
        ] {
            assert_eq!(parameter(header, name).as_deref(), value, "{header}");
        }
    }

    #[test]
    fn charsets_have_the_names_of_the_whatwg() {
        assert_eq!(declared_charset("text/csv").unwrap(), None);
        for (label, charset) in [("UTF-8", "UTF-8"), ("cp1251", "windows-1251"), ("latin1", "windows-1252")] {
            let declared = declared_charset(&format!("text/csv; charset={label}")).unwrap();
            assert_eq!(declared.map(Encoding::name), Some(charset));
        }
        for label in ["", "klingon", "utf-7", "hz-gb-2312"] {
            assert!(declared_charset(&format!("text/csv; charset={label}")).is_err(), "{label}");
        }
    }
}
