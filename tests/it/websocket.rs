//! Upgrades: a raw tunnel where both sides agreed to one, and never otherwise.

use futures_util::{SinkExt, StreamExt};
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};
use tokio_tungstenite::tungstenite::Message;

use crate::support::{Backend, Client, PATIENCE, Tinylb, config, eventually, listen, ok};

const UPGRADE: &str = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// A client in a tunnel.
fn tunnel(tinylb: &Tinylb) -> Client {
    let mut client = tinylb.connect();
    client.send(UPGRADE);
    let response = client.response();
    assert_eq!(response.status, 101, "{:?}", response.head.raw);
    assert!(response.head.lists("upgrade", "websocket"), "{:?}", response.head.raw);
    assert!(response.head.lists("connection", "upgrade"), "{:?}", response.head.raw);
    assert_eq!(response.head.get("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    client
}

#[test]
fn a_tunnel_carries_anything_both_ways() {
    let backend = Backend::new(|mut conn| {
        let head = conn.head().unwrap();
        assert!(head.lists("upgrade", "websocket"), "{:?}", head.raw);
        assert!(head.lists("connection", "upgrade"), "{:?}", head.raw);
        conn.send(format!("{SWITCH}HTTP/1.1 early bytes"));
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(conn.wire.take(256), all);
        conn.send(all.repeat(1000));
        assert_eq!(conn.wire.take(20), b"GET / HTTP/1.1\r\n\r\n\r\n");
        conn.send("\0");
    });
    let tinylb = Tinylb::before(&backend);
    let mut client = tunnel(&tinylb);
    assert_eq!(client.wire().take(20), b"HTTP/1.1 early bytes");
    let all: Vec<u8> = (0..=255).collect();
    client.send(&all);
    assert!(client.wire().take(256_000) == all.repeat(1000), "the bytes are the backend's");
    client.send("GET / HTTP/1.1\r\n\r\n\r\n");
    assert_eq!(client.wire().take(1), b"\0");
    client.assert_closed();
}

#[test]
fn each_direction_of_a_tunnel_ends_by_itself() {
    let backend = Backend::new(|mut conn| {
        conn.head().unwrap();
        conn.send(SWITCH);
        match conn.index {
            0 => {
                assert_eq!(conn.wire.rest(), b"all I have");
                conn.send("still here");
            }
            _ => {
                conn.wire.half_close();
                assert_eq!(conn.wire.rest(), b"still here");
            }
        }
    });
    let tinylb = Tinylb::before(&backend);
    let mut client = tunnel(&tinylb);
    client.send("all I have");
    client.half_close();
    assert_eq!(client.wire().rest(), b"still here");

    let mut client = tunnel(&tinylb);
    assert_eq!(client.wire().rest(), b"", "the backend has ended its side");
    client.send("still here");
    client.half_close();
    backend.end_of(1);
}

#[test]
fn a_tunnel_ends_when_either_side_is_gone() {
    let (come, comes) = mpsc::channel();
    let backend = Backend::new(move |mut conn| {
        conn.head().unwrap();
        conn.send(SWITCH);
        come.send(()).unwrap();
        match conn.index {
            0 => drop(conn.drain()),
            _ => conn.wire.reset(),
        }
    });
    let tinylb = Tinylb::before(&backend);
    let client = tunnel(&tinylb);
    comes.recv_timeout(PATIENCE).unwrap();
    client.reset();
    backend.end_of(0);
    let mut client = tinylb.connect();
    client.send(UPGRADE);
    let _ = client.try_response_to("GET");
    client.assert_closed();
}

/// Whether it becomes a tunnel is the backend's word; until then the bytes are HTTP.
#[test]
fn a_declined_upgrade_leaves_http() {
    let backend = Backend::named("no tunnel");
    let tinylb = Tinylb::before(&backend);
    let mut client = tinylb.connect();
    client.send(format!("{UPGRADE}GET /next HTTP/1.1\r\nHost: a\r\n\r\n"));
    assert_eq!(client.response().text(), "no tunnel");
    assert_eq!(client.response().text(), "no tunnel");
    let targets: Vec<_> = backend.requests().iter().map(|r| r.target().to_owned()).collect();
    assert_eq!(targets, ["/ws", "/next"]);
}

#[test]
fn a_tunnel_that_nobody_asked_for_is_a_502() {
    for lines in [
        "",
        "Upgrade: websocket\r\n",
        "Connection: Upgrade\r\n",
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n",
    ] {
        let backend = Backend::answering(format!("{SWITCH}{}", ok("smuggled")));
        let tinylb = Tinylb::before(&backend);
        let mut client = tinylb.connect();
        client.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n"));
        let response = client.response();
        assert_eq!(response.status, 502, "{lines:?}: {:?}", response.head.raw);
        assert!(response.proxy_status().starts_with("tinylb; error="), "{:?}", response.head.raw);
        backend.end_of(0);
    }
}

/// A switch says to what, and to nothing else than was asked for (RFC 9110 7.8).
#[test]
fn a_tunnel_of_another_protocol_is_a_502() {
    for upgrade in ["", "Upgrade: chat\r\n", "Upgrade: websocket, chat\r\n", "Upgrade:\r\n"] {
        let switch = SWITCH.replace("Upgrade: websocket\r\n", upgrade);
        let backend = Backend::answering(format!("{switch}{}", ok("smuggled")));
        let tinylb = Tinylb::before(&backend);
        let response = tinylb.exchange(UPGRADE);
        response.assert_fault(502, "http_upgrade_failed");
        backend.end_of(0);
    }
    for upgrade in
        ["Upgrade: WebSocket\r\n", "Upgrade: chat/2\r\n", "Upgrade: chat/2, websocket\r\n"]
    {
        let backend = Backend::answering(SWITCH.replace("Upgrade: websocket\r\n", upgrade));
        let tinylb = Tinylb::before(&backend);
        let asked = UPGRADE.replace("Upgrade: websocket", "Upgrade: websocket, chat/2");
        assert_eq!(tinylb.exchange(asked).status, 101, "{upgrade:?}");
    }
}

#[test]
fn http_1_0_cannot_upgrade() {
    let backend = Backend::named("plain");
    let tinylb = Tinylb::before(&backend);
    let response = tinylb.exchange(UPGRADE.replace("HTTP/1.1", "HTTP/1.0"));
    assert_eq!(response.text(), "plain");
    assert!(!backend.request().head.has("upgrade"));
}

#[test]
fn a_silent_tunnel_ends_in_time() {
    let backend = Backend::new(|mut conn| {
        conn.head().unwrap();
        conn.send(SWITCH);
        conn.drain();
    });
    let short = "timeouts = { tunnel = \"400ms\" }";
    let tinylb = Tinylb::run(&config(&[backend.url()], short, ""));
    let mut client = tunnel(&tinylb);
    let began = Instant::now();
    client.assert_closed();
    assert!(began.elapsed() >= Duration::from_millis(350), "{:?}", began.elapsed());
    backend.end_of(0);
}

/// A balancer that drains for a moment, and a backend that has switched, said `said` and tells what
/// then came from the balancer.
fn draining(said: &'static [u8]) -> (Tinylb, Backend, mpsc::Receiver<Vec<u8>>) {
    let (come, comes) = mpsc::channel();
    let come = Mutex::new(come);
    let backend = Backend::new(move |mut conn| {
        conn.head().unwrap();
        conn.send([SWITCH.as_bytes(), said].concat());
        come.lock().unwrap().send(Vec::new()).unwrap();
        let rest = conn.wire.rest();
        let _ = come.lock().unwrap().send(rest);
    });
    let tinylb = Tinylb::start(&[backend.url()], &["--drain-timeout", "2s"]);
    (tinylb, backend, comes)
}

#[test]
fn tunnels_of_a_drain_are_told_at_its_deadline() {
    let hello = b"\x81\x05hello";
    let (mut tinylb, _backend, comes) = draining(hello);
    let mut client = tunnel(&tinylb);
    comes.recv_timeout(PATIENCE).unwrap();
    let open = || tinylb.metric("tinylb_tunnels_open", &[]);
    eventually("the tunnel is counted", || (open() > 0.0).then_some(()));
    client.send(b"\x81\x82\0\0\0\0hi");
    tinylb.signal(crate::support::Signal::TERM);
    assert_eq!(client.wire().rest(), [&hello[..], b"\x88\x02\x03\xe9"].concat());
    let said = comes.recv_timeout(PATIENCE).unwrap();
    let [0x81, 0x82, 0, 0, 0, 0, b'h', b'i', 0x88, 0x82, a, b, _, _, high, low] = said[..] else {
        panic!("{said:x?}")
    };
    assert_eq!([high ^ a, low ^ b], [0x03, 0xe9]);
    tinylb.wait_exit();
}

#[test]
fn a_frame_that_has_begun_is_never_broken_by_one_of_ours() {
    let (mut tinylb, _backend, comes) = draining(b"\x81\x05hel");
    let mut client = tunnel(&tinylb);
    comes.recv_timeout(PATIENCE).unwrap();
    assert_eq!(client.wire().take(5), b"\x81\x05hel");
    tinylb.signal(crate::support::Signal::TERM);
    client.assert_closed();
    let said = comes.recv_timeout(PATIENCE).unwrap();
    assert_eq!(said.get(..2), Some(&b"\x88\x82"[..]), "whose side is whole");
    tinylb.wait_exit();
}

#[test]
fn a_real_websocket_client_and_server_talk_through_it() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = listen();
        listener.set_nonblocking(true).unwrap();
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
                    while let Some(Ok(message)) = socket.next().await {
                        if (message.is_text() || message.is_binary())
                            && socket.send(message).await.is_err()
                        {
                            return;
                        }
                    }
                });
            }
        });
        let tinylb = Tinylb::start(&[url], &[]);
        let talk = async {
            let stream = tokio::net::TcpStream::connect(tinylb.address()).await.unwrap();
            let (mut socket, _) =
                tokio_tungstenite::client_async("ws://a/chat", stream).await.expect("an upgrade");
            for size in [0, 1, 125, 126, 65_535, 65_536, 500_000] {
                let sent = Message::binary(vec![size as u8; size]);
                socket.send(sent.clone()).await.unwrap();
                assert_eq!(socket.next().await.unwrap().unwrap(), sent);
            }
            socket.send(Message::text("bye")).await.unwrap();
            assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("bye"));
            socket.close(None).await.unwrap();
            while let Some(Ok(_)) = socket.next().await {}
        };
        tokio::time::timeout(4 * PATIENCE, talk).await.expect("they talk");
    });
}

/// A client that has ended its side may still go altogether, and the tunnel with it.
#[test]
fn a_half_closed_tunnel_ends_when_its_client_is_gone() {
    let (ended, ends) = mpsc::channel();
    let (go, goes) = mpsc::channel::<()>();
    let goes = Mutex::new(goes);
    let (gone, is_gone) = mpsc::channel();
    let backend = Backend::new(move |mut conn| {
        conn.head().unwrap();
        conn.send(SWITCH);
        conn.drain();
        ended.send(()).unwrap();
        goes.lock().unwrap().recv().unwrap();
        let began = Instant::now();
        while conn.send("x") && began.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(10));
        }
        gone.send(began.elapsed() < PATIENCE).unwrap();
    });
    let tinylb = Tinylb::start(&[backend.url()], &["--access-log", "text"]);
    let client = tunnel(&tinylb);
    client.half_close();
    ends.recv_timeout(PATIENCE).expect("the end of the client's side is passed on");
    assert_eq!(tinylb.access.all(), Vec::<String>::new(), "half a tunnel is open");
    client.reset();
    tinylb.wait_for_access("/ws");
    go.send(()).unwrap();
    assert!(is_gone.recv_timeout(2 * PATIENCE).unwrap(), "the backend's connection is closed");
}
