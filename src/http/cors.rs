//! Cross-origin requests of browsers (Fetch standard, "CORS protocol"): responses that scripts of configured origins
//! may read. Cookies and other credentials that browsers attach automatically are never allowed; the API uses none.

use hyper::{
    HeaderMap, Method, StatusCode,
    header::{self, HeaderValue},
    http::request::Parts,
};

use super::head::is_host;

/// Response headers that scripts may read besides the safelisted ones.
const EXPOSED_HEADERS: HeaderValue = HeaderValue::from_static(
    "ETag, Link, Location, Retry-After, X-Total-Count, X-Sync-Token, X-Request-Id, Cache-Status, Content-Disposition, \
     Idempotent-Replayed",
);
/// Request headers that scripts may send: those that the server reads.
const ALLOWED_HEADERS: HeaderValue = HeaderValue::from_static(
    "Accept, Authorization, Content-Type, Idempotency-Key, If-Match, If-None-Match, Last-Event-ID, Prefer, \
     X-Request-Id",
);
/// Seconds for which a browser may cache the response to a preflight; Chromium caps it at this value.
const MAX_AGE: HeaderValue = HeaderValue::from_static("7200");
const ANY: HeaderValue = HeaderValue::from_static("*");

/// The origins whose scripts may read responses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AllowedOrigins {
    /// All, written `*`.
    Any,
    /// At least one, each as a browser sends it in `Origin`.
    List(Vec<HeaderValue>),
}

impl AllowedOrigins {
    /// Returns the value of `Access-Control-Allow-Origin` for a request with these headers, or `None` if a script may
    /// not read the response.
    fn allowed(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        match self {
            Self::Any => Some(ANY),
            Self::List(origins) => {
                let origin = headers.get(header::ORIGIN)?;
                origins.contains(origin).then(|| origin.clone())
            }
        }
    }

    /// Returns what the responses to a request need, before a handler consumes the request.
    pub(crate) fn grant(&self, head: &Parts) -> CorsGrant {
        let is_preflight = head.method == Method::OPTIONS
            && head.headers.contains_key(header::ORIGIN)
            && head.headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        CorsGrant { is_preflight, ..self.grant_to(&head.headers) }
    }

    /// Returns the same for a response to no request: only `*` does not depend on the request.
    pub(crate) fn grant_without_request(&self) -> CorsGrant {
        self.grant_to(&HeaderMap::new())
    }

    fn grant_to(&self, headers: &HeaderMap) -> CorsGrant {
        CorsGrant { origin: self.allowed(headers), is_preflight: false, varies: matches!(self, Self::List(_)) }
    }
}

/// The CORS headers of one response.
#[derive(Debug)]
pub(crate) struct CorsGrant {
    origin: Option<HeaderValue>,
    is_preflight: bool,
    /// Whether another origin would get another response.
    varies: bool,
}

impl CorsGrant {
    /// Adds the headers to a response.
    pub(crate) fn apply(self, status: StatusCode, headers: &mut HeaderMap) {
        if self.varies {
            headers.append(header::VARY, const { HeaderValue::from_static("Origin") });
        }
        let Some(origin) = self.origin else { return };
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        if !self.is_preflight {
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED_HEADERS);
        } else if status == StatusCode::NO_CONTENT
            && let Some(methods) = headers.get(header::ALLOW).cloned()
        {
            headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
            headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, ALLOWED_HEADERS);
            headers.insert(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE);
        }
    }
}

/// Returns an origin as a browser serializes it: in lower case, without the default port. `None` if `text` is not a
/// scheme, a host and an optional port.
pub(crate) fn parse_origin(text: &str) -> Option<HeaderValue> {
    let text = text.to_ascii_lowercase();
    let (scheme, authority) = text.split_once("://")?;
    let is_scheme = scheme.starts_with(|first: char| first.is_ascii_lowercase())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    if !is_scheme || authority.contains('*') || !is_host(authority.as_bytes()) {
        return None;
    }
    let default_port = match scheme {
        "http" => ":80",
        "https" => ":443",
        _ => "",
    };
    let authority = authority.strip_suffix(default_port).unwrap_or(authority).trim_end_matches(':');
    HeaderValue::from_str(&format!("{scheme}://{authority}")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_serialized_as_browsers_do() {
        for (text, origin) in [
            ("https://shop.example", "https://shop.example"),
            ("HTTPS://Shop.Example", "https://shop.example"),
            ("https://shop.example:443", "https://shop.example"),
            ("http://shop.example:80", "http://shop.example"),
            ("http://shop.example:443", "http://shop.example:443"),
            ("http://localhost:3000", "http://localhost:3000"),
            ("http://[::1]:3000", "http://[::1]:3000"),
            ("http://127.0.0.1", "http://127.0.0.1"),
            ("capacitor://localhost", "capacitor://localhost"),
        ] {
            assert_eq!(parse_origin(text).as_ref().map(HeaderValue::as_bytes), Some(origin.as_bytes()), "{text}");
        }
        for text in [
            "",
            "*",
            "null",
            "shop.example",
            "//shop.example",
            "https://",
            "https://shop.example/",
            "https://a/b",
            "https://a?b",
            "https://u@a",
            "https://*.example",
            "https://a b",
            "https://é",
            "https://a:b",
            "1a://b",
            "https:///a",
            "://a",
            "https://a https://b",
        ] {
            assert_eq!(parse_origin(text), None, "{text}");
        }
    }
}
