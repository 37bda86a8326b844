//! Replies: JSON, nothing, and the parts of HTTP caching that every cached answer shares.

use hyper::{
    Response, StatusCode,
    header::{self, HeaderName, HeaderValue},
};
use serde::Serialize;

use super::{Body, Request};
use crate::error::Error;

/// What a handler gives back.
pub type Reply = Response<Body>;

/// The header that says where an answer came from (RFC 9211).
pub const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// A JSON body from bytes that are JSON already.
pub fn json_bytes(status: StatusCode, body: impl Into<Body>) -> Reply {
    let mut reply = Reply::new(body.into());
    *reply.status_mut() = status;
    reply.headers_mut().insert(header::CONTENT_TYPE, JSON);
    reply
}

/// A JSON body from a value.
pub fn json(status: StatusCode, value: &impl Serialize) -> Reply {
    match serde_json::to_vec(value) {
        Ok(bytes) => json_bytes(status, bytes),
        Err(error) => self::error(&Error::internal(error)),
    }
}

/// 204.
pub fn no_content() -> Reply {
    let mut reply = Reply::default();
    *reply.status_mut() = StatusCode::NO_CONTENT;
    reply
}

/// What an error looks like from outside.
pub fn error(error: &Error) -> Reply {
    let answer = error.answer();
    let mut reply = json(answer.status, &answer.body);
    if let Some((name, value)) = answer.header
        && let Ok(value) = HeaderValue::from_str(&value)
    {
        reply.headers_mut().insert(name, value);
    }
    reply
}

/// Whether `If-None-Match` says that the client has this representation already (RFC 9110, 13.1.2: weak
/// comparison, a list of tags, or `*`).
pub fn client_has(request: &Request, etag: &HeaderValue) -> bool {
    matches(request, &header::IF_NONE_MATCH, etag, true)
}

/// Whether `If-Match`, if there is one, names this representation (RFC 9110, 13.1.1: strong comparison).
pub fn precondition_holds(request: &Request, etag: &HeaderValue) -> bool {
    !request.headers().contains_key(header::IF_MATCH) || matches(request, &header::IF_MATCH, etag, false)
}

fn matches(request: &Request, name: &HeaderName, etag: &HeaderValue, weak: bool) -> bool {
    let Ok(etag) = etag.to_str() else { return false };
    request.headers().get_all(name).iter().filter_map(|value| value.to_str().ok()).any(|value| {
        value.split(',').map(str::trim).any(|candidate| {
            let candidate = if weak { candidate.strip_prefix("W/").unwrap_or(candidate) } else { candidate };
            candidate == "*" || candidate == etag
        })
    })
}

/// 304, or the reply itself; both with the headers that RFC 9110 (15.4.5) wants on both.
pub fn cached(request: &Request, etag: HeaderValue, reply: impl FnOnce() -> Reply) -> Reply {
    let mut reply = if client_has(request, &etag) {
        let mut reply = Reply::default();
        *reply.status_mut() = StatusCode::NOT_MODIFIED;
        reply
    } else {
        reply()
    };
    let headers = reply.headers_mut();
    headers.insert(header::ETAG, etag);
    headers.insert(header::CACHE_CONTROL, const { HeaderValue::from_static("private, no-cache") });
    headers.insert(header::VARY, const { HeaderValue::from_static("Accept-Encoding, Authorization") });
    reply
}
