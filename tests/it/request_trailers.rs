//! Trailers of requests: they go on whatever `TE` says, which speaks of responses (RFC 9110 10.1.4).

use bytes::Bytes;
use http::{HeaderMap, Request};

use crate::support::streams::{Answer, Streams, run};
use crate::support::{Asked, Backend, Http2Backend, Tinylb, config};

/// What `fields` are, in order of names.
fn listed(fields: impl Iterator<Item = (String, String)>) -> String {
    let mut lines: Vec<_> =
        fields.map(|(name, value)| format!("{}={value}", name.to_lowercase())).collect();
    lines.sort();
    lines.join(" ")
}

/// A backend in HTTP/2 that answers with the body and the trailers that it got.
fn telling() -> Http2Backend {
    Http2Backend::new(async |mut asked: Asked| {
        let Ok((body, trailers)) = asked.whole().await else { return };
        let trailers = trailers.unwrap_or_default();
        let lines = trailers.iter().map(|(n, v)| (n.to_string(), v.to_str().unwrap().to_owned()));
        let text = format!("{}: {}", String::from_utf8_lossy(&body), listed(lines));
        asked.ok(&text);
    })
}

/// The same in HTTP/1.1.
fn telling_in_http1() -> Backend {
    Backend::new(|mut conn| {
        while let Some(request) = conn.request() {
            let body = String::from_utf8_lossy(&request.body).into_owned();
            let text = format!("{body}: {}", listed(request.trailers.into_iter()));
            conn.send(crate::support::ok(&text));
        }
    })
}

/// Sends chunks with these trailers in HTTP/1.1; what the backend has got of it.
#[track_caller]
fn by_http1(tinylb: &Tinylb, lines: &str, body: &str, trailers: &str) -> String {
    let mut client = tinylb.connect();
    let chunk =
        if body.is_empty() { String::new() } else { format!("{:x}\r\n{body}\r\n", body.len()) };
    client.send(format!(
        "POST /x HTTP/1.1\r\nHost: a\r\n{lines}Transfer-Encoding: chunked\r\n\r\n\
         {chunk}0\r\n{trailers}\r\n"
    ));
    let response = client.response();
    assert_eq!(response.status, 200, "{:?}", response.head.raw);
    client.assert_open();
    response.text()
}

/// The same in HTTP/2.
fn by_http2(
    tinylb: &Tinylb,
    body: &'static str,
    trailers: &[(&'static str, &'static str)],
) -> String {
    run(async {
        let mut streams = Streams::connect(tinylb).await;
        let request = Request::post("http://test/x").body(()).unwrap();
        let (response, mut stream) = streams.send(request, false).await;
        if !body.is_empty() {
            stream.send_data(Bytes::from_static(body.as_bytes()), false).unwrap();
        }
        let mut fields = HeaderMap::new();
        for (name, value) in trailers {
            fields.append(*name, value.parse().unwrap());
        }
        stream.send_trailers(fields).unwrap();
        let answer = Answer::of(response).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.text()
    })
}

#[test]
fn they_pass_between_all_protocols() {
    let (http1, http2) = (telling_in_http1(), telling());
    for url in [http1.url(), http2.url()] {
        let tinylb = Tinylb::run(&config(std::slice::from_ref(&url), "", ""));
        for lines in ["", "Trailer: X-Sum\r\n", "TE: trailers\r\nConnection: TE\r\n"] {
            for body in ["hello", ""] {
                let got = by_http1(&tinylb, lines, body, "X-Sum: 42\r\nx-more: a\r\n");
                assert_eq!(got, format!("{body}: x-more=a x-sum=42"), "{url} {lines:?}");
            }
        }
        for body in ["hello", ""] {
            let got = by_http2(&tinylb, body, &[("x-sum", "42"), ("x-more", "a")]);
            assert_eq!(got, format!("{body}: x-more=a x-sum=42"), "HTTP/2 to {url}");
        }
    }
}

/// What frames, routes or speaks for the client has no place there (RFC 9110 6.5.1).
#[test]
fn what_must_not_be_a_trailer_stops_here() {
    let (http1, http2) = (telling_in_http1(), telling());
    for url in [http1.url(), http2.url()] {
        let tinylb = Tinylb::run(&config(std::slice::from_ref(&url), "", ""));
        let got = by_http1(
            &tinylb,
            "",
            "hello",
            "X-Sum: 42\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\nHost: evil\r\n\
             X-Forwarded-For: 6.6.6.6\r\nX_Forwarded_For: 6.6.6.6\r\nX-Request-Id: a\r\nVia: 1.1 x\r\n\
             Connection: X-Sum\r\nExpect: 100-continue\r\nTE: trailers\r\nX-Client-Subject: CN=a\r\n",
        );
        assert_eq!(got, "hello: x-sum=42", "{url}");
        let denied =
            [("host", "evil"), ("x-forwarded-for", "6.6.6.6"), ("via", "1.1 x"), ("x-sum", "42")];
        assert_eq!(by_http2(&tinylb, "hello", &denied), "hello: x-sum=42", "HTTP/2 to {url}");
    }
}
