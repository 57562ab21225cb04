//! What is counted.

use std::collections::HashMap;
use std::fmt::Write;
use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use tinylb::config::{self, Policy};
use tinylb::http::body::{Decoder, Framing, Step};
use tinylb::http::buffer::Buffer;
use tinylb::http::head::{Scanner, parse_request, parse_response};
use tinylb::http::path;
use tinylb::http::request::{Method, Request};
use tinylb::http::response::Response;
use tinylb::http::rewrite::{self, Hop, Ours, Persistence};
use tinylb::proxy::snapshot::Snapshot;
use tinylb::upstream::endpoint::{Endpoint, Protocol, State};
use tinylb::upstream::{Shared, Upstream, Wanted};

const MINIMAL: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost:8080\r\n\r\n";

const BROWSER: &[u8] = b"GET /articles/load-balancing?page=2&sort=new HTTP/1.1\r\n\
    Host: www.example.com\r\n\
    Connection: keep-alive\r\n\
    sec-ch-ua: \"Chromium\";v=\"130\", \"Google Chrome\";v=\"130\", \"Not?A_Brand\";v=\"99\"\r\n\
    sec-ch-ua-mobile: ?0\r\n\
    sec-ch-ua-platform: \"Linux\"\r\n\
    Upgrade-Insecure-Requests: 1\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) \
    Chrome/130.0.0.0 Safari/537.36\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/webp,*/*;q=0.8\r\n\
    Sec-Fetch-Site: same-origin\r\n\
    Sec-Fetch-Mode: navigate\r\n\
    Sec-Fetch-User: ?1\r\n\
    Sec-Fetch-Dest: document\r\n\
    Referer: http://www.example.com/articles\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Accept-Language: en-GB,en;q=0.9,de;q=0.8\r\n\
    Cookie: session=0f8e2c7a41b94d5f9a6e3b1c; theme=dark; seen=1719321600; lang=en\r\n\r\n";

const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\n\
    Server: example/1.2\r\n\
    Date: Tue, 15 Nov 1994 08:12:31 GMT\r\n\
    Content-Type: text/html; charset=utf-8\r\n\
    Content-Length: 5120\r\n\
    Connection: keep-alive\r\n\
    Cache-Control: private, max-age=0, must-revalidate\r\n\
    ETag: \"5f3c1b2a-1400\"\r\n\
    Vary: Accept-Encoding\r\n\
    Set-Cookie: session=0f8e2c7a41b94d5f9a6e3b1c; Path=/; HttpOnly; SameSite=Lax\r\n\
    X-Content-Type-Options: nosniff\r\n\r\n";

/// Its name, and what sets it up and then makes so many calls.
type Case = (&'static str, fn(u32));

pub(crate) const CASES: [Case; 17] = [
    ("request/parse/minimal", |calls| request_parse(MINIMAL, calls)),
    ("request/parse/browser", |calls| request_parse(BROWSER, calls)),
    ("request/rewrite/minimal", |calls| request_rewrite(MINIMAL, calls)),
    ("request/rewrite/browser", |calls| request_rewrite(BROWSER, calls)),
    ("response/parse", response_parse),
    ("response/rewrite", response_rewrite),
    ("body/chunked/64KiB", chunked),
    ("route/one", |calls| route("[upstreams.app]\nendpoints = ['http://a:1']\n", calls)),
    ("route/hosts", |calls| route(&hosts(), calls)),
    ("pick/random/3", |calls| pick(Policy::Random, 3, calls)),
    ("pick/random/100", |calls| pick(Policy::Random, 100, calls)),
    ("pick/round-robin/3", |calls| pick(Policy::RoundRobin, 3, calls)),
    ("pick/round-robin/100", |calls| pick(Policy::RoundRobin, 100, calls)),
    ("pick/least-requests/3", |calls| pick(Policy::LeastRequests, 3, calls)),
    ("pick/least-requests/100", |calls| pick(Policy::LeastRequests, 100, calls)),
    ("pick/p2c/3", |calls| pick(Policy::P2c, 3, calls)),
    ("pick/p2c/100", |calls| pick(Policy::P2c, 100, calls)),
];

fn request_parse(head: &[u8], calls: u32) {
    let (mut buffer, mut fields) = (Buffer::with_capacity(16 * 1024), Vec::new());
    buffer.append(head);
    for _ in 0..calls {
        let length = Scanner::default().scan_request(black_box(&mut buffer)).unwrap().unwrap();
        let head = &buffer.filled()[..length];
        let line = parse_request(head, &mut fields).unwrap();
        black_box(Request::interpret(head, line, &fields).unwrap());
    }
}

fn request_rewrite(head: &[u8], calls: u32) {
    let (mut fields, mut out) = (Vec::new(), Vec::new());
    let line = parse_request(head, &mut fields).unwrap();
    let request = Request::interpret(head, line, &fields).unwrap();
    let hop = Hop {
        base_path: b"",
        host: b"www.example.com",
        client: [203, 0, 113, 7].into(),
        is_trusted: false,
        is_tls: false,
        subject: None,
        pseudonym: Some("tinylb-0123456789abcdef"),
        request_id: b"00112233445566778899aabbccddeeff",
        forwarded: false,
        closes: false,
    };
    for _ in 0..calls {
        out.clear();
        rewrite::request(&mut out, black_box(&request), black_box(&hop));
        black_box(&out);
    }
}

fn response_parse(calls: u32) {
    let mut fields = Vec::new();
    for _ in 0..calls {
        let length = Scanner::default().scan(black_box(RESPONSE)).unwrap().unwrap();
        let head = &RESPONSE[..length];
        let line = parse_response(head, &mut fields).unwrap();
        black_box(Response::interpret(head, line, &fields, Method::Get).unwrap());
    }
}

fn response_rewrite(calls: u32) {
    let (mut fields, mut out) = (Vec::new(), Vec::new());
    let line = parse_response(RESPONSE, &mut fields).unwrap();
    let response = Response::interpret(RESPONSE, line, &fields, Method::Get).unwrap();
    for _ in 0..calls {
        out.clear();
        let (framing, stays) = (response.framing, Persistence::Stays);
        let ours =
            Ours { pseudonym: Some("tinylb-0"), cookie: None, hsts: None, may_upgrade: true };
        rewrite::response(&mut out, black_box(&response), framing, stays, ours, String::new);
        black_box(&out);
    }
}

/// Copying the chunks into the buffer, which takes the place of reading them, is counted too. They
/// come one by one: of a large copy the processor makes one instruction, and callgrind thousands.
fn chunked(calls: u32) {
    let chunk = [b"400\r\n", &[b'x'; 1024][..], b"\r\n"].concat();
    let mut buffer = Buffer::with_capacity(128 * 1024);
    for _ in 0..calls {
        for _ in 0..64 {
            buffer.append(black_box(&chunk));
        }
        buffer.append(b"0\r\n\r\n");
        let mut decoder = Decoder::new(Framing::Chunked);
        while let Step::Data { consume, .. } = decoder.decode(&mut buffer).unwrap() {
            buffer.consume(black_box(consume));
        }
        assert!(decoder.is_over());
    }
}

/// Twenty hosts with three paths each.
fn hosts() -> String {
    let mut text = "[upstreams.app]\nendpoints = ['http://a:1']\n".to_owned();
    let hosts = (0..19).map(|n| format!("host{n}.example.com"));
    for (host, path) in hosts
        .chain(["www.example.com".to_owned()])
        .flat_map(|host| ["/", "/api", "/articles"].map(|path| (host.clone(), path)))
    {
        writeln!(text, "[[routes]]\nhost = '{host}'\npath = '{path}'\nupstream = 'app'").unwrap();
    }
    text
}

fn route(upstreams_and_routes: &str, calls: u32) {
    let text = format!("{upstreams_and_routes}[[listeners]]\naddress = ':8080'\n");
    let config = config::parse("bench", &text, &|_| None).unwrap();
    let snapshot =
        Snapshot::build(&config, &HashMap::new(), &HashMap::new(), &Snapshot::default(), 1);
    for _ in 0..calls {
        let path = path::resolve(black_box(b"/articles/load-balancing")).unwrap();
        black_box(snapshot.route(black_box(b"www.example.com"), &path).unwrap());
    }
}

/// Some of the endpoints are busier than others.
fn pick(policy: Policy, count: u16, calls: u32) {
    fastrand::seed(7);
    let endpoint = |n: u16| {
        let url = format!("http://10.0.0.1:{}", 8000 + n).parse().unwrap();
        let state = Arc::new(State::new(n.into(), "app".into(), n.to_string(), 1));
        let addresses = vec![SocketAddr::from(([10, 0, 0, 1], 8000 + n)).into()];
        let limits = config::Limits::default();
        Endpoint::new(&config::Endpoint::new(url), &limits, 1, addresses, Protocol::Http1, state)
    };
    let endpoints: Vec<_> = (0..count).map(endpoint).collect();
    let mut config = config::Upstream::new("app", Vec::new());
    config.policy = policy;
    let upstream = Upstream::new(config, endpoints, Arc::new(Shared::new(1)), b"");
    let wanted = Wanted::anything(Instant::now());
    for _ in 0..count {
        // In flight for ever.
        std::mem::forget(upstream.pick(&wanted));
    }
    for _ in 0..calls {
        black_box(black_box(&upstream).pick(&wanted).unwrap());
    }
}
