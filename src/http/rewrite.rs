//! What goes on: each head rendered anew for the next hop, in one pass over its fields.
//!
//! Fields that are this connection's business stop here (RFC 9110 7.6.1), ours are added behind
//! those that stay, so that nothing a peer names in `Connection` can take them away again.

use std::io::Write;
use std::net::IpAddr;
use std::time::Duration;

use super::body::Framing;
use super::connection::is_hop_by_hop;
use super::head::{FieldId, Head, Version};
use super::path;
use super::request::{Request, Target};
use super::response::Response;

/// What this hop tells the endpoint.
#[derive(Debug, Clone, Copy)]
pub struct Hop<'a> {
    /// The endpoint's base path.
    pub base_path: &'a [u8],
    /// The Host field for the endpoint.
    pub host: &'a [u8],
    /// The client's address.
    pub client: IpAddr,
    /// Whether the client's own forwarding fields are believed.
    pub is_trusted: bool,
    /// Whether the client came by TLS.
    pub is_tls: bool,
    /// The subject of the client's certificate, if it has shown one.
    pub subject: Option<&'a str>,
    /// The name of this instance in `Via`; no `Via` is added where `None`.
    pub pseudonym: Option<&'a str>,
    /// The request's id.
    pub request_id: &'a [u8],
    /// Whether to add `Forwarded` (RFC 7239).
    pub forwarded: bool,
    /// Whether the connection to the endpoint is for this request alone, as far as it stays HTTP.
    pub closes: bool,
}

impl Hop<'_> {
    /// What the client came by.
    const fn protocol(&self) -> &'static [u8] {
        if self.is_tls { b"https" } else { b"http" }
    }
}

/// Appends the head of `request`, as the endpoint gets it.
pub fn request(out: &mut Vec<u8>, request: &Request<'_>, hop: &Hop<'_>) {
    out.extend_from_slice(request.token);
    out.push(b' ');
    match request.target {
        Target::Path(path, query) => {
            path::join(out, hop.base_path, path);
            out.extend_from_slice(query);
        }
        Target::Asterisk => out.push(b'*'),
    }
    out.extend_from_slice(b" HTTP/1.1\r\n");
    line(out, b"Host", hop.host);
    for (index, (id, name, value)) in request.head.lines().enumerate() {
        if passes_on(id, request, hop) && !request.options.names(index) {
            line(out, name, value);
        }
    }
    forwarding_fields(out, request, hop);
    via(out, request.version, hop.pseudonym);
    if let Some(left) = request.max_forwards {
        decimal_line(out, b"Max-Forwards", left.saturating_sub(1));
    }
    match request.framing {
        Framing::Length(n) => decimal_line(out, b"Content-Length", n),
        Framing::Chunked => line(out, b"Transfer-Encoding", b"chunked"),
        _ if request.has_content_length => decimal_line(out, b"Content-Length", 0),
        _ => {}
    }
    connection(out, request, hop);
    out.extend_from_slice(b"\r\n");
}

/// `Connection`, and the fields that it names.
fn connection(out: &mut Vec<u8>, request: &Request<'_>, hop: &Hop<'_>) {
    let options: &[u8] = match (request.upgrade, request.takes_trailers, hop.closes) {
        (None, false, false) => return,
        (None, false, true) => b"close",
        (None, true, false) => b"TE",
        (None, true, true) => b"close, TE",
        (Some(_), false, _) => b"Upgrade",
        (Some(_), true, _) => b"Upgrade, TE",
    };
    line(out, b"Connection", options);
    if request.takes_trailers {
        out.extend_from_slice(b"TE: trailers\r\n");
    }
    if let Some(protocols) = request.upgrade {
        line(out, b"Upgrade", protocols);
    }
}

/// Whether a field of the client's goes on unchanged.
fn passes_on(id: FieldId, request: &Request<'_>, hop: &Hop<'_>) -> bool {
    match id {
        FieldId::Other => true,
        FieldId::Host
        | FieldId::Alias
        | FieldId::XForwardedFor
        | FieldId::Forwarded
        | FieldId::XRequestId => false,
        FieldId::XForwardedHost | FieldId::XForwardedProto | FieldId::XForwardedOther => {
            hop.is_trusted
        }
        FieldId::XClientSubject => hop.is_trusted && hop.subject.is_none(),
        FieldId::MaxForwards => request.max_forwards.is_none(),
        // In HTTP/1.0 it means nothing (RFC 9110 10.1.1), and the client would not understand a 100.
        FieldId::Expect => request.version != Version::Http10,
        id => !is_hop_by_hop(id),
    }
}

/// `X-Forwarded-*`, `X-Request-Id` and `Forwarded`: made from the connection, and only from a
/// trusted proxy added to what came.
fn forwarding_fields(out: &mut Vec<u8>, request: &Request<'_>, hop: &Hop<'_>) {
    let believed = |id: FieldId| {
        request.head.values(id).filter(move |value| hop.is_trusted && !value.is_empty())
    };
    out.extend_from_slice(b"X-Forwarded-For: ");
    for value in believed(FieldId::XForwardedFor) {
        out.extend_from_slice(value);
        out.extend_from_slice(b", ");
    }
    address(out, hop.client);
    out.extend_from_slice(b"\r\n");
    if believed(FieldId::XForwardedProto).next().is_none() {
        line(out, b"X-Forwarded-Proto", hop.protocol());
    }
    if believed(FieldId::XForwardedHost).next().is_none()
        && let Some(authority) = request.authority
    {
        line(out, b"X-Forwarded-Host", authority);
    }
    line(out, b"X-Request-Id", hop.request_id);
    if let Some(subject) = hop.subject {
        line(out, b"X-Client-Subject", subject.as_bytes());
    }
    if hop.forwarded {
        out.extend_from_slice(b"Forwarded: ");
        for value in believed(FieldId::Forwarded) {
            out.extend_from_slice(value);
            out.extend_from_slice(b", ");
        }
        forwarded_element(out, request, hop);
    }
}

/// One element of `Forwarded` (RFC 7239 4), and the line's end.
fn forwarded_element(out: &mut Vec<u8>, request: &Request<'_>, hop: &Hop<'_>) {
    // An address of IPv6 has brackets, and what has brackets has quotes.
    let quoted = if hop.client.is_ipv6() { ("\"[", "]\"") } else { ("", "") };
    out.extend_from_slice(b"for=");
    out.extend_from_slice(quoted.0.as_bytes());
    address(out, hop.client);
    out.extend_from_slice(quoted.1.as_bytes());
    if let Some(authority) = request.authority {
        out.extend_from_slice(b";host=\"");
        out.extend_from_slice(authority);
        out.push(b'"');
    }
    out.extend_from_slice(b";proto=");
    out.extend_from_slice(hop.protocol());
    out.extend_from_slice(b"\r\n");
}

/// What becomes of the client's connection after a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Persistence {
    /// It stays, which goes without saying.
    Stays,
    /// It stays, which an HTTP/1.0 client must be told.
    StaysByWord,
    /// It closes.
    Closes,
}

/// What this hop adds to a response.
#[derive(Debug, Clone, Copy)]
pub struct Ours<'a> {
    /// The name of this instance in `Via`; no `Via` is added where `None`.
    pub pseudonym: Option<&'a str>,
    /// The value of a `Set-Cookie` field for the client's session.
    pub cookie: Option<&'a [u8]>,
    /// For how long the client is told to come by HTTPS only.
    pub hsts: Option<Duration>,
    /// Whether the client speaks HTTP/1.1, the only version with upgrades.
    pub may_upgrade: bool,
}

/// Appends the head of `response`, as the client gets it with a body of this `framing`. `date` makes
/// one for a response that has none.
pub fn response(
    out: &mut Vec<u8>,
    response: &Response<'_>,
    framing: Framing,
    persistence: Persistence,
    ours: Ours<'_>,
    date: impl FnOnce() -> String,
) {
    status_line(out, response);
    let has_date = fields(out, response);
    if !has_date {
        line(out, b"Date", date().as_bytes());
    }
    via(out, response.version, ours.pseudonym);
    if let Some(cookie) = ours.cookie {
        line(out, b"Set-Cookie", cookie);
    }
    if let Some(time) = ours.hsts {
        hsts(out, time);
    }
    match (framing, response.content_length) {
        (Framing::Length(n), _) => decimal_line(out, b"Content-Length", n),
        (Framing::Chunked, _) => line(out, b"Transfer-Encoding", b"chunked"),
        // Of a response to HEAD, and of a 304, it tells what GET would have got.
        (Framing::Empty, Some(n)) if response.status != 204 => {
            decimal_line(out, b"Content-Length", n);
        }
        _ => {}
    }
    connection_of_response(out, response, persistence, ours.may_upgrade);
    out.extend_from_slice(b"\r\n");
}

/// `Connection`, and the `Upgrade` of a 426, which must name the protocols (RFC 9110 15.5.22).
fn connection_of_response(
    out: &mut Vec<u8>,
    response: &Response<'_>,
    persistence: Persistence,
    may_upgrade: bool,
) {
    let names_protocols = may_upgrade
        && response.status == 426
        && response.head.values(FieldId::Upgrade).next().is_some();
    let options: &[u8] = match (persistence, names_protocols) {
        (Persistence::Stays, false) => return,
        (Persistence::StaysByWord, _) => b"keep-alive",
        (Persistence::Closes, false) => b"close",
        (Persistence::Closes, true) => b"close, upgrade",
        (Persistence::Stays, true) => b"upgrade",
    };
    line(out, b"Connection", options);
    if names_protocols {
        upgrades(out, response);
    }
}

/// The `Upgrade` lines of a response.
fn upgrades(out: &mut Vec<u8>, response: &Response<'_>) {
    for protocols in response.head.values(FieldId::Upgrade) {
        line(out, b"Upgrade", protocols);
    }
}

/// Appends the field that has browsers come by HTTPS only, for so long (RFC 6797). Behind one of the
/// endpoint's it has no effect (8.1).
pub fn hsts(out: &mut Vec<u8>, time: Duration) {
    out.extend_from_slice(b"Strict-Transport-Security: max-age=");
    decimal(out, time.as_secs());
    out.extend_from_slice(b"\r\n");
}

/// Appends an informational response (1xx), or the 101 that ends HTTP on the connection.
pub fn informational(out: &mut Vec<u8>, response: &Response<'_>) {
    status_line(out, response);
    fields(out, response);
    if response.status == 101 {
        line(out, b"Connection", b"Upgrade");
        upgrades(out, response);
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends the fields of a trailer section that may go on, and the empty line.
///
/// What frames, routes or controls a message must not be in trailers (RFC 9110 6.5.1).
pub fn trailers(out: &mut Vec<u8>, trailers: Head<'_>) {
    for (id, name, value) in trailers.lines() {
        if matches!(id, FieldId::Other | FieldId::ProxyStatus) {
            line(out, name, value);
        }
    }
    out.extend_from_slice(b"\r\n");
}

fn status_line(out: &mut Vec<u8>, response: &Response<'_>) {
    out.extend_from_slice(b"HTTP/1.1 ");
    decimal(out, u64::from(response.status));
    out.push(b' ');
    out.extend_from_slice(response.reason);
    out.extend_from_slice(b"\r\n");
}

/// The fields that go on to the client; says whether a Date was among them.
fn fields(out: &mut Vec<u8>, response: &Response<'_>) -> bool {
    let mut has_date = false;
    for (index, (id, name, value)) in response.head.lines().enumerate() {
        if !is_hop_by_hop(id) && !response.options.names(index) {
            has_date |= id == FieldId::Date;
            line(out, name, value);
        }
    }
    has_date
}

/// `Via`, with the version of the message that was received.
fn via(out: &mut Vec<u8>, received: Version, pseudonym: Option<&str>) {
    let Some(pseudonym) = pseudonym else { return };
    out.extend_from_slice(match received {
        Version::Http11 => b"Via: 1.1 ",
        Version::Http10 => b"Via: 1.0 ",
        Version::Http2 => b"Via: 2.0 ",
    });
    out.extend_from_slice(pseudonym.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Appends one field line.
pub fn line(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Appends one field line with a number.
pub fn decimal_line(out: &mut Vec<u8>, name: &[u8], value: u64) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    decimal(out, value);
    out.extend_from_slice(b"\r\n");
}

/// Appends an address.
fn address(out: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(v4) => {
            // Room for "255.255.255.255.", the last dot of which is taken back.
            out.reserve(16);
            for octet in v4.octets() {
                if octet >= 100 {
                    out.push(b'0' + octet / 100);
                }
                if octet >= 10 {
                    out.push(b'0' + octet / 10 % 10);
                }
                out.extend_from_slice(&[b'0' + octet % 10, b'.']);
            }
            out.pop();
        }
        IpAddr::V6(v6) => {
            // Writing to a Vec can't fail.
            let _ = write!(out, "{v6}");
        }
    }
}

/// Appends `value` in decimal digits; the formatting machinery costs ten times as much, and this is
/// on the path of every message.
fn decimal(out: &mut Vec<u8>, mut value: u64) {
    // As many as the largest value has.
    let mut digits = [b'0'; 20];
    let mut first = digits.len();
    for (index, digit) in digits.iter_mut().enumerate().rev() {
        *digit = b'0' + u8::try_from(value % 10).unwrap_or(0);
        value /= 10;
        first = index;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(first..).unwrap_or_default());
}

/// Appends the line that starts a chunk of `size` bytes (RFC 9112 7.1).
pub fn chunk_size(out: &mut Vec<u8>, size: usize) {
    // Writing to a Vec can't fail.
    let _ = write!(out, "{size:x}\r\n");
}

/// How the body of `response` to `request` ends on the client's side.
pub fn client_framing(request: &Request<'_>, response: &Response<'_>) -> Framing {
    match response.framing {
        // HTTP/1.0 clients don't know chunks.
        Framing::Chunked | Framing::UntilClose if request.version != Version::Http10 => {
            Framing::Chunked
        }
        Framing::Chunked | Framing::UntilClose => Framing::UntilClose,
        framing => framing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::head::{parse_request, parse_response};
    use crate::http::request::Method;

    const HOP: Hop<'static> = Hop {
        base_path: b"/base/",
        host: b"endpoint:1",
        client: IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
        is_trusted: false,
        is_tls: false,
        subject: None,
        pseudonym: Some("tinylb-x"),
        request_id: b"id",
        forwarded: false,
        closes: false,
    };

    fn rendered(head: &str, hop: &Hop<'_>) -> String {
        let mut fields = Vec::new();
        let parsed = parse_request(head.as_bytes(), &mut fields).unwrap();
        let understood = Request::interpret(head.as_bytes(), parsed, &fields).unwrap();
        let mut out = Vec::new();
        request(&mut out, &understood, hop);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_request_for_the_next_hop() {
        let head = "POST /a%20b?q=%2F HTTP/1.1\r\nHost: h\r\nA: 1\r\nConnection: x-named, keep-alive\r\n\
                    Keep-Alive: 5\r\nX-Named: 1\r\nTE: trailers;q=1, trailers\r\nX-Forwarded-For: 6.6.6.6\r\n\
                    X-Forwarded-Proto: https\r\nX-Request-Id: forged\r\nForwarded: for=6.6.6.6\r\n\
                    Proxy-Connection: x\r\ncontent-length: 003\r\nA: 2\r\n\r\n";
        assert_eq!(
            rendered(head, &HOP),
            "POST /base/a%20b?q=%2F HTTP/1.1\r\nHost: endpoint:1\r\nA: 1\r\nA: 2\r\n\
             X-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: h\r\n\
             X-Request-Id: id\r\nVia: 1.1 tinylb-x\r\nContent-Length: 3\r\n\
             Connection: TE\r\nTE: trailers\r\n\r\n"
        );
    }

    #[test]
    fn a_trusted_proxy_is_believed_and_added_to() {
        let hop = Hop { is_trusted: true, forwarded: true, ..HOP };
        let head = "GET / HTTP/1.0\r\nHost: h\r\nX-Forwarded-For: a, b\r\nX-Forwarded-For: c\r\n\
                    X-Forwarded-Proto: https\r\nForwarded: for=a\r\n\r\n";
        assert_eq!(
            rendered(head, &hop),
            "GET /base/ HTTP/1.1\r\nHost: endpoint:1\r\nX-Forwarded-Proto: https\r\n\
             X-Forwarded-For: a, b, c, 127.0.0.1\r\nX-Forwarded-Host: h\r\nX-Request-Id: id\r\n\
             Forwarded: for=a, for=127.0.0.1;host=\"h\";proto=http\r\nVia: 1.0 tinylb-x\r\n\r\n"
        );
    }

    #[test]
    fn a_connection_for_one_request_closes_unless_it_becomes_something_else() {
        for (fields, expected) in [
            ("", "Connection: close\r\n\r\n"),
            ("TE: trailers\r\nConnection: TE\r\n", "Connection: close, TE\r\nTE: trailers\r\n\r\n"),
            (
                "Upgrade: echo\r\nConnection: Upgrade\r\n",
                "Connection: Upgrade\r\nUpgrade: echo\r\n\r\n",
            ),
        ] {
            let head = format!("GET / HTTP/1.1\r\nHost: h\r\n{fields}\r\n");
            let out = rendered(&head, &Hop { closes: true, ..HOP });
            assert!(out.ends_with(&format!("Via: 1.1 tinylb-x\r\n{expected}")), "{out}");
        }
    }

    #[test]
    fn what_connection_names_cannot_take_ours_away() {
        let head = "GET / HTTP/1.1\r\nHost: h\r\nConnection: X-Forwarded-For, Via, Host, X-Request-Id\r\n\r\n";
        let out = rendered(head, &HOP);
        for field in ["Host: ", "X-Forwarded-For: 127.0.0.1\r\n", "Via: ", "X-Request-Id: id"] {
            assert!(out.contains(field), "{out}");
        }
        let head = "GET / HTTP/1.1\r\nHost: h\r\nConnection: X-Forwarded-Proto, X-Forwarded-Host\r\n\
                    X-Forwarded-Proto: https\r\nX-Forwarded-Host: a\r\n\r\n";
        let out = rendered(head, &Hop { is_trusted: true, ..HOP });
        for field in ["X-Forwarded-Proto: https\r\n", "X-Forwarded-Host: a\r\n"] {
            assert!(out.contains(field), "{out}");
        }
    }

    #[test]
    fn numbers_are_written_as_usual() {
        for value in [0, 1, 9, 10, 200, 1_048_576, u64::MAX] {
            let mut out = Vec::new();
            decimal(&mut out, value);
            assert_eq!(String::from_utf8(out).unwrap(), value.to_string());
        }
    }

    #[test]
    fn addresses_are_written_as_usual() {
        for text in ["0.0.0.0", "1.20.255.100", "255.255.255.255", "::1", "fd00::1:2"] {
            let mut out = Vec::new();
            address(&mut out, text.parse().unwrap());
            assert_eq!(String::from_utf8(out).unwrap(), text);
        }
    }

    #[test]
    fn a_response_for_the_client() {
        let head = "HTTP/1.1 200 Fine\r\nServer: s\r\nConnection: x\r\nX: 1\r\nSet-Cookie: a\r\n\
                    Set-Cookie: b\r\nKeep-Alive: timeout=5\r\nTransfer-Encoding: chunked\r\n\r\n";
        let mut parsed = Vec::new();
        let line = parse_response(head.as_bytes(), &mut parsed).unwrap();
        let understood = Response::interpret(head.as_bytes(), line, &parsed, Method::Get).unwrap();
        let mut out = Vec::new();
        let ours = Ours { pseudonym: Some("me"), cookie: None, hsts: None, may_upgrade: true };
        response(&mut out, &understood, Framing::Chunked, Persistence::Closes, ours, || {
            "now".into()
        });
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "HTTP/1.1 200 Fine\r\nServer: s\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nDate: now\r\n\
             Via: 1.1 me\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        );
    }
}
