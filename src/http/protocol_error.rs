//! Error responses where no request could be parsed: to a malformed head, and to a connection above the limit.
//!
//! hyper's own responses to malformed heads have neither a body nor the common headers, so they are replaced
//! (docs/adr/0007).

use std::net::IpAddr;

use hyper::header;

use super::{body::Body, request_id::X_REQUEST_ID, response::Response};
use crate::error::Error;

/// Creates the error responses that belong to no request.
pub(crate) trait ErrorResponder: Send + Sync {
    /// Returns the complete response to `peer`; the connection ends after it.
    fn error_response(&self, error: &Error, peer: IpAddr) -> Response;
}

/// Returns the serialized response to send instead of `bytes`, if `bytes` are an error response of hyper's own.
pub(crate) fn replace_hyper_error(bytes: &[u8], responder: &dyn ErrorResponder, peer: IpAddr) -> Option<Vec<u8>> {
    let head = std::str::from_utf8(bytes).ok()?.strip_suffix("\r\n\r\n")?;
    let (status, headers) = head.strip_prefix("HTTP/1.")?.split_once("\r\n")?;
    // every response of this server has a request id
    if headers.contains(X_REQUEST_ID.as_str()) {
        return None;
    }
    let error = match status.get(2..5)? {
        "400" => Error::Malformed("Malformed request.".to_owned()),
        "414" | "431" => Error::HeadTooLarge,
        _ => return None,
    };
    let mut response = responder.error_response(&error, peer);
    if let Some(date) = headers.lines().find_map(|line| line.strip_prefix("date: ")?.parse().ok()) {
        response.headers_mut().insert(header::DATE, date);
    }
    Some(serialize_response(&response))
}

/// Returns the bytes of a response as HTTP/1.1 transmits them.
pub(crate) fn serialize_response(response: &Response) -> Vec<u8> {
    let body = match response.body() {
        Body::Full(bytes) => bytes.as_ref(),
        // errors have no other bodies
        _ => b"",
    };
    let mut head = format!("HTTP/1.1 {}\r\ncontent-length: {}\r\n", response.status(), body.len()).into_bytes();
    for (name, value) in response.headers() {
        head.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    [&head, b"\r\n".as_slice(), body].concat()
}
