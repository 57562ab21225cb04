//! The PROXY protocol, to endpoints.

use std::io::{Read, Write};
use std::sync::{Arc, Mutex};

use crate::support::introduced::{Introduced, of_client, words_of};
use crate::support::{Backend, End, Signal, Tinylb, config, config_of, eventually, ok};

#[test]
fn each_connection_begins_with_its_client_and_is_for_nobody_else() {
    for version in ["v1", "v2"] {
        let introduced = Introduced::new();
        let tinylb = introduced.balanced(version, "", "");
        let mut clients: Vec<_> = (0..4).map(|_| tinylb.connect()).collect();
        let mut expected = Vec::new();
        for _ in 0..3 {
            for client in &mut clients {
                assert_eq!(client.get("/").text(), "fine");
                expected.push(of_client(client, version));
            }
        }
        assert_eq!(introduced.headers(), expected);
        let requests = introduced.backend.requests();
        assert_eq!(requests.len(), 12);
        assert!(requests.iter().all(|request| request.head.get("connection") == Some("close")));
        // So that no port is kept for them by the kernel.
        assert!((0..12).all(|index| introduced.backend.end_of(index) == End::Reset));
    }
}

#[test]
fn bodies_and_upgrades_follow_the_header() {
    let introduced = Introduced::with(|mut conn| {
        while let Some(request) = conn.request() {
            if request.head.has("upgrade") {
                conn.send("HTTP/1.1 101 Go\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n");
                let said = conn.wire.take(4);
                conn.send(said);
                return;
            }
            conn.send(ok(&String::from_utf8(request.body).unwrap()));
        }
    });
    let tinylb = introduced.balanced("v2", "", "");
    let mut client = tinylb.connect();
    let body = "0123456789".repeat(10_000);
    let length = body.len();
    client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{body}"));
    assert_eq!(client.response().text(), body);
    client.send("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\nping");
    assert_eq!(client.response().status, 101);
    assert_eq!(client.wire().take(4), b"ping");
    let expected = of_client(&mut client, "v2");
    assert_eq!(introduced.headers(), [expected.clone(), expected]);
}

#[test]
fn who_was_named_to_us_is_named_to_endpoints() {
    let v4 = "PROXY TCP4 192.0.2.1 198.51.100.2 1025 443\r\n";
    let v6 = "PROXY TCP6 2001:db8::1 2001:db8::2 1025 443\r\n";
    let mixed = "PROXY TCP6 2001:db8::1 ::ffff:198.51.100.2 1025 443\r\n";
    let tls = [
        &b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x14\xc0\0\x02\x01\xc6\x33\x64\x02\x04\x01\x01\xbb"[..],
        b"\x20\0\x05\x01\0\0\0\x01",
    ];
    let tls = tls.concat();
    let v4_words = "2111 192.0.2.1:1025 198.51.100.2:443";
    for (version, named, expected) in [
        ("v1", v4.as_bytes(), v4.trim_end()),
        ("v1", v6.as_bytes(), v6.trim_end()),
        ("v1", mixed.as_bytes(), mixed.trim_end()),
        ("v1", &tls, v4.trim_end()),
        ("v2", v4.as_bytes(), v4_words),
        ("v2", v6.as_bytes(), "2121 [2001:db8::1]:1025 [2001:db8::2]:443"),
        ("v2", mixed.as_bytes(), "2121 [2001:db8::1]:1025 [::ffff:198.51.100.2]:443"),
        ("v2", &tls, &format!("{v4_words} 20=\\x01\\x00\\x00\\x00\\x01")),
    ] {
        let introduced = Introduced::new();
        let tinylb = introduced.balanced(version, "proxy_protocol = [\"127.0.0.1\"]", "");
        let mut client = tinylb.connect();
        client.send(named);
        client.assert_open();
        assert_eq!(introduced.headers(), [expected]);
        // Of one who names nobody it is the own address that counts.
        let mut client = tinylb.connect();
        client.send("PROXY UNKNOWN\r\n");
        client.assert_open();
        assert_eq!(introduced.headers()[1], of_client(&mut client, version));
    }
}

#[test]
fn streams_of_http_2_are_their_connections_clients() {
    for version in ["v1", "v2"] {
        let introduced = Introduced::new();
        let tinylb = introduced.balanced(version, "", "");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let expected = runtime.block_on(async {
            let stream = tokio::net::TcpStream::connect(tinylb.address()).await.unwrap();
            let (own, to) = (stream.local_addr().unwrap(), stream.peer_addr().unwrap());
            let (sender, connection) = h2::client::handshake(stream).await.unwrap();
            let driver = tokio::spawn(connection);
            for _ in 0..3 {
                let mut sender = sender.clone().ready().await.unwrap();
                let request = http::Request::get("http://example.com/").body(()).unwrap();
                let (response, _) = sender.send_request(request, true).unwrap();
                let mut body = response.await.unwrap().into_body();
                while body.data().await.is_some() {}
            }
            driver.abort();
            words_of(own, to, version)
        });
        assert_eq!(introduced.headers(), [expected.clone(), expected.clone(), expected]);
    }
}

/// Checks are our own: version 2 has a word for that, version 1 only our own address.
#[test]
fn checks_say_that_they_are_our_own() {
    for version in ["v1", "v2"] {
        for check in
            ["{ path = \"/ok\", interval = \"100ms\" }", "{ type = \"tcp\", interval = \"100ms\" }"]
        {
            let introduced = Introduced::new();
            let _tinylb = introduced.balanced(version, "", &format!("health = {check}"));
            let headers = eventually("it is checked", || {
                Some(introduced.headers()).filter(|headers| headers.len() >= 3)
            });
            for header in headers {
                let address = introduced.backend.address();
                let words: Vec<_> = header.split(' ').collect();
                match words[..] {
                    ["2000"] => assert_eq!(version, "v2"),
                    ["PROXY", "TCP4", from, to, _, port] => {
                        assert_eq!((version, from), ("v1", "127.0.0.1"));
                        assert_eq!(format!("{to}:{port}"), address.to_string());
                    }
                    _ => panic!("{header}"),
                }
            }
        }
    }
}

/// Connections of before say nothing of clients, so they are not for those who have to be named.
#[test]
fn after_a_reload_no_connection_of_before_is_used() {
    let plain = |version: &str, url: String| config(&[url], "", version);
    // It sees for itself whether there is a header.
    let headers = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&headers);
    let backend = Backend::new(move |mut conn| {
        while let Some(line) = conn.wire.line() {
            let is_header = line.starts_with("PROXY ");
            noted.lock().unwrap().push((conn.index, line));
            if !is_header {
                assert!(conn.wire.head().is_some());
                conn.send(ok("fine"));
            }
        }
    });
    let tinylb = Tinylb::run(&plain("", backend.url()));
    let mut client = tinylb.connect();
    client.assert_open();
    client.assert_open();
    tinylb.rewrite(&plain("proxy_protocol = \"v1\"", backend.url()));
    tinylb.signal(Signal::HUP);
    tinylb.wait_for_log("reloaded");
    client.assert_open();
    client.assert_open();
    tinylb.rewrite(&plain("", backend.url()));
    tinylb.signal(Signal::HUP);
    eventually("it is reloaded again", || {
        let said = tinylb.log.all().iter().filter(|line| line.contains("reloaded")).count();
        (said == 2).then_some(())
    });
    client.assert_open();
    let request = "GET /still-open HTTP/1.1".to_owned();
    let header = of_client(&mut client, "v1");
    let expected = [
        (0, request.clone()),
        (0, request.clone()),
        (1, header.clone()),
        (1, request.clone()),
        (2, header),
        (2, request.clone()),
    ];
    let mut headers = headers.lock().unwrap();
    // One of before may still be there then, one that was introduced may not.
    let (index, last) = headers.pop().unwrap();
    assert!(last == request && (index == 0 || index == 3), "{index}: {last}");
    assert_eq!(*headers, expected);
}

#[test]
fn the_next_endpoint_is_told_as_well() {
    let (refusing, introduced) = (Introduced::with(|conn| conn.reset()), Introduced::new());
    let endpoints = [refusing.backend.url(), introduced.backend.url()];
    let endpoint = |n: usize| format!("{{ url = {:?}, priority = {n} }}", endpoints[n]);
    let text =
        config_of(&format!("[{}, {}]", endpoint(0), endpoint(1)), "", "proxy_protocol = \"v1\"");
    let tinylb = Tinylb::run(&text);
    let mut client = tinylb.connect();
    assert_eq!(client.get("/").text(), "fine");
    let expected = of_client(&mut client, "v1");
    assert_eq!(
        (refusing.headers(), introduced.headers()),
        (vec![expected.clone()], vec![expected])
    );
}

/// A client of a Unix socket has no address.
#[test]
fn a_client_without_an_address_is_unknown() {
    for (version, expected) in [("v1", "PROXY UNKNOWN"), ("v2", "2100")] {
        let introduced = Introduced::new();
        let path =
            std::env::temp_dir().join(format!("tinylb-out-{}-{version}", std::process::id()));
        let text =
            config(&[introduced.backend.url()], "", &format!("proxy_protocol = {version:?}"));
        let listener = format!("[[listeners]]\naddress = \"unix:{}\"\n[[routes]]", path.display());
        let tinylb = Tinylb::run(&text.replacen("[[routes]]", &listener, 1));
        let mut stream = std::os::unix::net::UnixStream::connect(&path).unwrap();
        stream.write_all(b"GET / HTTP/1.0\r\nHost: a\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
        assert_eq!(introduced.headers(), [expected]);
        drop(tinylb);
        let _ = std::fs::remove_file(&path);
    }
}
