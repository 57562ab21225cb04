//! Tunnels in which nothing moves: for a while, or any more.

use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::support::{Asked, Backend, Client, Conn, Http2Backend, Tinylb, switching};

const UPGRADE: &str = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// Close frames of a client and of a server, with status 1000.
const CLIENT_CLOSE: &[u8] = b"\x88\x82\0\0\0\0\x03\xe8";
const SERVER_CLOSE: &[u8] = b"\x88\x02\x03\xe8";

fn tunnel(tinylb: &Tinylb) -> Client {
    let mut client = tinylb.connect();
    client.send(UPGRADE);
    let response = client.response();
    assert_eq!(response.status, 101, "{:?}", response.head.raw);
    client
}

fn switch(conn: &mut Conn) {
    let head = conn.head().unwrap();
    conn.send(format!("{}\r\n", switching(&head)));
}

/// Both sides have said that it is over, and each waits for the other to end it (RFC 6455 7.1.1).
#[test]
fn a_tunnel_that_both_sides_have_closed_is_ended() {
    let backend = Backend::new(|mut conn| {
        switch(&mut conn);
        let ours = conn.index == 1;
        if ours {
            conn.send(SERVER_CLOSE);
        }
        assert_eq!(conn.wire.take(CLIENT_CLOSE.len()), CLIENT_CLOSE);
        if !ours {
            conn.send([b"\x81\x02hi", SERVER_CLOSE].concat());
        }
        conn.drain();
    });
    let tinylb = Tinylb::before(&backend);
    for (index, last) in
        [[b"\x81\x02hi", SERVER_CLOSE].concat(), SERVER_CLOSE.to_vec()].into_iter().enumerate()
    {
        let mut client = tunnel(&tinylb);
        // In two pieces.
        client.send(&CLIENT_CLOSE[..3]);
        client.send(&CLIENT_CLOSE[3..]);
        assert_eq!(client.wire().rest(), last);
        backend.end_of(index);
    }
}

#[test]
fn a_tunnel_to_an_endpoint_in_http_2_as_well() {
    let backend = Http2Backend::with(
        |builder| {
            builder.enable_connect_protocol();
        },
        async |mut asked: Asked| {
            let mut stream = asked.begin();
            let close = asked.body.data().await.unwrap().unwrap();
            assert_eq!(close, CLIENT_CLOSE);
            stream.send_data(Bytes::from_static(SERVER_CLOSE), false).unwrap();
            // Nothing more, and it is the other side that ends it.
            assert!(asked.body.data().await.is_none_or(|end| end.is_err()));
        },
    );
    let tinylb = Tinylb::start(&[backend.url()], &["--access-log", "text"]);
    let mut client = tunnel(&tinylb);
    client.send(CLIENT_CLOSE);
    assert_eq!(client.wire().rest(), SERVER_CLOSE);
    tinylb.wait_for_access("/ws");
}

/// Whoever has not said goodbye may still have much to say.
#[test]
fn a_tunnel_that_one_side_has_closed_goes_on() {
    const LONGER: Duration = Duration::from_secs(3);
    let backend = Backend::new(|mut conn| {
        switch(&mut conn);
        assert_eq!(conn.wire.take(CLIENT_CLOSE.len()), CLIENT_CLOSE);
        thread::sleep(LONGER);
        conn.send([b"\x81\x04late", SERVER_CLOSE].concat());
        conn.drain();
    });
    let tinylb = Tinylb::before(&backend);
    let mut client = tunnel(&tinylb);
    let began = Instant::now();
    client.send(CLIENT_CLOSE);
    assert_eq!(client.wire().rest(), [b"\x81\x04late", SERVER_CLOSE].concat());
    assert!(began.elapsed() >= LONGER);
}

/// The resident memory now, in KiB.
fn resident_kib(tinylb: &Tinylb) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", tinylb.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").parse().expect("a number of KiB")
}

/// Neither for the request nor for what may come. The bound leaves room for a debug build and for what the
/// allocator keeps.
#[test]
fn an_idle_tunnel_holds_no_buffer() {
    const TUNNELS: usize = 400;
    let backend = Backend::new(|mut conn| {
        switch(&mut conn);
        while let [byte] = conn.wire.take(1)[..] {
            conn.send([byte]);
        }
    });
    let tinylb = Tinylb::before(&backend);
    let open = || {
        let mut client = tunnel(&tinylb);
        client.send("x");
        assert_eq!(client.wire().take(1), b"x");
        client
    };
    // What the buffers that are kept for all come to.
    let warm: Vec<_> = (0..150).map(|_| open()).collect();
    let before = resident_kib(&tinylb);
    let idle: Vec<_> = (0..TUNNELS).map(|_| open()).collect();
    let each = resident_kib(&tinylb).saturating_sub(before) * 1024 / TUNNELS;
    println!("{each} bytes for each idle tunnel");
    assert!(each < 10 * 1024, "{each} bytes each");
    drop((warm, idle));
}
