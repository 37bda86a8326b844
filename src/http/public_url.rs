//! The URL under which clients reach the server. Behind a proxy that serves it under a path prefix, paths of the server
//! are not those of the client.

use hyper::{
    HeaderMap,
    header::{self, HeaderValue},
};

use super::head::is_host;

/// An http or https URL without query, fragment and trailing slash. Its characters need no escaping in HTML, in
/// JavaScript strings and in header fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PublicUrl(String);

impl PublicUrl {
    /// Returns `None` if `text` is not an http or https URL, or has user information, a query or a fragment.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let scheme = scheme.to_ascii_lowercase();
        let (host, path) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
        let path = path.trim_end_matches('/');
        let is_valid = ["http", "https"].contains(&scheme.as_str())
            && is_host(host.as_bytes())
            && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte))
            && path.split('/').skip(1).all(is_segment);
        is_valid.then(|| Self(format!("{scheme}://{host}{path}")))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Makes the paths in `Location` and `Link` absolute URLs.
    pub(crate) fn apply(&self, headers: &mut HeaderMap) {
        let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let location = text(header::LOCATION).filter(|path| path.starts_with('/'));
        let location = location.map(|path| format!("{}{path}", self.0));
        // the query of a link target is percent-encoded
        let link = text(header::LINK).map(|links| links.replace("</", &format!("<{}/", self.0)));
        for (name, value) in [(header::LOCATION, location), (header::LINK, link)] {
            if let Some(value) = value.and_then(|value| HeaderValue::from_str(&value).ok()) {
                headers.insert(name, value);
            }
        }
    }
}

/// Whether `segment` is a part of a path that clients leave as it is.
fn is_segment(segment: &str) -> bool {
    !["", ".", ".."].contains(&segment)
        && segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn url_is_absolute_without_query_and_trailing_slash() {
        for (text, url) in [
            ("https://shop.example", "https://shop.example"),
            ("https://shop.example/", "https://shop.example"),
            ("HTTPS://shop.example/api-root//", "https://shop.example/api-root"),
            ("http://127.0.0.1:8080/a/b_c.d~e", "http://127.0.0.1:8080/a/b_c.d~e"),
            ("http://[::1]:8080/", "http://[::1]:8080"),
        ] {
            assert_eq!(PublicUrl::parse(text), Some(PublicUrl(url.to_owned())), "{text}");
        }
        for text in [
            "",
            "/",
            "/api",
            "shop.example",
            "//shop.example",
            "ftp://shop.example",
            "https://",
            "https:///a",
            "https://u@shop.example",
            "https://u:p@shop.example",
            "https://shop.example?a",
            "https://shop.example/?a",
            "https://shop.example/#a",
            "https://shop.example/a b",
            "https://shop.example//a",
            "https://shop.example/../a",
            "https://shop.example/%2e",
            "https://shop.example/'",
            "https://shop.example/\"",
            "https://shop.example/<",
            "https://shop.example:x",
            "https://é",
            "https://a,https://b",
            "javascript://a",
        ] {
            assert_eq!(PublicUrl::parse(text), None, "{text}");
        }
    }

    #[test]
    fn location_and_link_become_absolute() {
        let url = PublicUrl::parse("https://shop.example/root").unwrap_or_else(|| unreachable!("the URL is valid"));
        let mut headers = HeaderMap::new();
        url.apply(&mut headers);
        assert!(headers.is_empty());
        headers.insert(header::LOCATION, HeaderValue::from_static("/api/tags/1/"));
        headers.insert(header::LINK, HeaderValue::from_static("</api/?a=%3C/>; rel=\"next\", </api/?b>; rel=\"prev\""));
        url.apply(&mut headers);
        assert_eq!(headers[header::LOCATION], "https://shop.example/root/api/tags/1/");
        let link = "<https://shop.example/root/api/?a=%3C/>; rel=\"next\", <https://shop.example/root/api/?b>; \
                    rel=\"prev\"";
        assert_eq!(headers[header::LINK], link);
    }
}
