//! What a request head means: method, target, host, body framing, and whether the connection goes
//! on (RFC 9110, RFC 9112 3).

use std::net::Ipv6Addr;

use super::body::Framing;
use super::connection::{Options, announced_framing, decimal};
use super::head::{Field, FieldId, Head, RequestLine, Version, elements, is_token_byte, trim};
use crate::error::{Error, Kind};

/// Methods that a proxy treats differently; all others are [`Other`](Self::Other).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "they are the methods themselves")]
pub enum Method {
    Get,
    Head,
    Put,
    Delete,
    Options,
    Connect,
    Trace,
    Other,
}

impl Method {
    /// Which method `token` is. Methods are case-sensitive.
    pub fn of(token: &[u8]) -> Self {
        match token {
            b"GET" => Self::Get,
            b"HEAD" => Self::Head,
            b"PUT" => Self::Put,
            b"DELETE" => Self::Delete,
            b"OPTIONS" => Self::Options,
            b"CONNECT" => Self::Connect,
            b"TRACE" => Self::Trace,
            _ => Self::Other,
        }
    }

    /// Whether asking twice is the same as asking once (RFC 9110 9.2.2).
    pub const fn is_idempotent(self) -> bool {
        !matches!(self, Self::Other | Self::Connect)
    }
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target<'a> {
    /// A path, possibly empty, and a query with its question mark, or nothing.
    Path(&'a [u8], &'a [u8]),
    /// `*`: the server itself (OPTIONS).
    Asterisk,
}

/// A request, understood.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Its fields.
    pub head: Head<'a>,
    /// Its method, as a kind.
    pub method: Method,
    /// Its method, as sent.
    pub token: &'a [u8],
    /// What it asks for.
    pub target: Target<'a>,
    /// The client's version.
    pub version: Version,
    /// The host that it asks, with its port; absent only in HTTP/1.0.
    pub authority: Option<&'a [u8]>,
    /// What `Connection` says.
    pub options: Options,
    /// How its body ends.
    pub framing: Framing,
    /// Whether it says so itself when there is no body.
    pub has_content_length: bool,
    /// Whether the client takes trailers.
    pub takes_trailers: bool,
    /// The protocols that it asks to switch to.
    pub upgrade: Option<&'a [u8]>,
    /// How many more proxies it may pass (OPTIONS only).
    pub max_forwards: Option<u64>,
}

impl<'a> Request<'a> {
    /// What `line` and `fields`, parsed from `bytes`, mean.
    ///
    /// # Errors
    /// Everything in a head that is malformed, ambiguous or not served here.
    pub fn interpret(
        bytes: &'a [u8],
        line: RequestLine,
        fields: &'a [Field],
    ) -> Result<Self, Error> {
        let head = Head::new(bytes, fields);
        let token = line.method.slice(bytes);
        let method = Method::of(token);
        match method {
            Method::Connect => {
                return Err(Error::new(Kind::MethodNotAllowed, "no tunnels for CONNECT"));
            }
            Method::Trace => return Err(Error::new(Kind::NotImplemented, "TRACE is not served")),
            _ => {}
        }
        let host = host_field(head, line.version)?;
        let (target, authority) = interpret_target(line.target.slice(bytes), method, host)?;
        let options = Options::of(head)?;
        let announced = announced_framing(head, line.version)?;
        check_expectation(head)?;
        Ok(Self {
            head,
            method,
            token,
            target,
            version: line.version,
            authority,
            options,
            framing: announced.unwrap_or(Framing::Empty),
            has_content_length: matches!(announced, Some(Framing::Empty | Framing::Length(_))),
            takes_trailers: head
                .values(FieldId::Te)
                .flat_map(elements)
                .any(|e| e.eq_ignore_ascii_case(b"trailers")),
            // A request with a body could switch only behind its end; nobody sends one.
            upgrade: match announced {
                None | Some(Framing::Empty) => upgrade(head, options, line.version),
                _ => None,
            },
            max_forwards: match method {
                Method::Options => max_forwards(head)?,
                _ => None,
            },
        })
    }

    /// Whether the client would like to send another request on this connection.
    pub const fn is_persistent(&self) -> bool {
        match self.version {
            Version::Http11 | Version::Http2 => !self.options.close,
            Version::Http10 => self.options.keep_alive && !self.options.close,
        }
    }

    /// Whether the client waits for a 100 before it sends the body.
    pub fn expects_continue(&self) -> bool {
        self.version != Version::Http10 && self.head.values(FieldId::Expect).next().is_some()
    }

    /// The host that it asks, without its port.
    pub fn host(&self) -> &'a [u8] {
        let authority = self.authority.unwrap_or_default();
        split_port(authority).map_or(authority, |(host, _)| host)
    }

    /// The path that it asks for; `*` for the server itself.
    pub const fn path(&self) -> &'a [u8] {
        match self.target {
            Target::Path(path, _) => path,
            Target::Asterisk => b"*",
        }
    }

    /// How often the request has passed through `pseudonym` before (RFC 9110 7.6.3).
    pub fn passes_through(&self, pseudonym: &str) -> usize {
        let is_it = |element: &&[u8]| {
            let mut words = element.split(|b| matches!(b, b' ' | b'\t')).filter(|w| !w.is_empty());
            words.nth(1) == Some(pseudonym.as_bytes())
        };
        self.head.values(FieldId::Via).flat_map(elements).filter(is_it).count()
    }
}

/// The one Host field (RFC 9112 3.2).
fn host_field(head: Head<'_>, version: Version) -> Result<Option<&[u8]>, Error> {
    let mut hosts = head.values(FieldId::Host);
    match (hosts.next(), hosts.next()) {
        (Some(_), Some(_)) => Err(Error::bad_request("more than one Host")),
        (Some(host), None) => check_authority(host).map(Some),
        (None, _) if version == Version::Http10 => Ok(None),
        (None, _) => Err(Error::bad_request("no Host")),
    }
}

/// Target and authority by the form of the target (RFC 9112 3.2.1 to 3.2.4).
fn interpret_target<'a>(
    target: &'a [u8],
    method: Method,
    host: Option<&'a [u8]>,
) -> Result<(Target<'a>, Option<&'a [u8]>), Error> {
    if target.iter().any(|b| !matches!(b, b'!'..=b'~') || *b == b'#') {
        return Err(Error::bad_request("a character in the target that can't be there"));
    }
    match target {
        b"*" if method == Method::Options => Ok((Target::Asterisk, host)),
        [b'/', ..] => Ok((split_query(target), host)),
        _ => {
            let rest = strip_scheme(target).ok_or(Error::bad_request("malformed target"))?;
            let end = rest.iter().position(|b| matches!(b, b'/' | b'?')).unwrap_or(rest.len());
            let (authority, path) = rest.split_at_checked(end).unwrap_or_default();
            if authority.contains(&b'@') {
                return Err(Error::bad_request("userinfo in the target"));
            }
            // The target's authority replaces whatever Host says (RFC 9112 3.2.2).
            let authority = Some(check_authority(authority)?);
            match path {
                b"" if method == Method::Options => Ok((Target::Asterisk, authority)),
                _ => Ok((split_query(path), authority)),
            }
        }
    }
}

fn strip_scheme(target: &[u8]) -> Option<&[u8]> {
    [&b"http://"[..], b"https://"].into_iter().find_map(|scheme| {
        let (start, rest) = target.split_at_checked(scheme.len())?;
        start.eq_ignore_ascii_case(scheme).then_some(rest)
    })
}

fn split_query(target: &[u8]) -> Target<'_> {
    let at = target.iter().position(|b| *b == b'?').unwrap_or(target.len());
    let (path, query) = target.split_at_checked(at).unwrap_or((target, b""));
    Target::Path(path, query)
}

/// Host and port of an authority; the port without its colon, empty where there is none.
fn split_port(authority: &[u8]) -> Option<(&[u8], &[u8])> {
    let from = match authority {
        [b'[', ..] => authority.iter().position(|b| *b == b']')? + 1,
        _ => authority.iter().position(|b| *b == b':').unwrap_or(authority.len()),
    };
    let (host, port) = authority.split_at_checked(from)?;
    match port {
        [] => Some((host, port)),
        [b':', port @ ..] => Some((host, port)),
        _ => None,
    }
}

/// `authority` if it is a host, a name or an address, with or without a port.
///
/// Of what RFC 3986 allows in a name, the characters that no real one has (`%`, `,`, `;` and
/// others) are refused: they only serve to be understood differently by two readers.
fn check_authority(authority: &[u8]) -> Result<&[u8], Error> {
    let fault = Error::bad_request("malformed host");
    let (host, port) = split_port(authority).ok_or(fault)?;
    let named =
        |b: &u8| matches!(b, b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'-' | b'.' | b'_' | b'~');
    let host_is_fine = match host {
        [b'[', address @ .., b']'] => {
            std::str::from_utf8(address).is_ok_and(|a| a.parse::<Ipv6Addr>().is_ok())
        }
        _ => !host.is_empty() && host.iter().all(named),
    };
    let port_is_fine = port.is_empty() || decimal(port).is_some_and(|p| p <= u64::from(u16::MAX));
    if host_is_fine && port_is_fine { Ok(authority) } else { Err(fault) }
}

/// Nothing but `100-continue` may be expected (RFC 9110 10.1.1).
fn check_expectation(head: Head<'_>) -> Result<(), Error> {
    let mut expected = head.values(FieldId::Expect).flat_map(elements);
    match expected.all(|e| e.eq_ignore_ascii_case(b"100-continue")) {
        true => Ok(()),
        false => Err(Error::new(Kind::ExpectationFailed, "an expectation that is not known")),
    }
}

/// The protocols to switch to. `h2c` is not offered on: behind it the endpoint would talk to the
/// client past every rule of this proxy.
fn upgrade<'a>(head: Head<'a>, options: Options, version: Version) -> Option<&'a [u8]> {
    if !options.upgrade || version == Version::Http10 {
        return None;
    }
    let mut values = head.values(FieldId::Upgrade);
    let (value, None) = (values.next()?, values.next()) else { return None };
    let h2c = |e: &[u8]| {
        let name = e.split(|b| *b == b'/').next().unwrap_or_default();
        trim(name).eq_ignore_ascii_case(b"h2c")
    };
    // Names of protocols are tokens; what is quoted may be meant to be read differently.
    let plain = |b: &u8| is_token_byte(*b) || matches!(b, b'/' | b',' | b' ');
    let is_plain = !value.is_empty() && value.iter().all(plain);
    (is_plain && !elements(value).any(h2c)).then_some(value)
}

fn max_forwards(head: Head<'_>) -> Result<Option<u64>, Error> {
    let mut values = head.values(FieldId::MaxForwards);
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => {
            decimal(value).map(Some).ok_or(Error::bad_request("malformed Max-Forwards"))
        }
        _ => Err(Error::bad_request("more than one Max-Forwards")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::head::parse_request;

    fn interpret<T>(head: &str, f: impl FnOnce(Result<Request<'_>, Error>) -> T) -> T {
        let mut fields = Vec::new();
        let line = parse_request(head.as_bytes(), &mut fields).unwrap();
        f(Request::interpret(head.as_bytes(), line, &fields))
    }

    #[test]
    fn forms_of_a_target() {
        for (target, path, query, authority) in [
            ("/", "/", "", "h:80"),
            ("/a?b=/c?d", "/a", "?b=/c?d", "h:80"),
            ("http://x/a?b", "/a", "?b", "x"),
            ("HTTP://x:81", "", "", "x:81"),
            ("http://[::1]:81?q", "", "?q", "[::1]:81"),
            ("https://x/", "/", "", "x"),
        ] {
            interpret(&format!("GET {target} HTTP/1.1\r\nHost: h:80\r\n\r\n"), |request| {
                let request = request.unwrap();
                assert_eq!(request.target, Target::Path(path.as_bytes(), query.as_bytes()));
                assert_eq!(request.authority, Some(authority.as_bytes()), "{target}");
            });
        }
        for target in ["*", "http://x"] {
            interpret(&format!("OPTIONS {target} HTTP/1.1\r\nHost: h\r\n\r\n"), |request| {
                assert_eq!(request.unwrap().target, Target::Asterisk);
            });
        }
    }

    #[test]
    fn refused_targets_and_hosts() {
        for target in [
            "*",
            "a",
            "a/b",
            "http://",
            "http:///a",
            "http://u@h/",
            "http://u:p@h/",
            "ftp://h/",
            "/a#b",
            "http://h:/x:y@",
            "//".trim_start_matches('/'),
            "http://h:99999/",
            "http://a,b/",
            "http://[::1/",
            "http://[::g]/",
            "/\u{e9}",
        ] {
            if target.is_empty() {
                continue;
            }
            interpret(&format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n"), |request| {
                let accepted = target == "http://h:/x:y@";
                assert_eq!(request.is_ok(), accepted, "{target}");
            });
        }
        for host in [
            "", "a b", "a,b", "a/b", "u@a", "a:b", "a:1:2", "[::1", "[::1]x", "::1", "a%41",
            "a:65536", ":80",
        ] {
            interpret(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"), |request| {
                assert_eq!(request.unwrap_err().kind, Kind::BadRequest, "{host}");
            });
        }
        interpret("GET / HTTP/1.1\r\n\r\n", |r| assert!(r.is_err()));
        interpret("GET / HTTP/1.0\r\n\r\n", |r| assert!(r.is_ok()));
        interpret("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", |r| assert!(r.is_err()));
    }

    #[test]
    fn hosts_without_their_port() {
        for (authority, host) in
            [("a", "a"), ("a:80", "a"), ("[::1]:80", "[::1]"), ("[::1]", "[::1]")]
        {
            interpret(&format!("GET / HTTP/1.1\r\nHost: {authority}\r\n\r\n"), |request| {
                assert_eq!(request.unwrap().host(), host.as_bytes());
            });
        }
    }

    #[test]
    fn upgrades_are_offered_on_except_h2c() {
        let upgrade = |fields: &str| {
            interpret(&format!("GET / HTTP/1.1\r\nHost: h\r\n{fields}\r\n"), |request| {
                request.unwrap().upgrade.map(<[u8]>::to_vec)
            })
        };
        assert_eq!(upgrade("Connection: Upgrade\r\nUpgrade: websocket\r\n").unwrap(), b"websocket");
        assert_eq!(upgrade("Upgrade: websocket\r\n"), None);
        assert_eq!(upgrade("Connection: upgrade\r\n"), None);
        for h2c in ["h2c", "H2C", "websocket, h2c", "h2c/1", " h2c ,x", "\"h2c\""] {
            assert_eq!(
                upgrade(&format!("Connection: Upgrade\r\nUpgrade: {h2c}\r\n")),
                None,
                "{h2c}"
            );
        }
    }

    #[test]
    fn a_loop_is_found_by_the_whole_pseudonym() {
        let passed = |via: &str| {
            interpret(&format!("GET / HTTP/1.1\r\nHost: h\r\nVia: {via}\r\n\r\n"), |request| {
                request.unwrap().passes_through("tinylb-a")
            })
        };
        assert_eq!(passed("1.1 tinylb-a"), 1);
        assert_eq!(passed("1.0 x (c, d), HTTP/1.1\ttinylb-a (e)"), 1);
        assert_eq!(passed("1.1 tinylb-ab, 1.1 tinylb"), 0);
        assert_eq!(passed("1.1 tinylb-a, 1.1 x, 1.0 tinylb-a\r\nVia: 2.0 tinylb-a"), 3);
    }

    #[test]
    fn persistence_by_version_and_word() {
        for (version, connection, persistent) in [
            ("HTTP/1.1", "", true),
            ("HTTP/1.1", "Connection: x, Close\r\n", false),
            ("HTTP/1.0", "", false),
            ("HTTP/1.0", "Connection: Keep-Alive\r\n", true),
            ("HTTP/1.0", "Connection: keep-alive, close\r\n", false),
        ] {
            interpret(&format!("GET / {version}\r\nHost: h\r\n{connection}\r\n"), |request| {
                assert_eq!(request.unwrap().is_persistent(), persistent, "{version} {connection}");
            });
        }
    }
}
