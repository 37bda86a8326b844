//! Cache entries, their keys, and the layers that serve them.

use std::{
    io::Write,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use flate2::write::GzEncoder;
use hyper::{
    HeaderMap,
    header::{self, HeaderName, HeaderValue},
};

use super::chunks::{GZIP_LEVEL, compress_array};
use crate::{
    http::etag::{self, ContentId, Representation},
    versions::{SyncToken, Version},
};

/// A response in one representation: immutable, labelled with the version that it shows.
#[derive(Debug)]
pub struct Entry {
    pub(crate) version: Version,
    pub(crate) representation: Representation,
    /// The id of the identity representation's content, in every representation.
    pub(crate) content_id: ContentId,
    pub(crate) etag: HeaderValue,
    /// The body.
    pub(crate) bytes: Bytes,
    pub(crate) headers: Headers,
    sync_token: OnceLock<HeaderValue>,
}

const TOTAL_COUNT: HeaderName = HeaderName::from_static("x-total-count");

/// Response headers that depend on the content as the body does.
///
/// Fields instead of a list of headers: a value in Redis cannot contain any other header.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct PageHeaders {
    pub(crate) link: Option<HeaderValue>,
    /// The value of `X-Total-Count`.
    pub(crate) total_count: Option<u64>,
}

pub(crate) type Headers = Arc<PageHeaders>;

impl PageHeaders {
    /// Inserts the headers into those of a response.
    pub(crate) fn insert_into(&self, headers: &mut HeaderMap) {
        if let Some(link) = &self.link {
            headers.insert(header::LINK, link.clone());
        }
        if let Some(count) = self.total_count {
            headers.insert(TOTAL_COUNT, count.into());
        }
    }
}

impl Entry {
    /// Creates an entry in the identity representation.
    pub fn identity(version: Version, bytes: Bytes, headers: Headers) -> Self {
        let content_id = etag::content_id(&bytes);
        Self::new(version, Representation::Identity, content_id, bytes, headers)
    }

    pub(crate) fn new(
        version: Version,
        representation: Representation,
        content_id: ContentId,
        bytes: Bytes,
        headers: Headers,
    ) -> Self {
        let etag = etag::etag(&content_id, representation);
        Self { version, representation, content_id, etag, bytes, headers, sync_token: OnceLock::new() }
    }

    /// Returns the value of `X-Sync-Token` for a list of all products.
    pub(crate) fn sync_token(&self) -> &HeaderValue {
        self.sync_token.get_or_init(|| SyncToken::of(self.version).header_value())
    }

    /// Returns the same content, compressed.
    pub(crate) fn gzip(&self) -> Self {
        let mut encoder = GzEncoder::new(Vec::with_capacity(self.bytes.len() / 4), GZIP_LEVEL);
        let written = encoder.write_all(&self.bytes).and_then(|()| encoder.finish());
        self.compressed(written.unwrap_or_else(|error| unreachable!("writing to memory failed: {error}")))
    }

    /// Returns the same content, a JSON array, compressed to the bytes that a chunked list of one chunk has.
    pub(super) fn gzip_as_chunk(&self) -> Self {
        self.compressed(compress_array(&self.bytes))
    }

    fn compressed(&self, bytes: Vec<u8>) -> Self {
        Self::new(self.version, Representation::Gzip, self.content_id, bytes.into(), Arc::clone(&self.headers))
    }
}

/// The rows that a list shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Collection {
    Products,
    Categories,
    Tags,
}

impl Collection {
    /// Returns the name in keys and entity tags.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Products => "products",
            Self::Categories => "categories",
            Self::Tags => "tags",
        }
    }
}

/// A list, whatever version of the catalogue it shows.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct List {
    pub(crate) collection: Collection,
    /// The normalized query; empty for the complete collection.
    pub(crate) query: Arc<str>,
}

impl List {
    /// Returns the list of all rows of a collection.
    pub(crate) fn complete(collection: Collection) -> Self {
        Self { collection, query: Arc::default() }
    }

    /// Whether the list contains all rows of its collection. All users share such a list.
    pub(crate) fn is_complete(&self) -> bool {
        self.query.is_empty()
    }

    /// Whether the list is kept in chunks, and the next version is built from this one: the list of all products.
    pub(crate) fn is_chunked(&self) -> bool {
        self.is_complete() && self.collection == Collection::Products
    }
}

/// The key of an entry in every layer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    /// The version that was read after the request had arrived.
    pub(crate) version: Version,
    pub(crate) list: List,
    pub(crate) representation: Representation,
}

/// The source of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Layer {
    /// The memory of this process.
    Memory,
    /// Redis.
    Redis,
    /// A fill from the database, possibly shared with other requests.
    Database,
    /// A fill for this request alone: the cache is off.
    Bypass,
}
