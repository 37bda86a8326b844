//! One list in one representation: immutable, labelled with the version it shows.

use std::{io::Write, sync::Arc};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use hyper::header::{HeaderName, HeaderValue};

use crate::{
    http::etag::{ContentId, Representation, content_id, etag},
    versions::Version,
};

/// One list in one representation.
#[derive(Debug)]
pub struct Entry {
    /// The version of the catalogue that the bytes show.
    pub(crate) version: Version,
    /// How they are encoded.
    pub(crate) representation: Representation,
    /// Of the identity representation, whatever this one is.
    pub(crate) content: ContentId,
    /// Strong, and different for different representations.
    pub(crate) etag: HeaderValue,
    /// The body.
    pub(crate) bytes: Bytes,
    /// What else the answer says in its head.
    pub(crate) headers: Headers,
}

/// Headers that belong to an answer as its body does.
pub(crate) type Headers = Arc<[(HeaderName, HeaderValue)]>;

/// Made once a version, but in the time of somebody's request.
const LEVEL: Compression = Compression::new(4);

impl Entry {
    /// An entry around bytes that were just made.
    pub fn identity(version: Version, bytes: Bytes, headers: Headers) -> Self {
        let content = content_id(&bytes);
        Self::new(version, Representation::Identity, content, bytes, headers)
    }

    pub(crate) fn new(
        version: Version,
        representation: Representation,
        content: ContentId,
        bytes: Bytes,
        headers: Headers,
    ) -> Self {
        Self { version, representation, content, etag: etag(&content, representation), bytes, headers }
    }

    /// The same content compressed.
    pub(crate) fn gzip(&self) -> Self {
        let mut encoder = GzEncoder::new(Vec::with_capacity(self.bytes.len() / 4), LEVEL);
        let written = encoder.write_all(&self.bytes).and_then(|()| encoder.finish());
        let bytes = written.unwrap_or_else(|error| unreachable!("writing to memory failed: {error}"));
        Self::new(self.version, Representation::Gzip, self.content, bytes.into(), Arc::clone(&self.headers))
    }
}

/// What an entry is found under, in each layer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    /// The version that the database gave to this request.
    pub(crate) version: Version,
    /// The normalised query.
    pub(crate) query: Arc<str>,
    /// Identity or gzip.
    pub(crate) representation: Representation,
}

/// Where an answer came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Layer {
    /// The process's own memory.
    Memory,
    /// Redis.
    Redis,
    /// Made for this request, or for one that asked a moment before.
    Database,
    /// Made for this request alone; the cache is off.
    Bypass,
}
