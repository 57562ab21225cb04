//! The PROXY protocol, from whoever stands before the balancer.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use crate::support::{Backend, Client, Request, Signal, Tinylb, config, eventually};

/// Of client 192.0.2.1:1025, at 198.51.100.2:443.
const LINE: &str = "PROXY TCP4 192.0.2.1 198.51.100.2 1025 443\r\n";

/// A balancer whose peers on this machine have to begin with a header, and further lines of its listener.
fn proxied(backend: &Backend, listener: &str) -> Tinylb {
    Tinylb::run(&config(&[backend.url()], &format!("{FROM_HERE}\n{listener}"), ""))
}

const FROM_HERE: &str = "proxy_protocol = [\"127.0.0.0/8\"]";

/// Version 2: a command and a family, and what follows the length.
fn binary(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let length = u16::try_from(block.len()).unwrap().to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n", &[command, family][..], &length, block].concat()
}

/// Version 2 of the same client as [`LINE`], with TLVs and their checksum.
fn binary_of_client(tlvs: &[u8]) -> Vec<u8> {
    let addresses = [192, 0, 2, 1, 198, 51, 100, 2, 4, 1, 1, 187];
    let mut header = binary(0x21, 0x11, &[&addresses, tlvs, b"\x03\0\x04\0\0\0\0"].concat());
    let sum = crc32c::crc32c(&header).to_be_bytes();
    let at = header.len() - 4;
    header[at..].copy_from_slice(&sum);
    header
}

/// A client for whom `line` begins the connection.
fn behind(tinylb: &Tinylb, line: impl AsRef<[u8]>) -> Client {
    let mut client = tinylb.connect();
    client.send(line);
    client
}

/// Of a client at this address.
fn line_of(source: Ipv4Addr) -> String {
    format!("PROXY TCP4 {source} 198.51.100.2 1025 443\r\n")
}

/// Who the backend was told that the last request came from.
fn forwarded_for(backend: &Backend) -> String {
    forwarded_for_last(backend, |_| true)
}

/// The same of the last of those that are `wanted`.
fn forwarded_for_last(backend: &Backend, wanted: impl Fn(&Request) -> bool) -> String {
    let request = backend.requests().into_iter().rfind(wanted).expect("a request");
    request.head.get("x-forwarded-for").expect("it says for whom").to_owned()
}

/// What connections come to that were not begun as they should.
fn errors(tinylb: &Tinylb) -> f64 {
    tinylb.metric("tinylb_proxy_protocol_errors_total", &[])
}

/// They are counted once they are over.
#[track_caller]
fn wait_for_errors(tinylb: &Tinylb, count: usize) {
    eventually("they are counted", || (errors(tinylb) == count as f64).then_some(()));
}

#[test]
fn the_client_is_whoever_the_header_says() {
    let backend = Backend::named("fine");
    let tinylb = proxied(&backend, "");
    let (v6, tls) =
        ([&[0x20, 1, 0xd, 0xb8][..], &[0; 27], &[1, 4, 1, 1, 187]].concat(), b"TLSv1.3");
    let ssl = [&b"\x20\0\x0f\x01\0\0\0\0\x21\0\x07"[..], tls].concat();
    for (header, client, protocol) in [
        (LINE.as_bytes().to_vec(), "192.0.2.1", "http"),
        (b"PROXY TCP6 2001:db8::7 ::1 1 2\r\n".to_vec(), "2001:db8::7", "http"),
        (b"PROXY TCP6 ::ffff:192.0.2.9 ::1 1 2\r\n".to_vec(), "192.0.2.9", "http"),
        (binary_of_client(b""), "192.0.2.1", "http"),
        (binary_of_client(b"\x02\0\x04site\x04\0\0\xea\0\x01a"), "192.0.2.1", "http"),
        (binary_of_client(&ssl), "192.0.2.1", "https"),
        (binary(0x21, 0x21, &v6), "2001:db8::", "http"),
        // These speak for nobody else.
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1", "http"),
        (b"PROXY UNKNOWN 192.0.2.1 192.0.2.2 1 2\r\n".to_vec(), "127.0.0.1", "http"),
        (binary(0x20, 0x00, b""), "127.0.0.1", "http"),
        (binary(0x20, 0x11, &[1; 12]), "127.0.0.1", "http"),
        (binary(0x21, 0x00, b"whatever"), "127.0.0.1", "http"),
        (binary(0x21, 0x31, &[b'/'; 216]), "127.0.0.1", "http"),
        // Nor do those for clients of UDP (PP 2.2).
        (binary(0x21, 0x12, &[1; 12]), "127.0.0.1", "http"),
        (binary(0x21, 0x22, &[1; 36]), "127.0.0.1", "http"),
        (binary(0x21, 0x32, &[b'/'; 216]), "127.0.0.1", "http"),
    ] {
        let mut connection = behind(&tinylb, &header);
        for _ in 0..2 {
            assert_eq!(connection.get("/").status, 200);
            assert_eq!(forwarded_for(&backend), client, "{}", header.escape_ascii());
            let request = backend.requests().pop().unwrap();
            assert_eq!(request.head.get("x-forwarded-proto"), Some(protocol));
        }
    }
    assert_eq!(errors(&tinylb), 0.0);
}

/// Whatever comes together, and whatever apart, all of it is seen and none of it twice.
#[test]
fn a_header_may_come_in_any_pieces_and_with_what_follows_it() {
    let backend = Backend::named("fine");
    let text = config(&[backend.url()], "proxy_protocol = [\"127.0.0.1\"]", "");
    let tinylb = Tinylb::run(&text.replace("workers = 2", "workers = 1"));
    let mut other = behind(&tinylb, line_of(Ipv4Addr::new(192, 0, 2, 200)));
    let request = b"GET /in-pieces HTTP/1.1\r\nHost: a\r\n\r\n";
    for header in [LINE.as_bytes(), &binary_of_client(b"\x01\0\x08http/1.1")] {
        let all = [header, request].concat();
        for split in 0..=all.len() {
            let mut client = behind(&tinylb, &all[..split]);
            // The only worker has seen the first piece once it has answered this.
            other.assert_open();
            client.send(&all[split..]);
            assert_eq!(client.response().status, 200, "split at {split}");
            let client_of = |target: &str| forwarded_for_last(&backend, |r| r.target() == target);
            assert_eq!(client_of("/in-pieces"), "192.0.2.1", "split at {split}");
            client.assert_open();
        }
        let mut client = tinylb.connect();
        client.send_bytewise(&all);
        assert_eq!(client.response().status, 200);
        assert_eq!(forwarded_for(&backend), "192.0.2.1");
    }
    assert_eq!(errors(&tinylb), 0.0);
}

#[test]
fn what_does_not_begin_so_is_closed_without_an_answer() {
    let backend = Backend::named("unreached");
    let tinylb = proxied(&backend, "");
    let mut wrong_sum = binary_of_client(b"\x04\0\0");
    *wrong_sum.last_mut().unwrap() ^= 1;
    let wrong: &[&[u8]] = &[
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.2 1025 443\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"PROXY TCP4 192.0.2.01 198.51.100.2 1025 443\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"PROXY  UNKNOWN\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        &binary(0x31, 0x11, &[1; 12]),
        &binary(0x21, 0x13, &[1; 12]),
        &binary(0x21, 0x12, &[1; 11]),
        &binary(0x21, 0x11, &[1; 11]),
        &binary(0x21, 0x11, &[1; 13]),
        &binary(0x20, 0x00, &[0; 4096]),
        &wrong_sum,
    ];
    for bytes in wrong {
        let mut client = tinylb.connect();
        let _ = client.try_send(bytes);
        client.assert_closed();
    }
    // Half of one, and then no more.
    let mut client = behind(&tinylb, &LINE[..20]);
    client.half_close();
    client.assert_closed();
    wait_for_errors(&tinylb, wrong.len() + 1);
    let said = tinylb.wait_for_log("did not begin with a PROXY header");
    assert!(said.contains("peer=127.0.0.1") && said.contains("`proxy_protocol`"), "{said}");
    let all = tinylb.log.all();
    let count = all.iter().filter(|line| line.contains("did not begin with a PROXY")).count();
    assert!(count <= 2, "each worker says it once in a while: {all:?}");
    assert_eq!(backend.received(), b"");
}

#[test]
fn a_header_that_takes_too_long_is_closed() {
    let backend = Backend::named("unreached");
    let tinylb = proxied(&backend, "timeouts.handshake = \"400ms\"");
    for begun in ["", "P", &LINE[..LINE.len() - 1]] {
        let began = Instant::now();
        behind(&tinylb, begun).assert_closed();
        assert!(began.elapsed() >= Duration::from_millis(390), "not before its time");
        assert!(began.elapsed() < Duration::from_secs(9), "{:?}", began.elapsed());
    }
    // It is the whole header that has a time, not each byte.
    let (mut client, began) = (tinylb.connect(), Instant::now());
    for byte in LINE.bytes().take(LINE.len() - 1) {
        if client.try_send([byte]).is_err() {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    client.assert_closed();
    assert!(began.elapsed() < Duration::from_secs(9), "{:?}", began.elapsed());
    wait_for_errors(&tinylb, 4);
    assert_eq!(backend.received(), b"");
}

/// Whoever only looks whether somebody listens says nothing, or that he speaks for himself.
#[test]
fn who_says_nothing_is_no_error() {
    let backend = Backend::named("fine");
    let tinylb = proxied(&backend, "");
    for _ in 0..5 {
        drop(tinylb.connect());
        tinylb.connect().reset();
        drop(behind(&tinylb, binary(0x20, 0, b"")));
    }
    eventually("all are over", || {
        let is_over = tinylb.metric("tinylb_connections_accepted_total", &[]) == 15.0
            && tinylb.metric("tinylb_worker_connections", &[]) == 0.0;
        is_over.then_some(())
    });
    assert_eq!(errors(&tinylb), 0.0);
    assert!(!tinylb.log.all().iter().any(|line| line.contains("WARN")), "{:?}", tinylb.log.all());
}

#[test]
fn from_others_no_header_is_read() {
    let backend = Backend::named("fine");
    let listener = "proxy_protocol = [\"10.0.0.0/8\"]";
    let tinylb = Tinylb::run(&config(&[backend.url()], listener, ""));
    assert_eq!(tinylb.get("/").status, 200);
    assert_eq!(forwarded_for(&backend), "127.0.0.1");
    for header in [LINE.as_bytes(), &binary_of_client(b"")] {
        let request = [header, b"GET /spoofed HTTP/1.1\r\nHost: a\r\n\r\n"].concat();
        assert_eq!(tinylb.exchange(request).status, 400);
    }
    assert_eq!(backend.requests().len(), 1);
    assert_eq!(errors(&tinylb), 0.0);
}

#[test]
fn the_log_has_the_client() {
    let backend = Backend::named("fine");
    let text = config(&[backend.url()], FROM_HERE, "");
    let tinylb = Tinylb::run(&format!("log = {{ access = \"json\" }}\n{text}"));
    behind(&tinylb, LINE).get("/logged");
    let line = tinylb.wait_for_access("/logged");
    assert!(line.contains("\"client\":\"192.0.2.1\""), "{line}");
}

/// Trust is in whom the header names: a proxy that is named is believed, and the one that names a
/// client does not make its fields true.
#[test]
fn trusted_is_whom_the_header_names() {
    let backend = Backend::named("fine");
    let trusted = "trusted_proxies = [\"127.0.0.0/8\", \"192.0.2.7\"]";
    let tinylb = proxied(&backend, trusted);
    let fields = "X-Forwarded-For: 203.0.113.5\r\nX-Forwarded-Proto: https\r\n";
    for (line, expected) in [
        (line_of(Ipv4Addr::new(192, 0, 2, 7)), "203.0.113.5, 192.0.2.7"),
        (line_of(Ipv4Addr::new(192, 0, 2, 8)), "192.0.2.8"),
        ("PROXY UNKNOWN\r\n".to_owned(), "203.0.113.5, 127.0.0.1"),
    ] {
        let mut client = behind(&tinylb, &line);
        client.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
        assert_eq!(client.response().status, 200);
        let request = backend.requests().pop().unwrap();
        assert_eq!(request.head.list("x-forwarded-for").join(", "), expected, "{line}");
        let is_believed = request.head.get("x-forwarded-proto") == Some("https");
        assert_eq!(is_believed, expected.contains(','), "{line}");
    }
}

#[test]
fn clients_are_hashed_by_the_address_in_the_header() {
    let backends: Vec<_> = (0..5).map(|i| Backend::named(&i.to_string())).collect();
    let urls: Vec<_> = backends.iter().map(Backend::url).collect();
    let policy = "policy = \"consistent-hash\"\nhash = { on = \"client\", bound = 100 }";
    let tinylb = Tinylb::run(&config(&urls, FROM_HERE, policy));
    let asked = |n: u8| behind(&tinylb, line_of(Ipv4Addr::new(192, 0, 2, n))).get("/").text();
    let owners: Vec<_> = (0..40).map(asked).collect();
    assert_eq!((0..40).map(asked).collect::<Vec<_>>(), owners);
    assert!(owners.iter().any(|owner| *owner != owners[0]), "{owners:?}");
}

#[test]
fn each_client_in_the_headers_has_its_own_number_of_connections() {
    let backend = Backend::named("fine");
    let tinylb = proxied(&backend, "max_connections_per_client = 2");
    let one = line_of(Ipv4Addr::new(192, 0, 2, 1));
    let mut clients = [behind(&tinylb, &one), behind(&tinylb, &one)];
    clients.iter_mut().for_each(Client::assert_open);
    for _ in 0..3 {
        let mut third = behind(&tinylb, &one);
        assert_eq!(third.get("/").status, 429);
        third.assert_closed();
    }
    assert_eq!(tinylb.metric("tinylb_connections_refused_total", &[]), 3.0);
    // Many of others, all by the same peer, and those that have not said yet for whom they are.
    let _silent: Vec<_> = (0..5).map(|_| tinylb.connect()).collect();
    let mut others: Vec<_> =
        (10..20).map(|n| behind(&tinylb, line_of(Ipv4Addr::new(192, 0, 2, n)))).collect();
    others.iter_mut().for_each(Client::assert_open);
    drop(clients);
    eventually("a place is given back", || {
        (behind(&tinylb, &one).get("/").status == 200).then_some(())
    });
}

#[test]
fn places_on_workers_are_as_even_as_ever() {
    let backend = Backend::named("fine");
    let tinylb = proxied(&backend, "");
    let mut clients: Vec<_> = (0..8).map(|_| behind(&tinylb, LINE)).collect();
    clients.iter_mut().for_each(Client::assert_open);
    let open = tinylb.samples("tinylb_worker_connections");
    assert!(open.iter().all(|(_, count)| *count == 4.0), "{open:?}");
}

#[test]
fn one_whose_header_is_half_there_is_served_before_the_balancer_ends() {
    let backend = Backend::named("fine");
    let mut tinylb = proxied(&backend, "");
    let mut client = behind(&tinylb, &LINE[..20]);
    eventually("it is accepted", || {
        (tinylb.metric("tinylb_worker_connections", &[]) == 1.0).then_some(())
    });
    tinylb.signal(Signal::TERM);
    eventually("it stops listening", || {
        std::net::TcpStream::connect(tinylb.address()).is_err().then_some(())
    });
    assert!(tinylb.is_running());
    client.send(&LINE[20..]);
    let response = client.get("/");
    assert!(response.head.lists("connection", "close"), "{:?}", response.head.raw);
    assert_eq!(forwarded_for(&backend), "192.0.2.1");
    client.assert_closed();
    assert!(tinylb.wait_exit().success());
}
