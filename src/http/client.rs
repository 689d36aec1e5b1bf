//! Whose request it is: the peer of its TCP connection, or, where that is a trusted proxy, who the proxy says.

use std::net::{IpAddr, SocketAddr};

use hyper::HeaderMap;

use crate::config::TrustedProxies;

/// Most addresses of `X-Forwarded-For` that are looked at, from the right: as many proxies in a row.
const HOP_COUNT_MAX: usize = 32;

/// The client's address, never an IPv4-mapped one; its port where it is known, or 0.
///
/// Each proxy appends the address that it was asked from: only what trusted ones wrote can be believed, and that
/// stands at the right. Everything left of the first address that is no proxy may be the client's invention. A
/// header that cannot be read, or that names none but proxies, leaves the peer's address.
pub(super) fn address(peer: SocketAddr, headers: &HeaderMap, trusted: &TrustedProxies) -> SocketAddr {
    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    if !trusted.contain(peer.ip()) {
        return peer;
    }
    let lines: Vec<_> = headers.get_all("x-forwarded-for").iter().collect();
    let hops = lines.iter().rev().flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
    for hop in hops.take(HOP_COUNT_MAX) {
        match parse(hop) {
            Some(address) if trusted.contain(address.ip()) => {}
            Some(address) => return address,
            None => return peer,
        }
    }
    peer
}

/// An address, with a port where the proxy writes one.
fn parse(hop: &[u8]) -> Option<SocketAddr> {
    let text = std::str::from_utf8(hop).ok()?.trim();
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let address = match bare.parse::<IpAddr>() {
        Ok(ip) => SocketAddr::new(ip, 0),
        Err(_) => text.parse().ok()?,
    };
    Some(SocketAddr::new(address.ip().to_canonical(), address.port()))
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn seen(peer: &str, lines: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append("x-forwarded-for", HeaderValue::from_bytes(line.as_bytes()).unwrap());
        }
        let trusted = TrustedProxies::parse("10.0.0.0/8, 2001:db8::/64").unwrap();
        address(peer.parse().unwrap(), &headers, &trusted).to_string()
    }

    #[test]
    fn the_rightmost_that_is_no_proxy_is_the_client() {
        let proxy = "10.0.0.1:99";
        assert_eq!(seen(proxy, &["192.0.2.7"]), "192.0.2.7:0");
        assert_eq!(seen(proxy, &["203.0.113.1, 192.0.2.7, 10.0.0.2,10.0.0.3"]), "192.0.2.7:0");
        assert_eq!(
            seen(proxy, &["203.0.113.1", "192.0.2.7", "10.0.0.2"]),
            "192.0.2.7:0",
            "lines are one list"
        );
        assert_eq!(seen(proxy, &["::ffff:192.0.2.7"]), "192.0.2.7:0");
        assert_eq!(seen(proxy, &["2001:db8:1::7"]), "[2001:db8:1::7]:0");
        assert_eq!(seen(proxy, &["[2001:db8:1::7]:80, 192.0.2.7:1234"]), "192.0.2.7:1234");
        assert_eq!(seen("[::ffff:10.0.0.1]:99", &["192.0.2.7"]), "192.0.2.7:0");
        assert_eq!(seen("[2001:db8::5]:99", &["192.0.2.7"]), "192.0.2.7:0");
    }

    #[test]
    fn a_stranger_is_who_he_is_whatever_he_says() {
        assert_eq!(seen("198.51.100.1:99", &["192.0.2.7"]), "198.51.100.1:99");
        assert_eq!(seen("[::ffff:198.51.100.1]:99", &["10.0.0.1"]), "198.51.100.1:99");
    }

    #[test]
    fn what_cannot_be_read_or_believed_leaves_the_peer() {
        let crowd = ["10.0.0.2"; HOP_COUNT_MAX].join(",");
        for lines in [
            &[][..],
            &[""],
            &["unknown"],
            &["192.0.2.7, _hidden"],
            &["192.0.2.7,"],
            &["192.0.2.7 203.0.113.1"],
            &["10.0.0.2, 10.0.0.3"],
            &["192.0.2.300"],
            &["\u{ff}"],
            &["192.0.2.7", &crowd],
        ] {
            assert_eq!(seen("10.0.0.1:99", lines), "10.0.0.1:99", "{lines:?}");
        }
    }
}
