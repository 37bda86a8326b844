//! Files that do not change while the server runs. They are stored compressed, and decompressed for the first client
//! that does not accept gzip.

use std::{
    io::{Cursor, Read, Write},
    sync::{Arc, OnceLock, RwLock},
};

use bytes::Bytes;
use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use foldhash::HashMap;
use hyper::{
    StatusCode,
    header::{self, HeaderValue},
};
use zip::ZipArchive;

use super::{
    Body, Representation, Request, Response,
    etag::{ContentId, content_id, etag},
    response::{self, conditional},
};
use crate::{
    error::{Error, Result},
    sync,
};

pub(crate) const HTML: &str = "text/html; charset=utf-8";
pub(crate) const STYLE: &str = "text/css; charset=utf-8";
pub(crate) const SCRIPT: &str = "text/javascript; charset=utf-8";

pub(crate) struct StaticAsset {
    content_type: &'static str,
    content_security_policy: &'static str,
    gzip: Bytes,
    identity: OnceLock<Bytes>,
    id: ContentId,
}

/// Allows no other origin, no inline script or style, and no script that turns text into markup (Trusted Types).
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
                                       connect-src 'self'; base-uri 'none'; form-action 'none'; \
                                       frame-ancestors 'none'; require-trusted-types-for 'script'; \
                                       trusted-types 'none'";

impl StaticAsset {
    pub(crate) fn text(content_type: &'static str, text: &[u8]) -> Self {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        let written = encoder.write_all(text).and_then(|()| encoder.finish());
        let gzip = written.unwrap_or_else(|error| unreachable!("writing to memory failed: {error}"));
        Self::new(content_type, gzip)
    }

    /// Takes the file whose name ends with `suffix` from a zip archive. The compressed data is reused; only the gzip
    /// header and trailer (RFC 1952) are added.
    pub(crate) fn from_zip(content_type: &'static str, zip: &[u8], suffix: &str) -> zip::result::ZipResult<Self> {
        let mut archive = ZipArchive::new(Cursor::new(zip))?;
        let names: Result<Vec<_>, _> =
            archive.file_names().map(|name| name.map(|name| name.ends_with(suffix))).collect();
        let index = names?.iter().position(|found| *found).ok_or(zip::result::ZipError::FileNotFound)?;
        let mut file = archive.by_index_raw(index)?;
        let (crc32, size) = (file.crc32(), file.size());
        let mut gzip = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
        file.read_to_end(&mut gzip)?;
        gzip.extend(crc32.to_le_bytes());
        gzip.extend(&size.to_le_bytes()[..4]);
        Ok(Self::new(content_type, gzip))
    }

    fn new(content_type: &'static str, gzip: Vec<u8>) -> Self {
        let content_security_policy = CONTENT_SECURITY_POLICY;
        Self {
            content_type,
            content_security_policy,
            id: content_id(&gzip),
            gzip: gzip.into(),
            identity: OnceLock::new(),
        }
    }

    /// Replaces the `Content-Security-Policy`.
    pub(crate) fn with_content_security_policy(self, policy: &'static str) -> Self {
        Self { content_security_policy: policy, ..self }
    }

    fn decompressed(&self) -> Result<Bytes> {
        if let Some(bytes) = self.identity.get() {
            return Ok(bytes.clone());
        }
        let mut bytes = Vec::new();
        GzDecoder::new(&*self.gzip).read_to_end(&mut bytes).map_err(Error::internal)?;
        Ok(self.identity.get_or_init(|| bytes.into()).clone())
    }

    /// Returns the response in the representation that the client accepts.
    pub(crate) fn serve(&self, request: &Request) -> Result<Response> {
        let representation = if request.accepts_gzip() { Representation::Gzip } else { Representation::Identity };
        let body = match representation {
            Representation::Gzip => self.gzip.clone(),
            Representation::Identity => self.decompressed()?,
        };
        let full = || response::new(StatusCode::OK, Body::Full(body));
        let mut response = conditional(request, etag(&self.id, representation), full);
        let is_full = response.status() == StatusCode::OK;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(self.content_security_policy));
        if is_full {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.content_type));
            if representation == Representation::Gzip {
                headers.insert(header::CONTENT_ENCODING, const { HeaderValue::from_static("gzip") });
            }
        }
        Ok(response)
    }
}

/// The files of one server that contain its settings, by path. Each is built for the first client.
#[derive(Default)]
pub(crate) struct StaticAssets(RwLock<HashMap<&'static str, Arc<StaticAsset>>>);

impl StaticAssets {
    pub(crate) fn get_or_build(&self, path: &'static str, build: impl FnOnce() -> StaticAsset) -> Arc<StaticAsset> {
        if let Some(asset) = sync::read(&self.0).get(path) {
            return Arc::clone(asset);
        }
        Arc::clone(sync::write(&self.0).entry(path).or_insert_with(|| Arc::new(build())))
    }
}
