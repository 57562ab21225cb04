//! WebSocket over HTTP/2 (RFC 8441): extended CONNECT from the client, an upgrade to the backend.

use bytes::Bytes;
use h2::ext::Protocol;
use h2::{Reason, RecvStream, SendStream};
use http::{Method, Request, Response};

use crate::support::streams::{Answer, Streams, capacity, run, send_all, soon};
use crate::support::{Backend, Conn, End, Gate, Tinylb, eventually, ok, switching};

fn connect() -> Request<()> {
    let mut request = Request::new(());
    *request.method_mut() = Method::CONNECT;
    *request.uri_mut() = "http://test/chat?a=b".parse().unwrap();
    request.extensions_mut().insert(Protocol::from_static("websocket"));
    request.headers_mut().insert("sec-websocket-version", "13".parse().unwrap());
    request.headers_mut().insert("sec-websocket-protocol", "talk".parse().unwrap());
    request
}

/// A client in a tunnel.
struct Tunnel {
    head: Response<()>,
    from: RecvStream,
    to: SendStream<Bytes>,
    /// The connection, which lives as long.
    _streams: Streams,
}

impl Tunnel {
    async fn open(tinylb: &Tinylb) -> Self {
        let mut streams = Streams::connect(tinylb).await;
        soon("the settings come", async {
            while !streams.is_extended_connect_enabled() {
                tokio::task::yield_now().await;
            }
        })
        .await;
        let (response, to) = streams.send(connect(), false).await;
        let response = soon("the answer comes", response).await.unwrap();
        let (parts, from) = response.into_parts();
        Self { head: Response::from_parts(parts, ()), from, to, _streams: streams }
    }

    async fn send(&mut self, bytes: impl Into<Bytes>, is_end: bool) {
        let bytes = bytes.into();
        match bytes.is_empty() {
            true => self.to.send_data(bytes, is_end).unwrap(),
            false => send_all(&mut self.to, bytes, is_end).await,
        }
    }

    /// The next `n` bytes, or as many as come before the end.
    async fn take(&mut self, n: usize) -> Result<Vec<u8>, h2::Error> {
        let mut taken = Vec::new();
        while taken.len() < n {
            let Some(data) = soon("more comes", self.from.data()).await else { break };
            let data = data?;
            self.from.flow_control().release_capacity(data.len()).unwrap();
            taken.extend_from_slice(&data);
        }
        Ok(taken)
    }
}

/// Agrees to the upgrade that a client has asked for.
fn switch(conn: &mut Conn) {
    let head = conn.head().unwrap();
    assert_eq!(head.first_line, "GET /chat?a=b HTTP/1.1");
    assert_eq!(head.get("host"), Some("test"));
    assert!(head.lists("connection", "upgrade"), "{:?}", head.raw);
    assert_eq!(head.get("upgrade"), Some("websocket"));
    assert_eq!(head.get("sec-websocket-version"), Some("13"));
    // 16 bytes in base64, which HTTP/1.1 insists on (RFC 6455 4.1).
    assert_eq!(head.get("sec-websocket-key").map(str::len), Some(24));
    assert!(!head.has("content-length") && !head.has("transfer-encoding"), "{:?}", head.raw);
    conn.send(format!("{}Sec-WebSocket-Protocol: talk\r\n\r\n", switching(&head)));
}

#[test]
fn a_tunnel_carries_anything_both_ways() {
    let all: Vec<u8> = (0..=255).collect();
    let backend = Backend::new({
        let all = all.clone();
        move |mut conn| {
            switch(&mut conn);
            conn.send("HTTP/1.1 early bytes");
            assert_eq!(conn.wire.take(256), all);
            conn.send(all.repeat(1000));
            assert_eq!(conn.wire.take(20), b"GET / HTTP/1.1\r\n\r\n\r\n");
            conn.send("\0");
        }
    });
    let tinylb = Tinylb::before(&backend);
    run(async {
        let mut tunnel = Tunnel::open(&tinylb).await;
        assert_eq!(tunnel.head.status(), 200);
        let fields = tunnel.head.headers();
        assert_eq!(fields["sec-websocket-protocol"], "talk");
        for name in ["sec-websocket-accept", "connection", "upgrade", "content-length"] {
            assert!(!fields.contains_key(name), "{fields:?}");
        }
        assert_eq!(tunnel.take(20).await.unwrap(), b"HTTP/1.1 early bytes");
        tunnel.send(all.clone(), false).await;
        assert!(tunnel.take(256_000).await.unwrap() == all.repeat(1000));
        tunnel.send("GET / HTTP/1.1\r\n\r\n\r\n", false).await;
        assert_eq!(tunnel.take(2).await.unwrap(), b"\0");
    });
    assert_eq!(tinylb.metric("tinylb_tunnels_total", &[]), 1.0);
}

/// What the client sends before it knows is the tunnel's.
#[test]
fn a_client_that_does_not_wait() {
    let gate = Gate::new();
    let backend = Backend::new({
        let gate = gate.clone();
        move |mut conn| {
            gate.pass();
            switch(&mut conn);
            assert_eq!(conn.wire.take(5), b"early");
            conn.send("late");
        }
    });
    let tinylb = Tinylb::before(&backend);
    run(async {
        let mut streams = Streams::connect(&tinylb).await;
        while !streams.is_extended_connect_enabled() {
            tokio::task::yield_now().await;
        }
        let (response, mut to) = streams.send(connect(), false).await;
        to.send_data(Bytes::from_static(b"early"), false).unwrap();
        gate.open();
        let answer = Answer::of(response).await;
        assert_eq!((answer.status, answer.text().as_str(), answer.reset), (200, "late", None));
    });
}

#[test]
fn each_direction_of_a_tunnel_ends_by_itself() {
    let backend = Backend::new(|mut conn| {
        switch(&mut conn);
        match conn.index {
            0 => {
                assert_eq!(conn.wire.rest(), b"all I have");
                assert_eq!(conn.wire.end(), Some(End::Fin));
                conn.send("still here");
            }
            _ => {
                conn.wire.half_close();
                assert_eq!(conn.wire.rest(), b"still here");
            }
        }
    });
    let tinylb = Tinylb::before(&backend);
    run(async {
        let mut tunnel = Tunnel::open(&tinylb).await;
        tunnel.send("all I have", true).await;
        assert_eq!(tunnel.take(100).await.unwrap(), b"still here");
        assert!(tunnel.from.is_end_stream());

        let mut tunnel = Tunnel::open(&tinylb).await;
        assert_eq!(tunnel.take(100).await.unwrap(), b"", "the backend has ended its side");
        tunnel.send("still here", true).await;
        tokio::task::spawn_blocking(move || backend.end_of(1)).await.unwrap();
    });
}

#[test]
fn a_tunnel_ends_when_either_side_is_gone() {
    let backend = Backend::new(|mut conn| {
        switch(&mut conn);
        match conn.index {
            0 => drop(conn.drain()),
            _ => {
                conn.wire.take(1);
                conn.reset();
            }
        }
    });
    let tinylb = Tinylb::before(&backend);
    run(async {
        let mut tunnel = Tunnel::open(&tinylb).await;
        tunnel.to.send_reset(Reason::CANCEL);
        let mut tunnel = tokio::task::spawn_blocking(move || {
            backend.end_of(0);
            backend
        });
        let backend = (&mut tunnel).await.unwrap();

        let mut tunnel = Tunnel::open(&tinylb).await;
        tunnel.send("x", false).await;
        let error = tunnel.take(1).await.unwrap_err();
        assert_eq!(error.reason(), Some(Reason::INTERNAL_ERROR));
        drop(backend);
    });
}

/// Whether it becomes a tunnel is the backend's word. What would read as one and is none cannot be
/// passed on.
#[test]
fn a_tunnel_that_the_backend_declines() {
    for (answer, status) in [
        ("HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno".to_owned(), 403),
        ("HTTP/1.1 302 x\r\nLocation: /\r\nContent-Length: 0\r\n\r\n".to_owned(), 302),
        (ok("no tunnel"), 502),
        ("HTTP/1.1 204 x\r\n\r\n".to_owned(), 502),
    ] {
        let backend = Backend::answering(answer);
        let tinylb = Tinylb::before(&backend);
        run(async {
            let mut streams = Streams::connect(&tinylb).await;
            while !streams.is_extended_connect_enabled() {
                tokio::task::yield_now().await;
            }
            let (response, _to) = streams.send(connect(), false).await;
            let answer = Answer::of(response).await;
            assert_eq!((answer.status, answer.reset), (status, None), "{answer:?}");
            if status == 502 {
                answer.assert_fault(502, "http_upgrade_failed");
            }
            assert!(streams.get("/").await.status > 0, "the stream alone is over");
        });
    }
}

/// The key is ours, so nobody else can see whether the answer is one to it (RFC 6455 4.1).
#[test]
fn an_answer_to_another_key_is_a_502() {
    for (accept, protocol) in [
        ("", "websocket"),
        ("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n", "websocket"),
        ("right twice", "websocket"),
        ("right", "chat"),
        ("right", ""),
    ] {
        let backend = Backend::new(move |mut conn| {
            let head = conn.head().unwrap();
            let right = switching(&head);
            let (_, right) = right.split_once("websocket\r\n").unwrap();
            let accept = match accept {
                "right twice" => right.repeat(2),
                "right" => right.to_owned(),
                other => other.to_owned(),
            };
            let upgrade = match protocol {
                "" => String::new(),
                protocol => format!("Upgrade: {protocol}\r\n"),
            };
            conn.send(format!(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n{upgrade}{accept}\r\n"
            ));
            conn.drain();
        });
        let tinylb = Tinylb::before(&backend);
        run(async {
            let mut streams = Streams::connect(&tinylb).await;
            while !streams.is_extended_connect_enabled() {
                tokio::task::yield_now().await;
            }
            let (response, _to) = streams.send(connect(), false).await;
            let answer = Answer::of(response).await;
            answer.assert_fault(502, "http_upgrade_failed");
        });
        backend.end_of(0);
    }
}

/// A backend that does not read is not written to, and its client is stopped.
#[test]
fn a_tunnel_is_no_buffer() {
    let gate = Gate::new();
    let backend = Backend::narrow({
        let gate = gate.clone();
        move |mut conn| {
            switch(&mut conn);
            gate.pass();
            assert_eq!(conn.wire.rest().len(), 4 << 20);
            conn.send("all of it");
        }
    });
    let tinylb = Tinylb::before(&backend);
    run(async {
        let mut tunnel = Tunnel::open(&tinylb).await;
        let mut left = 4 << 20;
        while left > 0 {
            let more = capacity(&mut tunnel.to, left);
            match tokio::time::timeout(std::time::Duration::from_millis(500), more).await {
                Ok(room) => {
                    let part = room.min(left);
                    tunnel.to.send_data(Bytes::from(vec![0; part]), false).unwrap();
                    left -= part;
                }
                Err(_) => break,
            }
        }
        assert!(left > 3 << 20, "{left} bytes were not taken");
        gate.open();
        tunnel.send(vec![0; left], true).await;
        assert_eq!(tunnel.take(100).await.unwrap(), b"all of it");
    });
    eventually("it is counted", || {
        (tinylb.metric("tinylb_received_bytes_total", &[]) == f64::from(4 << 20)).then_some(())
    });
}
