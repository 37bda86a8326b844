//! One list in one representation: immutable, labelled with the version it shows.

use std::{io::Write, sync::Arc};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use hyper::header::{HeaderName, HeaderValue};
use ring::digest;

use super::freshness::Version;

/// How the bytes are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Representation {
    /// As they are.
    Identity,
    /// `Content-Encoding: gzip`.
    Gzip,
}

/// The bytes that identify a content: the first half of its SHA-256.
pub type ContentId = [u8; 16];

/// One list in one representation.
#[derive(Debug)]
pub struct Entry {
    /// The version of the catalogue that the bytes show.
    pub version: Version,
    /// How they are encoded.
    pub representation: Representation,
    /// Of the identity representation, whatever this one is.
    pub content: ContentId,
    /// Strong, and different for different representations.
    pub etag: HeaderValue,
    /// The body.
    pub bytes: Bytes,
    /// What else the answer says in its head.
    pub headers: Headers,
}

/// Headers that belong to an answer as its body does.
pub type Headers = Arc<[(HeaderName, HeaderValue)]>;

/// Made once a version, but in the time of somebody's request.
const LEVEL: Compression = Compression::new(4);

impl Entry {
    /// An entry around bytes that were just made.
    pub fn identity(version: Version, bytes: Bytes, headers: Headers) -> Self {
        let content = content_id(&bytes);
        Self::new(version, Representation::Identity, content, bytes, headers)
    }

    pub(super) fn new(
        version: Version,
        representation: Representation,
        content: ContentId,
        bytes: Bytes,
        headers: Headers,
    ) -> Self {
        Self { version, representation, content, etag: etag(&content, representation), bytes, headers }
    }

    /// The same content compressed.
    pub fn gzip(&self) -> Self {
        let mut encoder = GzEncoder::new(Vec::with_capacity(self.bytes.len() / 4), LEVEL);
        let written = encoder.write_all(&self.bytes).and_then(|()| encoder.finish());
        let bytes = written.unwrap_or_else(|error| unreachable!("writing to memory failed: {error}"));
        Self::new(self.version, Representation::Gzip, self.content, bytes.into(), Arc::clone(&self.headers))
    }
}

/// What identifies these bytes.
pub fn content_id(bytes: &[u8]) -> ContentId {
    let digest = digest::digest(&digest::SHA256, bytes);
    let mut id = [0; 16];
    id.copy_from_slice(&digest.as_ref()[..16]);
    id
}

/// The entity tag of a content in a representation.
pub fn etag(content: &ContentId, representation: Representation) -> HeaderValue {
    let mut tag = String::with_capacity(40);
    tag.push('"');
    for byte in content {
        tag.push(char::from(b"0123456789abcdef"[usize::from(byte >> 4)]));
        tag.push(char::from(b"0123456789abcdef"[usize::from(byte & 15)]));
    }
    tag.push_str(if representation == Representation::Gzip { "-gzip\"" } else { "\"" });
    HeaderValue::from_str(&tag).unwrap_or_else(|error| unreachable!("hexadecimal digits fit a header: {error}"))
}
