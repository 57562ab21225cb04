//! Requests: heads found, understood, and rendered for the endpoint.

use std::net::Ipv6Addr;

use tinylb::error::{Error, Fault, Kind};
use tinylb::http::body::Framing;
use tinylb::http::buffer::Buffer;
use tinylb::http::head::{FieldId, MAX_FIELDS, MAX_HEAD, Scanner, Version, parse_request};
use tinylb::http::request::{Method, Request, Target};
use tinylb::http::rewrite::{self, Hop};

use super::strict::{Lines, with_hyphens};
use super::{Input, show};

/// Fields that are not simply passed on.
const OURS: [&str; 16] = [
    "connection",
    "content-length",
    "expect",
    "forwarded",
    "host",
    "keep-alive",
    "max-forwards",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-request-id",
];

/// Fields that gateways may take others for, which are dropped then.
const ALIASED: [&str; 8] = [
    "content-length",
    "keep-alive",
    "max-forwards",
    "proxy-connection",
    "proxy-status",
    "transfer-encoding",
    "x-real-ip",
    "x-request-id",
];

/// However the wire is split, the same head is found. One that is understood is one that nobody
/// could read in another way, and so is what the endpoint gets for it, which says the same.
pub fn check(input: Input<'_>) {
    let found = scan([input.wire].into_iter());
    assert_eq!(found, scan(input.in_pieces()), "{}", show(input.wire));
    let head = match &found {
        Ok(Some((_, head))) => head,
        Ok(None) => return,
        Err(error) => return assert_eq!(error.kind.fault(), Fault::Client),
    };
    let mut fields = Vec::new();
    let parsed = parse_request(head, &mut fields);
    match parsed.and_then(|line| Request::interpret(head, line, &fields)) {
        Ok(request) => {
            understood(head, &request);
            passed_on(&input, head, &request);
        }
        Err(error) => {
            let status = error.kind.status();
            assert!([400, 405, 417, 431, 501, 505].contains(&status), "{error}");
        }
    }
}

/// The head that is found in these pieces, and what comes before it. The buffer grows as the
/// exchange's does.
fn scan<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Result<Option<(usize, Vec<u8>)>, Error> {
    let mut scanner = Scanner::default();
    let mut buffer = Buffer::with_capacity(MAX_HEAD / 2);
    let mut arrived = 0;
    for mut piece in pieces {
        while !piece.is_empty() {
            if buffer.spare().is_empty() {
                assert!(buffer.capacity() < MAX_HEAD, "a full buffer, and nothing to say of it");
                buffer.grow(MAX_HEAD);
            }
            let n = buffer.append(piece);
            arrived += n;
            piece = &piece[n..];
            if let Some(length) = scanner.scan_request(&mut buffer)? {
                let before = arrived - buffer.len();
                return Ok(Some((before, buffer.filled()[..length].to_vec())));
            }
        }
    }
    Ok(None)
}

/// What `request` is understood to be is what a strict reader finds in `head`.
fn understood(head: &[u8], request: &Request<'_>) {
    let shown = show(head);
    let lines = Lines::of(head).expect(&shown);
    let mut words = lines.start.split(|b| *b == b' ');
    let (method, target, version) = (words.next(), words.next(), words.next());
    assert_eq!(words.next(), None, "{shown}");
    assert_eq!(method, Some(request.token), "{shown}");
    let is_http10 = request.version == Version::Http10;
    let is_written = |version: &[u8]| match version {
        b"HTTP/1.0" => is_http10,
        // Later minor versions are read as HTTP/1.1.
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'1'..=b'9'] => !is_http10,
        _ => false,
    };
    assert!(version.is_some_and(is_written), "{shown}");
    assert!(!matches!(request.method, Method::Connect | Method::Trace), "{shown}");
    let hosts = lines.values("host");
    assert!(hosts.len() == 1 || hosts.is_empty() && is_http10, "{shown}");
    let target = target.expect(&shown);
    assert!(target.iter().all(|b| b.is_ascii_graphic()), "{shown}");
    match request.target {
        Target::Path(path, query) => {
            assert!(target.ends_with(&[path, query].concat()), "{shown}");
            assert!(!path.contains(&b'?'), "{shown}");
            assert!(matches!(path, [] | [b'/', ..]) && matches!(query, [] | [b'?', ..]), "{shown}");
            let is_origin = target.starts_with(b"/");
            assert!(!is_origin || request.authority == hosts.first().copied(), "{shown}");
        }
        Target::Asterisk => assert_eq!(request.token, b"OPTIONS", "{shown}"),
    }
    let framing = match lines.framing().expect(&shown) {
        (_, true) => Framing::Chunked,
        (length, false) => Framing::of_length(length.unwrap_or(0)),
    };
    assert_eq!(request.framing, framing, "{shown}");
    assert!(!(is_http10 && framing == Framing::Chunked), "{shown}");
}

/// What is rendered for the endpoint says what `request` says, in one way only.
fn passed_on(input: &Input<'_>, head: &[u8], request: &Request<'_>) {
    let is_trusted = input.chosen(0);
    let given = request.head.values(FieldId::XRequestId).next();
    let hop = Hop {
        base_path: [&b""[..], b"/", b"/base", b"/a/b/"][usize::from(input.choice >> 2 & 3)],
        host: request.authority.filter(|_| !input.chosen(4)).unwrap_or(b"endpoint:8001"),
        client: match input.chosen(5) {
            true => Ipv6Addr::LOCALHOST.into(),
            false => [192, 0, 2, 1].into(),
        },
        is_trusted,
        is_tls: false,
        subject: None,
        pseudonym: Some("tinylb-0"),
        request_id: given.filter(|id| is_trusted && !id.is_empty()).unwrap_or(b"made-here"),
        forwarded: input.chosen(1),
        closes: false,
    };
    let mut out = Vec::new();
    rewrite::request(&mut out, request, &hop);
    let shown = format!("{} -> {}", show(head), show(&out));
    let before = Lines::of(head).expect(&shown);
    let lines = Lines::of(&out).expect(&shown);

    let target = match request.target {
        Target::Path(path, query) => {
            let base = hop.base_path.strip_suffix(b"/").unwrap_or(hop.base_path);
            [base, if path.is_empty() { b"/" } else { path }, query].concat()
        }
        Target::Asterisk => b"*".to_vec(),
    };
    let start = [request.token, b" ", &target, b" HTTP/1.1"].concat();
    assert_eq!(lines.start, start, "{shown}");
    assert_eq!(lines.values("host"), [hop.host], "{shown}");
    let is_other = |name: &str| {
        let plain = with_hyphens(name);
        let is_forwarding = plain.starts_with("x-forwarded-") || plain == "x-client-subject";
        let is_alias = plain != name && ALIASED.contains(&plain.as_str());
        match is_forwarding {
            true => is_trusted && !OURS.contains(&name),
            false => !OURS.contains(&name) && !is_alias,
        }
    };
    assert_eq!(lines.others(is_other), before.others(is_other), "{shown}");
    assert_eq!(lines.framing(), before.framing(), "{shown}");
    assert!(lines.values("content-length").len() <= 1, "{shown}");
    assert!(lines.values("connection").len() <= 1, "{shown}");

    let only = |name: &str| match lines.values(name)[..] {
        [value] => value,
        _ => panic!("{name}: {shown}"),
    };
    let client = hop.client.to_string();
    assert!(only("x-forwarded-for").ends_with(client.as_bytes()), "{shown}");
    assert_eq!(only("x-request-id"), hop.request_id, "{shown}");
    assert_eq!(lines.values("forwarded").len(), usize::from(hop.forwarded), "{shown}");
    assert!(lines.values("via").last().is_some_and(|via| via.ends_with(b" tinylb-0")), "{shown}");
    if is_trusted {
        assert!(!lines.values("x-forwarded-proto").is_empty(), "{shown}");
        let hosts = lines.values("x-forwarded-host");
        assert!(!hosts.is_empty() || request.authority.is_none(), "{shown}");
    } else {
        let is_forwarding = |f: &&(&[u8], &[u8])| {
            show(f.0).to_ascii_lowercase().replace('_', "-").starts_with("x-forwarded-")
        };
        let ours = 2 + usize::from(request.authority.is_some());
        assert_eq!(lines.fields.iter().filter(is_forwarding).count(), ours, "{shown}");
        assert_eq!(only("x-forwarded-for"), client.as_bytes(), "{shown}");
        assert_eq!(only("x-forwarded-proto"), b"http", "{shown}");
        let hosts: Vec<_> = request.authority.into_iter().collect();
        assert_eq!(lines.values("x-forwarded-host"), hosts, "{shown}");
    }
    read_again(request, &hop, &out, &shown);
}

/// What is rendered would be understood here too, and in the same way.
fn read_again(request: &Request<'_>, hop: &Hop<'_>, out: &[u8], shown: &str) {
    // What is added may be too much for the limits that hold here.
    let scanned = Scanner::default().scan(out);
    if scanned.is_err() && out.len() > MAX_HEAD {
        return;
    }
    assert_eq!(scanned, Ok(Some(out.len())), "{shown}");
    let mut fields = Vec::new();
    let line = match parse_request(out, &mut fields) {
        Ok(line) => line,
        Err(error) => {
            let count = request.head.lines().count();
            return assert!(error.kind == Kind::HeadTooLarge && count + 10 > MAX_FIELDS, "{shown}");
        }
    };
    let again = match Request::interpret(out, line, &fields) {
        Ok(again) => again,
        Err(error) => panic!("{error}: {shown}"),
    };
    assert_eq!(again.framing, request.framing, "{shown}");
    assert_eq!(again.has_content_length, request.has_content_length, "{shown}");
    assert_eq!(again.authority, Some(hop.host), "{shown}");
    assert_eq!(again.takes_trailers, request.takes_trailers, "{shown}");
    assert_eq!(again.upgrade, request.upgrade, "{shown}");
    assert_eq!(again.max_forwards, request.max_forwards.map(|n| n.saturating_sub(1)), "{shown}");
    assert!(again.is_persistent() && again.passes_through("tinylb-0") > 0, "{shown}");
    if again.expects_continue() {
        assert!(request.expects_continue(), "{shown}");
    }
}
