//! Attacks on HTTP/2, measured from outside: each is cut off, costs little, and is not noticed by others.

use std::thread;
use std::time::{Duration, Instant};

use crate::support::http2::{
    ACK, CANCEL, CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, Frames, GOAWAY,
    HEADERS, PADDED, PING, PRIORITY, RST_STREAM, SETTINGS, WINDOW_UPDATE, frame, literals, request,
    setting,
};
use crate::support::{Backend, Conn, Tinylb, eventually, ok};

/// More frames than any client gets away with: where nothing stops them they take seconds of a processor.
const MANY: u32 = 1_000_000;

const COMPRESSION_ERROR: u32 = 9;
const INITIAL_WINDOW_SIZE: u16 = 4;

/// Never answers what is asked for under /held.
fn holding(mut conn: Conn) {
    while let Some(request) = conn.request() {
        if request.target() == "/held" {
            conn.drain();
            return;
        }
        conn.send(ok("fine"));
    }
}

fn head(stream: u32, method: &str, path: &str) -> Vec<u8> {
    let end = if method == "GET" { END_STREAM } else { 0 };
    frame(HEADERS, END_HEADERS | end, stream, &literals(&request(method, path)))
}

fn window(stream: u32, by: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &by.to_be_bytes())
}

/// What an attack came to.
struct Outcome {
    /// The last reason that the client was given.
    reason: Option<u32>,
    /// How long the process was busy.
    cpu: Duration,
    /// How long the slowest request of somebody else took.
    slowest: Duration,
}

/// Sends what `frames` makes of each number until the connection ends, and has others ask meanwhile.
fn attack(
    tinylb: &Tinylb,
    mut client: Frames,
    frames: &(dyn Fn(u32) -> Vec<u8> + Sync),
) -> Outcome {
    let cpu = tinylb.cpu();
    let mut reader = Frames::over(client.stream());
    thread::scope(|scope| {
        let reasons = scope.spawn(move || {
            let frames = std::iter::from_fn(|| reader.next()).filter(|frame| frame.kind == GOAWAY);
            frames.map(|frame| frame.code()).last()
        });
        let attacking = scope.spawn(move || {
            let mut batch = Vec::new();
            for number in 0..MANY {
                batch.extend(frames(number));
                if batch.len() > 16 * 1024 && !client.try_send(std::mem::take(&mut batch)) {
                    break;
                }
            }
        });
        let mut other = tinylb.connect();
        let mut slowest = Duration::ZERO;
        while !attacking.is_finished() {
            let began = Instant::now();
            assert_eq!(other.get("/other").status, 200);
            slowest = slowest.max(began.elapsed());
            thread::sleep(Duration::from_millis(5));
        }
        let reason = reasons.join().unwrap();
        Outcome { reason, cpu: tinylb.cpu() - cpu, slowest }
    })
}

/// An attack: its name, the settings that its connection begins with, what opens it, and what is repeated.
type Attack<'a> = (&'a str, Vec<u8>, Vec<u8>, &'a (dyn Fn(u32) -> Vec<u8> + Sync));

fn assert_withstood(attacks: &[Attack<'_>]) {
    let backend = Backend::new(holding);
    // One worker: who is served meanwhile is served by the one that is attacked.
    let tinylb = Tinylb::start(&[backend.url()], &["--workers", "1"]);
    let before = tinylb.memory();
    for (index, (name, settings, opening, frames)) in attacks.iter().enumerate() {
        let mut client = Frames::with_settings(&tinylb, settings);
        client.send(opening);
        let Outcome { reason, cpu, slowest } = attack(&tinylb, client, frames);
        println!("{name}: {reason:?}, {cpu:?} of processor, others waited {slowest:?} at most");
        assert_eq!(reason, Some(ENHANCE_YOUR_CALM), "{name}");
        assert!(cpu < Duration::from_secs(1), "{name}: {cpu:?} of processor");
        assert!(slowest < Duration::from_secs(10), "{name}: others waited {slowest:?}");
        let cut_off = tinylb.metric("tinylb_http2_connections_cut_off_total", &[]);
        assert_eq!(cut_off, (index + 1) as f64, "{name} is counted");
    }
    let grown = tinylb.memory().saturating_sub(before);
    assert!(grown < 32, "{grown} MiB more");
    let said = tinylb.log.all();
    assert!(
        said.iter().all(|line| !line.contains("WARN")),
        "the log is not the client's: {said:?}"
    );
    // It has calmed down.
    eventually("nothing is done any more", || {
        let before = tinylb.cpu();
        thread::sleep(Duration::from_millis(300));
        (tinylb.cpu() - before < Duration::from_millis(60)).then_some(())
    });
}

/// CVE-2019-9512, 9515, 9518 and others: frames that say nothing.
#[test]
fn frames_without_a_use() {
    let none = Vec::new;
    let post = || head(1, "POST", "/held");
    assert_withstood(&[
        ("pings", none(), none(), &|_| frame(PING, 0, 0, &[0; 8])),
        ("answers to no pings", none(), none(), &|_| frame(PING, ACK, 0, &[0; 8])),
        ("settings", none(), none(), &|_| frame(SETTINGS, 0, 0, &[])),
        ("changes of the window", none(), post(), &|n| {
            frame(SETTINGS, 0, 0, &setting(INITIAL_WINDOW_SIZE, 1000 + n % 2))
        }),
        ("priorities", none(), none(), &|n| frame(PRIORITY, 0, 2 * n + 3, &[0, 0, 0, 0, 1])),
        ("frames of no kind", none(), none(), &|_| frame(0xfe, 0, 0, b"")),
        ("windows", none(), none(), &|_| window(0, 1)),
        ("windows of a stream", none(), post(), &|_| window(1, 1)),
        ("empty data", none(), post(), &|_| frame(DATA, 0, 1, b"")),
        ("padding of nothing", none(), post(), &|_| frame(DATA, PADDED, 1, b"\0")),
        ("padding", none(), post(), &|_| frame(DATA, PADDED, 1, &[200; 201])),
        ("resets of what is over", none(), head(1, "GET", "/"), &|_| {
            frame(RST_STREAM, 0, 1, &CANCEL.to_be_bytes())
        }),
        ("farewells", none(), post(), &|_| frame(GOAWAY, 0, 0, &[0; 8])),
    ]);
}

/// CVE-2023-44487 and CVE-2025-8671: requests that are given up, or that the client has us give up.
#[test]
fn requests_that_are_not_meant() {
    let none = Vec::new;
    let reset = |stream: u32| frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes());
    let itself =
        |stream: u32| frame(PRIORITY, 0, stream, &[&stream.to_be_bytes()[..], &[0]].concat());
    let odd = |n: u32| 2 * n + 1;
    assert_withstood(&[
        ("resets", none(), none(), &|n| [head(odd(n), "GET", "/"), reset(odd(n))].concat()),
        ("resets of uploads", none(), none(), &|n| {
            [head(odd(n), "POST", "/"), reset(odd(n))].concat()
        }),
        ("resets by a window too many", none(), none(), &|n| {
            [head(odd(n), "GET", "/held"), window(odd(n), 0x7fff_ffff)].concat()
        }),
        ("resets by a priority", none(), none(), &|n| {
            [head(odd(n), "GET", "/held"), itself(odd(n))].concat()
        }),
        ("requests without a path", none(), none(), &|n| {
            let fields = literals(&request("GET", "/")[..1]);
            frame(HEADERS, END_HEADERS | END_STREAM, odd(n), &fields)
        }),
        ("requests with white space", none(), none(), &|n| {
            let fields = [&request("GET", "/")[..], &[("a", b" ")]].concat();
            frame(HEADERS, END_HEADERS | END_STREAM, odd(n), &literals(&fields))
        }),
        ("more requests than allowed", none(), none(), &|n| head(odd(n), "GET", "/held")),
    ]);
}

/// CVE-2024-27316 and its like: heads that do not end.
#[test]
fn heads_without_end() {
    let none = Vec::new;
    let begin = |block: &[u8]| frame(HEADERS, END_STREAM, 1, block);
    let some = literals(&request("GET", "/"));
    assert_withstood(&[
        ("nothing", none(), begin(b""), &|_| frame(CONTINUATION, 0, 1, b"")),
        ("nothing behind something", none(), begin(&some), &|_| frame(CONTINUATION, 0, 1, b"")),
        ("byte by byte", none(), begin(b"\0\x7f"), &|_| frame(CONTINUATION, 0, 1, b"a")),
        ("fields", none(), begin(&some), &|n| {
            let name = format!("a{n}");
            frame(CONTINUATION, 0, 1, &literals(&[(&name, &[b'b'; 16_000])]))
        }),
    ]);
}

/// A field of 4000 bytes that is sent once, and then meant by one byte each (RFC 7541 6.1).
fn large_field() -> Vec<u8> {
    // A literal with indexing, the name `a`.
    let mut block = vec![0x40, 1, b'a', 127, 0xa1, 0x1e];
    block.extend([b'b'; 127 + 0x21 + 128 * 0x1e]);
    block
}

const INDEXED: u8 = 0x80 | 62;

/// Few bytes that mean many: no more is unpacked than a head may have.
#[test]
fn heads_that_unpack_to_much() {
    let backend = Backend::new(holding);
    let tinylb = Tinylb::start(&[backend.url()], &["--workers", "1"]);
    let before = tinylb.memory();
    let fields = literals(&request("GET", "/"));
    let first = [&fields[..], &large_field()].concat();
    let open = |client: &mut Frames| {
        client.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, &first));
        assert_eq!(client.answer(1), (200, b"fine".to_vec()));
    };
    // 64 MiB from one frame.
    let mut client = Frames::connect(&tinylb);
    open(&mut client);
    let bomb = [&fields[..], &[INDEXED; 16_000]].concat();
    let cpu = tinylb.cpu();
    client.send(frame(HEADERS, END_HEADERS | END_STREAM, 3, &bomb));
    let told = client.find(|frame| frame.kind == GOAWAY).expect("it is told");
    assert!([ENHANCE_YOUR_CALM, COMPRESSION_ERROR].contains(&told.code()), "{told:?}");
    assert!(tinylb.cpu() - cpu < Duration::from_secs(1));
    // Less than what is an attack by itself, and again and again: 200 KB from 100 bytes.
    let mut client = Frames::connect(&tinylb);
    open(&mut client);
    let small = [&fields[..], &[INDEXED; 50]].concat();
    let outcome =
        attack(&tinylb, client, &|n| frame(HEADERS, END_HEADERS | END_STREAM, 2 * n + 3, &small));
    assert_eq!(outcome.reason, Some(ENHANCE_YOUR_CALM));
    assert!(outcome.cpu < Duration::from_secs(3), "{:?}", outcome.cpu);
    let grown = tinylb.memory().saturating_sub(before);
    assert!(grown < 32, "{grown} MiB more");
    assert!(backend.requests().iter().all(|request| request.head.raw.len() < 32 * 1024));
}

/// CVE-2019-9511 and 9517: large answers that are taken byte by byte, or not at all.
#[test]
fn answers_that_are_taken_byte_by_byte() {
    const STREAMS: u32 = 100;
    let answer = ok(&"x".repeat(4 << 20));
    let backend = Backend::new(move |mut conn| {
        while let Some(request) = conn.request() {
            conn.send(if request.target() == "/large" {
                &answer
            } else {
                "HTTP/1.1 204 x\r\n\r\n"
            });
        }
    });
    let tinylb = Tinylb::start(&[backend.url()], &["--workers", "1"]);
    let before = tinylb.memory();
    let mut client = Frames::with_settings(&tinylb, &setting(INITIAL_WINDOW_SIZE, 1));
    for number in 0..STREAMS {
        client.get(2 * number + 1, "/large");
    }
    let mut heads = 0;
    client.find(|frame| {
        heads += u32::from(frame.kind == HEADERS);
        heads == STREAMS
    });
    let held = tinylb.memory().saturating_sub(before);
    println!("{held} MiB for {STREAMS} streams");
    assert!(held < 100, "{held} MiB for {STREAMS} streams");
    let cpu = tinylb.cpu();
    let mut sent = 0;
    let reason = loop {
        let stream = 2 * (sent % STREAMS) + 1;
        // Each is waited for, so that each makes a frame.
        if !client.try_send([window(0, 1), window(stream, 1)].concat()) {
            break client.find(|frame| frame.kind == GOAWAY);
        }
        sent += 1;
        assert!(sent < 100_000, "it is cut off");
        match client.find(|frame| [DATA, GOAWAY].contains(&frame.kind)) {
            Some(frame) if frame.kind == DATA => {}
            end => break end,
        }
    };
    println!("cut off after {sent}, {:?} of processor", tinylb.cpu() - cpu);
    assert_eq!(reason.expect("a reason").code(), ENHANCE_YOUR_CALM);
    assert!(sent < 20_000, "cut off after {sent}");
    assert_eq!(tinylb.get("/").status, 204);
    eventually("the memory is given back", || {
        (tinylb.memory().saturating_sub(before) < 60).then_some(())
    });
}

/// Nobody reads what is answered: then no more is asked for.
#[test]
fn answers_to_pings_that_nobody_reads() {
    let backend = Backend::new(holding);
    let tinylb = Tinylb::start(&[backend.url()], &["--workers", "1"]);
    let before = tinylb.memory();
    let mut client = Frames::connect(&tinylb);
    let pings = frame(PING, 0, 0, &[0; 8]).repeat(1000);
    let mut batches = 0;
    while client.try_send(&pings) && batches < 1000 {
        batches += 1;
    }
    assert!(batches < 1000, "it is cut off");
    assert_eq!(tinylb.get("/").status, 200);
    assert!(tinylb.memory().saturating_sub(before) < 32);
}
