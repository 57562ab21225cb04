//! Each client gets its own answers, and nothing is done twice that may be done once, whatever endpoints of
//! HTTP/2 do to streams and connections.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use fastrand::Rng;
use h2::Reason;

use crate::support::{Asked, Http2Backend, Tinylb, config};

const CLIENTS: usize = 16;
const REQUESTS: usize = 50;

/// How often each request was looked at.
type Seen = Arc<Mutex<HashMap<String, usize>>>;

/// A seed to draw from: that of `TINYLB_SEED` where it is set, to run a failure again.
fn seed() -> u64 {
    let seed = std::env::var("TINYLB_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("TINYLB_SEED={seed}");
    seed
}

/// Answers with the method, the path and the body, or refuses; where it is `unruly`, it does worse.
fn backend(seed: u64, seen: &Seen, unruly: bool) -> Http2Backend {
    let (rng, seen) = (Mutex::new(Rng::with_seed(seed)), Arc::clone(seen));
    let settings = |builder: &mut h2::server::Builder| {
        builder.max_concurrent_streams(5);
    };
    Http2Backend::with(settings, async move |mut asked: Asked| {
        let (drawn, pause) = {
            let mut rng = rng.lock().unwrap();
            (rng.u8(0..100), rng.u64(0..4))
        };
        if drawn < 10 {
            return asked.reset(Reason::REFUSED_STREAM);
        }
        let what = format!("{} {}", asked.head.method, asked.path());
        *seen.lock().unwrap().entry(what.clone()).or_default() += 1;
        tokio::time::sleep(Duration::from_millis(pause)).await;
        let Ok((body, _)) = asked.whole().await else { return };
        let answer = format!("{what} {}", String::from_utf8(body).unwrap());
        match drawn {
            10..15 if unruly => asked.reset(Reason::INTERNAL_ERROR),
            15..20 if unruly => {
                let Some(mut stream) = begin(&mut asked) else { return };
                let _ = stream.send_data(answer[..answer.len() / 2].to_owned().into(), false);
                tokio::time::sleep(Duration::from_millis(pause)).await;
                stream.send_reset(Reason::NO_ERROR);
            }
            _ => {
                let Some(mut stream) = begin(&mut asked) else { return };
                let _ = stream.send_data(answer.into(), true);
            }
        }
    })
}

/// Begins an answer, unless the stream or its connection is over.
fn begin(asked: &mut Asked) -> Option<h2::SendStream<bytes::Bytes>> {
    asked.respond.send_response(http::Response::new(()), false).ok()
}

/// Sends its requests one after the other; returns how many were answered, and asserts that nobody else's
/// were.
fn client(tinylb: &Tinylb, name: usize, rng: &mut Rng) -> usize {
    let mut connection = tinylb.connect();
    let mut answered = 0;
    for number in 0..REQUESTS {
        let method = rng.choice(["GET", "PUT", "POST"]).unwrap();
        let body = match method {
            "GET" => String::new(),
            _ => format!("{name}-{number} ").repeat(rng.usize(1..2000)),
        };
        let path = format!("/{name}/{number}");
        let framing = match method {
            "GET" => "\r\n".to_owned(),
            _ => format!("Content-Length: {}\r\n\r\n", body.len()),
        };
        connection.send(format!("{method} {path} HTTP/1.1\r\nHost: test\r\n{framing}{body}"));
        let response = connection.response();
        let expected = format!("{method} {path} {body}");
        if response.status == 200 && response.complete {
            assert!(response.text() == expected, "{expected} got {}", response.text());
            answered += 1;
        } else if response.status == 200 {
            assert!(expected.starts_with(&response.text()), "{expected} got {}", response.text());
        } else {
            println!("{method} {path}: {}", response.proxy_status());
            assert!([502, 503].contains(&response.status), "{:?}", response.head.raw);
        }
        if !response.complete || response.head.lists("connection", "close") {
            connection = tinylb.connect();
        }
    }
    answered
}

/// Ends connections, gracefully or, where they are `unruly`, not, until it `is_over`.
fn end_connections(backends: &[Http2Backend], rng: &mut Rng, unruly: bool, is_over: &AtomicBool) {
    while !is_over.load(Ordering::Relaxed) {
        let backend = rng.choice(backends).unwrap();
        let connections = backend.connections();
        if connections > 0 {
            let one = connections - 1 - rng.usize(0..connections.min(4));
            match unruly && rng.bool() {
                true => backend.cut(one),
                false => backend.end_gracefully(one),
            }
        }
        thread::sleep(Duration::from_millis(rng.u64(1..15)));
    }
}

/// How many requests were answered, and how often each was looked at.
fn run(unruly: bool) -> (usize, HashMap<String, usize>) {
    let seed = seed();
    let seen = Seen::default();
    let backends = [0, 1].map(|n| backend(seed.wrapping_add(n), &seen, unruly));
    let urls = backends.each_ref().map(Http2Backend::url);
    let upstream = "retry = { attempts = 10, budget = 1.0, buffer = \"64KiB\" }\nejection = false";
    let tinylb = Tinylb::run(&config(&urls, "", upstream));
    let is_over = AtomicBool::new(false);
    let rng = |n| Rng::with_seed(seed.wrapping_add(n));
    let answered: usize = thread::scope(|scope| {
        scope.spawn(|| end_connections(&backends, &mut rng(2), unruly, &is_over));
        let clients: Vec<_> = (0..CLIENTS)
            .map(|name| {
                let (tinylb, mut rng) = (&tinylb, rng(3 + name as u64));
                scope.spawn(move || client(tinylb, name, &mut rng))
            })
            .collect();
        let answered = clients.into_iter().map(|client| client.join()).collect::<Vec<_>>();
        is_over.store(true, Ordering::Relaxed);
        answered.into_iter().map(Result::unwrap).sum()
    });
    println!("{answered} of {} were answered", CLIENTS * REQUESTS);
    let in_flight = tinylb.metric("tinylb_endpoint_requests_in_flight", &[]);
    assert_eq!(in_flight, 0.0, "nothing is left over");
    let seen = seen.lock().unwrap().clone();
    let is_post = |what: &str| what.starts_with("POST");
    let twice: Vec<_> = seen.iter().filter(|(what, n)| is_post(what) && **n > 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
    (answered, seen)
}

#[test]
fn answers_are_never_mixed_up_and_nothing_is_done_twice() {
    let (answered, seen) = run(true);
    assert!(answered > CLIENTS * REQUESTS / 2);
    assert!(seen.values().any(|n| *n > 1), "some are sent again");
}

#[test]
fn nothing_is_lost_where_endpoints_only_refuse_and_end_gracefully() {
    let (answered, seen) = run(false);
    assert_eq!((answered, seen.len()), (CLIENTS * REQUESTS, CLIENTS * REQUESTS));
    assert!(seen.values().all(|n| *n == 1), "what was refused was not looked at");
}
