//! Who is at the other end, seen through the proxies that are trusted.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::request::Parts;
use serde::{Deserialize, Deserializer};

/// The address a request came from: the connection's, or the one that a trusted proxy names. Put into
/// every request's extensions by [`layers`](super::layers); as an extractor it is never missing, but
/// unspecified (`0.0.0.0`) where a router runs without them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientAddress(pub IpAddr);

impl<S: Send + Sync> FromRequestParts<S> for ClientAddress {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let known = parts.extensions.get().copied();
        Ok(known.unwrap_or(ClientAddress(IpAddr::V4(Ipv4Addr::UNSPECIFIED))))
    }
}

/// A network, or a single address: `10.0.0.0/8`, `2001:db8::/32`, `192.0.2.7`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

impl Network {
    /// Whether it is all there is: `0.0.0.0/0` or `::/0`.
    pub fn is_everything(&self) -> bool {
        self.bits == 0
    }

    /// Whether an address lies in it. An IPv4 address in IPv6's clothes (`::ffff:192.0.2.7`) is what it is.
    pub fn contains(&self, address: IpAddr) -> bool {
        let (width, own, other) = match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                (32, u128::from(own.to_bits()), u128::from(other.to_bits()))
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => (128, own.to_bits(), other.to_bits()),
            _ => return false,
        };
        // A shift by all bits is none in Rust, but an overflow.
        (own ^ other).checked_shr(width - u32::from(self.bits)).unwrap_or(0) == 0
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is neither an address nor a network such as 10.0.0.0/8");
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(width), |bits| bits.parse().map_err(|_| wrong()))?;
        if bits > width { Err(wrong()) } else { Ok(Network { address, bits }) }
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The header in which a trusted proxy names its client. Only one is looked at: a proxy that sets one
/// passes the other on as the client sent it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ForwardedHeader {
    /// `X-Forwarded-For`.
    #[default]
    XForwardedFor,
    /// `Forwarded`, RFC 7239.
    Forwarded,
}

/// Whom the proxies at the other end of a connection ask for. The list is read from its end, which
/// the nearest proxy wrote, up to the first address that is not one of a trusted proxy: what stands
/// before that is hearsay.
pub(super) fn client_address(
    peer: IpAddr,
    headers: &HeaderMap,
    header: ForwardedHeader,
    trusted: &[Network],
) -> ClientAddress {
    let trusts = |address| trusted.iter().any(|network| network.contains(address));
    let mut client = peer.to_canonical();
    if !trusts(client) {
        return ClientAddress(client);
    }
    let (name, read): (_, fn(&str) -> Option<IpAddr>) = match header {
        ForwardedHeader::XForwardedFor => ("x-forwarded-for", address),
        ForwardedHeader::Forwarded => ("forwarded", forwarded_for),
    };
    let lines: Vec<_> = headers.get_all(name).iter().collect();
    for line in lines.into_iter().rev() {
        // A line that is no text, or an entry that is no address, ends what can be known.
        let Ok(line) = line.to_str() else { return ClientAddress(client) };
        for entry in line.rsplit(',') {
            let Some(named) = read(entry.trim()) else { return ClientAddress(client) };
            client = named.to_canonical();
            if !trusts(client) {
                return ClientAddress(client);
            }
        }
    }
    ClientAddress(client)
}

/// An address, with or without a port; IPv6 also in brackets.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.split_once(']')).map_or(text, |(bare, _)| bare);
    bare.parse().ok().or_else(|| text.parse().ok().map(|socket: std::net::SocketAddr| socket.ip()))
}

/// The address in an element of `Forwarded`: `for="[2001:db8::1]:4711";proto=https`.
fn forwarded_for(element: &str) -> Option<IpAddr> {
    let value = element.split(';').find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        name.trim().eq_ignore_ascii_case("for").then(|| value.trim())
    })?;
    address(value.trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        text.parse().expect(text)
    }

    #[test]
    fn a_network_holds_its_addresses_and_no_others() {
        for (text, inside, outside) in [
            ("10.0.0.0/8", "10.255.1.2", "11.0.0.1"),
            ("192.0.2.7", "192.0.2.7", "192.0.2.6"),
            ("192.0.2.8/31", "::ffff:192.0.2.9", "192.0.2.10"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::"),
            ("2001:db8::1", "2001:db8::1", "2001:db8::2"),
            ("0.0.0.0/0", "203.0.113.9", "::1"),
            ("::/0", "2001:db8::1", "127.0.0.1"),
        ] {
            assert!(network(text).contains(inside.parse().expect("an address")), "{text} {inside}");
            assert!(!network(text).contains(outside.parse().expect("an address")), "{text} {outside}");
        }
        for bad in ["", "10.0.0.0/33", "10.0.0.0/", "10.0.0/8", "::/129", "10.0.0.0/-1", "localhost", "/8"] {
            assert!(bad.parse::<Network>().is_err(), "{bad}");
        }
    }

    fn seen(peer: &str, header: ForwardedHeader, lines: &[&str]) -> String {
        let trusted = ["10.0.0.0/8", "::1"].map(network);
        let mut headers = HeaderMap::new();
        let name = match header {
            ForwardedHeader::XForwardedFor => "x-forwarded-for",
            ForwardedHeader::Forwarded => "forwarded",
        };
        for line in lines {
            headers.append(name, axum::http::HeaderValue::from_bytes(line.as_bytes()).expect("a value"));
        }
        client_address(peer.parse().expect("an address"), &headers, header, &trusted).0.to_string()
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        use ForwardedHeader::{Forwarded, XForwardedFor};
        // A stranger may say what it likes.
        assert_eq!(seen("203.0.113.9", XForwardedFor, &["192.0.2.1"]), "203.0.113.9");
        assert_eq!(seen("10.0.0.1", XForwardedFor, &["192.0.2.1"]), "192.0.2.1");
        assert_eq!(seen("10.0.0.1", XForwardedFor, &[]), "10.0.0.1");
        // What the client itself put in front does not count.
        assert_eq!(seen("10.0.0.1", XForwardedFor, &["1.2.3.4, 192.0.2.1, 10.0.0.2"]), "192.0.2.1");
        assert_eq!(seen("10.0.0.1", XForwardedFor, &["1.2.3.4", "192.0.2.1"]), "192.0.2.1");
        assert_eq!(seen("10.0.0.1", XForwardedFor, &["1.2.3.4, what, 10.0.0.2"]), "10.0.0.2");
        assert_eq!(seen("10.0.0.1", XForwardedFor, &["1.2.3.4", "\u{e6}"]), "10.0.0.1");
        assert_eq!(seen("::1", XForwardedFor, &["192.0.2.1:4711"]), "192.0.2.1");
        assert_eq!(seen("::1", XForwardedFor, &["[2001:db8::1]:80"]), "2001:db8::1");
        assert_eq!(seen("::ffff:10.1.1.1", XForwardedFor, &["2001:db8::1"]), "2001:db8::1");
        let given = "for=1.2.3.4, For=\"[2001:db8::1]:4711\";proto=https;by=203.0.113.43, for=10.0.0.9";
        assert_eq!(seen("10.0.0.1", Forwarded, &[given]), "2001:db8::1");
        assert_eq!(seen("10.0.0.1", Forwarded, &["for=unknown"]), "10.0.0.1");
        assert_eq!(seen("10.0.0.1", Forwarded, &["for=_hidden, for=192.0.2.1"]), "192.0.2.1");
    }
}
