//! Many streams on one connection: each goes at its own pace, and none holds more than its share.

use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::Builder;
use http::Request;

use crate::support::echo::echo;
use crate::support::http2::{DATA, END_STREAM, Fate, Frames, setting};
use crate::support::streams::{Answer, Streams, capacity, run, send_all, soon};
use crate::support::{self, Backend, Conn, Gate, Held, Tinylb, config, eventually, ok};

const MIB: usize = 1 << 20;

fn get(path: &str) -> Request<()> {
    Request::get(format!("http://test{path}")).body(()).unwrap()
}

fn post(path: &str) -> Request<()> {
    Request::post(format!("http://test{path}")).body(()).unwrap()
}

#[test]
fn answers_come_in_the_order_in_which_they_are_given() {
    const COUNT: usize = 50;
    let held = Held::new("held");
    let tinylb = Tinylb::start(&[held.url()], &[]);
    run(async {
        let mut streams = Streams::connect(&tinylb).await;
        let mut waiting = Vec::new();
        for number in 0..COUNT {
            waiting.push(streams.send(get(&format!("/{number}")), true).await.0);
        }
        let held = tokio::task::spawn_blocking(move || {
            held.wait_for(COUNT);
            held
        });
        let held = held.await.unwrap();
        for number in (0..COUNT).rev() {
            held.answer(&format!("/{number}"));
            let answer = Answer::of(waiting.pop().unwrap()).await;
            assert_eq!((answer.status, answer.text().as_str()), (200, "held"), "{number}");
        }
    });
}

/// Answers with as many bytes as the path says, for as long as it is asked.
fn sized() -> Backend {
    static PIECE: [u8; 64 * 1024] = [b'x'; 64 * 1024];
    Backend::new(|mut conn| {
        while let Some(request) = conn.request() {
            let size: usize = request.target().rsplit('/').next().unwrap().parse().unwrap();
            let mut going = conn.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n"));
            for begin in (0..size).step_by(PIECE.len()) {
                going = going && conn.send(&PIECE[..PIECE.len().min(size - begin)]);
            }
            if !going {
                return;
            }
        }
    })
}

/// Asks for 20,000 bytes on each of `count` streams at once, and that so many times; returns how long it
/// took.
async fn rounds(streams: &mut Streams, count: usize, times: usize) -> Duration {
    let began = Instant::now();
    for _ in 0..times {
        let mut waiting = Vec::new();
        for _ in 0..count {
            let response = streams.send(get("/20000"), true).await.0;
            waiting.push(tokio::spawn(Answer::of(response)));
        }
        for answer in waiting {
            assert_eq!(answer.await.unwrap().body.len(), 20_000);
        }
    }
    began.elapsed()
}

/// One that is never read stands in nobody's way.
#[test]
fn two_hundred_streams_of_which_one_is_not_read() {
    const COUNT: usize = 200;
    const ROUNDS: usize = 10;
    let backend = sized();
    let tinylb = Tinylb::before(&backend);
    run(async {
        let mut builder = Builder::new();
        builder.initial_window_size(256 * 1024).initial_connection_window_size(1 << 30);
        let mut streams = Streams::with(&tinylb, &builder).await;
        // How long the others take without it, on this machine and beside whatever else it does.
        let before = rounds(&mut streams, COUNT - 1, ROUNDS).await;
        let (response, _) = streams.send(get(&format!("/{}", 16 * MIB)), true).await;
        let stuck = soon("a head comes", response).await.unwrap();
        let took = rounds(&mut streams, COUNT - 1, ROUNDS).await;
        println!("{before:?} before, {took:?} beside it");
        assert!(took < 5 * before + Duration::from_secs(10), "{took:?}, and {before:?} without it");
        assert_eq!(Answer::rest(stuck).await.body.len(), 16 * MIB);
    });
}

/// The answers come to 1.6 GiB; what nobody reads stays where it is.
#[test]
fn two_hundred_streams_of_which_none_is_read() {
    let backend = Backend::new(|mut conn| {
        conn.head();
        conn.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 8 * MIB));
        for _ in 0..8 {
            if !conn.send(vec![b'x'; MIB]) {
                return;
            }
        }
    });
    let tinylb = Tinylb::before(&backend);
    let before = tinylb.memory();
    run(async {
        let mut builder = Builder::new();
        builder.initial_window_size(65_535).initial_connection_window_size(1 << 30);
        let mut streams = Streams::with(&tinylb, &builder).await;
        let mut heads = Vec::new();
        for _ in 0..200 {
            let (response, _) = streams.send(get("/"), true).await;
            heads.push(soon("a head comes", response).await.unwrap());
        }
        // As much as there is room for is on its way.
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let grown = tinylb.memory().saturating_sub(before);
            assert!(grown < 100, "{grown} MiB for 200 streams");
        }
        println!("{} MiB for 200 streams", tinylb.memory() - before);
        for head in heads.drain(..3) {
            assert_eq!(Answer::rest(head).await.body.len(), 8 * MIB);
        }
    });
}

/// The same where windows are as wide as they can be and nobody reads the socket.
#[test]
fn two_hundred_streams_of_a_client_that_does_not_read() {
    let backend = sized();
    let tinylb = Tinylb::start(&[backend.url()], &["--workers", "1"]);
    let before = tinylb.memory();
    let windows = setting(4, 0x7fff_ffff);
    let mut client = Frames::with_settings(&tinylb, &windows);
    client.open_windows(0, 0x3fff_0000);
    for number in 0..200 {
        client.get(2 * number + 1, &format!("/{}", 8 * MIB));
    }
    backend.wait_for_requests(200);
    for _ in 0..20 {
        std::thread::sleep(Duration::from_millis(50));
        let grown = tinylb.memory().saturating_sub(before);
        assert!(grown < 100, "{grown} MiB for 200 streams");
        assert_eq!(tinylb.get("/10").status, 200);
    }
    println!("{} MiB for 200 streams", tinylb.memory() - before);
    drop(client);
    eventually("the backend is let go", || {
        (tinylb.metric("tinylb_endpoint_requests_in_flight", &[]) == 0.0).then_some(())
    });
}

/// Takes in uploads, but for those to /stuck.
fn taking(gate: &Gate) -> impl Fn(Conn) + Send + Sync + 'static {
    let gate = gate.clone();
    move |mut conn| {
        while let Some(head) = conn.head() {
            if head.first_line.contains("/stuck") {
                gate.pass();
            }
            let Some(request) = conn.body(head) else { return };
            conn.send(ok(&request.body.len().to_string()));
        }
    }
}

/// What is taken of an upload at least before it is stopped.
const LEAST_TAKEN: usize = 100_000;

/// Sends until no more is taken, and says how much was.
async fn fill(stream: &mut h2::SendStream<Bytes>) -> usize {
    let (mut taken, began) = (0, Instant::now());
    loop {
        let more = tokio::time::timeout(Duration::from_millis(300), capacity(stream, MIB));
        let Ok(room) = more.await else {
            // A machine that is busy may also be what takes no more.
            match taken < LEAST_TAKEN && began.elapsed() < support::PATIENCE {
                true => continue,
                false => return taken,
            }
        };
        stream.send_data(Bytes::from(vec![b'x'; room]), false).unwrap();
        taken += room;
        assert!(taken < 100 * MIB, "it is stopped at some point");
    }
}

/// A backend that does not read stops its client, and no other.
#[test]
fn uploads_of_which_some_are_not_taken() {
    const STUCK: usize = 8;
    let gate = Gate::new();
    let backend = Backend::narrow(taking(&gate));
    let tinylb = Tinylb::before(&backend);
    let before = tinylb.memory();
    run(async {
        let mut streams = Streams::connect(&tinylb).await;
        let mut stuck = Vec::new();
        for _ in 0..STUCK {
            let (response, mut stream) = streams.send(post("/stuck"), false).await;
            let taken = fill(&mut stream).await;
            assert!((LEAST_TAKEN..2 * MIB).contains(&taken), "{taken} bytes were taken");
            stuck.push((response, stream, taken));
        }
        let grown = tinylb.memory().saturating_sub(before);
        assert!(grown < 32, "{grown} MiB for {STUCK} uploads");
        let mut others = Vec::new();
        for number in 0..20 {
            let (response, mut stream) = streams.send(post("/others"), false).await;
            others.push(tokio::spawn(async move {
                send_all(&mut stream, Bytes::from(vec![b'x'; MIB + number]), true).await;
                assert_eq!(Answer::of(response).await.text(), (MIB + number).to_string());
            }));
        }
        for other in others {
            other.await.unwrap();
        }
        gate.open();
        for (response, mut stream, taken) in stuck {
            stream.send_data(Bytes::new(), true).unwrap();
            assert_eq!(Answer::of(response).await.text(), taken.to_string());
        }
    });
}

/// From 1 on, of any order of magnitude up to so many bits.
fn draw(rng: &mut fastrand::Rng, bits: u32) -> usize {
    let bits = rng.u32(4..=bits);
    rng.usize(1..=1 << bits)
}

/// Bodies of all sizes, many at once, come back as they went.
#[test]
fn bodies_arrive_as_they_were_sent() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    run(async {
        let listener = support::listen();
        listener.set_nonblocking(true).unwrap();
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(echo(listener, seed));
        let tinylb = Tinylb::start(&[url], &[]);
        let mut streams = Streams::connect(&tinylb).await;
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut sizes = vec![16 * MIB, 0, 1, 16_384, 16_385];
        sizes.extend((0..40).map(|_| draw(&mut rng, 20)));
        let mut waiting = Vec::new();
        for size in sizes {
            let body = Bytes::from((0..size).map(|_| rng.u8(..)).collect::<Vec<_>>());
            let mut request = post("/echo");
            if rng.bool() {
                let length = size.to_string().parse().unwrap();
                request.headers_mut().insert("content-length", length);
            }
            let (response, mut stream) = streams.send(request, false).await;
            let seed = rng.u64(..);
            waiting.push(tokio::spawn(async move {
                let mut rng = fastrand::Rng::with_seed(seed);
                let mut rest = body.clone();
                while !rest.is_empty() {
                    let part = rest.split_to(draw(&mut rng, 18).min(rest.len()));
                    send_all(&mut stream, part, false).await;
                }
                stream.send_data(Bytes::new(), true).unwrap();
                let answer = Answer::of(response).await;
                assert_eq!((answer.status, answer.reset), (200, None), "of {} bytes", body.len());
                assert!(answer.body == body, "{} bytes of {}", answer.body.len(), body.len());
            }));
        }
        for one in waiting {
            one.await.unwrap();
        }
    });
}

/// As many as were agreed on; one more waits at the client, or is refused unread.
#[test]
fn no_more_streams_than_agreed() {
    let held = Held::new("held");
    let tinylb = Tinylb::run(&config(&[held.url()], "", ""));
    let mut client = Frames::connect(&tinylb);
    for number in 0..257 {
        client.get(2 * number + 1, &format!("/{number}"));
    }
    const REFUSED_STREAM: u32 = 7;
    assert_eq!(client.fate(513), Fate::Reset(REFUSED_STREAM));
    held.wait_for(256);
    held.open();
    let mut ended = 0;
    client.find(|frame| {
        ended += u32::from(frame.kind == DATA && frame.flags & END_STREAM != 0);
        ended == 256
    });
    client.assert_serves(515);
}
