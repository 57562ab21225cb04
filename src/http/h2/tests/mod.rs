//! Heads to text and back, by example; [`library`] has what is left to us by the library
//! underneath, [`properties`] what holds for any fields.

mod library;
mod properties;

use http::header::HeaderMap;
use http::uri::Scheme;
use http::{Request as Message, Response as Answer};

use super::*;
use crate::error::Kind;
use crate::http::body::Framing;
use crate::http::head::{self, FieldId, Head};
use crate::http::request::{Method, Request};
use crate::http::response::Response;
use crate::http::rewrite::{self, Hop};

/// The head of a request.
fn parts(method: &str, uri: &str, fields: &[(&str, &str)]) -> http::request::Parts {
    let mut message = Message::builder().method(method).uri(uri);
    for (name, value) in fields {
        message = message.header(*name, *value);
    }
    message.body(()).unwrap().into_parts().0
}

/// The head of a response.
fn answer(status: u16, fields: &[(&str, &str)]) -> http::response::Parts {
    let mut message = Answer::builder().status(status);
    for (name, value) in fields {
        message = message.header(*name, *value);
    }
    message.body(()).unwrap().into_parts().0
}

/// Names and values in order.
fn listed(fields: &HeaderMap) -> Vec<(&str, &str)> {
    fields.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect()
}

fn text_of(
    parts: &http::request::Parts,
    protocol: Option<&str>,
    is_end: bool,
) -> Result<String, Refusal> {
    let mut out = Vec::new();
    request_head(parts, protocol, is_end, &mut out)?;
    Ok(String::from_utf8(out).unwrap())
}

/// What the request of `text` means.
fn understood<T>(text: &str, f: impl FnOnce(Result<Request<'_>, Error>) -> T) -> T {
    let mut fields = Vec::new();
    match parse_request(text.as_bytes(), &mut fields) {
        Ok(line) => f(Request::interpret(text.as_bytes(), line, &fields)),
        Err(error) => f(Err(error)),
    }
}

const HOP: Hop<'static> = Hop {
    base_path: b"/",
    host: b"endpoint:1",
    client: std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
    is_trusted: false,
    is_tls: false,
    subject: None,
    pseudonym: Some("tinylb-x"),
    request_id: b"id",
    forwarded: false,
    closes: false,
};

/// What an endpoint gets of `text`.
fn forwarded(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    understood(text, |request| rewrite::request(&mut out, &request.unwrap(), &HOP));
    out
}

#[test]
fn a_request_as_text() {
    let fields = [
        ("cookie", "a=1"),
        ("accept", "*/*"),
        ("cookie", "b=2"),
        ("te", "trailers"),
        ("x-empty", ""),
        ("accept", "text/html"),
        ("cookie", "c=\"3; 4\""),
    ];
    let request = parts("POST", "https://example.org:81/a?b=c", &fields);
    let head = "POST /a?b=c HTTP/1.1\r\nHost: example.org:81\r\ncookie: a=1; b=2; c=\"3; 4\"\r\n\
                accept: */*\r\naccept: text/html\r\nte: trailers\r\nx-empty: \r\n";
    let open = text_of(&request, None, false).unwrap();
    assert_eq!(open, format!("{head}Transfer-Encoding: chunked\r\n\r\n"));
    assert_eq!(text_of(&request, None, true).unwrap(), format!("{head}Content-Length: 0\r\n\r\n"));
    understood(&open, |request| {
        let request = request.unwrap();
        assert_eq!(request.framing, Framing::Chunked);
        assert!(request.takes_trailers && request.is_persistent());
    });
    let out = String::from_utf8(forwarded(&open)).unwrap();
    assert!(out.contains("\r\nVia: 2.0 tinylb-x\r\n"), "{out}");
}

#[test]
fn how_long_a_body_is() {
    for (fields, is_end, framing) in [
        (&[][..], true, Ok((Framing::Empty, true))),
        (&[], false, Ok((Framing::Chunked, false))),
        (&[("content-length", "0")], true, Ok((Framing::Empty, true))),
        (&[("content-length", "0")], false, Ok((Framing::Empty, true))),
        (&[("content-length", "5")], false, Ok((Framing::Length(5), true))),
        (
            &[("content-length", "5"), ("content-length", "005")],
            false,
            Ok((Framing::Length(5), true)),
        ),
        (&[("content-length", "5")], true, Err("END_STREAM before all of Content-Length")),
        (
            &[("content-length", "5"), ("content-length", "6")],
            false,
            Err("differing Content-Lengths"),
        ),
        (&[("content-length", "5, 5")], false, Err("malformed Content-Length")),
        (&[("content-length", "")], true, Err("malformed Content-Length")),
        (&[("content-length", "+5")], false, Err("malformed Content-Length")),
        (&[("content-length", "9223372036854775808")], false, Err("malformed Content-Length")),
    ] {
        let text = text_of(&parts("POST", "http://h/", fields), None, is_end);
        let found = text.map(|text| {
            understood(&text, |request| {
                let request = request.unwrap();
                (request.framing, request.has_content_length)
            })
        });
        assert_eq!(found, framing.map_err(Refusal::Malformed), "{fields:?} {is_end}");
    }
}

#[test]
fn whom_a_request_is_for() {
    for (uri, hosts, expected) in [
        ("http://h:80/", &[][..], Ok("h:80")),
        ("http://H/", &["h"], Ok("H")),
        ("/", &["h:81"], Ok("h:81")),
        ("http://h/", &["h:80"], Err("Host differs from :authority")),
        ("http://h/", &["other"], Err("Host differs from :authority")),
        ("http://h/", &[""], Err("Host differs from :authority")),
        ("http://h/", &["h", "h"], Err("more than one Host")),
        ("/", &["h", "h"], Err("more than one Host")),
        ("/", &[], Err("neither :authority nor Host")),
    ] {
        let fields: Vec<_> = hosts.iter().map(|host| ("host", *host)).collect();
        let text = text_of(&parts("GET", uri, &fields), None, true);
        let expected = expected
            .map(|host| format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"))
            .map_err(|detail| Refusal::Answer(Error::bad_request(detail)));
        assert_eq!(text, expected, "{uri} {hosts:?}");
    }
    // What is no host is refused where any other is.
    for uri in ["http://u@h/", "http://a,b/", "http://h:99999/"] {
        let text = text_of(&parts("GET", uri, &[]), None, true).unwrap();
        assert_eq!(understood(&text, |r| r.unwrap_err().kind), Kind::BadRequest, "{uri}");
    }
}

#[test]
fn targets_and_methods() {
    for (method, uri, expected) in [
        ("GET", "http://h/a//b/../c?d", Ok("GET /a//b/../c?d")),
        ("get", "https://h/", Ok("get /")),
        ("OPTIONS", "*", Ok("OPTIONS *")),
        ("CONNECT", "h:80", Ok("CONNECT h:80")),
        ("GET", "*", Err(":path")),
        ("GET", "h:80", Err(":path")),
        ("GET", "http://h?a", Err(":path")),
    ] {
        let host = [("host", "h:80")];
        let fields = if uri.starts_with("http") { &[][..] } else { &host };
        match (text_of(&parts(method, uri, fields), None, true), expected) {
            (Ok(text), Ok(line)) => assert!(text.starts_with(line), "{uri}: {text}"),
            (Err(Refusal::Malformed(detail)), Err(word)) => assert!(detail.contains(word)),
            (other, _) => panic!("{method} {uri}: {other:?}"),
        }
    }
    let text = text_of(&parts("CONNECT", "h:80", &[]), None, false).unwrap();
    assert_eq!(understood(&text, |r| r.unwrap_err().kind), Kind::MethodNotAllowed);
    let refusal = text_of(&parts("GET", "ftp://h/", &[]), None, true).unwrap_err();
    assert_eq!(refusal.error().kind, Kind::BadRequest);
}

#[test]
fn an_extended_connect_is_an_upgrade_and_becomes_one_again() {
    let fields = [("sec-websocket-version", "13"), ("origin", "o")];
    let request = parts("CONNECT", "https://h/chat?a", &fields);
    let text = text_of(&request, Some("websocket"), false).unwrap();
    let (head, key) = text.split_once("sec-websocket-key: ").unwrap();
    assert_eq!(
        head,
        "GET /chat?a HTTP/1.1\r\nHost: h\r\nsec-websocket-version: 13\r\norigin: o\r\n\
         Connection: Upgrade\r\nUpgrade: websocket\r\n"
    );
    assert_eq!(key.len(), 24 + 4);
    understood(&text, |request| {
        let request = request.unwrap();
        assert_eq!(request.upgrade, Some(&b"websocket"[..]));
        assert_eq!(request.framing, Framing::Empty);
    });
    let out = forwarded(&text);
    let (request, switch) = endpoint_request(&out, Scheme::HTTPS, true).unwrap();
    let switch = switch.unwrap();
    assert_eq!(request.method(), http::Method::CONNECT);
    assert_eq!(request.uri(), "https://endpoint:1/chat?a");
    assert_eq!(request.extensions().get::<::h2::ext::Protocol>().unwrap().as_str(), "websocket");
    for gone in ["host", "connection", "upgrade", "sec-websocket-key", "content-length"] {
        assert!(!request.headers().contains_key(gone), "{gone}");
    }
    assert_eq!(request.headers()["sec-websocket-version"], "13");

    // The success comes back as the switch that a client of HTTP/1.1 waits for, and from there as
    // the success of HTTP/2.
    let mut out = Vec::new();
    let answered = answer(200, &[("sec-websocket-protocol", "p"), ("sec-websocket-accept", "x")]);
    response_text(&answered, Method::Get, false, Some(&switch), &mut out).unwrap();
    let accept = crate::http::websocket::accept(&key.as_bytes()[..24]);
    let accept = str::from_utf8(&accept).unwrap();
    assert_eq!(
        String::from_utf8(out.clone()).unwrap(),
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nsec-websocket-protocol: p\r\n\
             Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
        )
    );
    let (response, length) = response_head(&out, true).unwrap();
    assert_eq!((response.status().as_u16(), length), (200, out.len()));
    assert_eq!(listed(response.headers()), [("sec-websocket-protocol", "p")]);
}

#[test]
fn extended_connects_that_are_refused() {
    let malformed = |fields: &[(&str, &str)], protocol: &str| {
        let refusal =
            text_of(&parts("CONNECT", "http://h/", fields), Some(protocol), false).unwrap_err();
        matches!(refusal, Refusal::Malformed(_))
    };
    assert!(malformed(&[("content-length", "0")], "websocket"));
    for protocol in ["", "a b", "a,b", "a/1", "a\r\nb: c", "\u{e9}"] {
        assert!(malformed(&[], protocol), "{protocol}");
    }
    let refusal = text_of(&parts("GET", "http://h/", &[]), Some("websocket"), false).unwrap_err();
    assert!(matches!(refusal, Refusal::Malformed(_)));
    let refusal = text_of(&parts("CONNECT", "http://h/", &[]), Some("H2C"), false).unwrap_err();
    assert_eq!(refusal.error().kind, Kind::NotImplemented);
}

#[test]
fn only_a_switch_is_a_success_of_an_extended_connect() {
    let status = |text: &str, is_connect: bool| {
        response_head(text.as_bytes(), is_connect).map(|(r, _)| r.status().as_u16())
    };
    assert_eq!(status("HTTP/1.1 101 Switching Protocols\r\nUpgrade: a\r\n\r\n", true), Ok(200));
    assert_eq!(status("HTTP/1.1 403 Forbidden\r\n\r\n", true), Ok(403));
    assert_eq!(status("HTTP/1.1 103 Early Hints\r\n\r\n", true), Ok(103));
    for (text, is_connect) in
        [("HTTP/1.1 200 OK\r\n\r\n", true), ("HTTP/1.1 101 Switching Protocols\r\n\r\n", false)]
    {
        assert_eq!(status(text, is_connect).unwrap_err().kind, Kind::UpgradeFailed);
    }
}

#[test]
fn a_request_for_an_endpoint() {
    let text = "PUT /base/a?b HTTP/1.1\r\nHost: endpoint:1\r\nA: 1\r\nB: 2\r\nA: 3\r\n\
                Via: 1.1 tinylb-x\r\nContent-Length: 5\r\nConnection: TE\r\nTE: trailers\r\n\r\nhello";
    let (request, switch) = endpoint_request(text.as_bytes(), Scheme::HTTP, true).unwrap();
    assert!(switch.is_none());
    assert_eq!(request.method(), http::Method::PUT);
    assert_eq!(request.uri(), "http://endpoint:1/base/a?b");
    assert_eq!(
        listed(request.headers()),
        [
            ("a", "1"),
            ("a", "3"),
            ("b", "2"),
            ("via", "1.1 tinylb-x"),
            ("content-length", "5"),
            ("te", "trailers")
        ]
    );
    let text = "OPTIONS * HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
    let (request, _) = endpoint_request(text.as_bytes(), Scheme::HTTP, true).unwrap();
    assert_eq!(request.uri().path(), "*");
    assert!(request.headers().is_empty());
}

#[test]
fn upgrades_that_an_endpoint_is_not_asked_for() {
    for (line, protocol, may_connect) in [
        ("GET / HTTP/1.1", "websocket", false),
        ("GET / HTTP/1.1", "websocket, other", true),
        ("GET / HTTP/1.1", "other/1", true),
        ("POST / HTTP/1.1", "websocket", true),
    ] {
        let text =
            format!("{line}\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n\r\n");
        let (request, switch) =
            endpoint_request(text.as_bytes(), Scheme::HTTP, may_connect).unwrap();
        assert!(switch.is_none() && request.extensions().is_empty(), "{text}");
        assert!(line.starts_with(request.method().as_str()));
        assert!(request.headers().is_empty());
    }
}

#[test]
fn what_cannot_be_told_an_endpoint_is_an_error() {
    let kind = |text: &str| endpoint_request(text.as_bytes(), Scheme::HTTP, true).unwrap_err().kind;
    assert_eq!(kind("GET /a<b HTTP/1.1\r\nHost: h\r\n\r\n"), Kind::BadRequest);
    for text in [
        "",
        "GET / HTTP/1.1",
        "GET / HTTP/1.1\r\nHost: h\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\nA\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\nA:b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\nA: b\rC: d\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\nA: \0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\nA b: c\r\n\r\n",
        "GET\r\nHost: h\r\n\r\n",
    ] {
        assert_eq!(kind(text), Kind::Internal, "{text}");
    }
}

#[test]
fn a_response_for_a_client() {
    let text = "HTTP/1.1 404 Not Here\r\nServer: s\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n\
                Content-Length: 4\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\
                Keep-Alive: x\r\n\r\nbody\r\n\r\n";
    let (response, length) = response_head(text.as_bytes(), false).unwrap();
    assert_eq!(&text[length..], "body\r\n\r\n");
    assert_eq!(response.status().as_u16(), 404);
    assert_eq!(
        listed(response.headers()),
        [("server", "s"), ("set-cookie", "a"), ("set-cookie", "b"), ("content-length", "4")]
    );
}

#[test]
fn a_response_as_text() {
    let rendered = |status, fields: &[(&str, &str)], method, is_end| {
        let mut out = Vec::new();
        response_text(&answer(status, fields), method, is_end, None, &mut out)?;
        let mut parsed = Vec::new();
        let line = head::parse_response(&out, &mut parsed)?;
        let framing = Response::interpret(&out, line, &parsed, method)?.framing;
        Ok::<_, Error>((String::from_utf8(out).unwrap(), framing))
    };
    let get = |fields, is_end| rendered(200, fields, Method::Get, is_end);
    let ok = |fields: &str, framing| Ok((format!("HTTP/1.1 200 OK\r\n{fields}\r\n"), framing));
    assert_eq!(get(&[("a", "b")], false), ok("a: b\r\n", Framing::UntilClose));
    assert_eq!(get(&[], true), ok("Content-Length: 0\r\n", Framing::Empty));
    let length = [("content-length", "5")];
    assert_eq!(get(&length, false), ok("Content-Length: 5\r\n", Framing::Length(5)));
    assert_eq!(get(&length, true).unwrap_err().kind, Kind::ResponseMalformed);
    // What HEAD is told is what GET would get.
    assert_eq!(rendered(200, &[], Method::Head, true), ok("", Framing::Empty));
    assert_eq!(
        rendered(200, &length, Method::Head, true),
        ok("Content-Length: 5\r\n", Framing::Empty)
    );
    for (status, line) in [(204, "204 No Content"), (304, "304 Not Modified"), (799, "799 ")] {
        let (text, _) = rendered(status, &[], Method::Get, status != 799).unwrap();
        assert_eq!(text, format!("HTTP/1.1 {line}\r\n\r\n"));
    }
    let hints = rendered(103, &[("link", "l")], Method::Get, false).unwrap();
    assert_eq!(hints.0, "HTTP/1.1 103 Early Hints\r\nlink: l\r\n\r\n");

    let long = "a".repeat(head::MAX_HEAD);
    for (status, fields, kind) in [
        (101, &[][..], Kind::ResponseMalformed),
        (200, &[("connection", "close")], Kind::ResponseMalformed),
        (200, &[("transfer-encoding", "chunked")], Kind::ResponseMalformed),
        (200, &[("a", " b")], Kind::ResponseMalformed),
        (200, &[("content-length", "5"), ("content-length", "6")], Kind::ResponseMalformed),
        (200, &[("a", &long)], Kind::ResponseHeadTooLarge),
    ] {
        let fault = rendered(status, fields, Method::Get, false).unwrap_err();
        assert_eq!(fault.kind, kind, "{status} {:?}", fields.first());
    }
}

#[test]
fn trailers_both_ways() {
    let fields = answer(200, &[("grpc-status", "0"), ("grpc-message", ""), ("a", "b")]).headers;
    let mut out = Vec::new();
    trailers_text(&fields, &mut out).unwrap();
    assert_eq!(
        String::from_utf8(out.clone()).unwrap(),
        "grpc-status: 0\r\ngrpc-message: \r\na: b\r\n\r\n"
    );
    let mut parsed = Vec::new();
    head::parse_trailers(&out, &mut parsed).unwrap();
    let mut rendered = Vec::new();
    rewrite::trailers(&mut rendered, Head::new(&out, &parsed));
    assert_eq!(trailers_map(&rendered).unwrap(), fields);
    assert!(trailers_map(b"\r\n").unwrap().is_empty());
    assert!(trailers_map(b"a: b\r\n").is_err());

    for (name, value) in [
        ("connection", "close"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "a"),
        ("te", "gzip"),
        ("a", "b "),
        ("a", "\tb"),
    ] {
        let fields = answer(200, &[(name, value)]).headers;
        let fault = trailers_text(&fields, &mut Vec::new()).unwrap_err();
        assert_eq!(fault.kind, Kind::BadRequest, "{name}: {value}");
    }
    let fields = answer(200, &[("a", &"b".repeat(8192))]).headers;
    assert!(trailers_text(&fields, &mut Vec::new()).is_err());
}

#[test]
fn a_head_over_the_limit_is_answered() {
    let long = "a".repeat(head::MAX_HEAD);
    let refusal = text_of(&parts("GET", "http://h/", &[("a", &long)]), None, true).unwrap_err();
    assert!(matches!(refusal, Refusal::Answer(error) if error.kind == Kind::HeadTooLarge));
    let many: Vec<_> = (0..=head::MAX_FIELDS).map(|_| ("a", "b")).collect();
    let text = text_of(&parts("GET", "http://h/", &many), None, true).unwrap();
    assert_eq!(understood(&text, |r| r.unwrap_err().kind), Kind::HeadTooLarge);
}
