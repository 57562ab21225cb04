//! Responses: heads found, understood, and rendered for the client.

use tinylb::error::{Error, Kind};
use tinylb::http::body::Framing;
use tinylb::http::head::{
    MAX_FIELDS, MAX_HEAD, Scanner, Version, as_response_fault, parse_request, parse_response,
};
use tinylb::http::request::{Method, Request};
use tinylb::http::response::Response;
use tinylb::http::rewrite::{self, Ours, Persistence};

use super::strict::Lines;
use super::{Input, show};

/// Fields that are not simply passed on.
const OURS: [&str; 9] = [
    "connection",
    "content-length",
    "date",
    "keep-alive",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
    "via",
];

/// However the wire is split, the same head is found. One that is understood is one that nobody
/// could read in another way, and so is what the client gets for it, which says the same.
pub fn check(input: Input<'_>) {
    let found = scan([input.wire].into_iter());
    assert_eq!(found, scan(input.in_pieces()), "{}", show(input.wire));
    let Ok(Some(length)) = found else { return };
    let head = &input.wire[..length];
    let asked: &[u8] = match (input.chosen(0), input.chosen(1)) {
        (false, false) => b"GET / HTTP/1.1\r\nHost: h\r\n\r\n",
        (false, true) => b"GET / HTTP/1.0\r\n\r\n",
        (true, false) => b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n",
        (true, true) => b"HEAD / HTTP/1.0\r\n\r\n",
    };
    let mut fields = Vec::new();
    let line = parse_request(asked, &mut fields).unwrap();
    let request = Request::interpret(asked, line, &fields).unwrap();
    let mut fields = Vec::new();
    let parsed = parse_response(head, &mut fields);
    match parsed.and_then(|line| Response::interpret(head, line, &fields, request.method)) {
        Ok(response) => {
            understood(head, &request, &response);
            match response.status {
                200.. => passed_on(&input, head, &request, &response),
                _ => informational(head, &response),
            }
        }
        Err(error) => {
            let kinds = [Kind::ResponseMalformed, Kind::ResponseHeadTooLarge];
            assert!(kinds.contains(&error.kind), "{error}");
        }
    }
}

/// The length of the head that is found in these pieces.
fn scan<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Result<Option<usize>, Error> {
    let mut scanner = Scanner::default();
    let mut arrived = Vec::new();
    for piece in pieces {
        arrived.extend_from_slice(piece);
        if let Some(length) = scanner.scan(&arrived).map_err(as_response_fault)? {
            return Ok(Some(length));
        }
    }
    Ok(None)
}

/// What `response` is understood to be is what a strict reader finds in `head`.
fn understood(head: &[u8], request: &Request<'_>, response: &Response<'_>) {
    let shown = show(head);
    let lines = Lines::of(head).expect(&shown);
    let is_http10 = lines.start.starts_with(b"HTTP/1.0 ");
    // Later minor versions are read as HTTP/1.1.
    let is_http11 =
        matches!(lines.start, [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'1'..=b'9', b' ', ..]);
    assert!(is_http10 || is_http11, "{shown}");
    let (status, reason) = lines.start[9..].split_at(3);
    assert_eq!(status, response.status.to_string().as_bytes(), "{shown}");
    // One that is not ASCII is not passed on.
    let kept = if reason.is_ascii() { reason.strip_prefix(b" ").unwrap_or(reason) } else { b"" };
    assert_eq!(response.reason, kept, "{shown}");
    let (length, is_chunked) = lines.framing().expect(&shown);
    assert!(!(is_chunked && is_http10), "{shown}");
    assert_eq!(response.content_length, length, "{shown}");
    let framing = match (length, is_chunked) {
        _ if request.method == Method::Head => Framing::Empty,
        _ if matches!(response.status, ..200 | 204 | 304) => Framing::Empty,
        (_, true) => Framing::Chunked,
        (Some(length), _) => Framing::of_length(length),
        (None, _) => Framing::UntilClose,
    };
    assert_eq!(response.framing, framing, "{shown}");
    let options = lines.elements("connection");
    let has = |option: &str| options.iter().any(|o| o == option);
    let announces_body = is_chunked || length.is_some_and(|length| length > 0);
    let keeps_alive = !is_http10 || has("keep-alive");
    let is_spoilt = response.status == 204 && announces_body;
    let stays = keeps_alive && !(has("close") || is_spoilt);
    assert_eq!(response.is_persistent, stays && framing != Framing::UntilClose, "{shown}");
    assert_eq!(
        response.may_have_stray_body,
        (announces_body && framing == Framing::Empty)
            || (request.method == Method::Head
                && !is_chunked
                && length.is_none()
                && response.status >= 200),
        "{shown}"
    );
}

/// What is rendered for the client says what `response` says, in one way only, and would be
/// understood here too.
fn passed_on(input: &Input<'_>, head: &[u8], request: &Request<'_>, response: &Response<'_>) {
    let framing = rewrite::client_framing(request, response);
    let is_http11 = request.version == Version::Http11;
    let (persistence, option) = match (framing, input.chosen(2)) {
        (Framing::UntilClose, _) | (_, true) => (Persistence::Closes, Some("close")),
        _ if is_http11 => (Persistence::Stays, None),
        _ => (Persistence::StaysByWord, Some("keep-alive")),
    };
    assert!(is_http11 || framing != Framing::Chunked, "chunks for HTTP/1.0");
    assert!(!is_http11 || framing != Framing::UntilClose, "no need to close for HTTP/1.1");
    let mut out = Vec::new();
    let date = || "Tue, 15 Nov 1994 08:12:31 GMT".to_owned();
    let ours =
        Ours { pseudonym: Some("tinylb-0"), cookie: None, hsts: None, may_upgrade: is_http11 };
    rewrite::response(&mut out, response, framing, persistence, ours, date);
    let shown = format!("{} -> {}", show(head), show(&out));
    let before = Lines::of(head).expect(&shown);
    let lines = Lines::of(&out).expect(&shown);

    let is_other = |name: &str| !OURS.contains(&name);
    assert_eq!(lines.others(is_other), before.others(is_other), "{shown}");
    assert!(!lines.values("date").is_empty(), "{shown}");
    let is_http10 = head.starts_with(b"HTTP/1.0");
    let via: &[u8] = if is_http10 { b"1.0 tinylb-0" } else { b"1.1 tinylb-0" };
    assert_eq!(lines.values("via").last(), Some(&via), "{shown}");
    let names_protocols = is_http11 && response.status == 426;
    let protocols = if names_protocols { before.values("upgrade") } else { Vec::new() };
    let upgrade = (!protocols.is_empty()).then_some("upgrade");
    let options = Vec::from_iter(option.into_iter().chain(upgrade));
    assert_eq!(lines.elements("connection"), options, "{shown}");
    assert_eq!(lines.values("upgrade"), protocols, "{shown}");
    assert!(lines.values("te").is_empty(), "{shown}");
    assert!(lines.values("content-length").len() <= 1, "{shown}");
    assert!(lines.framing().is_some(), "{shown}");

    let mut fields = Vec::new();
    let Some(line) = read_again(response, &out, &mut fields, &shown) else { return };
    let again = Response::interpret(&out, line, &fields, request.method).expect(&shown);
    assert_eq!((again.status, again.reason), (response.status, response.reason), "{shown}");
    assert_eq!(again.framing, framing, "{shown}");
    let told = response.content_length.filter(|_| response.status != 204);
    assert_eq!(again.content_length, told, "{shown}");
    if option.is_none() {
        assert!(again.is_persistent, "{shown}");
    }
}

/// A 1xx has no framing, and only 101 speaks of the connection.
fn informational(head: &[u8], response: &Response<'_>) {
    let mut out = Vec::new();
    rewrite::informational(&mut out, response);
    let shown = format!("{} -> {}", show(head), show(&out));
    let before = Lines::of(head).expect(&shown);
    let lines = Lines::of(&out).expect(&shown);
    assert_eq!(lines.framing(), Some((None, false)), "{shown}");
    let is_switch = response.status == 101;
    let option = is_switch.then_some("upgrade");
    assert_eq!(lines.elements("connection"), Vec::from_iter(option), "{shown}");
    let protocols = if is_switch { before.values("upgrade") } else { Vec::new() };
    assert_eq!(lines.values("upgrade"), protocols, "{shown}");
    let is_other = |name: &str| !OURS.contains(&name);
    assert_eq!(lines.others(is_other), before.others(is_other), "{shown}");
    let mut fields = Vec::new();
    let line = read_again(response, &out, &mut fields, &shown);
    assert!(line.is_none_or(|line| line.status == response.status), "{shown}");
}

/// What is rendered, parsed, unless what was added is too much for the limits that hold here.
fn read_again(
    response: &Response<'_>,
    out: &[u8],
    fields: &mut Vec<tinylb::http::head::Field>,
    shown: &str,
) -> Option<tinylb::http::head::StatusLine> {
    let scanned = Scanner::default().scan(out);
    if scanned.is_err() && out.len() > MAX_HEAD {
        return None;
    }
    assert_eq!(scanned, Ok(Some(out.len())), "{shown}");
    match parse_response(out, fields) {
        Ok(line) => Some(line),
        Err(error) => {
            let count = response.head.lines().count();
            let is_too_large = error.kind == Kind::ResponseHeadTooLarge;
            assert!(is_too_large && count + 4 > MAX_FIELDS, "{error}: {shown}");
            None
        }
    }
}
