//! How an entry stands in Redis: its head, what else the answer says, and the bytes, under a checksum.

use bytes::Bytes;
use flate2::bufread::GzDecoder;
use hyper::header::{HeaderName, HeaderValue};
use uuid::Uuid;

use super::entry::{Entry, Key};
use crate::{
    digest::sha256,
    http::{
        Representation,
        etag::{ContentId, content_id},
    },
    versions::Version,
};

// A value: magic, version, token, id of the identity content, SHA-256 of all that follows; length of the headers, headers
// as lines, body. It carries its own version and is checked when it is read: whatever else stands in Redis under this name
// is a miss.
const MAGIC: &[u8; 4] = b"TSL2";
const HEAD_BYTES: usize = 4 + 8 + 16 + 16 + 32;

/// The value of an entry.
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
    value.extend_from_slice(&entry.content);
    value.extend_from_slice(&checksum);
    value.extend_from_slice(&length);
    value.extend_from_slice(&headers);
    value.extend_from_slice(&entry.bytes);
    value
}

/// The entry that was written for this key; nothing else.
pub(crate) fn decode(key: &Key, value: Bytes) -> Option<Entry> {
    let (head, rest) = value.split_at_checked(HEAD_BYTES)?;
    if sha256(&[rest]) != head[HEAD_BYTES - 32..] {
        return None;
    }
    let (magic, head) = head.split_at(4);
    let (number, head) = head.split_at(8);
    let (token, head) = head.split_at(16);
    let version = Version {
        number: i64::from_be_bytes(number.try_into().ok()?),
        token: Uuid::from_bytes(token.try_into().ok()?),
    };
    let content: ContentId = head[..16].try_into().ok()?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    let headers = std::str::from_utf8(rest.get(..length)?).ok()?;
    let headers: Option<Vec<_>> = headers.lines().map(header).collect();
    let body = value.slice(HEAD_BYTES + 4 + length..);
    let whole = magic == MAGIC
        && version == key.version
        && match key.representation {
            Representation::Identity => content_id(&body) == content,
            Representation::Gzip => GzDecoder::new(&*body).header().is_some(),
        };
    whole
        .then_some(headers)
        .flatten()
        .map(|headers| Entry::new(version, key.representation, content, body, headers.into()))
}

fn header(line: &str) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = line.split_once(':')?;
    Some((name.parse().ok()?, value.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_an_instance_wrote_for_this_key_is_read() {
        let version = Version { number: 7, token: Uuid::from_u128(7) };
        let key = Key { version, query: "".into(), representation: Representation::Identity };
        let link = (hyper::header::LINK, HeaderValue::from_static("</api/products/?page=2>; rel=\"next\""));
        let entry = Entry::identity(version, Bytes::from_static(b"[1,2,3]"), vec![link].into());
        let value = encode(&entry);
        let back = decode(&key, value.clone().into());
        assert_eq!(back.as_ref().map(|back| &back.headers), Some(&entry.headers));
        assert_eq!(back.map(|back| (back.bytes, back.etag)), Some((entry.bytes.clone(), entry.etag.clone())));

        let other_version = Key { version: Version { number: 8, ..version }, ..key.clone() };
        assert!(decode(&other_version, value.clone().into()).is_none());
        assert!(decode(&Key { representation: Representation::Gzip, ..key.clone() }, value.clone().into()).is_none());
        for place in 0..value.len() {
            let mut damaged = value.clone();
            damaged[place] ^= 1;
            assert!(decode(&key, damaged.into()).is_none(), "a flipped bit at byte {place}");
            assert!(decode(&key, value[..place].to_vec().into()).is_none(), "cut at byte {place}");
        }
        let gzip = entry.gzip();
        let gzip_key = Key { representation: Representation::Gzip, ..key };
        assert_eq!(decode(&gzip_key, encode(&gzip).into()).map(|back| back.etag), Some(gzip.etag));
    }
}
