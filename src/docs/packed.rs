//! Texts that never change while the server runs, kept compressed, and as they are where somebody wanted that.

use std::{
    io::{Cursor, Read, Write},
    sync::OnceLock,
};

use bytes::Bytes;
use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use hyper::{
    StatusCode,
    header::{self, HeaderValue},
};
use zip::ZipArchive;

use crate::{
    error::{Error, Result},
    http::{
        Body, Representation, Request, Response,
        etag::{ContentId, content_id, etag},
        response::{self, cached},
    },
};

/// A text with its media type.
pub(crate) struct StaticAsset {
    content_type: &'static str,
    gzip: Bytes,
    /// Unpacked once, for the first who does not take gzip.
    text: OnceLock<Bytes>,
    id: ContentId,
}

/// Nothing from elsewhere, and no script in a page itself. (Swagger UI sets styles of elements.)
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

impl StaticAsset {
    /// Compresses a text.
    pub(crate) fn text(content_type: &'static str, text: &[u8]) -> Self {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        let written = encoder.write_all(text).and_then(|()| encoder.finish());
        let gzip = written.unwrap_or_else(|error| unreachable!("writing to memory failed: {error}"));
        Self::new(content_type, gzip)
    }

    /// A file out of a zip, as it is compressed there: only its frame is made anew (RFC 1952).
    pub(crate) fn of_zip(content_type: &'static str, zip: &[u8], suffix: &str) -> zip::result::ZipResult<Self> {
        let mut archive = ZipArchive::new(Cursor::new(zip))?;
        let names: Result<Vec<_>, _> =
            archive.file_names().map(|name| name.map(|name| name.ends_with(suffix))).collect();
        let index = names?.iter().position(|found| *found).ok_or(zip::result::ZipError::FileNotFound)?;
        let mut file = archive.by_index_raw(index)?;
        let (check, size) = (file.crc32(), file.size());
        let mut gzip = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
        file.read_to_end(&mut gzip)?;
        gzip.extend(check.to_le_bytes());
        gzip.extend(&size.to_le_bytes()[..4]);
        Ok(Self::new(content_type, gzip))
    }

    fn new(content_type: &'static str, gzip: Vec<u8>) -> Self {
        Self { content_type, id: content_id(&gzip), gzip: gzip.into(), text: OnceLock::new() }
    }

    fn unpacked(&self) -> Result<Bytes> {
        if let Some(text) = self.text.get() {
            return Ok(text.clone());
        }
        let mut text = Vec::new();
        GzDecoder::new(&*self.gzip).read_to_end(&mut text).map_err(Error::internal)?;
        Ok(self.text.get_or_init(|| text.into()).clone())
    }

    /// The text, as the client takes it.
    pub(crate) fn serve(&self, request: &Request) -> Result<Response> {
        let representation = if request.accepts_gzip() { Representation::Gzip } else { Representation::Identity };
        let body = match representation {
            Representation::Gzip => self.gzip.clone(),
            Representation::Identity => self.unpacked()?,
        };
        let mut reply =
            cached(request, etag(&self.id, representation), || response::new(StatusCode::OK, Body::Full(body)));
        let headers = reply.headers_mut();
        headers.insert(header::CONTENT_SECURITY_POLICY, const { HeaderValue::from_static(POLICY) });
        if reply.status() == StatusCode::OK {
            let headers = reply.headers_mut();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.content_type));
            if representation == Representation::Gzip {
                headers.insert(header::CONTENT_ENCODING, const { HeaderValue::from_static("gzip") });
            }
        }
        Ok(reply)
    }
}
