//! One request: an address with its port, a time, and what else it says.

use std::net::{IpAddr, Ipv6Addr};

use super::moment::Moment;
use crate::archive::question::Endpoint;
use crate::session::Protocol;

/// A request as it was read.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Request {
    pub(super) at: Endpoint,
    pub(super) to: Option<Endpoint>,
    pub(super) protocol: Option<Protocol>,
    pub(super) time: Moment,
}

/// Reads `203.0.113.9:50520`, `203.0.113.9`, `[2001:db8::1]:443` or `2001:db8::1`. An IPv4 address in IPv6 (RFC 4291
/// section 2.5.5.2) is the IPv4 address, as servers with sockets for both log it.
pub(super) fn endpoint(text: &str) -> Option<Endpoint> {
    let whole = |address: &str| address.parse::<IpAddr>().ok().map(|it| it.to_canonical());
    if let Some(address) = whole(text) {
        return Some(Endpoint {
            address,
            port: None,
        });
    }
    let (address, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']')?;
            address.parse::<Ipv6Addr>().ok()?;
            let port = match port {
                "" => None,
                port => Some(port.strip_prefix(':')?),
            };
            (address, port)
        }
        None => {
            let (address, port) = text.split_once(':')?;
            (address, Some(port))
        }
    };
    Some(Endpoint {
        address: whole(address)?,
        port: port
            .map(port_of)
            .map_or(Some(None), |port| port.map(Some))?,
    })
}

/// Reads `203.0.113.9.50520`, as tcpdump writes an endpoint.
pub(super) fn dotted(text: &str) -> Option<Endpoint> {
    let (address, port) = text.rsplit_once('.')?;
    let address: IpAddr = address.parse().ok()?;
    Some(Endpoint {
        address: address.to_canonical(),
        port: Some(port_of(port)?),
    })
}

pub(super) fn port_of(text: &str) -> Option<u16> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| is_number && *port > 0)
}

/// Whether the Internet has no route to it, so that it is nobody's public address (RFC 6890).
pub(super) const fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let [a, b, ..] = address.octets();
            let is_shared = a == 100 && b & 0xc0 == 64;
            address.is_private() || is_shared || address.is_loopback() || address.is_link_local()
        }
        IpAddr::V6(address) => {
            address.is_unique_local() || address.is_loopback() || address.is_unicast_link_local()
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn an_endpoint_is_an_address_with_or_without_a_port() {
        let cases = [
            ("203.0.113.9:50520", "203.0.113.9", Some(50520)),
            ("203.0.113.9", "203.0.113.9", None),
            ("[2001:db8::1]:443", "2001:db8::1", Some(443)),
            ("[2001:db8::1]", "2001:db8::1", None),
            ("2001:db8::1", "2001:db8::1", None),
            ("::ffff:203.0.113.9", "203.0.113.9", None),
            ("[::ffff:203.0.113.9]:443", "203.0.113.9", Some(443)),
        ];
        for (text, address, port) in cases {
            let address = address.parse().unwrap();
            assert_eq!(endpoint(text), Some(Endpoint { address, port }), "{text}");
        }
    }

    #[test]
    fn what_is_no_endpoint_is_refused() {
        let cases = [
            "",
            "x",
            "203.0.113.9:",
            "203.0.113.9:0",
            "203.0.113.9:65536",
            "203.0.113.9:+1",
            "203.0.113:80",
            "203.0.113.9/24",
            "[203.0.113.9]:80",
            "[2001:db8::1]443",
            "[2001:db8::1]:",
            "2001:db8::1:x",
        ];
        for text in cases {
            assert_eq!(endpoint(text), None, "{text}");
        }
    }

    #[test]
    fn tcpdump_joins_the_port_with_a_dot() {
        for (text, address) in [
            ("203.0.113.9.50520", "203.0.113.9"),
            ("2001:db8::1.50520", "2001:db8::1"),
        ] {
            let (address, port) = (address.parse().unwrap(), Some(50520));
            assert_eq!(dotted(text), Some(Endpoint { address, port }));
        }
        assert_eq!(dotted("203.0.113.9"), None);
    }

    #[test]
    fn addresses_that_the_internet_has_no_route_to_are_private() {
        for text in [
            "10.1.2.3",
            "172.31.0.1",
            "192.168.0.1",
            "100.64.0.1",
            "100.127.255.255",
            "fd00::1",
            "fe80::1",
        ] {
            assert!(is_private(text.parse().unwrap()), "{text}");
        }
        for text in [
            "203.0.113.9",
            "172.32.0.1",
            "100.63.255.255",
            "100.128.0.1",
            "2001:db8::1",
        ] {
            assert!(!is_private(text.parse().unwrap()), "{text}");
        }
    }
}
