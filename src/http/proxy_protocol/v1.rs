//! Version 1, a line of text (PP 2.1):
//!
//! ```text
//! PROXY TCP4 192.0.2.1 198.51.100.2 56324 443
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use memchr::memchr2;

use super::{Client, Header, Malformed, mapped};

/// What each line begins with.
pub(super) const SIGNATURE: &[u8] = b"PROXY ";

/// The longest line, with its CRLF: an unknown protocol and two full addresses of IPv6.
const MAX_LINE: usize = 107;

const LINE: Malformed = Malformed("a line of version 1 does not have its six parts");

/// [`decode`](super::decode), of bytes that begin with the signature as far as they are there.
pub(super) fn decode(bytes: &[u8]) -> Result<Option<(Header<'static>, usize)>, Malformed> {
    let within = bytes.get(..MAX_LINE).unwrap_or(bytes);
    let Some(end) = memchr2(b'\r', b'\n', within) else { return more(within.len()) };
    match within.get(end..).unwrap_or_default() {
        [b'\r', b'\n', ..] => {}
        [b'\r'] => return more(within.len()),
        // Ending a line with one of them would end it elsewhere than for others.
        _ => return Err(Malformed("a line of version 1 does not end with CRLF")),
    }
    let line = within.get(SIGNATURE.len()..end).ok_or(LINE)?;
    Ok(Some((interpret(line)?, end + 2)))
}

fn more<T>(length: usize) -> Result<Option<T>, Malformed> {
    if length < MAX_LINE { Ok(None) } else { Err(Malformed("a line of version 1 is too long")) }
}

/// What `line` says, without its signature and end.
fn interpret(line: &[u8]) -> Result<Header<'static>, Malformed> {
    let mut parts = line.split(|byte| *byte == b' ');
    let client = match parts.next() {
        Some(b"TCP4") => client::<Ipv4Addr>(parts),
        Some(b"TCP6") => client::<Ipv6Addr>(parts),
        // Whatever follows means nothing.
        Some(b"UNKNOWN") => return Ok(Header::Unknown),
        _ => Err(Malformed("version 1 has no such protocol")),
    };
    client.map(Header::Client)
}

/// What follows the name of a family, exactly.
fn client<'a, Ip: FromStr + Into<IpAddr>>(
    mut parts: impl Iterator<Item = &'a [u8]>,
) -> Result<Client<'static>, Malformed> {
    let mut next = || parts.next().ok_or(LINE);
    let (source, destination) = (address::<Ip>(next()?)?, address::<Ip>(next()?)?);
    let (source_port, destination_port) = (port(next()?)?, port(next()?)?);
    match parts.next() {
        None => Ok(Client::new(
            SocketAddr::new(source, source_port),
            SocketAddr::new(destination, destination_port),
        )),
        Some(_) => Err(LINE),
    }
}

/// The library's parsers take neither leading zeros nor anything else that is not canonical, but for
/// zeros within the four digits of IPv6.
fn address<Ip: FromStr + Into<IpAddr>>(digits: &[u8]) -> Result<IpAddr, Malformed> {
    let ip = std::str::from_utf8(digits).ok().and_then(|text| text.parse::<Ip>().ok());
    Ok(ip
        .ok_or(Malformed("an address of version 1 is not one of its family"))?
        .into()
        .to_canonical())
}

fn port(digits: &[u8]) -> Result<u16, Malformed> {
    let text = std::str::from_utf8(digits).ok();
    let port = text.and_then(|text| text.parse::<u16>().ok());
    // Neither a plus nor leading zeros.
    port.filter(|port| port.to_string().as_bytes() == digits)
        .ok_or(Malformed("a port of version 1 is not a plain number up to 65535"))
}

/// Writes the line that says what `header` does: the addresses, where there are any.
///
/// Receivers may refuse the line for anybody else than a client, so whoever speaks for itself had
/// better name its own addresses (PP 2.1).
pub fn write(out: &mut Vec<u8>, header: &Header<'_>) {
    let line = match header {
        Header::Local | Header::Unknown => "PROXY UNKNOWN\r\n".to_owned(),
        Header::Client(Client { source, destination, .. }) => {
            let ports = (source.port(), destination.port());
            match (source.ip(), destination.ip()) {
                (IpAddr::V4(from), IpAddr::V4(to)) => line("TCP4", from, to, ports),
                _ => line("TCP6", mapped(*source), mapped(*destination), ports),
            }
        }
    };
    out.extend_from_slice(line.as_bytes());
}

fn line<Ip: std::fmt::Display>(family: &str, from: Ip, to: Ip, ports: (u16, u16)) -> String {
    format!("PROXY {family} {from} {to} {} {}\r\n", ports.0, ports.1)
}
