//! The encoding of entries in Redis.
//!
//! A value consists of a magic number, the version's number and token, the content id of the identity representation,
//! the SHA-256 digest of all that follows, the length of the headers, the headers as lines, and the body.

use bytes::Bytes;
use flate2::bufread::GzDecoder;
use hyper::header::{HeaderName, HeaderValue};
use uuid::Uuid;

use super::entry::{Entry, Key};
use crate::{
    digest::sha256,
    http::{
        Representation,
        etag::{self, ContentId},
    },
    versions::Version,
};

const MAGIC: &[u8; 4] = b"TSL2";
const CHECKSUM_BYTES: usize = 32;
const HEAD_BYTES: usize = 4 + 8 + 16 + 16 + CHECKSUM_BYTES;

/// Encodes an entry as a Redis value.
pub(crate) fn encode(entry: &Entry) -> Vec<u8> {
    let mut headers = Vec::new();
    for (name, value) in entry.headers.iter() {
        headers.extend_from_slice(name.as_str().as_bytes());
        headers.push(b':');
        headers.extend_from_slice(value.as_bytes());
        headers.push(b'\n');
    }
    let length = u32::try_from(headers.len()).unwrap_or(u32::MAX).to_be_bytes();
    let checksum = sha256(&[&length, &headers, &entry.bytes]);

    let mut value = Vec::with_capacity(HEAD_BYTES + length.len() + headers.len() + entry.bytes.len());
    value.extend_from_slice(MAGIC);
    value.extend_from_slice(&entry.version.number.to_be_bytes());
    value.extend_from_slice(entry.version.token.as_bytes());
    value.extend_from_slice(&entry.content_id);
    value.extend_from_slice(&checksum);
    value.extend_from_slice(&length);
    value.extend_from_slice(&headers);
    value.extend_from_slice(&entry.bytes);
    value
}

/// Decodes a Redis value. Returns `None` unless [`encode`] produced it from an entry for this key.
pub(crate) fn decode(key: &Key, value: Bytes) -> Option<Entry> {
    let (head, rest) = value.split_at_checked(HEAD_BYTES)?;
    if sha256(&[rest]) != head[HEAD_BYTES - CHECKSUM_BYTES..] {
        return None;
    }
    let (magic, head) = head.split_at(4);
    let (number, head) = head.split_at(8);
    let (token, head) = head.split_at(16);
    let version = Version {
        number: i64::from_be_bytes(number.try_into().ok()?),
        token: Uuid::from_bytes(token.try_into().ok()?),
    };
    let content_id: ContentId = head[..16].try_into().ok()?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    let headers = std::str::from_utf8(rest.get(..length)?).ok()?;
    let headers: Option<Vec<_>> = headers.lines().map(parse_header).collect();
    let body = value.slice(HEAD_BYTES + 4 + length..);
    let is_valid = magic == MAGIC
        && version == key.version
        && match key.representation {
            Representation::Identity => etag::content_id(&body) == content_id,
            Representation::Gzip => GzDecoder::new(&*body).header().is_some(),
        };
    is_valid
        .then_some(headers)
        .flatten()
        .map(|headers| Entry::new(version, key.representation, content_id, body, headers.into()))
}

fn parse_header(line: &str) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = line.split_once(':')?;
    Some((name.parse().ok()?, value.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_intact_entries_of_the_same_key_are_decoded() {
        let version = Version { number: 7, token: Uuid::from_u128(7) };
        let key = Key { version, query: "".into(), representation: Representation::Identity };
        let link = (hyper::header::LINK, HeaderValue::from_static("</api/products/?page=2>; rel=\"next\""));
        let entry = Entry::identity(version, Bytes::from_static(b"[1,2,3]"), vec![link].into());
        let value = encode(&entry);
        let decoded = decode(&key, value.clone().into()).unwrap();
        assert_eq!(decoded.headers, entry.headers);
        assert_eq!((decoded.bytes, decoded.etag), (entry.bytes.clone(), entry.etag.clone()));

        let other_version = Key { version: Version { number: 8, ..version }, ..key.clone() };
        assert!(decode(&other_version, value.clone().into()).is_none());
        assert!(decode(&Key { representation: Representation::Gzip, ..key.clone() }, value.clone().into()).is_none());
        for index in 0..value.len() {
            let mut damaged = value.clone();
            damaged[index] ^= 1;
            assert!(decode(&key, damaged.into()).is_none(), "a flipped bit at byte {index}");
            assert!(decode(&key, value[..index].to_vec().into()).is_none(), "cut at byte {index}");
        }
        let gzip = entry.gzip();
        let gzip_key = Key { representation: Representation::Gzip, ..key };
        assert_eq!(decode(&gzip_key, encode(&gzip).into()).map(|decoded| decoded.etag), Some(gzip.etag));
    }
}
