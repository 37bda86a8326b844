//! Request ids: sent by the client, or generated.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use hyper::{
    HeaderMap,
    header::{HeaderName, HeaderValue},
};

use crate::random::random_u64;

pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

const MAX_REQUEST_ID_BYTES: usize = 128;

/// Generates request ids of 16 hexadecimal digits: 8 random digits per process, then a counter.
pub(crate) struct RequestIds {
    process: u32,
    next: AtomicU32,
}

impl RequestIds {
    pub(crate) fn new() -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "any 32 of the 64 bits will do")]
        let process = random_u64() as u32;
        Self { process, next: AtomicU32::new(0) }
    }

    /// Returns the client's id if it is valid, or a new one.
    pub(crate) fn get_or_generate(&self, headers: &HeaderMap) -> HeaderValue {
        if let Some(value) = headers.get(X_REQUEST_ID)
            && value.to_str().is_ok_and(is_valid_request_id)
        {
            return value.clone();
        }
        self.generate()
    }

    pub(crate) fn generate(&self) -> HeaderValue {
        let number = u64::from(self.process) << 32 | u64::from(self.next.fetch_add(1, Relaxed));
        let mut id = [0; 16];
        for (index, digit) in id.iter_mut().enumerate() {
            *digit = b"0123456789abcdef"[(number >> (60 - 4 * index) & 15) as usize];
        }
        HeaderValue::from_bytes(&id).unwrap_or_else(|error| unreachable!("hexadecimal digits fit a header: {error}"))
    }
}

fn is_valid_request_id(id: &str) -> bool {
    !id.is_empty()
        && id.len() <= MAX_REQUEST_ID_BYTES
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte))
}
