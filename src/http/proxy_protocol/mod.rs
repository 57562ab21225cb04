//! The PROXY protocol: what a proxy says first on a connection, so that the next one knows whose it
//! is (<https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt>, called PP here).
//!
//! There is a line of text (version 1, PP 2.1) and a binary header (version 2,
//! PP 2.2). [`decode`] reads either, [`write_v1`] and [`write_v2`] write them.

mod v1;
mod v2;

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

pub use v1::write as write_v1;
pub use v2::write as write_v2;

/// The longest header in bytes that is read. Those of version 1 have 107 at most; of version 2, real
/// senders stay below 2 KiB, even with a client's whole certificate.
pub const MAX_HEADER: usize = 4096;

/// The longest value of a TLV in bytes that is written: what names in TLS can have.
pub const MAX_VALUE: usize = 255;

/// What a header says about a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Header<'a> {
    /// The sender speaks for itself (`LOCAL`): it checks our health, say.
    Local,
    /// It speaks for somebody of whom there is no address of IP (`UNKNOWN`, `AF_UNSPEC`, `AF_UNIX`, UDP).
    Unknown,
    /// It speaks for a client.
    Client(Client<'a>),
}

/// Who a sender speaks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Client<'a> {
    /// The client's own address. An IPv4 address mapped into IPv6 is read as the IPv4 address.
    pub source: SocketAddr,
    /// The address that it connected to, of either family, and read in the same way.
    pub destination: SocketAddr,
    /// The name that the client asked for (`PP2_TYPE_AUTHORITY`), the SNI of its TLS.
    pub authority: Option<&'a [u8]>,
    /// What is spoken on the connection, as ALPN names it (`PP2_TYPE_ALPN`).
    pub alpn: Option<&'a [u8]>,
    /// How the client came to the sender (`PP2_TYPE_SSL`); version 2 only, and not often there.
    pub tls: Option<Tls<'a>>,
}

impl Client<'_> {
    /// A client of whom nothing but the addresses is known.
    pub const fn new(source: SocketAddr, destination: SocketAddr) -> Self {
        Self { source, destination, authority: None, alpn: None, tls: None }
    }
}

/// How a client came to the sender (PP 2.2.6).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tls<'a> {
    /// Whether by TLS at all.
    pub is_used: bool,
    /// Whether it showed a certificate on this connection.
    pub has_certificate: bool,
    /// Whether it ever did so in the TLS session, of which there may have been several connections.
    pub had_certificate: bool,
    /// Whether that certificate was good.
    pub is_verified: bool,
    /// The version, `TLSv1.3`.
    pub version: Option<&'a [u8]>,
    /// The common name in the client's certificate.
    pub common_name: Option<&'a [u8]>,
    /// The name of the cipher.
    pub cipher: Option<&'a [u8]>,
}

/// Why something is no header, in a few words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub &'static str);

/// What the header at the front of `bytes` says, and how many bytes it has; `None` while it is not
/// whole. There must be one: nothing else is guessed (PP 2).
///
/// It may be asked again with every byte that arrives: until a header is whole, only what says how
/// long it is is looked at, 107 bytes at most.
///
/// # Errors
/// Whatever is not exactly a header of either version, as soon as that can be said.
pub fn decode(bytes: &[u8]) -> Result<Option<(Header<'_>, usize)>, Malformed> {
    if begins_with(bytes, v2::SIGNATURE) {
        v2::decode(bytes)
    } else if begins_with(bytes, v1::SIGNATURE) {
        v1::decode(bytes)
    } else {
        Err(Malformed("there is no PROXY protocol header"))
    }
}

/// Whether `bytes` begin with `signature`, as far as they are there.
fn begins_with(bytes: &[u8], signature: &[u8]) -> bool {
    bytes.iter().zip(signature).all(|(byte, expected)| byte == expected)
}

/// The address as one of IPv6, for where there is another of IPv6 beside it.
fn mapped(address: SocketAddr) -> Ipv6Addr {
    match address.ip() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}

#[cfg(test)]
mod tests;
