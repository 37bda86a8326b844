//! The encoding of entries in Redis.
//!
//! A value consists of the format version, a MAC, and the payload: the content id of the identity representation, the
//! typed headers and the body. The MAC covers the format version, the name of the key and the payload, so a value is
//! valid only under the key for which it was encoded, and only a holder of the secrets can encode one.

use bytes::Bytes;
use hyper::header::HeaderValue;

use super::entry::{Entry, Key, PageHeaders};
use crate::{
    http::etag::{ContentId, FORMAT_VERSION},
    mac::{Mac, MacKeys},
};

const FORMAT: [u8; 4] = FORMAT_VERSION.to_be_bytes();
const MAC_BYTES: usize = size_of::<Mac>();
const HEAD_BYTES: usize = FORMAT.len() + MAC_BYTES;
/// The length of a value besides `Link` and the body.
const OVERHEAD_BYTES: usize = HEAD_BYTES + size_of::<ContentId>() + 4 + 8;
/// More than four times the longest normalized query.
const MAX_LINK_BYTES: usize = 256 * 1024;
/// Encodes an absent count.
const NO_COUNT: u64 = u64::MAX;

/// The maximum length of a value whose body has at most `body_bytes` bytes.
pub(crate) const fn max_value_bytes(body_bytes: usize) -> usize {
    OVERHEAD_BYTES + MAX_LINK_BYTES + body_bytes
}

/// Encodes an entry as the Redis value of the key `name`.
pub(crate) fn encode(keys: &MacKeys, name: &str, entry: &Entry) -> Vec<u8> {
    let link = entry.headers.link.as_ref().map_or(&b""[..], HeaderValue::as_bytes);
    let mut value = Vec::with_capacity(OVERHEAD_BYTES + link.len() + entry.bytes.len());
    value.extend_from_slice(&FORMAT);
    value.extend_from_slice(&Mac::default());
    value.extend_from_slice(&entry.content_id);
    value.extend_from_slice(&u32::try_from(link.len()).unwrap_or(u32::MAX).to_be_bytes());
    value.extend_from_slice(link);
    value.extend_from_slice(&entry.headers.total_count.unwrap_or(NO_COUNT).to_be_bytes());
    value.extend_from_slice(&entry.bytes);
    let mac = keys.sign(&authenticated_parts(name, &name_length(name), &value[HEAD_BYTES..]));
    value[FORMAT.len()..HEAD_BYTES].copy_from_slice(&mac);
    value
}

/// Decodes the Redis value of the key `name`, which is the name of `key`. Returns `None` unless [`encode`] produced it
/// for this name with the same secrets.
pub(crate) fn decode(keys: &MacKeys, name: &str, key: &Key, value: &Bytes) -> Option<Entry> {
    let (head, payload) = value.split_at_checked(HEAD_BYTES)?;
    let (format, mac) = head.split_at(FORMAT.len());
    if *format != FORMAT || !keys.verify(&authenticated_parts(name, &name_length(name), payload), mac) {
        return None;
    }
    let (content_id, rest) = payload.split_first_chunk::<{ size_of::<ContentId>() }>()?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let (link, rest) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
    let (count, body) = rest.split_first_chunk::<8>()?;
    let headers = PageHeaders {
        link: if link.is_empty() { None } else { Some(HeaderValue::from_bytes(link).ok()?) },
        total_count: Some(u64::from_be_bytes(*count)).filter(|count| *count != NO_COUNT),
    };
    Some(Entry::new(key.version, key.representation, *content_id, value.slice_ref(body), headers.into()))
}

fn name_length(name: &str) -> [u8; 8] {
    (name.len() as u64).to_be_bytes()
}

/// Returns the parts that the MAC covers. With the length of the name, no other name and payload have the same
/// concatenation.
fn authenticated_parts<'a>(name: &'a str, name_length: &'a [u8; 8], payload: &'a [u8]) -> [&'a [u8]; 4] {
    [&FORMAT, name_length, name.as_bytes(), payload]
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use uuid::Uuid;

    use super::*;
    use crate::{
        cache::entry::{Collection, List},
        http::Representation,
        versions::Version,
    };

    const NAME: &str = "shop:v1:products:7:identity:";

    fn keys(secrets: &[&str]) -> MacKeys {
        let secrets: Vec<_> = secrets.iter().map(|secret| (*secret).into()).collect();
        MacKeys::derive(&secrets, "redis entries")
    }

    fn key(representation: Representation) -> Key {
        let version = Version { number: 7, token: Uuid::from_u128(7) };
        Key { version, list: List::complete(Collection::Products), representation }
    }

    #[test]
    fn only_intact_values_of_the_same_name_and_secrets_are_decoded() {
        let link = HeaderValue::from_static("</api/products/?page=2>; rel=\"next\"");
        let headers = Arc::new(PageHeaders { link: Some(link), total_count: Some(3) });
        let identity = key(Representation::Identity);
        let entry = Entry::identity(identity.version, Bytes::from_static(b"[1,2,3]"), headers);
        let secrets = keys(&["current secret"]);
        let value = Bytes::from(encode(&secrets, NAME, &entry));
        let decoded = decode(&secrets, NAME, &identity, &value).unwrap();
        assert_eq!(decoded.headers, entry.headers);
        assert_eq!((&decoded.bytes, &decoded.etag), (&entry.bytes, &entry.etag));

        let rotated = keys(&["next secret", "current secret"]);
        assert!(decode(&rotated, NAME, &identity, &value).is_some(), "all secrets verify");
        assert!(decode(&keys(&["next secret"]), NAME, &identity, &value).is_none(), "a value of another shop");
        assert!(
            decode(&secrets, "shop:v1:products:8:identity:", &identity, &value).is_none(),
            "a value of another key"
        );
        for index in 0..value.len() {
            let mut damaged = value.to_vec();
            damaged[index] ^= 1;
            assert!(decode(&secrets, NAME, &identity, &damaged.into()).is_none(), "a flipped bit at byte {index}");
            assert!(decode(&secrets, NAME, &identity, &value.slice(..index)).is_none(), "cut at byte {index}");
        }

        let gzip = Entry::identity(identity.version, vec![b' '; 1000].into(), Arc::default()).gzip();
        let value = encode(&secrets, NAME, &gzip);
        let decoded = decode(&secrets, NAME, &key(Representation::Gzip), &value.into()).unwrap();
        assert_eq!((decoded.etag, decoded.headers), (gzip.etag, Arc::default()));
    }
}
