//! Heads that are ambiguous or malformed: each is refused with its status, the connection closes,
//! and nothing of it reaches a backend.

use crate::support::{Backend, Tinylb, config};

/// A request that must not pass, and the statuses that say why.
struct Case {
    name: String,
    head: Vec<u8>,
    statuses: &'static [u16],
}

fn case(statuses: &'static [u16], name: &str, head: impl AsRef<[u8]>) -> Case {
    Case { name: name.to_owned(), head: head.as_ref().to_vec(), statuses }
}

/// A GET whose field lines are `lines` beside a good Host.
fn with_lines(lines: &str) -> String {
    format!("GET /evil HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n")
}

/// A POST with the framing that `lines` claim.
fn framed(lines: &str) -> String {
    format!("POST /evil HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n0\r\n\r\n")
}

/// A request with this request line.
fn line(line: &str) -> String {
    format!("{line}\r\nHost: a\r\n\r\n")
}

/// Sends each case followed by a good request, which must not be taken for one; `bytewise` sends
/// one byte at a time. Reports every case that went wrong, not only the first.
#[track_caller]
fn assert_refused(cases: &[Case], bytewise: bool) {
    let backend = Backend::named("reached");
    let tinylb = Tinylb::before(&backend);
    let mut wrong = Vec::new();
    for Case { name, head, statuses } in cases {
        let mut client = tinylb.connect();
        let mut bytes = head.clone();
        bytes.extend_from_slice(b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n");
        if bytewise {
            client.send_bytewise(&bytes);
        } else {
            let _ = client.try_send(&bytes);
        }
        match client.try_response_to("GET") {
            None => wrong.push(format!("{name}: closed without an answer")),
            Some(response) if !statuses.contains(&response.status) => {
                wrong.push(format!("{name}: {} in place of {statuses:?}", response.status));
            }
            Some(response) => {
                if !response.proxy_status().contains("error=http_request_error") {
                    wrong.push(format!("{name}: Proxy-Status is {:?}", response.proxy_status()));
                }
                if !response.head.lists("connection", "close") {
                    wrong.push(format!("{name}: does not say that it closes"));
                }
                if client.try_response_to("GET").is_some() {
                    wrong.push(format!("{name}: what followed it was answered"));
                }
            }
        }
        let received = backend.received();
        if !received.is_empty() {
            let received = String::from_utf8_lossy(&received);
            panic!("{name}: the backend got {received:?}\nbefore it: {wrong:#?}");
        }
    }
    assert!(wrong.is_empty(), "{} of {}: {wrong:#?}", wrong.len(), cases.len());
    assert_eq!(tinylb.get("/good").text(), "reached", "the balancer still serves");
    assert_eq!(backend.request().target(), "/good");
}

fn framing() -> Vec<Case> {
    let lengths = [
        "+5",
        "-5",
        "5,6",
        "0x5",
        "",
        "5 5",
        "1e3",
        "5.0",
        "5;",
        "\"5\"",
        "18446744073709551616",
        "99999999999999999999999999",
        "\u{0b}5",
        "5\u{a0}",
    ];
    let codings = [
        "chunked, chunked",
        "chunked, identity",
        "chunked, gzip",
        "\"chunked\"",
        "chunked;a=b",
        "chunked;",
        "chun ked",
        "\u{0b}chunked",
        "chunked\u{0b}",
        "\tchunked",
        "chunked\t",
        ", chunked",
        "chunked,",
        "",
    ];
    let mut cases: Vec<_> = lengths
        .iter()
        .map(|v| case(&[400], &format!("length {v:?}"), framed(&format!("Content-Length: {v}"))))
        .collect();
    cases.extend(codings.iter().map(|v| {
        case(&[400], &format!("coding {v:?}"), framed(&format!("Transfer-Encoding: {v}")))
    }));
    for coding in ["identity", "gzip", "xchunked", "chunkedx"] {
        let head = framed(&format!("Transfer-Encoding: {coding}"));
        cases.push(case(&[400], &format!("coding {coding:?}"), head));
    }
    cases.push(case(&[501], "unknown coding", framed("Transfer-Encoding: gzip, chunked")));
    for (name, lines) in [
        ("length and coding", "Content-Length: 5\r\nTransfer-Encoding: chunked"),
        ("coding and length", "Transfer-Encoding: chunked\r\nContent-Length: 5"),
        ("two lengths", "Content-Length: 5\r\nContent-Length: 6"),
        ("length and no length", "Content-Length: 0\r\nContent-Length: "),
        ("two codings", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
        ("a coding more", "Transfer-Encoding: chunked\r\ntransfer-encoding: identity"),
        ("folded coding", "Transfer-Encoding:\r\n chunked"),
        ("space before the length's colon", "Content-Length : 5"),
        ("tab before the coding's colon", "Transfer-Encoding\t: chunked"),
    ] {
        cases.push(case(&[400], name, framed(lines)));
    }
    let old = "POST /evil HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    cases.push(case(&[400], "coding in HTTP/1.0", old));
    cases
}

fn fields() -> Vec<Case> {
    let mut cases: Vec<_> = [
        ("space before the colon", "X : y"),
        ("tab before the colon", "X\t: y"),
        ("folded with a space", "X: y\r\n z"),
        ("folded with a tab", "X: y\r\n\tz"),
        ("folded into nothing", "X: y\r\n "),
        ("no colon", "X"),
        ("no name", ": y"),
        ("space in a name", "X Y: z"),
        ("parenthesis in a name", "X(: y"),
        ("bytes over ASCII in a name", "Xé: y"),
        ("NUL in a name", "X\0Y: z"),
        ("control in a name", "X\u{1}: y"),
        ("DEL in a name", "X\u{7f}: y"),
        ("NUL in a value", "X: y\0z"),
        ("control in a value", "X: y\u{1}z"),
        ("escape in a value", "X: \u{1b}[31m"),
        ("vertical tab in a value", "X: y\u{0b}z"),
        ("DEL in a value", "X: y\u{7f}"),
        ("bare CR in a value", "X: y\rZ: z"),
        ("bare CR at a value's end", "X: y\r"),
        ("bare LF in a value", "X: y\nZ: z"),
        ("bare CR alone", "\r"),
        ("second Host, the same", "Host: a"),
        ("second Host, another", "host: b"),
    ]
    .iter()
    .map(|(name, lines)| case(&[400], name, with_lines(lines)))
    .collect();
    for host in ["a b", "a/b", "u@a", "a:b", "a:-1", "a:99999", "[::1", "[a]", "a\\b", "a?b", "a#b"]
    {
        let head = format!("GET /evil HTTP/1.1\r\nHost: {host}\r\n\r\n");
        cases.push(case(&[400], &format!("Host {host:?}"), head));
    }
    for (name, head) in [
        ("no Host", "GET /evil HTTP/1.1\r\n\r\n"),
        ("no Host but others", "GET /evil HTTP/1.1\r\nX: y\r\n\r\n"),
        ("two Hosts in HTTP/1.0", "GET /evil HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n"),
        ("space before the first field", "GET /evil HTTP/1.1\r\n Host: a\r\n\r\n"),
        ("LF after the request line", "GET /evil HTTP/1.1\nHost: a\r\n\r\n"),
        ("LF after a field", "GET /evil HTTP/1.1\r\nHost: a\nX: y\r\n\r\n"),
        ("LF for the empty line", "GET /evil HTTP/1.1\r\nHost: a\r\n\n"),
        ("LF all over", "GET /evil HTTP/1.1\nHost: a\n\n"),
        ("CR CR LF after a field", "GET /evil HTTP/1.1\r\nHost: a\r\r\n\r\n"),
        ("CR in place of CRLF", "GET /evil HTTP/1.1\rHost: a\r\r"),
    ] {
        let head =
            if name == "CR in place of CRLF" { format!("{head}\r\n\r\n") } else { head.into() };
        cases.push(case(&[400], name, head));
    }
    cases
}

fn request_lines() -> Vec<Case> {
    let mut cases: Vec<_> = [
        "GET /evil",
        "GET",
        "GET  /evil HTTP/1.1",
        "GET /evil  HTTP/1.1",
        "GET /evil HTTP/1.1 ",
        " GET /evil HTTP/1.1",
        "GET /e vil HTTP/1.1",
        "GET\t/evil HTTP/1.1",
        "GET /e\tvil HTTP/1.1",
        "GET /evil\tHTTP/1.1",
        "GET /e\0vil HTTP/1.1",
        "GET /e\u{7f}vil HTTP/1.1",
        "GET /e\rvil HTTP/1.1",
        "G@T /evil HTTP/1.1",
        "G(T /evil HTTP/1.1",
        "GÉT /evil HTTP/1.1",
        "GET evil HTTP/1.1",
        "GET * HTTP/1.1",
        "GET a:80 HTTP/1.1",
        "GET http:///evil HTTP/1.1",
        "GET http://u:p@a/evil HTTP/1.1",
        "GET http://u@a/evil HTTP/1.1",
        "GET http://@a/ HTTP/1.1",
        "GET http://a b/evil HTTP/1.1",
        "GET /evil http/1.1",
        "GET /evil Http/1.1",
        "GET /evil HTTP/1.1x",
        "GET /evil HTTP/1,1",
        "GET /evil HTTP/11",
        "GET /evil HTTP/1",
        "GET /evil HTTP/01.1",
        "GET /evil HTTP/1.10",
        "GET /evil HTTP/1.",
        "GET /evil HTP/1.1",
        "GET /evil HTTP 1.1",
        "GET /evil HTTPS/1.1",
        "GET /evil HTTP/a.b",
        "GET /evil HTTP/-1.1",
    ]
    .iter()
    .map(|text| case(&[400], &format!("{text:?}"), line(text)))
    .collect();
    for text in ["GET /evil HTTP/2.0", "GET /evil HTTP/3.0", "GET /evil HTTP/9.9"] {
        cases.push(case(&[505], text, line(text)));
    }
    cases.push(case(&[400, 505], "HTTP/0.9", line("GET /evil HTTP/0.9")));
    cases.push(case(&[405], "CONNECT", "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n"));
    cases.push(case(&[501], "TRACE", line("TRACE /evil HTTP/1.1")));
    cases.push(case(&[417], "unknown Expect", with_lines("Expect: 200-ok")));
    cases.push(case(
        &[417],
        "Expect with more",
        framed("Content-Length: 5\r\nExpect: 100-continue, x"),
    ));
    cases
}

fn oversized() -> Vec<Case> {
    let long = "a".repeat(40 * 1024);
    let field = format!("X: {}", "b".repeat(1000));
    let many = vec!["X: y"; 128].join("\r\n");
    vec![
        case(&[414], "long target", line(&format!("GET /{long} HTTP/1.1"))),
        case(&[414], "endless target", format!("GET /{long}")),
        case(&[431], "long value", with_lines(&format!("X: {long}"))),
        case(&[431], "long name", with_lines(&format!("{long}: x"))),
        case(&[431], "long altogether", with_lines(&vec![field; 40].join("\r\n"))),
        case(&[431], "endless value", format!("GET /evil HTTP/1.1\r\nHost: a\r\nX: {long}")),
        case(&[431], "many fields", with_lines(&many)),
    ]
}

#[test]
fn ambiguous_framing_is_refused() {
    assert_refused(&framing(), false);
}

#[test]
fn malformed_fields_are_refused() {
    assert_refused(&fields(), false);
}

#[test]
fn malformed_request_lines_are_refused() {
    assert_refused(&request_lines(), false);
}

#[test]
fn oversized_heads_are_refused() {
    assert_refused(&oversized(), false);
}

/// The answer depends on the bytes, never on how they were split.
#[test]
fn byte_by_byte_the_answers_are_the_same() {
    let mut cases = framing();
    cases.extend(fields());
    cases.extend(request_lines());
    assert_refused(&cases, true);
}

/// The limits are limits: what lies just within them passes.
#[test]
fn what_is_just_within_the_limits_passes() {
    let backend = Backend::named("reached");
    let tinylb = Tinylb::before(&backend);
    let target = "a".repeat(30 * 1024);
    let fields = vec!["X: y"; 127].join("\r\n");
    let value = "b".repeat(30 * 1024);
    for request in [
        line(&format!("GET /{target} HTTP/1.1")),
        with_lines(&fields),
        with_lines(&format!("X: {value}")),
        with_lines("X:y"),
        with_lines("X:\t y\tz \t"),
        with_lines("X: \u{e9}\u{a0}"),
        framed("Transfer-Encoding: CHUNKED"),
    ] {
        let response = tinylb.exchange(&request);
        assert_eq!(response.status, 200, "to {:.60?}: {:?}", request, response.head.raw);
    }
    assert_eq!(backend.requests()[1].head.all("x").len(), 127);
    assert_eq!(backend.requests()[2].head.get("x"), Some(value.as_str()));
}

#[test]
fn a_body_over_the_listeners_limit_is_refused() {
    let backend = Backend::named("reached");
    let tinylb = Tinylb::run(&config(&[backend.url()], "max_body = 1000", ""));
    let mut client = tinylb.connect();
    client.send("POST /evil HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n\r\n");
    client.response().assert_fault(413, "http_request_error");
    client.assert_closed();
    assert_eq!(backend.received(), b"", "nothing of it arrives");

    let mut client = tinylb.connect();
    let piece = format!("1f4\r\n{}\r\n", "x".repeat(500));
    client.send("POST /evil HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.send(format!("{piece}{piece}"));
    let _ = client.try_send("1\r\ny\r\n0\r\n\r\n");
    client.response().assert_fault(413, "http_request_error");
    client.assert_closed();
    assert_eq!(backend.requests().len(), 0, "no backend takes it for whole");

    let whole = format!(
        "POST /good HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n{}",
        "x".repeat(1000)
    );
    assert_eq!(tinylb.exchange(whole).status, 200, "what is as large as the limit passes");
}
