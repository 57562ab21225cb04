//! Version 2, a binary header (PP 2.2): the signature, four bytes, a block of addresses, and values
//! with a type and a length (TLVs) behind it. Numbers have the network's order of bytes.

use std::net::{IpAddr, SocketAddr};

use super::{Client, Header, MAX_HEADER, MAX_VALUE, Malformed, Tls, mapped};

/// What each header begins with.
pub(super) const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// The signature, version and command, family and transport, and the length of what follows.
const PREFIX: usize = SIGNATURE.len() + 4;

/// The version in the upper four bits, the command in the lower.
const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;

/// The family in the upper four bits, the transport in the lower.
const UNSPECIFIED: u8 = 0x00;
const INET_STREAM: u8 = 0x11;
const INET6_STREAM: u8 = 0x21;
const UNIX_STREAM: u8 = 0x31;
const INET_DATAGRAM: u8 = 0x12;
const INET6_DATAGRAM: u8 = 0x22;
const UNIX_DATAGRAM: u8 = 0x32;

/// Two addresses and two ports.
const INET_ADDRESSES: usize = 12;
const INET6_ADDRESSES: usize = 36;

/// Two paths of 108 bytes each.
const UNIX_ADDRESSES: usize = 216;

/// Types of TLVs, and of those within `SSL`.
mod kind {
    pub(super) const ALPN: u8 = 0x01;
    pub(super) const AUTHORITY: u8 = 0x02;
    pub(super) const CRC32C: u8 = 0x03;
    pub(super) const SSL: u8 = 0x20;
    pub(super) const SSL_VERSION: u8 = 0x21;
    pub(super) const SSL_CN: u8 = 0x22;
    pub(super) const SSL_CIPHER: u8 = 0x23;
}

/// Bits of the first byte in `SSL`.
const CLIENT_SSL: u8 = 1;
const CLIENT_CERT_CONN: u8 = 2;
const CLIENT_CERT_SESS: u8 = 4;

/// [`decode`](super::decode), of bytes that begin with the signature as far as they are there.
pub(super) fn decode(bytes: &[u8]) -> Result<Option<(Header<'_>, usize)>, Malformed> {
    let Some([.., command, family, high, low]) = bytes.first_chunk::<PREFIX>() else {
        return Ok(None);
    };
    let length = PREFIX + usize::from(u16::from_be_bytes([*high, *low]));
    match (*command, *family) {
        (LOCAL, _) | (PROXY, UNSPECIFIED | INET_STREAM | INET6_STREAM | UNIX_STREAM) => {}
        (PROXY, INET_DATAGRAM | INET6_DATAGRAM | UNIX_DATAGRAM) => {}
        (PROXY, _) => return Err(Malformed("version 2 has no such family or transport")),
        (0x20..=0x2f, _) => return Err(Malformed("version 2 has no such command")),
        _ => return Err(Malformed("a binary header of a version other than 2")),
    }
    if length > MAX_HEADER {
        return Err(Malformed("a header of more than 4 KiB"));
    }
    let Some((header, block)) = bytes.get(..length).zip(bytes.get(PREFIX..length)) else {
        return Ok(None);
    };
    let said = match (*command, *family) {
        (PROXY, INET_STREAM) => inet::<4>(header, block)?,
        (PROXY, INET6_STREAM) => inet::<16>(header, block)?,
        (PROXY, UNIX_STREAM | UNIX_DATAGRAM) => unnamed(header, block, UNIX_ADDRESSES)?,
        // UDP is not supported here: the connection's own addresses are used (PROXY protocol 2.2).
        (PROXY, INET_DATAGRAM) => unnamed(header, block, INET_ADDRESSES)?,
        (PROXY, INET6_DATAGRAM) => unnamed(header, block, INET6_ADDRESSES)?,
        // The block is for nobody to read.
        (PROXY, _) => Header::Unknown,
        _ => Header::Local,
    };
    Ok(Some((said, length)))
}

const ADDRESSES: Malformed = Malformed("the block of version 2 is too short for its addresses");

/// What `header` says, whose `block` begins with so many bytes of addresses that mean nothing here.
fn unnamed<'a>(header: &[u8], block: &'a [u8], addresses: usize) -> Result<Header<'a>, Malformed> {
    let tlvs = block.get(addresses..).ok_or(ADDRESSES)?;
    Extensions::read(header, tlvs)?;
    Ok(Header::Unknown)
}

/// What `header` says, whose `block` begins with addresses of `N` bytes.
fn inet<'a, const N: usize>(header: &'a [u8], block: &'a [u8]) -> Result<Header<'a>, Malformed>
where
    IpAddr: From<[u8; N]>,
{
    let (source, destination, tlvs) = addresses::<N>(block).ok_or(ADDRESSES)?;
    let Extensions { authority, alpn, tls, .. } = Extensions::read(header, tlvs)?;
    Ok(Header::Client(Client { source, destination, authority, alpn, tls }))
}

/// Source and destination at the front of `block`, and what is behind them.
fn addresses<const N: usize>(block: &[u8]) -> Option<(SocketAddr, SocketAddr, &[u8])>
where
    IpAddr: From<[u8; N]>,
{
    let (source, block) = block.split_first_chunk::<N>()?;
    let (destination, block) = block.split_first_chunk::<N>()?;
    let (source_port, block) = block.split_first_chunk()?;
    let (destination_port, tlvs) = block.split_first_chunk()?;
    let address = |ip: &[u8; N], port: &[u8; 2]| {
        SocketAddr::new(IpAddr::from(*ip).to_canonical(), u16::from_be_bytes(*port))
    };
    Some((address(source, source_port), address(destination, destination_port), tlvs))
}

/// The TLVs that mean something to us.
#[derive(Debug, Default)]
struct Extensions<'a> {
    authority: Option<&'a [u8]>,
    alpn: Option<&'a [u8]>,
    tls: Option<Tls<'a>>,
    checksum: Option<&'a [u8]>,
}

impl<'a> Extensions<'a> {
    /// What `tlvs` say, the end of `header`, and checks its checksum where there is one.
    fn read(header: &[u8], tlvs: &'a [u8]) -> Result<Self, Malformed> {
        let mut read = Self::default();
        let mut tlvs = Tlvs(tlvs);
        while let Some((kind, value)) = tlvs.next()? {
            match kind {
                kind::ALPN => once(&mut read.alpn, value)?,
                kind::AUTHORITY => once(&mut read.authority, value)?,
                kind::SSL => once(&mut read.tls, tls(value)?)?,
                kind::CRC32C => {
                    once(&mut read.checksum, value)?;
                    check(header, tlvs.0.len(), value)?;
                }
                // Padding (NOOP), and what means nothing here.
                _ => {}
            }
        }
        Ok(read)
    }
}

/// TLVs that are still to be read.
struct Tlvs<'a>(&'a [u8]);

impl<'a> Tlvs<'a> {
    /// Type and value of the next; `None` where there are no more.
    fn next(&mut self) -> Result<Option<(u8, &'a [u8])>, Malformed> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let split = self.0.split_first_chunk().and_then(|([kind, high, low], rest)| {
            let length = u16::from_be_bytes([*high, *low]);
            Some((*kind, rest.split_at_checked(usize::from(length))?))
        });
        let (kind, (value, behind)) =
            split.ok_or(Malformed("a TLV is longer than what it is in"))?;
        self.0 = behind;
        Ok(Some((kind, value)))
    }
}

/// What comes twice means nothing certain.
fn once<T>(place: &mut Option<T>, value: T) -> Result<(), Malformed> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(Malformed("a TLV is there twice")),
    }
}

/// PP 2.2.6.
fn tls(value: &[u8]) -> Result<Tls<'_>, Malformed> {
    let short = Malformed("the TLV about TLS is too short");
    let (flags, value) = value.split_first().ok_or(short)?;
    let (verify, inner) = value.split_first_chunk::<4>().ok_or(short)?;
    let mut tls = Tls {
        is_used: flags & CLIENT_SSL != 0,
        has_certificate: flags & CLIENT_CERT_CONN != 0,
        had_certificate: flags & CLIENT_CERT_SESS != 0,
        is_verified: *verify == [0; 4],
        ..Tls::default()
    };
    let mut inner = Tlvs(inner);
    while let Some((kind, value)) = inner.next()? {
        match kind {
            kind::SSL_VERSION => once(&mut tls.version, value)?,
            kind::SSL_CN => once(&mut tls.common_name, value)?,
            kind::SSL_CIPHER => once(&mut tls.cipher, value)?,
            _ => {}
        }
    }
    Ok(tls)
}

/// Whether `sum`, which has `behind` bytes of `header` behind it, is the header's checksum, which is
/// worked out with zeros in its own place (PP 2.2.3).
fn check(header: &[u8], behind: usize, sum: &[u8]) -> Result<(), Malformed> {
    let wrong = Malformed("the checksum of version 2 is wrong");
    let sum = u32::from_be_bytes(sum.try_into().map_err(|_| wrong)?);
    let rest = header.len().checked_sub(behind).and_then(|end| header.split_at_checked(end));
    let (before, after) = rest.ok_or(wrong)?;
    let before = before.split_last_chunk::<4>().ok_or(wrong)?.0;
    if sum == checksum(before, after) { Ok(()) } else { Err(wrong) }
}

/// The CRC-32C of a header whose own place in it is between these two.
fn checksum(before: &[u8], after: &[u8]) -> u32 {
    let sum = crc32c::crc32c_append(crc32c::crc32c(before), &[0; 4]);
    crc32c::crc32c_append(sum, after)
}

/// Writes the header that says what `header` does, with its TLVs and a checksum. Values of more than
/// [`MAX_VALUE`] bytes are left out.
pub fn write(out: &mut Vec<u8>, header: &Header<'_>) {
    let start = out.len();
    out.extend_from_slice(SIGNATURE);
    let client = match header {
        Header::Local => return out.extend_from_slice(&[LOCAL, UNSPECIFIED, 0, 0]),
        Header::Unknown => return out.extend_from_slice(&[PROXY, UNSPECIFIED, 0, 0]),
        Header::Client(client) => client,
    };
    let mut block = Vec::with_capacity(128);
    let family = write_addresses(&mut block, client.source, client.destination);
    write_tlv(&mut block, kind::ALPN, client.alpn);
    write_tlv(&mut block, kind::AUTHORITY, client.authority);
    if let Some(tls) = &client.tls {
        write_tls(&mut block, tls);
    }
    write_tlv(&mut block, kind::CRC32C, Some(&[0; 4]));
    out.extend_from_slice(&[PROXY, family]);
    out.extend_from_slice(&length(&block));
    out.extend_from_slice(&block);
    // The checksum is the last that there is.
    if let Some((before, sum)) = out.get_mut(start..).and_then(<[u8]>::split_last_chunk_mut::<4>) {
        *sum = checksum(before, &[]).to_be_bytes();
    }
}

/// Writes both addresses, in a family that has room for both, and tells which that is.
fn write_addresses(block: &mut Vec<u8>, source: SocketAddr, destination: SocketAddr) -> u8 {
    let family = match (source.ip(), destination.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            block.extend_from_slice(&from.octets());
            block.extend_from_slice(&to.octets());
            INET_STREAM
        }
        _ => {
            block.extend_from_slice(&mapped(source).octets());
            block.extend_from_slice(&mapped(destination).octets());
            INET6_STREAM
        }
    };
    block.extend_from_slice(&source.port().to_be_bytes());
    block.extend_from_slice(&destination.port().to_be_bytes());
    family
}

fn write_tls(block: &mut Vec<u8>, tls: &Tls<'_>) {
    let flag = |bit, is_set| if is_set { bit } else { 0 };
    let mut value = vec![
        flag(CLIENT_SSL, tls.is_used)
            | flag(CLIENT_CERT_CONN, tls.has_certificate)
            | flag(CLIENT_CERT_SESS, tls.had_certificate),
    ];
    value.extend_from_slice(&u32::from(!tls.is_verified).to_be_bytes());
    write_tlv(&mut value, kind::SSL_VERSION, tls.version);
    write_tlv(&mut value, kind::SSL_CN, tls.common_name);
    write_tlv(&mut value, kind::SSL_CIPHER, tls.cipher);
    block.push(kind::SSL);
    block.extend_from_slice(&length(&value));
    block.extend_from_slice(&value);
}

fn write_tlv(block: &mut Vec<u8>, kind: u8, value: Option<&[u8]>) {
    if let Some(value) = value.filter(|value| value.len() <= MAX_VALUE) {
        block.push(kind);
        block.extend_from_slice(&length(value));
        block.extend_from_slice(value);
    }
}

/// The length of what has room in a header, which is far below the most that two bytes can say.
fn length(bytes: &[u8]) -> [u8; 2] {
    u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_be_bytes()
}
