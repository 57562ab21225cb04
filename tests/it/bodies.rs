//! Bodies in bulk: each client gets its own bytes back, and no stream costs much memory.

use std::io::{ErrorKind, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use fastrand::Rng;
use tokio::sync::Barrier;

use crate::support::echo::{connect, echo};
use crate::support::{self, Backend, Client, Tinylb, config, eventually_within};

/// A seed to draw from: that of `TINYLB_SEED` where it is set, to run a failure again.
fn seed() -> u64 {
    let seed = std::env::var("TINYLB_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("TINYLB_SEED={seed}");
    seed
}

/// Mostly small, some large, and the edges of the usual buffers.
fn random_body(rng: &mut Rng) -> Vec<u8> {
    let size = match rng.u8(0..10) {
        0 => 0,
        1..=4 => rng.usize(1..1024),
        5..=7 => rng.usize(1024..64 * 1024),
        8 => (1 << rng.u32(10..18)) + rng.usize(0..3) - 1,
        _ => rng.usize(64 * 1024..400 * 1024),
    };
    let mut body = vec![0; size];
    rng.fill(&mut body);
    body
}

async fn client(address: std::net::SocketAddr, seed: u64, all: Arc<Barrier>) -> Result<(), String> {
    let mut rng = Rng::with_seed(seed);
    let mut talk = connect(address, seed).await.map_err(|e| format!("connect: {e}"))?;
    all.wait().await;
    for round in 0..3 {
        let body = random_body(&mut rng);
        let wrong =
            |what: String| format!("client {seed}, round {round}, {} bytes: {what}", body.len());
        let head = format!("POST /{seed} HTTP/1.1\r\nHost: a\r\n");
        talk.send(&head, &body).await.map_err(|e| wrong(format!("send: {e}")))?;
        match talk.message().await {
            Ok(Some((status, back))) if status.starts_with("HTTP/1.1 200") => {
                if back != body {
                    return Err(wrong(format!("{} other bytes came back", back.len())));
                }
            }
            other => return Err(wrong(format!("{:?}", other.map(|m| m.map(|m| m.0))))),
        }
    }
    Ok(())
}

/// Timeouts that a thousand clients and two backends on one thread never need.
const PATIENT_LISTENER: &str = "timeouts = { head = \"5m\", idle = \"5m\", body = \"5m\" }";
const PATIENT_UPSTREAM: &str =
    "timeouts = { connect = \"5m\", response = \"5m\", body = \"5m\", idle = \"4s\" }";

#[test]
fn a_thousand_clients_at_once_each_get_their_own_bytes_back() {
    const CLIENTS: u64 = 1000;
    let seed = seed();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut urls = Vec::new();
        for number in 0..2_u64 {
            let listener = support::listen();
            listener.set_nonblocking(true).unwrap();
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            urls.push(format!("http://{}", listener.local_addr().unwrap()));
            tokio::spawn(echo(listener, seed ^ number));
        }
        let tinylb = Tinylb::run(&config(&urls, PATIENT_LISTENER, PATIENT_UPSTREAM));
        let all = Arc::new(Barrier::new(CLIENTS as usize));
        let clients: Vec<_> = (0..CLIENTS)
            .map(|i| tokio::spawn(client(tinylb.address(), seed.wrapping_add(i), Arc::clone(&all))))
            .collect();
        let mut wrong = Vec::new();
        for client in clients {
            match tokio::time::timeout(Duration::from_secs(300), client).await {
                Ok(Ok(Ok(()))) => {}
                Ok(Ok(Err(why))) => wrong.push(why),
                Ok(Err(why)) => wrong.push(why.to_string()),
                Err(_) => panic!("it stalls; so far: {wrong:#?}"),
            }
        }
        assert!(
            wrong.is_empty(),
            "{} of {CLIENTS}: {:#?}",
            wrong.len(),
            &wrong[..wrong.len().min(10)]
        );
    });
}

/// Clients at once, each with a body far larger than all memory that may be used.
const STREAMS: usize = 100;
const SIZE: u64 = 2 << 30;
const MOST_KIB: u64 = 128 * 1024;

/// The most memory that the process has ever had, in KiB.
fn peak_kib(tinylb: &Tinylb) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", tinylb.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("VmHWM");
    line.trim().trim_end_matches(" kB").parse().expect("a number of KiB")
}

/// Waits until `moved` has not grown for half a second though all have begun, and gives it.
fn stalled(moved: &AtomicU64, begun: &AtomicUsize) -> u64 {
    let (mut last, mut quiet) = (0, 0);
    eventually_within(Duration::from_secs(60), "the transfer stalls", || {
        thread::sleep(Duration::from_millis(50));
        let now = moved.load(Ordering::Relaxed);
        quiet = if now == last { quiet + 1 } else { 0 };
        last = now;
        (begun.load(Ordering::Relaxed) == STREAMS && quiet >= 10).then_some(now)
    })
}

#[test]
fn two_gibibytes_for_each_of_a_hundred_readers_that_stall_take_little_memory() {
    let moved = Arc::new(AtomicU64::new(0));
    let begun = Arc::new(AtomicUsize::new(0));
    let backend = Backend::new({
        let (moved, begun) = (Arc::clone(&moved), Arc::clone(&begun));
        move |mut conn| {
            conn.request().unwrap();
            conn.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n"));
            begun.fetch_add(1, Ordering::Relaxed);
            let piece = vec![b'x'; 16 * 1024];
            while let Ok(n @ 1..) = conn.wire.stream().write(&piece) {
                moved.fetch_add(n as u64, Ordering::Relaxed);
            }
        }
    });
    let tinylb = Tinylb::before(&backend);
    let _stalling: Vec<_> = (0..STREAMS)
        .map(|_| {
            let mut client = Client::connect_narrow(tinylb.address(), 16 * 1024);
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            client
        })
        .collect();
    let moved = stalled(&moved, &begun);
    assert!(moved < SIZE, "backpressure reaches the backends: {moved} bytes were moved");
    let peak = peak_kib(&tinylb);
    println!("{STREAMS} downloads stalled after {moved} bytes at {peak} KiB");
    assert!(peak < MOST_KIB, "{peak} KiB");
}

#[test]
fn two_gibibytes_from_each_of_a_hundred_clients_to_a_backend_that_stalls_take_little_memory() {
    let (done, over) = std::sync::mpsc::channel::<()>();
    let over = std::sync::Mutex::new(over);
    let arrived = Arc::new(AtomicUsize::new(0));
    let backend = Backend::new({
        let arrived = Arc::clone(&arrived);
        move |mut conn| {
            conn.head().unwrap();
            arrived.fetch_add(1, Ordering::Relaxed);
            let _ = over.lock().unwrap().recv();
        }
    });
    let tinylb = Tinylb::before(&backend);
    let mut clients: Vec<_> = (0..STREAMS)
        .map(|_| {
            let mut client = tinylb.connect();
            let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {SIZE}\r\n\r\n");
            client.send(head);
            client.wire().stream().set_nonblocking(true).unwrap();
            client
        })
        .collect();
    let moved = AtomicU64::new(0);
    let piece = vec![b'x'; 64 * 1024];
    let mut offer = || {
        for client in &mut clients {
            match client.wire().stream().write(&piece) {
                Ok(n) => drop(moved.fetch_add(n as u64, Ordering::Relaxed)),
                Err(e) => assert_eq!(e.kind(), ErrorKind::WouldBlock, "the stream is open"),
            }
        }
    };
    let (mut last, mut quiet) = (0, 0);
    eventually_within(Duration::from_secs(60), "the transfer stalls", || {
        (0..20).for_each(|_| offer());
        let now = moved.load(Ordering::Relaxed);
        quiet = if now == last { quiet + 1 } else { 0 };
        last = now;
        (quiet >= 100 && arrived.load(Ordering::Relaxed) == STREAMS).then_some(())
    });
    assert!(last < SIZE, "backpressure reaches the clients: {last} bytes were moved");
    let peak = peak_kib(&tinylb);
    println!("{STREAMS} uploads stalled after {last} bytes at {peak} KiB");
    assert!(peak < MOST_KIB, "{peak} KiB");
    drop(done);
}

/// One large body, whole and unchanged.
#[test]
fn a_large_body_arrives_whole() {
    const LARGE: usize = 16 << 20;
    let byte_at = |i: usize| (i.wrapping_mul(2_654_435_761) >> 13) as u8;
    let backend = Backend::new(move |mut conn| {
        while conn.request().is_some() {
            conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
            for begin in (0..LARGE).step_by(1 << 20) {
                let piece: Vec<u8> = (begin..begin + (1 << 20)).map(byte_at).collect();
                conn.send("100000\r\n");
                conn.send(piece);
                conn.send("\r\n");
            }
            conn.send("0\r\n\r\n");
        }
    });
    let tinylb = Tinylb::before(&backend);
    let mut client = tinylb.connect();
    client.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n");
    client.wire().head().expect("a response");
    let mut count = 0;
    loop {
        let piece = client.wire().take(256 * 1024);
        if piece.is_empty() {
            break;
        }
        let wrong = piece.iter().enumerate().find(|(i, byte)| **byte != byte_at(count + i));
        assert_eq!(wrong, None, "after {count}");
        count += piece.len();
    }
    assert_eq!(count, LARGE);
}
