//! What is answered where no request could be read: to a head that is none, and to a connection too many. hyper's own words
//! for the former have neither a body nor what every answer of ours carries.

use std::net::IpAddr;

use hyper::header;

use super::{body::Body, request_id::X_REQUEST_ID, response::Response};
use crate::error::Error;

/// Whoever words such answers.
pub(crate) trait ErrorResponder: Send + Sync {
    /// The whole answer to this address, after which the connection ends.
    fn refuse(&self, error: &Error, peer: IpAddr) -> Response;
}

/// What to say instead, if these bytes are all of an answer of hyper's own.
pub(crate) fn instead_of(words: &[u8], refuse: &dyn ErrorResponder, peer: IpAddr) -> Option<Vec<u8>> {
    let head = std::str::from_utf8(words).ok()?.strip_suffix("\r\n\r\n")?;
    let (status, headers) = head.strip_prefix("HTTP/1.")?.split_once("\r\n")?;
    // ours have an id
    if headers.contains(X_REQUEST_ID.as_str()) {
        return None;
    }
    let error = match status.get(2..5)? {
        "400" => Error::Malformed("Malformed request.".to_owned()),
        "414" | "431" => Error::HeadTooLarge,
        _ => return None,
    };
    let mut reply = refuse.refuse(&error, peer);
    if let Some(date) = headers.lines().find_map(|line| line.strip_prefix("date: ")?.parse().ok()) {
        reply.headers_mut().insert(header::DATE, date);
    }
    Some(written(&reply))
}

/// An answer as it goes over the line.
pub(crate) fn written(reply: &Response) -> Vec<u8> {
    let body = match reply.body() {
        Body::Full(bytes) => bytes.as_ref(),
        Body::Empty | Body::Stream { .. } => b"",
    };
    let mut words = format!("HTTP/1.1 {}\r\ncontent-length: {}\r\n", reply.status(), body.len()).into_bytes();
    for (name, value) in reply.headers() {
        words.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    [&words, b"\r\n".as_slice(), body].concat()
}
