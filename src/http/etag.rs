//! Entity tags (RFC 9110, 8.8.3) from the content of a response.

use hyper::header::HeaderValue;

use crate::digest::{hex, sha256};

/// The version of what determines the bytes of a representation besides its data: the rendering of lists and their
/// compression. Increase it when one of them, or the encoding of cache entries, changes.
///
/// It is part of each entity tag that is not a digest of the very bytes, and of the names of shared cache entries. While
/// a deployment replaces the instances one by one, two renderings therefore never share a tag or an entry.
pub(crate) const FORMAT_VERSION: u32 = 1;

/// The content coding of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Representation {
    Identity,
    Gzip,
}

/// Identifies a content: the first half of its SHA-256.
pub(crate) type ContentId = [u8; 16];

pub(crate) fn content_id(bytes: &[u8]) -> ContentId {
    content_id_of(&sha256(&[bytes]))
}

/// Returns the id of a content with this SHA-256.
pub(crate) fn content_id_of(digest: &[u8; 32]) -> ContentId {
    let mut id = ContentId::default();
    id.copy_from_slice(&digest[..size_of::<ContentId>()]);
    id
}

/// Returns the strong entity tag of a content in a representation.
pub(crate) fn etag(content: &ContentId, representation: Representation) -> HeaderValue {
    let content = hex(content);
    let tag = match representation {
        Representation::Identity => format!("\"{content}\""),
        Representation::Gzip => format!("\"{content}-gzip{FORMAT_VERSION}\""),
    };
    HeaderValue::from_str(&tag).unwrap_or_else(|error| unreachable!("hexadecimal digits fit a header: {error}"))
}
