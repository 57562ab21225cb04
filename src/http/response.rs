//! What a response head means: how its body ends, and whether its connection can serve again (RFC
//! 9112 6.3, 9.3).

use std::time::Duration;

use super::body::Framing;
use super::connection::{Options, announced_framing, decimal};
use super::head::{Field, FieldId, Head, StatusLine, Version, as_response_fault, elements};
use super::request::Method;
use super::websocket;
use crate::error::{Error, Kind};

/// A response, understood.
#[derive(Debug, Clone, Copy)]
pub struct Response<'a> {
    /// Its fields.
    pub head: Head<'a>,
    /// Its status, 100 to 999.
    pub status: u16,
    /// The endpoint's version.
    pub version: Version,
    /// Its reason phrase.
    pub reason: &'a [u8],
    /// What `Connection` says.
    pub options: Options,
    /// How its body ends; [`Framing::Empty`] for a response that has none, whatever its fields say.
    pub framing: Framing,
    /// Whether its connection may serve another request once the body has ended.
    pub is_persistent: bool,
    /// The length in `Content-Length`, also where there is no body (HEAD, 304).
    pub content_length: Option<u64>,
    /// Whether a body may follow that must not: the head announces one (the response to HEAD, 304), or does not
    /// exclude one (HEAD without a length). Some servers send it all the same.
    pub may_have_stray_body: bool,
}

impl<'a> Response<'a> {
    /// What `line` and `fields`, parsed from `bytes`, mean as the response to a `method`.
    ///
    /// # Errors
    /// [`Kind::ResponseMalformed`] for whatever could be read in two ways.
    pub fn interpret(
        bytes: &'a [u8],
        line: StatusLine,
        fields: &'a [Field],
        method: Method,
    ) -> Result<Self, Error> {
        let head = Head::new(bytes, fields);
        let options = Options::of(head).map_err(as_response_fault)?;
        let announced = announced_framing(head, line.version).map_err(as_response_fault)?;
        let announces_body = matches!(announced, Some(Framing::Length(_) | Framing::Chunked));
        if announces_body && matches!(line.status, 100 | 102..=199) {
            // RFC 9110 8.6, RFC 9112 6.1. The body would be read as the final response.
            return Err(Error::bad_response("a body announced in an informational response"));
        }
        let bodiless = method == Method::Head || matches!(line.status, 100..=199 | 204 | 304);
        let framing = match announced {
            _ if bodiless => Framing::Empty,
            Some(framing) => framing,
            None => Framing::UntilClose,
        };
        let stays = match line.version {
            Version::Http11 | Version::Http2 => !options.close,
            Version::Http10 => options.keep_alive && !options.close,
        };
        Ok(Self {
            head,
            status: line.status,
            version: line.version,
            reason: line.reason.slice(bytes),
            options,
            framing,
            // A 204 must not announce a body (RFC 9110 8.6). One that does may send it as well, and it would be
            // taken for the response to the next request.
            is_persistent: stays
                && framing != Framing::UntilClose
                && !(line.status == 204 && announces_body),
            content_length: match announced {
                Some(Framing::Empty) => Some(0),
                Some(Framing::Length(n)) => Some(n),
                _ => None,
            },
            may_have_stray_body: (bodiless && announces_body)
                || (method == Method::Head && announced.is_none() && line.status >= 200),
        })
    }

    /// Whether more heads follow before the final one. 101 is final: HTTP ends with it.
    pub const fn is_informational(&self) -> bool {
        self.status < 200 && self.status != 101
    }

    /// Checks that a 101 switches to what was `asked` for in `Upgrade`, and to nothing else (RFC 9110 7.8). `key` is
    /// the `Sec-WebSocket-Key` that the balancer made, if any; `Sec-WebSocket-Accept` must match it (RFC 6455 4.1).
    ///
    /// # Errors
    /// [`Kind::UpgradeFailed`].
    pub fn check_switch(&self, asked: &[u8], key: Option<&[u8]>) -> Result<(), Error> {
        let mut protocols = self.head.values(FieldId::Upgrade).flat_map(elements).peekable();
        let is_asked = |protocol: &[u8]| elements(asked).any(|a| a.eq_ignore_ascii_case(protocol));
        if protocols.peek().is_none() || !protocols.all(is_asked) {
            return Err(OTHER_SWITCH);
        }
        let Some(key) = key else { return Ok(()) };
        let mut accepts =
            self.head.lines().filter(|(_, name, _)| name.eq_ignore_ascii_case(ACCEPT));
        match (accepts.next(), accepts.next()) {
            (Some((_, _, accept)), None) if accept == websocket::accept(key) => Ok(()),
            _ => Err(WRONG_ACCEPT),
        }
    }

    /// How long the endpoint says that it keeps the idle connection (`Keep-Alive: timeout=5`).
    pub fn keep_alive_timeout(&self) -> Option<Duration> {
        let mut parameters = self.head.values(FieldId::KeepAlive).flat_map(elements);
        parameters.find_map(|parameter| {
            let (name, value) = parameter.split_at_checked("timeout=".len())?;
            let seconds = name.eq_ignore_ascii_case(b"timeout=").then(|| decimal(value))??;
            Some(Duration::from_secs(seconds))
        })
    }
}

/// The fault in a 101 that nobody asked for.
pub const UNASKED_SWITCH: Error =
    Error::new(Kind::UpgradeFailed, "the endpoint switched protocols unasked");

const OTHER_SWITCH: Error =
    Error::new(Kind::UpgradeFailed, "the endpoint switched to a protocol that was not asked for");
const WRONG_ACCEPT: Error =
    Error::new(Kind::UpgradeFailed, "the endpoint's Sec-WebSocket-Accept does not answer the key");
const ACCEPT: &[u8] = b"sec-websocket-accept";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::head::parse_response;

    fn interpret<T>(
        method: Method,
        head: &str,
        f: impl FnOnce(Result<Response<'_>, Error>) -> T,
    ) -> T {
        let mut fields = Vec::new();
        let line = parse_response(head.as_bytes(), &mut fields).unwrap();
        f(Response::interpret(head.as_bytes(), line, &fields, method))
    }

    #[test]
    fn how_a_body_ends() {
        for (method, head, framing, persistent) in [
            (Method::Get, "HTTP/1.1 200 OK\r\n\r\n", Framing::UntilClose, false),
            (Method::Get, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", Framing::Length(3), true),
            (Method::Get, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", Framing::Empty, true),
            (Method::Head, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", Framing::Empty, true),
            (Method::Head, "HTTP/1.1 200 OK\r\n\r\n", Framing::Empty, true),
            (Method::Get, "HTTP/1.1 204 No\r\n\r\n", Framing::Empty, true),
            (Method::Get, "HTTP/1.1 204 No\r\nContent-Length: 0\r\n\r\n", Framing::Empty, true),
            (Method::Get, "HTTP/1.1 204 No\r\nContent-Length: 3\r\n\r\n", Framing::Empty, false),
            (
                Method::Put,
                "HTTP/1.1 204 No\r\nTransfer-Encoding: chunked\r\n\r\n",
                Framing::Empty,
                false,
            ),
            (Method::Get, "HTTP/1.1 304 No\r\nContent-Length: 3\r\n\r\n", Framing::Empty, true),
            (
                Method::Get,
                "HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n\r\n",
                Framing::Chunked,
                true,
            ),
            (
                Method::Get,
                "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\n",
                Framing::Length(3),
                false,
            ),
            (
                Method::Get,
                "HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\n",
                Framing::Length(3),
                false,
            ),
            (
                Method::Get,
                "HTTP/1.0 200 OK\r\nContent-Length: 3\r\nConnection: keep-alive\r\n\r\n",
                Framing::Length(3),
                true,
            ),
        ] {
            interpret(method, head, |response| {
                let response = response.unwrap();
                assert_eq!(
                    (response.framing, response.is_persistent),
                    (framing, persistent),
                    "{head}"
                );
            });
        }
    }

    #[test]
    fn ambiguous_responses_are_malformed() {
        for fields in [
            "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
            "Content-Length: 3\r\nContent-Length: 4\r\n",
            "Transfer-Encoding: gzip\r\n",
        ] {
            interpret(Method::Get, &format!("HTTP/1.1 200 OK\r\n{fields}\r\n"), |response| {
                assert_eq!(response.unwrap_err().kind, Kind::ResponseMalformed, "{fields}");
            });
        }
        for (status, is_malformed) in [(100, true), (101, false), (103, true), (199, true)] {
            let head = format!("HTTP/1.1 {status} x\r\nContent-Length: 3\r\n\r\n");
            interpret(Method::Get, &head, |response| {
                assert_eq!(response.is_err(), is_malformed, "{head}");
            });
        }
        interpret(
            Method::Get,
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            |response| {
                assert!(response.is_err());
            },
        );
    }

    #[test]
    fn a_body_that_must_not_follow_is_noticed() {
        for (method, head, expected) in [
            (Method::Head, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", true),
            (Method::Head, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", true),
            (Method::Head, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", false),
            (Method::Head, "HTTP/1.1 200 OK\r\n\r\n", true),
            (Method::Get, "HTTP/1.1 304 No\r\nContent-Length: 3\r\n\r\n", true),
            (Method::Get, "HTTP/1.1 304 No\r\n\r\n", false),
            (Method::Get, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", false),
        ] {
            interpret(method, head, |response| {
                assert_eq!(response.unwrap().may_have_stray_body, expected, "{head}");
            });
        }
    }

    #[test]
    fn malformed_status_lines() {
        for line in [
            "HTTP/1.1 99 x",
            "HTTP/1.1 099 x",
            "HTTP/1.1 2000 x",
            "HTTP/2.0 200 x",
            "200 OK",
            "HTTP/1.1  200 OK",
            "HTTP/1.1 200 O\0K",
            "",
        ] {
            let head = format!("{line}\r\nA: b\r\n\r\n");
            assert!(parse_response(head.as_bytes(), &mut Vec::new()).is_err(), "{line}");
        }
    }

    #[test]
    fn a_switch_is_to_what_was_asked_for() {
        const KEY: &[u8] = b"dGhlIHNhbXBsZSBub25jZQ==";
        const ACCEPT: &str = "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";
        let check = |asked: &str, key, fields: &str| {
            let head = format!("HTTP/1.1 101 Go\r\n{fields}\r\n");
            interpret(Method::Get, &head, |response| {
                response.unwrap().check_switch(asked.as_bytes(), key).is_ok()
            })
        };
        for (asked, upgrade, expected) in [
            ("websocket", "Upgrade: websocket\r\n", true),
            ("websocket", "upgrade: WebSocket\r\n", true),
            ("a/1, b", "Upgrade: b\r\nUpgrade: A/1\r\n", true),
            ("a/1, b", "Upgrade: a/2\r\n", false),
            ("a, b", "Upgrade: a, c\r\n", false),
            ("a", "Upgrade: \r\n", false),
            ("a", "", false),
        ] {
            assert_eq!(check(asked, None, upgrade), expected, "{asked} {upgrade}");
        }
        let upgrade = "Upgrade: websocket\r\n";
        for (accept, expected) in [
            (ACCEPT.to_owned(), true),
            (ACCEPT.to_lowercase(), false),
            (ACCEPT.repeat(2), false),
            (String::new(), false),
        ] {
            let fields = format!("{upgrade}{accept}");
            assert_eq!(check("websocket", Some(KEY), &fields), expected, "{fields}");
        }
    }

    #[test]
    fn the_endpoint_says_how_long_it_waits() {
        for (value, seconds) in [
            ("timeout=5, max=3", Some(5)),
            ("max=3,Timeout=2", Some(2)),
            ("timeout=x", None),
            ("", None),
        ] {
            interpret(
                Method::Get,
                &format!("HTTP/1.1 200 OK\r\nKeep-Alive: {value}\r\n\r\n"),
                |response| {
                    assert_eq!(
                        response.unwrap().keep_alive_timeout(),
                        seconds.map(Duration::from_secs)
                    );
                },
            );
        }
    }
}
