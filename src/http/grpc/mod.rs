//! gRPC as far as a proxy has to do with it: which messages are of it, how long a call may take,
//! and failures said so that its clients understand them (the protocol is described in
//! `PROTOCOL-HTTP2.md` of the gRPC project).

mod code;
pub mod health;

use std::time::Duration;

use super::head::Head;
use super::rewrite::{decimal_line, line};
pub use code::{Code, code_of, code_of_http};

/// The type that a message of gRPC has, or begins with.
const CONTENT_TYPE: &[u8] = b"application/grpc";

/// The most digits of a `grpc-timeout`.
const MAX_TIMEOUT_DIGITS: usize = 8;

/// Whether `content_type` is that of gRPC. `application/grpc-web` is another protocol, whose status
/// stands in the body.
pub fn is_grpc(content_type: &[u8]) -> bool {
    match content_type.split_at_checked(CONTENT_TYPE.len()) {
        Some((start, rest)) => {
            start.eq_ignore_ascii_case(CONTENT_TYPE)
                && matches!(rest, [] | [b'+' | b';' | b' ' | b'\t', ..])
        }
        None => false,
    }
}

/// Whether the message with this head is of gRPC.
pub fn is_grpc_head(head: Head<'_>) -> bool {
    value(head, b"content-type").is_some_and(is_grpc)
}

/// How long the caller waits, if it says so.
pub fn timeout(head: Head<'_>) -> Option<Duration> {
    value(head, b"grpc-timeout").and_then(parse_timeout)
}

/// The status of a call in its trailers, or in the head of a response without messages
/// (trailers-only).
pub fn status(head: Head<'_>) -> Option<Code> {
    value(head, b"grpc-status").map(Code::parse)
}

fn value<'a>(head: Head<'a>, name: &[u8]) -> Option<&'a [u8]> {
    head.lines().find(|(_, n, _)| n.eq_ignore_ascii_case(name)).map(|(_, _, value)| value)
}

/// The time in a `grpc-timeout` field: up to eight digits and a unit.
pub fn parse_timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > MAX_TIMEOUT_DIGITS {
        return None;
    }
    let amount = digits.iter().try_fold(0, |amount: u64, byte| {
        Some(amount * 10 + u64::from((*byte as char).to_digit(10)?))
    })?;
    Some(match unit {
        b'H' => Duration::from_secs(amount * 60 * 60),
        b'M' => Duration::from_secs(amount * 60),
        b'S' => Duration::from_secs(amount),
        b'm' => Duration::from_millis(amount),
        b'u' => Duration::from_micros(amount),
        b'n' => Duration::from_nanos(amount),
        _ => return None,
    })
}

/// Appends the beginning of a trailers-only response: the status line, the type and the status of
/// the call. Further fields and the empty line are up to the caller.
///
/// gRPC answers every call with a 200; what failed is said in `grpc-status`.
pub fn trailers_only(out: &mut Vec<u8>, code: Code, message: &str) {
    out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
    line(out, b"Content-Type", CONTENT_TYPE);
    status_fields(out, code, message);
}

/// Appends the fields that end a call, in trailers or in a head. `message` is for whoever debugs it.
pub fn status_fields(out: &mut Vec<u8>, code: Code, message: &str) {
    decimal_line(out, b"grpc-status", u64::from(code.number()));
    if !message.is_empty() {
        out.extend_from_slice(b"grpc-message: ");
        percent_encode(out, message);
        out.extend_from_slice(b"\r\n");
    }
}

/// Appends `message` as the value of a `grpc-message`: everything but printable ASCII without the
/// percent sign is percent-encoded.
fn percent_encode(out: &mut Vec<u8>, message: &str) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for byte in message.bytes() {
        match byte {
            b'%' | ..b' ' | 0x7f.. => {
                let digit = |nibble: u8| DIGITS[usize::from(nibble & 0xf)];
                out.extend_from_slice(&[b'%', digit(byte >> 4), digit(byte)]);
            }
            _ => out.push(byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::head::{parse_response, parse_trailers};

    #[test]
    fn types_of_grpc() {
        for (value, expected) in [
            ("application/grpc", true),
            ("Application/GRPC", true),
            ("application/grpc+proto", true),
            ("application/grpc+json; charset=utf-8", true),
            ("application/grpc;x=y", true),
            ("application/grpc ; x=y", true),
            ("application/grpc-web", false),
            ("application/grpc-web+proto", false),
            ("application/grpc-web-text", false),
            ("application/grpcx", false),
            ("application/grp", false),
            ("text/plain", false),
            ("", false),
        ] {
            assert_eq!(is_grpc(value.as_bytes()), expected, "{value}");
        }
    }

    #[test]
    fn timeouts() {
        for (value, expected) in [
            ("1H", Some(Duration::from_secs(3600))),
            ("2M", Some(Duration::from_secs(120))),
            ("99999999S", Some(Duration::from_secs(99_999_999))),
            ("99999999H", Some(Duration::from_secs(99_999_999 * 3600))),
            ("1500m", Some(Duration::from_millis(1500))),
            ("7u", Some(Duration::from_micros(7))),
            ("00000001n", Some(Duration::from_nanos(1))),
            ("0n", Some(Duration::ZERO)),
            ("100000000S", None),
            ("S", None),
            ("", None),
            ("1", None),
            ("1s", None),
            ("1h", None),
            ("-1S", None),
            ("+1S", None),
            ("1.5S", None),
            (" 1S", None),
            ("1 S", None),
            ("1S ", None),
            ("1\u{b5}", None),
        ] {
            assert_eq!(parse_timeout(value.as_bytes()), expected, "{value}");
        }
    }

    #[test]
    fn an_answer_without_messages() {
        let mut out = Vec::new();
        trailers_only(&mut out, Code::Unavailable, "100 % gone\r\nInjected: \u{e4}\u{7f}~");
        out.extend_from_slice(b"\r\n");
        assert_eq!(
            String::from_utf8(out.clone()).unwrap(),
            "HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\ngrpc-status: 14\r\n\
             grpc-message: 100 %25 gone%0D%0AInjected: %C3%A4%7F~\r\n\r\n"
        );
        let mut fields = Vec::new();
        parse_response(&out, &mut fields).unwrap();
        let head = Head::new(&out, &fields);
        assert_eq!(status(head), Some(Code::Unavailable));
        assert!(is_grpc_head(head));
        assert_eq!(timeout(head), None);
    }

    #[test]
    fn a_status_is_a_small_number_or_none() {
        for (section, expected) in [
            ("grpc-status: 0\r\n\r\n", Some(Code::Ok)),
            ("a: b\r\nGrpc-Status: 16\r\n\r\n", Some(Code::Unauthenticated)),
            ("grpc-status: 17\r\n\r\n", Some(Code::Unknown)),
            ("grpc-status: x\r\n\r\n", Some(Code::Unknown)),
            ("grpc-status:\r\n\r\n", Some(Code::Unknown)),
            ("grpc-message: 0\r\n\r\n", None),
        ] {
            let mut fields = Vec::new();
            parse_trailers(section.as_bytes(), &mut fields).unwrap();
            assert_eq!(status(Head::new(section.as_bytes(), &fields)), expected, "{section}");
        }
    }
}
