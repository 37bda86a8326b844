//! Replies: JSON, nothing, and the parts of HTTP caching that every cached answer shares.

use hyper::{
    HeaderMap, StatusCode,
    header::{self, HeaderName, HeaderValue},
};
use serde::Serialize;

use super::{body::Body, request::Request};
use crate::error::Error;

/// What a handler gives back.
pub(crate) type Response = hyper::Response<Body>;

/// The header that says where an answer came from (RFC 9211).
pub(crate) const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// The connection ends with this reply.
pub(crate) const CLOSE: HeaderValue = HeaderValue::from_static("close");

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Headers of the usual reply, those that dispatch and hyper add included: room for them is made once.
const USUAL_HEADERS: usize = 16;

/// A reply with this status and body.
pub(crate) fn new(status: StatusCode, body: Body) -> Response {
    let mut reply = Response::new(body);
    *reply.status_mut() = status;
    *reply.headers_mut() = HeaderMap::with_capacity(USUAL_HEADERS);
    reply
}

/// A JSON body from bytes that are JSON already.
pub(crate) fn json_bytes(status: StatusCode, body: impl Into<Body>) -> Response {
    let mut reply = new(status, body.into());
    reply.headers_mut().insert(header::CONTENT_TYPE, JSON);
    reply
}

/// A JSON body from a value.
pub(crate) fn json(status: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(bytes) => json_bytes(status, bytes),
        Err(error) => self::error(&Error::internal(error)),
    }
}

/// 204.
pub(crate) fn no_content() -> Response {
    new(StatusCode::NO_CONTENT, Body::Empty)
}

/// What an error looks like from outside.
pub(crate) fn error(error: &Error) -> Response {
    let answer = error.answer();
    let mut reply = json(answer.status, &answer.body);
    if let Some((name, value)) = answer.header
        && let Ok(value) = HeaderValue::from_str(&value)
    {
        reply.headers_mut().insert(name, value);
    }
    reply
}

/// The entity tags that a request names in `If-Match` (RFC 9110, 13.1.1).
#[derive(Debug)]
pub(crate) struct IfMatch(Vec<HeaderValue>);

impl IfMatch {
    /// `None` when there is no such header, and so no condition.
    pub(crate) fn of(request: &Request) -> Option<Self> {
        let values: Vec<_> = request.headers().get_all(header::IF_MATCH).iter().cloned().collect();
        (!values.is_empty()).then_some(Self(values))
    }

    /// Whether the condition holds for a representation with this tag. The comparison is strong.
    pub(crate) fn holds(&self, etag: &HeaderValue) -> bool {
        names(&self.0, |candidate| candidate.as_bytes() == etag)
    }
}

/// Whether `If-None-Match` says that the client has this representation already (RFC 9110, 13.1.2). The comparison is
/// weak.
pub(crate) fn client_has(request: &Request, etag: &HeaderValue) -> bool {
    names(request.headers().get_all(header::IF_NONE_MATCH), |candidate| {
        candidate.strip_prefix("W/").unwrap_or(candidate).as_bytes() == etag
    })
}

/// Whether a list of entity tags is `*` or holds one that is meant.
fn names<'a>(values: impl IntoIterator<Item = &'a HeaderValue>, is_meant: impl Fn(&str) -> bool) -> bool {
    let lists = values.into_iter().filter_map(|value| value.to_str().ok());
    lists.flat_map(|list| list.split(',')).map(str::trim).any(|tag| tag == "*" || is_meant(tag))
}

/// 304, or the reply itself; both with the headers that RFC 9110 (15.4.5) wants on both.
pub(crate) fn cached(request: &Request, etag: HeaderValue, reply: impl FnOnce() -> Response) -> Response {
    let mut reply = if client_has(request, &etag) { new(StatusCode::NOT_MODIFIED, Body::Empty) } else { reply() };
    let headers = reply.headers_mut();
    headers.insert(header::ETAG, etag);
    headers.insert(header::CACHE_CONTROL, const { HeaderValue::from_static("private, no-cache") });
    headers.insert(header::VARY, const { HeaderValue::from_static("Accept-Encoding, Authorization") });
    reply
}
