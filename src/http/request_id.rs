//! Request ids: the caller's own, or generated ones.

use std::{
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::Instant,
};

use hyper::{
    body::Incoming,
    header::{HeaderName, HeaderValue},
};

/// The header that carries the id of a request.
pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

const MAX_REQUEST_ID_BYTES: usize = 128;
/// Gives out one id a request: some random digits of this process, then a counter.
pub(crate) struct RequestIds {
    process: u32,
    next: AtomicU32,
}

fn random_u32() -> u32 {
    use std::hash::{BuildHasher, RandomState};
    // seeded by the system once a process: unpredictable enough to tell two processes' logs apart
    #[expect(clippy::cast_possible_truncation, reason = "any 32 of the 64 bits will do")]
    let bits = RandomState::new().hash_one(Instant::now()) as u32;
    bits
}

impl RequestIds {
    pub(crate) fn new() -> Self {
        Self { process: random_u32(), next: AtomicU32::new(0) }
    }

    /// The caller's own id if it is a sane one, or a new one.
    pub(crate) fn of(&self, request: &hyper::Request<Incoming>) -> HeaderValue {
        if let Some(value) = request.headers().get(X_REQUEST_ID)
            && value.to_str().is_ok_and(is_sane)
        {
            return value.clone();
        }
        self.fresh()
    }

    pub(crate) fn fresh(&self) -> HeaderValue {
        let number = u64::from(self.process) << 32 | u64::from(self.next.fetch_add(1, Relaxed));
        let mut id = [0; 16];
        for (place, digit) in id.iter_mut().enumerate() {
            *digit = b"0123456789abcdef"[(number >> (60 - 4 * place) & 15) as usize];
        }
        HeaderValue::from_bytes(&id).unwrap_or_else(|error| unreachable!("hexadecimal digits fit a header: {error}"))
    }
}

fn is_sane(id: &str) -> bool {
    !id.is_empty()
        && id.len() <= MAX_REQUEST_ID_BYTES
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte))
}
