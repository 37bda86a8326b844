//! Sync tokens: opaque names of a state of the catalogue, from which a client asks for the changes since.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use hyper::header::{HeaderName, HeaderValue};
use uuid::Uuid;

use super::version::Version;

/// The response header that names the state that a list shows.
pub(crate) const X_SYNC_TOKEN: HeaderName = HeaderName::from_static("x-sync-token");

/// What a client has: the state of a version and, between two pages, a part of the changes up to a later one.
///
/// The random tokens of the versions make it impossible to guess: a sync token of another database or of another history
/// names no logged version. A checksum detects damage, which could otherwise change `after_id`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct SyncToken {
    pub(crate) since: Version,
    /// `None` if the client has exactly the state of `since`.
    pub(crate) page: Option<PageEnd>,
}

/// The end of a page of changes that is not the last one of its range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct PageEnd {
    /// The last version of the range.
    pub(crate) until: Version,
    /// The client has the changes of products up to this id.
    pub(crate) after_id: i64,
}

// The first byte identifies the format.
const OF_VERSION: u8 = 1;
const OF_PAGE: u8 = 2;
const CHECKSUM_BYTES: usize = 4;
const MAX_TEXT_BYTES: usize = 128;

impl SyncToken {
    /// Returns the token of the state of a version.
    pub(crate) fn of(version: Version) -> Self {
        Self { since: version, page: None }
    }

    /// Returns the token as unpadded URL-safe base64.
    pub(crate) fn encode(&self) -> String {
        let mut bytes = Vec::with_capacity(64);
        bytes.push(if self.page.is_some() { OF_PAGE } else { OF_VERSION });
        push_version(&mut bytes, self.since);
        if let Some(page) = self.page {
            push_version(&mut bytes, page.until);
            bytes.extend_from_slice(&page.after_id.to_be_bytes());
        }
        bytes.extend_from_slice(&crc32fast::hash(&bytes).to_be_bytes());
        BASE64_URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Returns the token as the value of [`X_SYNC_TOKEN`].
    pub(crate) fn header_value(&self) -> HeaderValue {
        HeaderValue::try_from(self.encode()).unwrap_or_else(|error| unreachable!("base64 fits a header: {error}"))
    }

    /// Parses a token. Returns `None` for any text that [`encode`](Self::encode) does not return.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if text.len() > MAX_TEXT_BYTES {
            return None;
        }
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?;
        let (bytes, checksum) = bytes.split_last_chunk::<CHECKSUM_BYTES>()?;
        if crc32fast::hash(bytes).to_be_bytes() != *checksum {
            return None;
        }
        let (format, bytes) = bytes.split_first()?;
        let (since, bytes) = split_version(bytes)?;
        match *format {
            OF_VERSION if bytes.is_empty() => Some(Self::of(since)),
            OF_PAGE => {
                let (until, bytes) = split_version(bytes)?;
                let after_id = i64::from_be_bytes(bytes.try_into().ok()?);
                (since.number <= until.number).then_some(Self { since, page: Some(PageEnd { until, after_id }) })
            }
            _ => None,
        }
    }
}

fn push_version(bytes: &mut Vec<u8>, version: Version) {
    bytes.extend_from_slice(&version.number.to_be_bytes());
    bytes.extend_from_slice(version.token.as_bytes());
}

fn split_version(bytes: &[u8]) -> Option<(Version, &[u8])> {
    let (number, bytes) = bytes.split_first_chunk()?;
    let (token, bytes) = bytes.split_first_chunk()?;
    Some((Version { number: i64::from_be_bytes(*number), token: Uuid::from_bytes(*token) }, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens() -> [SyncToken; 2] {
        let version = |number| Version { number, token: Uuid::new_v4() };
        let page = PageEnd { until: version(i64::MAX), after_id: -7 };
        [SyncToken::of(version(1)), SyncToken { since: version(0), page: Some(page) }]
    }

    #[test]
    fn damaged_and_truncated_tokens_are_invalid() {
        for token in tokens() {
            let text = token.encode();
            assert_eq!(SyncToken::parse(&text), Some(token));
            for index in 0..text.len() {
                assert_eq!(SyncToken::parse(&text[..index]), None, "{index}");
                for letter in ["A", "B", "_", "=", "\0", " "] {
                    let mut damaged = text.clone();
                    damaged.replace_range(index..=index, letter);
                    assert_eq!(SyncToken::parse(&damaged).is_some(), damaged == text, "{damaged}");
                }
            }
            for longer in [format!("{text}="), format!("{text}A"), format!(" {text}"), text.repeat(2)] {
                assert_eq!(SyncToken::parse(&longer), None, "{longer}");
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn parsing_never_panics(text in ".{0,140}") {
            let _ = SyncToken::parse(&text);
        }
    }
}
