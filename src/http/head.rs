//! The rules of HTTP for a request head that hyper does not enforce: its size, `Host`, and transfer codings.

use hyper::{
    Version,
    header::{self, HeaderValue},
    http::request::Parts,
};

use crate::error::{Error, Result};

/// Limit of a request head in bytes: of what hyper buffers of an unfinished head, and of the request target plus the
/// names and values of all headers of a finished one.
pub(crate) const MAX_HEAD_BYTES: usize = 16 * 1024;

/// Returns an error for a head that is too large, has no valid `Host`, or a transfer coding other than `chunked`.
pub(crate) fn validate(head: &Parts) -> Result<()> {
    let mut size = head.uri.path_and_query().map_or(0, |target| target.as_str().len());
    let (mut host, mut is_host_valid, mut is_coding_supported) = (None, true, true);
    for (name, value) in &head.headers {
        size += name.as_str().len() + value.len();
        if name == header::HOST {
            is_host_valid = host.replace(value).is_none();
        } else if name == header::TRANSFER_ENCODING {
            is_coding_supported &= is_chunked(value);
        }
    }
    if size > MAX_HEAD_BYTES {
        return Err(Error::HeadTooLarge);
    }
    // RFC 9112, 3.2: HTTP/1.0 requests need no Host
    if !is_host_valid || !host.map_or(head.version < Version::HTTP_11, |host| is_host(host.as_bytes())) {
        return Err(Error::Malformed("Invalid Host header.".to_owned()));
    }
    if is_coding_supported { Ok(()) } else { Err(Error::UnsupportedTransferCoding) }
}

/// Whether a value of `Transfer-Encoding` names no coding but `chunked`. hyper requires that `chunked` is the last.
fn is_chunked(value: &HeaderValue) -> bool {
    let codings = value.as_bytes().split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
    codings.filter(|coding| !coding.is_empty()).all(|coding| coding.eq_ignore_ascii_case(b"chunked"))
}

/// Whether `host` is a `uri-host [ ":" port ]` (RFC 3986, 3.2.2 and 3.2.3). The host of an http URI is not empty (RFC
/// 9110, 4.2.1).
pub(super) fn is_host(host: &[u8]) -> bool {
    let (name, port) = match host.iter().rposition(|&byte| byte == b':') {
        // a colon within brackets belongs to an address
        Some(colon) if host.last() != Some(&b']') => (&host[..colon], &host[colon + 1..]),
        _ => (host, &b""[..]),
    };
    let is_name = match name {
        [b'[', address @ .., b']'] => is_ip_literal(address),
        name => !name.is_empty() && name.iter().all(|&byte| is_reg_name_byte(byte)) && has_valid_escapes(name),
    };
    is_name && port.iter().all(u8::is_ascii_digit)
}

fn is_ip_literal(address: &[u8]) -> bool {
    std::str::from_utf8(address).is_ok_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok())
}

/// Whether a registered name or an IPv4 address may contain this byte: unreserved, `%` or a sub-delimiter.
const fn is_reg_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'%' | b'!' | b'$' | b'&'..=b',' | b';' | b'=')
}

/// Whether each `%` is followed by two hexadecimal digits.
fn has_valid_escapes(name: &[u8]) -> bool {
    let mut parts = name.split(|&byte| byte == b'%').skip(1);
    parts.all(|part| part.len() >= 2 && part[..2].iter().all(u8::is_ascii_hexdigit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_is_a_name_or_address_with_an_optional_port() {
        for host in ["x", "shop.example:8000", "127.0.0.1", "[::1]", "[::1]:80", "shop.example:", "a_b", "%41b"] {
            assert!(is_host(host.as_bytes()), "{host}");
        }
        for host in [
            "", ":80", "a b", "a/b", "a:b", "a:80:80", "a@b", "a,b/", "[::1", "::1", "[]", "[x]", "a?b", "a#b", "%4",
            "%zz", "a:-1", "http://a", "é", "a\\b", "[::1]x", "<a>",
        ] {
            assert!(!is_host(host.as_bytes()), "{host}");
        }
    }
}
