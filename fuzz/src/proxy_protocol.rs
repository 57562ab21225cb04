//! PROXY protocol headers: read, and written anew.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use tinylb::http::proxy_protocol::{
    Client, Header, MAX_HEADER, MAX_VALUE, Tls, decode, write_v1, write_v2,
};

use super::show;

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// What is read is what a plain reader finds, whatever of it has been looked at before, and written
/// anew it says the same. So it is with the checksum put right.
pub fn check(bytes: &[u8]) {
    held(bytes);
    if let Some(mended) = mended(bytes) {
        held(&mended);
    }
}

fn held(bytes: &[u8]) {
    let shown = show(bytes);
    let whole = decode(bytes);
    for end in 0..bytes.len().min(MAX_HEADER + 1) {
        match decode(&bytes[..end]) {
            Ok(None) => {}
            Ok(Some(said)) => assert_eq!(Ok(Some(said)), whole, "{end} of {shown}"),
            Err(_) => assert!(whole.is_err(), "{end} of {shown}"),
        }
    }
    let plain = if bytes.starts_with(b"PROXY ") { line(bytes) } else { binary(bytes) };
    match (whole, plain) {
        (Err(_), Plain::Fault) | (Ok(None), Plain::More) => {}
        (Ok(Some((header, length))), Plain::Said(expected, end)) => {
            assert_eq!((header, length), (expected, end), "{shown}");
            written_anew(&header, &shown);
        }
        (said, expected) => panic!("{said:?}, {expected:?}: {shown}"),
    }
}

fn written_anew(header: &Header<'_>, shown: &str) {
    let mut line = Vec::new();
    write_v1(&mut line, header);
    let expected = match header {
        Header::Local | Header::Unknown => Header::Unknown,
        Header::Client(client) => Header::Client(Client::new(client.source, client.destination)),
    };
    assert_eq!(decode(&line), Ok(Some((expected, line.len()))), "{shown}");
    let mut binary = Vec::new();
    write_v2(&mut binary, header);
    assert!(binary.len() <= MAX_HEADER, "{shown}");
    let short = |value: Option<_>| value.filter(|value: &&[u8]| value.len() <= MAX_VALUE);
    let expected = match header {
        Header::Client(client) => Header::Client(Client {
            authority: short(client.authority),
            alpn: short(client.alpn),
            tls: client.tls.map(|tls| Tls {
                version: short(tls.version),
                common_name: short(tls.common_name),
                cipher: short(tls.cipher),
                ..tls
            }),
            ..*client
        }),
        other => *other,
    };
    assert_eq!(decode(&binary), Ok(Some((expected, binary.len()))), "{shown}");
}

#[derive(Debug)]
enum Plain<'a> {
    More,
    Fault,
    Said(Header<'a>, usize),
}

/// Version 1, by its section 2.1.
fn line(bytes: &[u8]) -> Plain<'_> {
    let within = &bytes[..bytes.len().min(107)];
    let end = within.windows(2).position(|two| two == b"\r\n");
    let text = &within[..end.unwrap_or(within.len())];
    let is_cut = end.is_none() && text.ends_with(b"\r");
    let text = &text[..text.len() - usize::from(is_cut)];
    if text.contains(&b'\r') || text.contains(&b'\n') {
        return Plain::Fault;
    }
    let Some(end) = end else {
        return if within.len() == 107 { Plain::Fault } else { Plain::More };
    };
    let text = String::from_utf8_lossy(text);
    let header = match text.split(' ').collect::<Vec<_>>()[..] {
        ["PROXY", "UNKNOWN", ..] => Some(Header::Unknown),
        ["PROXY", "TCP4", from, to, port, at] => client(v4(from), v4(to), port, at),
        ["PROXY", "TCP6", from, to, port, at] => client(v6(from), v6(to), port, at),
        _ => None,
    };
    header.map_or(Plain::Fault, |header| Plain::Said(header, end + 2))
}

fn client(
    from: Option<IpAddr>,
    to: Option<IpAddr>,
    from_port: &str,
    to_port: &str,
) -> Option<Header<'static>> {
    let port = |text: &str| text.parse().ok().filter(|port: &u16| port.to_string() == text);
    let source = SocketAddr::new(from?, port(from_port)?);
    Some(Header::Client(Client::new(source, SocketAddr::new(to?, port(to_port)?))))
}

fn v4(text: &str) -> Option<IpAddr> {
    let parts: Vec<u8> = text.split('.').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    let ip = Ipv4Addr::from(<[u8; 4]>::try_from(parts).ok()?);
    (ip.to_string() == text).then_some(IpAddr::V4(ip))
}

/// RFC 4291 2.2.
fn v6(text: &str) -> Option<IpAddr> {
    let (front, dotted) = match text.rfind(':').map(|at| text.split_at(at + 1)) {
        Some((front, last)) if last.contains('.') => (front, Some(v4(last)?)),
        _ => (text, None),
    };
    // What is dotted is two groups.
    let text = match dotted {
        Some(IpAddr::V4(ip)) => {
            let [a, b, c, d] = ip.octets();
            format!("{front}{a:02x}{b:02x}:{c:02x}{d:02x}")
        }
        _ => text.to_owned(),
    };
    let groups = |text: &str| {
        let is_group =
            |g: &str| (1..=4).contains(&g.len()) && g.bytes().all(|b| b.is_ascii_hexdigit());
        let group = |g: &str| if is_group(g) { u16::from_str_radix(g, 16).ok() } else { None };
        let groups = text.split(':').map(group).collect::<Option<Vec<u16>>>();
        if text.is_empty() { Some(Vec::new()) } else { groups }
    };
    let all = match text.split_once("::") {
        None => groups(&text)?,
        Some((before, after)) => {
            let (mut all, after) = (groups(before)?, groups(after)?);
            // It stands for one group at least.
            let zeros = 8usize.checked_sub(all.len() + after.len()).filter(|zeros| *zeros > 0)?;
            all.resize(all.len() + zeros, 0);
            all.extend(after);
            all
        }
    };
    Some(IpAddr::from(<[u16; 8]>::try_from(all).ok()?).to_canonical())
}

/// Version 2, by its section 2.2.
fn binary(bytes: &[u8]) -> Plain<'_> {
    if bytes.len() < 16 {
        let is_start = SIGNATURE.starts_with(&bytes[..bytes.len().min(12)])
            || b"PROXY ".starts_with(bytes)
            || bytes.starts_with(SIGNATURE);
        return if is_start { Plain::More } else { Plain::Fault };
    }
    let length = 16 + usize::from(bytes[14]) * 256 + usize::from(bytes[15]);
    let addresses = match (bytes[12], bytes[13]) {
        (0x20, _) | (0x21, 0) => 0,
        (0x21, 0x11) => 12,
        (0x21, 0x21) => 36,
        (0x21, 0x31) => 216,
        _ => return Plain::Fault,
    };
    if !bytes.starts_with(SIGNATURE) || length > MAX_HEADER {
        return Plain::Fault;
    }
    if bytes.len() < length {
        return Plain::More;
    }
    let header = &bytes[..length];
    let said = match (addresses, bytes[12]) {
        (0, 0x20) => Some(Header::Local),
        (0, _) => Some(Header::Unknown),
        _ => extended(header, addresses),
    };
    said.map_or(Plain::Fault, |said| Plain::Said(said, length))
}

/// What a header with `addresses` bytes of them says.
fn extended(header: &[u8], addresses: usize) -> Option<Header<'_>> {
    let all = tlvs(header.get(16 + addresses..)?)?;
    let ssl = match once(&all, 0x20)? {
        Some(value) if value.len() < 5 => return None,
        Some(value) => Some((value, tlvs(&value[5..])?)),
        None => None,
    };
    if once(&all, 3)?.is_some() && mended(header)? != header {
        return None;
    }
    let tls = match &ssl {
        Some((value, inner)) => Some(Tls {
            is_used: value[0] & 1 == 1,
            has_certificate: value[0] >> 1 & 1 == 1,
            had_certificate: value[0] >> 2 & 1 == 1,
            is_verified: value[1..5] == [0; 4],
            version: once(inner, 0x21)?,
            common_name: once(inner, 0x22)?,
            cipher: once(inner, 0x23)?,
        }),
        None => None,
    };
    let (authority, alpn) = (once(&all, 2)?, once(&all, 1)?);
    if addresses == 216 {
        return Some(Header::Unknown);
    }
    let ip = |at: usize| match addresses {
        12 => IpAddr::from(<[u8; 4]>::try_from(&header[16 + at * 4..][..4]).unwrap()),
        _ => IpAddr::from(<[u8; 16]>::try_from(&header[16 + at * 16..][..16]).unwrap()),
    };
    let port = |at: usize| {
        let bytes = &header[12 + addresses + at * 2..];
        u16::from(bytes[0]) << 8 | u16::from(bytes[1])
    };
    let address = |at| SocketAddr::new(ip(at).to_canonical(), port(at));
    Some(Header::Client(Client { authority, alpn, tls, ..Client::new(address(0), address(1)) }))
}

/// Types and values, if they end where they should.
fn tlvs(bytes: &[u8]) -> Option<Vec<(u8, &[u8])>> {
    let (mut all, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let length = usize::from(*bytes.get(at + 1)?) * 256 + usize::from(*bytes.get(at + 2)?);
        all.push((bytes[at], bytes.get(at + 3..at + 3 + length)?));
        at += 3 + length;
    }
    Some(all)
}

/// The value of the only one of this type, if there is one, and nothing if there are more.
fn once<'a>(tlvs: &[(u8, &'a [u8])], kind: u8) -> Option<Option<&'a [u8]>> {
    let mut values = tlvs.iter().filter(|tlv| tlv.0 == kind).map(|tlv| tlv.1);
    let first = values.next();
    values.next().is_none().then_some(first)
}

/// The same with the right checksum, if it is a header that has a place for one.
fn mended(bytes: &[u8]) -> Option<Vec<u8>> {
    if !bytes.starts_with(SIGNATURE) || bytes.len() < 16 {
        return None;
    }
    let length = 16 + usize::from(bytes[14]) * 256 + usize::from(bytes[15]);
    let addresses = match bytes[13] {
        0x11 => 12,
        0x21 => 36,
        0x31 => 216,
        _ => return None,
    };
    let header = bytes.get(..length)?;
    let mut at = 16 + addresses;
    for (kind, value) in tlvs(header.get(at..)?)? {
        at += 3 + value.len();
        if kind == 3 && value.len() == 4 {
            let mut mended = bytes.to_vec();
            mended[at - 4..at].fill(0);
            let sum = crc32c(&mended[..length]);
            mended[at - 4..at].copy_from_slice(&sum.to_be_bytes());
            return Some(mended);
        }
    }
    None
}

/// RFC 9260, appendix A, bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut sum = u32::MAX;
    for byte in bytes {
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            sum = sum >> 1 ^ if sum & 1 == 1 { 0x82f6_3b78 } else { 0 };
        }
    }
    !sum
}
