//! Constructors of responses, and conditional requests (RFC 9110, 13).

use hyper::{
    HeaderMap, StatusCode,
    header::{self, HeaderName, HeaderValue},
};
use serde::Serialize;

use super::{body::Body, etag::Representation, request::Request};
use crate::error::{Error, ErrorResponse};

pub(crate) type Response = hyper::Response<Body>;

/// States whether a response came from a cache (RFC 9211).
pub(crate) const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// The value of `Connection` that closes the connection after the response.
pub(crate) const CLOSE: HeaderValue = HeaderValue::from_static("close");

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Initial capacity for headers: enough for a usual response, including the headers that dispatch and hyper add.
const HEADER_CAPACITY: usize = 16;

pub(crate) fn new(status: StatusCode, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = HeaderMap::with_capacity(HEADER_CAPACITY);
    response
}

/// Returns a response whose body is JSON text already.
pub(crate) fn json_bytes(status: StatusCode, body: impl Into<Body>) -> Response {
    let mut response = new(status, body.into());
    response.headers_mut().insert(header::CONTENT_TYPE, JSON);
    response
}

/// Returns a response with `value` as JSON.
pub(crate) fn json(status: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(bytes) => json_bytes(status, bytes),
        Err(error) => self::error(&Error::internal(error)),
    }
}

/// Returns a 204.
pub(crate) fn no_content() -> Response {
    new(StatusCode::NO_CONTENT, Body::Empty)
}

pub(crate) fn error(error: &Error) -> Response {
    let ErrorResponse { status, body, header } = error.response();
    let mut response = json(status, &body);
    if let Some((name, value)) = header
        && let Ok(value) = HeaderValue::from_str(&value)
    {
        response.headers_mut().insert(name, value);
    }
    response
}

/// The entity tags in the `If-Match` headers of a request (RFC 9110, 13.1.1).
#[derive(Debug)]
pub(crate) struct IfMatch(Vec<HeaderValue>);

impl IfMatch {
    /// Returns `None` if the request has no `If-Match`, and so no condition.
    pub(crate) fn from_request(request: &Request) -> Option<Self> {
        let values: Vec<_> = request.headers().get_all(header::IF_MATCH).iter().cloned().collect();
        (!values.is_empty()).then_some(Self(values))
    }

    /// Whether the condition is `*`, which is true for every resource that has a representation.
    pub(crate) fn is_any(&self) -> bool {
        matches_etag_list(&self.0, |_| false)
    }

    /// Whether the condition is true for a representation with this entity tag. The comparison is strong.
    pub(crate) fn matches(&self, etag: &HeaderValue) -> bool {
        matches_etag_list(&self.0, |candidate| candidate.as_bytes() == etag)
    }

    /// Returns the entity tags.
    pub(crate) fn etags(&self) -> impl Iterator<Item = &str> {
        etags(&self.0)
    }
}

/// The conditions under which a row is written: `If-Match` and `If-None-Match` (RFC 9110, 13.1). Without a date of the
/// last modification, `If-Unmodified-Since` is ignored (13.1.4).
#[derive(Debug)]
pub(crate) struct WriteCondition {
    if_match: Option<IfMatch>,
    if_none_match: Vec<HeaderValue>,
}

impl WriteCondition {
    /// Returns `None` if the request has no condition.
    pub(crate) fn from_request(request: &Request) -> Option<Self> {
        let if_match = IfMatch::from_request(request);
        let if_none_match: Vec<_> = request.headers().get_all(header::IF_NONE_MATCH).iter().cloned().collect();
        (if_match.is_some() || !if_none_match.is_empty()).then_some(Self { if_match, if_none_match })
    }

    /// Whether the condition is true for a row whose representations have these entity tags.
    pub(crate) fn is_true(&self, etags: &[HeaderValue]) -> bool {
        let is_match = |if_match: &IfMatch| etags.iter().any(|etag| if_match.matches(etag));
        self.if_match.as_ref().is_none_or(is_match) && !etags.iter().any(|etag| names_etag(&self.if_none_match, etag))
    }
}

/// Whether `If-None-Match` names this entity tag, so that the response is a 304 (RFC 9110, 13.1.2).
pub(crate) fn is_not_modified(request: &Request, etag: &HeaderValue) -> bool {
    names_etag(request.headers().get_all(header::IF_NONE_MATCH), etag)
}

/// Whether `If-None-Match` is `*`, which is false for every resource that has a representation.
pub(crate) fn if_none_match_is_any(request: &Request) -> bool {
    matches_etag_list(request.headers().get_all(header::IF_NONE_MATCH), |_| false)
}

/// Whether one of the lists in `If-None-Match` contains `*` or this entity tag. The comparison is weak.
fn names_etag<'a>(values: impl IntoIterator<Item = &'a HeaderValue>, etag: &HeaderValue) -> bool {
    matches_etag_list(values, |candidate| candidate.strip_prefix("W/").unwrap_or(candidate).as_bytes() == etag)
}

/// Whether one of the lists of entity tags contains `*` or a tag for which `matches` is true.
fn matches_etag_list<'a>(values: impl IntoIterator<Item = &'a HeaderValue>, matches: impl Fn(&str) -> bool) -> bool {
    etags(values).any(|tag| tag == "*" || matches(tag))
}

/// Returns the members of lists of entity tags.
fn etags<'a>(values: impl IntoIterator<Item = &'a HeaderValue>) -> impl Iterator<Item = &'a str> {
    let lists = values.into_iter().filter_map(|value| value.to_str().ok());
    lists.flat_map(|list| list.split(',')).map(str::trim)
}

/// Returns a 304, or JSON in this representation.
pub(crate) fn conditional_json(
    request: &Request,
    etag: &HeaderValue,
    representation: Representation,
    body: Body,
) -> Response {
    conditional(request, etag.clone(), || {
        let mut response = json_bytes(StatusCode::OK, body);
        if representation == Representation::Gzip {
            response.headers_mut().insert(header::CONTENT_ENCODING, const { HeaderValue::from_static("gzip") });
        }
        response
    })
}

/// Returns a 304 or the full response, both with the headers that RFC 9110 (15.4.5) requires on both.
pub(crate) fn conditional(request: &Request, etag: HeaderValue, full: impl FnOnce() -> Response) -> Response {
    let not_modified = is_not_modified(request, &etag);
    let mut response = if not_modified { new(StatusCode::NOT_MODIFIED, Body::Empty) } else { full() };
    let headers = response.headers_mut();
    headers.insert(header::ETAG, etag);
    headers.insert(header::CACHE_CONTROL, const { HeaderValue::from_static("private, no-cache") });
    headers.insert(header::VARY, const { HeaderValue::from_static("Accept-Encoding, Authorization") });
    response
}
