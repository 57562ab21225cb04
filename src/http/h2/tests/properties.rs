//! What holds for any fields that the library may hand over.

use http::header::{HeaderName, HeaderValue};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::http::head::Scanner;
use crate::http::rewrite::{Ours, Persistence};

/// A name as the library takes it, which is nearly a token in lower case.
fn name() -> impl Strategy<Value = HeaderName> {
    let known = select(
        &[
            "accept",
            "connection",
            "content-length",
            "cookie",
            "date",
            "expect",
            "host",
            "keep-alive",
            "te",
            "trailer",
            "transfer-encoding",
            "upgrade",
            "via",
            "x-forwarded-for",
            "grpc-status",
        ][..],
    );
    prop_oneof![
        1 => known.prop_map(HeaderName::from_static),
        3 => "[a-z0-9!\"#$%&'*+.^_`|~-]{1,6}"
            .prop_filter_map("a name", |n| HeaderName::from_lowercase(n.as_bytes()).ok()),
    ]
}

/// A value as the library takes it: anything but control characters.
fn value() -> impl Strategy<Value = HeaderValue> {
    prop_oneof![
        vec(any::<u8>(), 0..12),
        "[0-9]{1,3}".prop_map(String::into_bytes),
        "[ -~\t]{0,12}".prop_map(String::into_bytes),
        "(h|trailers|chunked|a: b|GET / HTTP/1.1)".prop_map(String::into_bytes),
    ]
    .prop_filter_map("a value", |bytes| HeaderValue::from_bytes(&bytes).ok())
}

/// Fields, some of which belong together.
fn fields() -> impl Strategy<Value = HeaderMap> {
    vec((name(), value()), 0..8).prop_map(|lines| {
        let mut fields = HeaderMap::new();
        for (name, value) in lines {
            fields.append(name, value);
        }
        fields
    })
}

/// Nothing that the proxy looks at.
fn plain_fields() -> impl Strategy<Value = HeaderMap> {
    vec(("a[a-z0-9_-]{0,4}", "([!-~]([ -~]{0,8}[!-~])?)?"), 0..8).prop_map(|lines| {
        let mut fields = HeaderMap::new();
        for (name, value) in lines {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            fields.append(name, HeaderValue::from_str(&value).unwrap());
        }
        fields
    })
}

/// What the library takes for a URI, which is not everything that this makes.
fn uri() -> impl Strategy<Value = http::Uri> {
    let authority = "[a-zA-Z0-9.-]{1,4}(:[0-9]{0,3})?|[a-zA-Z0-9.:@%,\\[\\]-]{1,6}";
    let path = "/[!-~]{0,8}|[/?*][ -~\\r\\n]{0,8}";
    prop_oneof![
        (authority, path).prop_map(|(authority, path)| format!("http://{authority}{path}")),
        path.prop_map(String::from),
    ]
    .prop_map(|text| text.parse().unwrap_or_else(|_| http::Uri::from_static("http://h/")))
}

/// Everything in `map` that is no business of the connection, as it goes over any hop.
fn end_to_end(map: &HeaderMap) -> Vec<(&[u8], &[u8])> {
    let mut lines: Vec<_> =
        map.iter().map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes())).collect();
    lines.sort_by_key(|(name, _)| *name);
    lines
}

proptest! {
    /// A request is one head to the end of its text, with no field that was not sent, and with the
    /// framing that it has in HTTP/2.
    #[test]
    fn no_request_reads_as_two(
        fields in fields(),
        uri in uri(),
        method in "(GET|POST|OPTIONS|CONNECT|[a-zA-Z!]{1,5})",
        protocol in proptest::option::weighted(0.3, "[ -~\\r\\n]{0,4}|websocket"),
        is_end: bool,
    ) {
        let mut parts = Message::new(()).into_parts().0;
        parts.method = http::Method::from_bytes(method.as_bytes()).unwrap();
        parts.uri = uri;
        parts.headers = fields;
        let mut text = Vec::new();
        if request_head(&parts, protocol.as_deref(), is_end, &mut text).is_err() {
            return Ok(());
        }
        prop_assert_eq!(Scanner::default().scan(&text).unwrap(), Some(text.len()));
        let mut lines = Vec::new();
        let Ok(line) = parse_request(&text, &mut lines) else { return Ok(()) };
        let Ok(request) = Request::interpret(&text, line, &lines) else { return Ok(()) };
        let length = parts.headers.get("content-length");
        let framing = match (length, protocol.is_some() || is_end) {
            (Some(n), _) => Framing::of_length(n.to_str().unwrap().parse().unwrap()),
            (None, true) => Framing::Empty,
            (None, false) => Framing::Chunked,
        };
        prop_assert_eq!(request.framing, framing);
        prop_assert_eq!(request.upgrade, protocol.as_ref().map(|p| p.as_bytes()));
        prop_assert!(request.is_persistent());
        for (id, name, value) in request.head.lines() {
            let ours = match id {
                FieldId::Host | FieldId::ContentLength => true,
                FieldId::TransferEncoding => !is_end,
                FieldId::Connection | FieldId::Upgrade => protocol.is_some(),
                _ => matches!(name, b"sec-websocket-key" | b"cookie"),
            };
            let sent = parts.headers.get_all(str::from_utf8(name).unwrap());
            prop_assert!(ours || sent.iter().any(|v| v == value), "{:?}", name);
        }
    }

    /// What a client sends by HTTP/2 is what an endpoint gets by HTTP/2, but for what we add; that a PUT has no body
    /// as well.
    #[test]
    fn a_request_goes_through_unchanged(fields in plain_fields(), is_end: bool) {
        let mut parts = parts("PUT", "https://h/a?b", &[]);
        parts.headers = fields;
        let mut text = Vec::new();
        request_head(&parts, None, is_end, &mut text).unwrap();
        let out = forwarded(str::from_utf8(&text).unwrap());
        let (request, _) = endpoint_request(&out, Scheme::HTTP, true).unwrap();
        let mut arrived = request.headers().clone();
        for ours in ["via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-request-id"] {
            prop_assert!(arrived.remove(ours).is_some());
        }
        let length = arrived.remove("content-length");
        prop_assert_eq!(length.is_some(), is_end);
        prop_assert_eq!(end_to_end(&arrived), end_to_end(&parts.headers));
    }

    /// The same of a response, and of trailers.
    #[test]
    fn a_response_goes_through_unchanged(fields in plain_fields(), status in 200u16..1000) {
        let mut parts = answer(status, &[]);
        parts.headers = fields;
        let mut text = Vec::new();
        response_text(&parts, Method::Get, false, None, &mut text).unwrap();
        let mut lines = Vec::new();
        let line = head::parse_response(&text, &mut lines).unwrap();
        let response = Response::interpret(&text, line, &lines, Method::Get).unwrap();
        let mut out = Vec::new();
        let ours = Ours { pseudonym: Some("x"), cookie: None, hsts: None, may_upgrade: true };
        let (framing, stays) = (Framing::Chunked, Persistence::Stays);
        rewrite::response(&mut out, &response, framing, stays, ours, || "now".into());
        let (response, length) = response_head(&out, false).unwrap();
        prop_assert_eq!(length, out.len());
        prop_assert_eq!(response.status().as_u16(), status);
        let mut arrived = response.headers().clone();
        prop_assert!(arrived.remove("via").is_some() && arrived.remove("date").is_some());
        prop_assert_eq!(end_to_end(&arrived), end_to_end(&parts.headers));

        let mut section = Vec::new();
        trailers_text(&parts.headers, &mut section).unwrap();
        prop_assert_eq!(trailers_map(&section).unwrap(), parts.headers);
    }

    /// No response and no trailers read as two either.
    #[test]
    fn no_response_reads_as_two(fields in fields(), status in 100u16..1000, is_end: bool) {
        let mut parts = answer(status, &[]);
        parts.headers = fields;
        let mut text = Vec::new();
        if response_text(&parts, Method::Get, is_end, None, &mut text).is_ok() {
            prop_assert_eq!(Scanner::default().scan(&text).unwrap(), Some(text.len()));
            let mut lines = Vec::new();
            if let Ok(line) = head::parse_response(&text, &mut lines) {
                match Response::interpret(&text, line, &lines, Method::Get) {
                    Ok(response) => {
                        prop_assert!(response.framing != Framing::Chunked);
                        prop_assert!(!is_end || response.framing == Framing::Empty);
                    }
                    // An informational response must not announce a body.
                    Err(error) => prop_assert!(status < 200, "{error:?}"),
                }
            }
        }
        let mut section = Vec::new();
        if trailers_text(&parts.headers, &mut section).is_ok() {
            let mut lines = Vec::new();
            let parsed = head::parse_trailers(&section, &mut lines);
            prop_assert!(parsed.is_err() || lines.len() == parts.headers.len());
        }
    }

    /// Nothing that is to be rendered makes it panic.
    #[test]
    fn any_text_is_an_error_or_a_head(text in "(HTTP/1.1 200 OK\r\n|GET / HTTP/1.1\r\nHost: h\r\n)?([a-z]{0,3}(: ?)?[ -~\r\n\t]{0,6}(\r\n){0,2}){0,4}") {
        let _ = response_head(text.as_bytes(), false);
        let _ = endpoint_request(text.as_bytes(), Scheme::HTTP, true);
        let _ = trailers_map(text.as_bytes());
    }
}
