//! Faults in a request's body: nothing from the fault onward is forwarded, no backend can take the
//! request for whole, and the client gets a 400, or is cut off where a response has begun.

use crate::support::{Backend, Tinylb, find};

const HEAD: &str = "POST /evil HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";

/// What follows a first good chunk. Each has a marker, `EVIL`, after the fault.
fn faults() -> Vec<(&'static str, String)> {
    let long = "e".repeat(40 * 1024);
    let end = "EVILx\r\n0\r\n\r\n";
    let trailer = |line: &str| format!("0\r\n{line}\r\nEVIL: x\r\n\r\n");
    vec![
        ("empty size", format!("\r\n{end}")),
        ("size of spaces", format!("  \r\n{end}")),
        ("plus sign", format!("+5\r\n{end}")),
        ("minus sign", format!("-5\r\n{end}")),
        ("0x", format!("0x5\r\n{end}")),
        ("no digit", format!("g\r\n{end}")),
        ("a digit and none", format!("5g\r\n{end}")),
        ("leading space", format!(" 5\r\n{end}")),
        ("underscore", format!("0_5\r\n{end}")),
        ("overflow by one digit", format!("10000000000000005\r\n{end}")),
        ("overflow by many", format!("{}5\r\n{end}", "f".repeat(40))),
        ("LF after the size", format!("5\n{end}")),
        ("CR after the size", format!("5\r{end}")),
        ("CR CR LF after the size", format!("5\r\r\n{end}")),
        ("LF in an extension", format!("5;a\nb\r\n{end}")),
        ("CR in an extension", format!("5;a\rb\r\n{end}")),
        ("NUL in an extension", format!("5;a=\0\r\n{end}")),
        ("over-long extension", format!("5;{long}\r\n{end}")),
        ("no semicolon before an extension", format!("5 a=b\r\n{end}")),
        ("data too long", "2\r\nabEVIL\r\n0\r\n\r\n".into()),
        ("LF after the data", "2\r\nab\nEVIL\r\n0\r\n\r\n".into()),
        ("CR after the data", "2\r\nab\rEVIL\r\n0\r\n\r\n".into()),
        ("nothing after the data", "2\r\nab5\r\nEVILx\r\n0\r\n\r\n".into()),
        ("LF in the last chunk", "0\nEVIL: x\r\n\r\n".into()),
        ("LF in a trailer", trailer("X: y\nZ: z")),
        ("CR in a trailer", trailer("X: y\rZ: z")),
        ("NUL in a trailer", trailer("X: \0")),
        ("space before a trailer's colon", trailer("X : y")),
        ("folded trailer", trailer("X: y\r\n z")),
        ("trailer without a colon", trailer("X")),
        ("trailer without a name", trailer(": y")),
        ("over-large trailers", trailer(&format!("X: {long}"))),
    ]
}

/// Each fault after one good chunk, and a request after it that must not be taken for one.
#[track_caller]
fn assert_refused(bytewise: bool) {
    let mut wrong = Vec::new();
    for (name, fault) in faults() {
        if bytewise && fault.len() > 1000 {
            continue;
        }
        let backend = Backend::named("taken for whole");
        let tinylb = Tinylb::start(&[backend.url()], &["--workers", "1"]);
        let mut client = tinylb.connect();
        let next = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
        let bytes = format!("{HEAD}5\r\nfirst\r\n{fault}{next}");
        if bytewise {
            client.send_bytewise(&bytes);
        } else {
            let _ = client.try_send(&bytes);
        }
        match client.try_response_to("POST") {
            None => wrong.push(format!("{name}: closed without an answer")),
            Some(response) if response.status != 400 => {
                wrong.push(format!("{name}: {} in place of 400", response.status));
            }
            Some(response) => {
                if !response.proxy_status().contains("error=http_request_error") {
                    wrong.push(format!("{name}: Proxy-Status is {:?}", response.proxy_status()));
                }
                if client.try_response_to("GET").is_some() {
                    wrong.push(format!("{name}: what followed it was answered"));
                }
            }
        }
        if backend.connections() > 0 {
            backend.end_of(0);
        }
        let received = backend.received();
        let mut arrived = |what: &str| {
            if find(&received, what.as_bytes()).is_some() {
                wrong.push(format!("{name}: {what:?} arrived"));
            }
        };
        arrived("EVIL");
        arrived("smuggled");
        arrived("\r\n0\r\n\r\n");
        if !backend.requests().is_empty() {
            wrong.push(format!("{name}: taken for whole"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn faults_in_a_chunked_body_are_refused() {
    assert_refused(false);
}

#[test]
fn byte_by_byte_the_answers_are_the_same() {
    assert_refused(true);
}

/// Once the response has begun there is no 400 to give, only an end that says "not whole".
#[test]
fn a_fault_after_the_response_has_begun_cuts_the_connection() {
    let backend = Backend::new(|mut conn| {
        if conn.head().is_some() {
            conn.send("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nbegun");
            conn.drain();
        }
    });
    let tinylb = Tinylb::before(&backend);
    let mut client = tinylb.connect();
    client.send(HEAD);
    let head = client.wire().head().expect("the response begins");
    assert!(head.first_line.starts_with("HTTP/1.1 200"), "{:?}", head.first_line);
    assert_eq!(client.wire().take(5), b"begun");
    client.send("5\r\nfirst\r\n+5\r\nEVILx\r\n0\r\n\r\n");
    client.assert_closed();
    backend.end_of(0);
    assert_eq!(find(&backend.received(), b"EVIL"), None);
}

/// A client that ends in mid-body is no whole request, by either framing.
#[test]
fn a_fin_in_mid_body_aborts_the_exchange() {
    for body in [
        "POST /evil HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nfirst",
        "POST /evil HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n",
        "POST /evil HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfir",
        "POST /evil HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n0\r\n",
    ] {
        let backend = Backend::named("taken for whole");
        let tinylb = Tinylb::before(&backend);
        let mut client = tinylb.connect();
        client.send(body);
        client.half_close();
        if let Some(response) = client.try_response_to("POST") {
            assert_eq!(response.status, 400, "{:?}", response.head.raw);
        }
        client.assert_closed();
        if backend.connections() > 0 {
            backend.end_of(0);
        }
        assert_eq!(backend.requests().len(), 0, "no backend takes {body:?} for whole");
    }
}
