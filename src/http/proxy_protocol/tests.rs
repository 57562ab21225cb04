use super::*;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

/// What is read of `bytes`, and how many of them; the same must come of any of its beginnings first.
fn read(bytes: &[u8]) -> Result<Option<(Header<'_>, usize)>, Malformed> {
    let whole = decode(bytes);
    for end in 0..bytes.len() {
        match decode(&bytes[..end]) {
            Ok(None) => {}
            Ok(Some(said)) => assert_eq!(Ok(Some(said)), whole, "of {end} bytes"),
            Err(_) => assert!(whole.is_err(), "of {end} bytes: {}", bytes.escape_ascii()),
        }
    }
    whole
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn client(source: &str, destination: &str) -> Header<'static> {
    Header::Client(Client::new(address(source), address(destination)))
}

/// Version 2: this command and family, and the block behind the length.
fn binary(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let length = u16::try_from(block.len()).unwrap().to_be_bytes();
    [v2::SIGNATURE, &[command, family], &length, block].concat()
}

/// Client 192.0.2.1:1025 at 198.51.100.2:443, and what is behind the addresses.
fn binary_v4(tlvs: &[u8]) -> Vec<u8> {
    let addresses = [192, 0, 2, 1, 198, 51, 100, 2, 4, 1, 1, 187];
    binary(0x21, 0x11, &[&addresses, tlvs].concat())
}

#[test]
fn lines_of_version_1() {
    let v6 = "2001:db8:1111:2222:3333:4444:5555:6666";
    for (line, expected) in [
        ("TCP4 192.0.2.1 198.51.100.2 1025 443", client("192.0.2.1:1025", "198.51.100.2:443")),
        ("TCP4 255.255.255.255 0.0.0.0 65535 0", client("255.255.255.255:65535", "0.0.0.0:0")),
        ("TCP6 2001:db8::1 ::1 1025 443", client("[2001:db8::1]:1025", "[::1]:443")),
        ("TCP6 2001:DB8:0:0:0:0:0:01 :: 1 2", client("[2001:db8::1]:1", "[::]:2")),
        ("TCP6 ::ffff:192.0.2.1 ::ffff:c633:6402 1 2", client("192.0.2.1:1", "198.51.100.2:2")),
        (
            &format!("TCP6 {v6} {v6} 65535 65535"),
            client(&format!("[{v6}]:65535"), &format!("[{v6}]:65535")),
        ),
        ("UNKNOWN", Header::Unknown),
        ("UNKNOWN ", Header::Unknown),
        (&format!("UNKNOWN {v6} {v6} 65535 65535"), Header::Unknown),
        ("UNKNOWN  whatever\0\t", Header::Unknown),
    ] {
        let bytes = format!("PROXY {line}\r\nGET / HTTP/1.1\r\n");
        assert_eq!(read(bytes.as_bytes()), Ok(Some((expected, line.len() + 8))), "{line}");
    }
    assert_eq!(read(b"PROXY UNKNOWN \xff\r\n"), Ok(Some((Header::Unknown, 17))));
}

#[test]
fn no_lines_of_version_1() {
    for line in [
        "GET / HTTP/1.1\r\n",
        "proxy UNKNOWN\r\n",
        " PROXY UNKNOWN\r\n",
        "\nPROXY UNKNOWN\r\n",
        "\r\nPROXY UNKNOWN\r\n",
        "PROXY\r\n",
        "PROXYUNKNOWN\r\n",
        "PROXY\tUNKNOWN\r\n",
        "PROXY \r\n",
        "PROXY  UNKNOWN\r\n",
        "PROXY UNKNOWN\n",
        "PROXY UNKNOWN\r",
        "PROXY UNKNOWN\r\r\n",
        "PROXY UNKNOWN \n\r\n",
        "PROXY UNKNOWN\rGET",
        "PROXY UNKNOWNS\r\n",
        "PROXY unknown\r\n",
        "PROXY UDP4 192.0.2.1 198.51.100.2 1025 443\r\n",
        "PROXY TCP4\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 1025\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 1025 443 \r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 1025 443 5\r\n",
        "PROXY TCP4  192.0.2.1 198.51.100.2 1025 443\r\n",
        "PROXY TCP4 192.0.2.1\t198.51.100.2 1025 443\r\n",
        "PROXY TCP4 192.0.2.01 198.51.100.2 1025 443\r\n",
        "PROXY TCP4 192.0.2.256 198.51.100.2 1025 443\r\n",
        "PROXY TCP4 192.0.2 198.51.100.2 1025 443\r\n",
        "PROXY TCP4 192.0.2.1. 198.51.100.2 1025 443\r\n",
        "PROXY TCP4 0x7f.0.0.1 198.51.100.2 1025 443\r\n",
        "PROXY TCP4 2001:db8::1 ::1 1025 443\r\n",
        "PROXY TCP4 ::ffff:192.0.2.1 198.51.100.2 1025 443\r\n",
        "PROXY TCP6 192.0.2.1 198.51.100.2 1025 443\r\n",
        "PROXY TCP6 2001:db8::1 198.51.100.2 1025 443\r\n",
        "PROXY TCP6 [2001:db8::1] ::1 1025 443\r\n",
        "PROXY TCP6 fe80::1%eth0 ::1 1025 443\r\n",
        "PROXY TCP6 2001::db8::1 ::1 1025 443\r\n",
        "PROXY TCP6 2001:00db8::1 ::1 1025 443\r\n",
        "PROXY TCP6 1:2:3:4:5:6:7:8:9 ::1 1025 443\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 +1025 443\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 -1 443\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 01025 443\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 00 443\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 65536 443\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 1025 \r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 1025 0x1\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 1025 443\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 1025 443\rG",
    ] {
        // What waits for its end may wait for what comes next.
        let bytes = [line.as_bytes(), b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"].concat();
        assert!(read(&bytes).is_err(), "{line:?}");
    }
}

#[test]
fn a_line_of_version_1_has_107_bytes_at_most() {
    let line =
        |length: usize| format!("PROXY UNKNOWN {}\r\n", "x".repeat(length - 16)).into_bytes();
    assert_eq!(read(&line(107)), Ok(Some((Header::Unknown, 107))));
    assert!(read(&line(108)).is_err());
    assert_eq!(read(&line(107)[..106]), Ok(None));
    assert!(read(&line(108)[..107]).is_err(), "the end cannot come in time");
}

/// What HAProxy 2.6 sent, with the options ssl, cert-cn, ssl-cipher, cert-key, cert-sig, crc32c,
/// authority and unique-id.
#[test]
fn a_header_of_haproxy() {
    let block = [
        &b"\x7f\x00\x00\x01\x7f\x00\x00\x01\xc2\x8eH\x0b\x03\x00\x04\xfc\xc5\x16O"[..],
        b"\x01\x00\x08http/1.1\x02\x00\x0bsni.example\x05\x00\x00 \x00P\x07\x00\x00\x00\x00",
        b"!\x00\x07TLSv1.3\"\x00\x0eclient.example%\x00\x07RSA2048$\x00\nRSA-SHA256",
        b"#\x00\x16TLS_AES_256_GCM_SHA384",
    ];
    let bytes = binary(0x21, 0x11, &block.concat());
    let tls = Tls {
        is_used: true,
        has_certificate: true,
        had_certificate: true,
        is_verified: true,
        version: Some(b"TLSv1.3"),
        common_name: Some(b"client.example"),
        cipher: Some(b"TLS_AES_256_GCM_SHA384"),
    };
    let expected = Client {
        authority: Some(b"sni.example"),
        alpn: Some(b"http/1.1"),
        tls: Some(tls),
        ..Client::new(address("127.0.0.1:49806"), address("127.0.0.1:18443"))
    };
    assert_eq!(read(&bytes), Ok(Some((Header::Client(expected), 146))));
    // Without the byte that says that there is a checksum.
    for at in (0..bytes.len()).filter(|at| *at != 28) {
        let mut changed = bytes.clone();
        changed[at] ^= 0x10;
        let said = decode(&changed);
        assert!(!matches!(said, Ok(Some((Header::Client(_), _)))), "byte {at}: {said:?}");
    }
    let check = b"\r\n\r\n\x00\r\nQUIT\n \x00\x00\x07\x03\x00\x04\xa9\xb8~\x8f";
    assert_eq!(read(check), Ok(Some((Header::Local, 23))));
}

#[test]
fn headers_of_version_2() {
    let v4 = client("192.0.2.1:1025", "198.51.100.2:443");
    let v6 = [&[0x20, 1, 0xd, 0xb8][..], &[0; 11], &[1], &[0; 15], &[1, 4, 1, 1, 187]].concat();
    let mapped = [[0; 10].as_slice(), &[255, 255, 192, 0, 2, 1], &[0; 16], &[4, 1, 1, 187]];
    for (bytes, expected) in [
        (binary_v4(b""), v4),
        // Nothing, padding, something unknown, something empty of one's own.
        (binary_v4(b"\x04\0\0"), v4),
        (binary_v4(b"\x04\0\x02ab\x30\0\x03net\xe0\0\0\xff\0\x01x"), v4),
        (binary(0x21, 0x21, &v6), client("[2001:db8::1]:1025", "[::1]:443")),
        (binary(0x21, 0x21, &mapped.concat()), client("192.0.2.1:1025", "[::]:443")),
        (binary(0x21, 0x31, &[b'/'; 216]), Header::Unknown),
        (binary(0x21, 0x31, &[&[0; 216][..], b"\x04\0\0"].concat()), Header::Unknown),
        (binary(0x21, 0x12, &binary_v4(b"")[16..]), Header::Unknown),
        (binary(0x21, 0x12, &binary_v4(b"\x04\0\0")[16..]), Header::Unknown),
        (binary(0x21, 0x22, &v6), Header::Unknown),
        (binary(0x21, 0x32, &[b'/'; 216]), Header::Unknown),
        (binary(0x21, 0x00, b""), Header::Unknown),
        (binary(0x21, 0x00, b"anything"), Header::Unknown),
        (binary(0x20, 0x00, b""), Header::Local),
        (binary(0x20, 0x00, b"anything"), Header::Local),
        // Its family is ignored, and so is everything else (PP 2.2).
        (binary(0x20, 0x11, b"short"), Header::Local),
        (binary(0x20, 0xff, b""), Header::Local),
        (binary(0x20, 0x00, &[0; MAX_HEADER - 16]), Header::Local),
    ] {
        let length = bytes.len();
        let said = read(&bytes);
        assert_eq!(said, Ok(Some((expected, length))), "{}", bytes.escape_ascii());
        let followed = [&bytes[..], b"\x04\0\0more"].concat();
        assert_eq!(decode(&followed), said, "{}", bytes.escape_ascii());
    }
}

#[test]
fn no_headers_of_version_2() {
    let v4 = &binary_v4(b"")[16..];
    for bytes in [
        b"\r\n\r\n\0\r\nQUIT\r".to_vec(),
        b"\r\n\r\n\0\r\nQuit\n".to_vec(),
        b"\r\n\r\nGET / HTTP/1.1\r\n".to_vec(),
        // Version, command, family, transport.
        binary(0x11, 0x11, v4),
        binary(0x31, 0x11, v4),
        binary(0x01, 0x11, v4),
        binary(0x22, 0x11, v4),
        binary(0x2f, 0x11, v4),
        binary(0x21, 0x10, v4),
        binary(0x21, 0x01, v4),
        binary(0x21, 0x02, v4),
        binary(0x21, 0x13, v4),
        binary(0x21, 0x41, v4),
        // Lengths.
        binary(0x21, 0x11, &v4[..11]),
        binary(0x21, 0x11, b""),
        binary(0x21, 0x21, &[0; 35]),
        binary(0x21, 0x31, &[0; 215]),
        binary(0x21, 0x12, &v4[..11]),
        binary(0x21, 0x12, &[v4, b"\x04"].concat()),
        binary(0x21, 0x22, &[0; 35]),
        binary(0x21, 0x32, &[0; 215]),
        binary(0x21, 0x33, &[0; 216]),
        binary(0x21, 0x00, &[0; MAX_HEADER - 15]),
        binary(0x20, 0x00, &[0; MAX_HEADER - 15]),
        // TLVs.
        binary_v4(b"\x04"),
        binary_v4(b"\x04\0"),
        binary_v4(b"\x04\0\x01"),
        binary_v4(b"\x04\xff\xffab"),
        binary_v4(b"\x04\0\x01ab"),
        binary_v4(b"\x02\0\x01a\x02\0\x01a"),
        binary_v4(b"\x01\0\x01a\x01\0\x01b"),
        binary(0x21, 0x31, &[0; 217]),
        // About TLS.
        binary_v4(b"\x20\0\0"),
        binary_v4(b"\x20\0\x04\x01\0\0\0"),
        binary_v4(b"\x20\0\x06\x01\0\0\0\0\x21"),
        binary_v4(b"\x20\0\x08\x01\0\0\0\0\x21\0\x01"),
        binary_v4(b"\x20\0\x08\x01\0\0\0\0\x21\0\x01\x04\0\0"),
        binary_v4(b"\x20\0\x05\x01\0\0\0\0\x20\0\x05\x01\0\0\0\0"),
        // The checksum.
        binary_v4(b"\x03\0\0"),
        binary_v4(b"\x03\0\x03abc"),
        binary_v4(b"\x03\0\x04\0\0\0\0"),
        binary_v4(b"\x03\0\x05\0\0\0\0\0"),
    ] {
        assert!(read(&bytes).is_err(), "{}", bytes.escape_ascii());
    }
}

/// Wherever it stands, it is over everything else.
#[test]
fn the_checksum_is_over_all_of_the_header() {
    for tlvs in [&b"\x03\0\x04\0\0\0\0\x02\0\x01a"[..], b"\x02\0\x01a\x03\0\x04\0\0\0\0"] {
        let mut bytes = binary_v4(tlvs);
        let sum = crc32c::crc32c(&bytes).to_be_bytes();
        let at = 28 + tlvs.windows(3).position(|head| head == b"\x03\0\x04").unwrap() + 3;
        bytes[at..at + 4].copy_from_slice(&sum);
        let Ok(Some((Header::Client(said), _))) = read(&bytes) else { panic!("{bytes:?}") };
        assert_eq!(said.authority, Some(&b"a"[..]));
        // Without the byte that says that there is one.
        for bit in (0..bytes.len() * 8).filter(|bit| bit / 8 != at - 3) {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let said = decode(&changed);
            assert!(!matches!(said, Ok(Some((Header::Client(_), _)))), "bit {bit}: {said:?}");
        }
    }
}

#[test]
fn what_is_written() {
    let written = |header: Header<'_>| {
        let mut line = Vec::new();
        write_v1(&mut line, &header);
        String::from_utf8(line).unwrap()
    };
    let v4 = client("192.0.2.1:1025", "198.51.100.2:443");
    assert_eq!(written(v4), "PROXY TCP4 192.0.2.1 198.51.100.2 1025 443\r\n");
    let v6 = client("[2001:db8::1]:1025", "[::1]:443");
    assert_eq!(written(v6), "PROXY TCP6 2001:db8::1 ::1 1025 443\r\n");
    let both = client("192.0.2.1:1", "[::1]:2");
    assert_eq!(written(both), "PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n");
    assert_eq!(written(Header::Local), "PROXY UNKNOWN\r\n");
    assert_eq!(written(Header::Unknown), "PROXY UNKNOWN\r\n");

    let mut out = b"before".to_vec();
    write_v2(&mut out, &Header::Local);
    assert_eq!(out, [b"before", v2::SIGNATURE, b"\x20\0\0\0"].concat());
    let mut out = b"before".to_vec();
    write_v2(&mut out, &v4);
    // The checksum was worked out by hand, bit by bit, with another program.
    let checksum = b"\x03\0\x04\xad\x8a\xc6\x31";
    assert_eq!(out[6..], binary_v4(checksum));
}

#[test]
fn what_is_too_long_to_write_is_left_out() {
    let long = [b'a'; MAX_VALUE + 1];
    let tls = Tls { is_used: true, common_name: Some(&long), ..Tls::default() };
    let client = Client {
        authority: Some(&long),
        alpn: Some(&long[1..]),
        tls: Some(tls),
        ..Client::new(address("192.0.2.1:1"), address("192.0.2.2:2"))
    };
    let mut out = Vec::new();
    write_v2(&mut out, &Header::Client(client));
    let tls = Some(Tls { common_name: None, ..tls });
    let expected = Header::Client(Client { authority: None, tls, ..client });
    assert_eq!(read(&out), Ok(Some((expected, out.len()))));
}

fn any_address() -> impl Strategy<Value = SocketAddr> {
    let ip = prop_oneof![any::<u32>().prop_map(|v4| IpAddr::V4(v4.into())), {
        any::<u128>().prop_map(|v6| IpAddr::V6(v6.into()).to_canonical())
    }];
    (ip, any::<u16>()).prop_map(SocketAddr::from)
}

fn any_value() -> impl Strategy<Value = Option<Vec<u8>>> {
    option::of(vec(any::<u8>(), 0..=MAX_VALUE))
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        source in any_address(),
        destination in any_address(),
        authority in any_value(),
        alpn in any_value(),
        tls in option::of((any::<[bool; 4]>(), any_value(), any_value(), any_value())),
        next in vec(any::<u8>(), 0..8),
    ) {
        let addresses = Client::new(source, destination);
        let tls = tls.as_ref().map(|([is_used, has, had, is_verified], version, name, cipher)| Tls {
            is_used: *is_used,
            has_certificate: *has,
            had_certificate: *had,
            is_verified: *is_verified,
            version: version.as_deref(),
            common_name: name.as_deref(),
            cipher: cipher.as_deref(),
        });
        let (authority, alpn) = (authority.as_deref(), alpn.as_deref());
        let client = Header::Client(Client { authority, alpn, tls, ..addresses });
        for (header, in_a_line) in [
            (client, Header::Client(addresses)),
            (Header::Local, Header::Unknown),
            (Header::Unknown, Header::Unknown),
        ] {
            let mut line = Vec::new();
            write_v1(&mut line, &header);
            let bytes = [&line[..], &next].concat();
            prop_assert_eq!(read(&bytes), Ok(Some((in_a_line, line.len()))));
            let mut binary = Vec::new();
            write_v2(&mut binary, &header);
            let bytes = [&binary[..], &next].concat();
            prop_assert_eq!(read(&bytes), Ok(Some((header, binary.len()))));
        }
    }
}
