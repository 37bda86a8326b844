//! The address of the client behind proxies, from `X-Forwarded-For`.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use hyper::{HeaderMap, header::HeaderValue};
use ipnet::IpNet;

/// The networks of proxies whose `X-Forwarded-For` is used.
#[derive(Debug, Clone, Default)]
pub(crate) struct TrustedProxies(Arc<[IpNet]>);

impl TrustedProxies {
    pub(crate) fn contains(&self, address: &IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address))
    }
}

impl From<Vec<IpNet>> for TrustedProxies {
    fn from(networks: Vec<IpNet>) -> Self {
        Self(networks.into())
    }
}

/// The result of [`client_address`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ClientAddress {
    pub(crate) address: IpAddr,
    /// An entry could not be read. `address` is that of the proxy which sent the entry.
    pub(crate) has_unreadable_entry: bool,
}

/// Returns the address of the client of a request from `peer`: the last entry of `X-Forwarded-For` that is not a trusted
/// proxy's. Entries are read only from trusted proxies, from right to left: each proxy appends the address of its peer.
pub(crate) fn client_address(proxies: &TrustedProxies, peer: IpAddr, headers: &HeaderMap) -> ClientAddress {
    let mut client = ClientAddress { address: peer, has_unreadable_entry: false };
    if !proxies.contains(&peer) {
        return client;
    }
    let values: Vec<_> = headers.get_all("x-forwarded-for").iter().map(HeaderValue::as_bytes).collect();
    // an empty element of a list is no entry (RFC 9110, 5.6.1)
    let entries = values.iter().rev().flat_map(|value| value.rsplit(|&byte| byte == b','));
    for entry in entries.map(<[u8]>::trim_ascii).filter(|entry| !entry.is_empty()) {
        let Some(address) = std::str::from_utf8(entry).ok().and_then(parse_entry) else {
            client.has_unreadable_entry = true;
            break;
        };
        client.address = address.to_canonical();
        if !proxies.contains(&client.address) {
            break;
        }
    }
    client
}

/// Parses an address as proxies write it: `192.0.2.1`, `192.0.2.1:5678`, `2001:db8::1`, `[2001:db8::1]`,
/// `[2001:db8::1]:443`, `fe80::1%eth0`, each also in quotes.
fn parse_entry(entry: &str) -> Option<IpAddr> {
    let entry = entry.strip_prefix('"').and_then(|entry| entry.strip_suffix('"')).unwrap_or(entry).trim();
    if let Some(bracketed) = entry.strip_prefix('[') {
        let (address, port) = bracketed.split_once(']')?;
        let is_valid_port = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
        return is_valid_port.then(|| parse_ipv6(address))?;
    }
    match entry.split_once(':') {
        None => entry.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        Some((address, port)) if is_port(port) && !address.is_empty() && address.contains('.') => {
            address.parse::<Ipv4Addr>().ok().map(IpAddr::V4)
        }
        Some(_) => parse_ipv6(entry),
    }
}

/// Parses an IPv6 address with an optional zone (RFC 4007, 11), which is dropped: it names an interface of the proxy.
fn parse_ipv6(text: &str) -> Option<IpAddr> {
    let address = match text.split_once('%') {
        Some((_, "")) => return None,
        Some((address, _)) => address,
        None => text,
    };
    address.parse::<Ipv6Addr>().ok().map(IpAddr::V6)
}

fn is_port(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_with_ports_brackets_zones_and_quotes_are_parsed() {
        let parsed = |text: &str| parse_entry(text).map(|address| address.to_string());
        for text in ["192.0.2.1", "192.0.2.1:5678", "\"192.0.2.1\"", "\"192.0.2.1:5678\"", "\" 192.0.2.1 \""] {
            assert_eq!(parsed(text).as_deref(), Some("192.0.2.1"), "{text}");
        }
        for text in [
            "2001:db8::1",
            "[2001:db8::1]",
            "[2001:db8::1]:443",
            "\"[2001:db8::1]:443\"",
            "2001:db8::1%eth0",
            "[2001:db8::1%25eth0]:1",
        ] {
            assert_eq!(parsed(text).as_deref(), Some("2001:db8::1"), "{text}");
        }
        assert_eq!(parsed("::ffff:192.0.2.1").as_deref(), Some("::ffff:192.0.2.1"));
        for text in [
            "",
            "unknown",
            "_hidden",
            "192.0.2",
            "192.0.2.1:",
            "192.0.2.1:65536",
            "192.0.2.1:+1",
            "192.0.2.1:x",
            "192.0.2.1%eth0",
            "[192.0.2.1]:80",
            "[2001:db8::1",
            "[2001:db8::1]443",
            "[2001:db8::1]:",
            "2001:db8::1%",
            "\"192.0.2.1",
            "example.com:80",
        ] {
            assert_eq!(parsed(text), None, "{text}");
        }
    }

    #[test]
    fn an_unreadable_entry_ends_the_walk_at_the_proxy_that_sent_it() {
        let proxies = TrustedProxies::from(vec!["10.0.0.0/8".parse().unwrap()]);
        let walk = |values: &[&str], peer: &str| {
            let values = values.iter().map(|value| ("x-forwarded-for".parse().unwrap(), value.parse().unwrap()));
            let client = client_address(&proxies, peer.parse().unwrap(), &values.collect());
            (client.address.to_string(), client.has_unreadable_entry)
        };
        let proxy = "10.0.0.1";
        assert_eq!(walk(&["198.51.100.7"], "192.0.2.1"), ("192.0.2.1".into(), false), "not sent by a proxy");
        assert_eq!(walk(&[], proxy), (proxy.into(), false));
        assert_eq!(walk(&["forged", "198.51.100.7:1234, 10.1.1.1:80"], proxy), ("198.51.100.7".into(), false));
        assert_eq!(walk(&["198.51.100.7,, ", ","], proxy), ("198.51.100.7".into(), false), "empty elements");
        assert_eq!(walk(&["198.51.100.7, unknown, 10.1.1.1"], proxy), ("10.1.1.1".into(), true));
        assert_eq!(walk(&["unknown"], proxy), (proxy.into(), true));
    }
}
