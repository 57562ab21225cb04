//! The messages of `grpc.health.v1.Health/Check` (`health-checking.md` of the gRPC project). They are
//! so small that they are written and read by hand.

/// The path of the call.
pub const PATH: &str = "/grpc.health.v1.Health/Check";

/// The largest response that is read, in bytes: what is known takes seven, and a server may add
/// fields that are not.
pub const MAX_RESPONSE: usize = 1024;

/// In front of every message: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// Field 1 as bytes with their length (wire type 2), and as a number (wire type 0).
const FIRST_AS_BYTES: u8 = 0x0a;
const FIRST_AS_NUMBER: u64 = 0x08;

/// How a service is (`HealthCheckResponse.ServingStatus`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Serving {
    /// `UNKNOWN`, or a value that is not one of these.
    Unknown,
    /// `SERVING`: it is well.
    Serving,
    /// `NOT_SERVING`.
    NotServing,
    /// `SERVICE_UNKNOWN`: there is no such service.
    ServiceUnknown,
}

/// The body that asks how `service` is; the server as a whole where it is empty.
pub fn request(service: &str) -> Vec<u8> {
    let mut message = Vec::with_capacity(service.len() + 4);
    if !service.is_empty() {
        message.push(FIRST_AS_BYTES);
        let mut length = service.len();
        while length >= 0x80 {
            message.push(0x80 | (length & 0x7f) as u8);
            length >>= 7;
        }
        message.push(length as u8);
        message.extend_from_slice(service.as_bytes());
    }
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    [&[0][..], &length.to_be_bytes(), &message].concat()
}

/// What the whole `body` of a response says.
///
/// # Errors
/// What is wrong with it: it must be one message, uncompressed, of well-formed fields.
pub fn response(body: &[u8]) -> Result<Serving, &'static str> {
    let (prefix, mut message) = body.split_at_checked(PREFIX).ok_or("no message")?;
    let [compressed, length @ ..] = prefix else { return Err("no message") };
    if *compressed != 0 {
        return Err("a compressed message, which was not asked for");
    }
    let length = length.iter().fold(0, |n, byte| n << 8 | usize::from(*byte));
    if message.len() != length {
        return Err("not one whole message");
    }
    // What is left out is 0, and of what is there twice the last counts.
    let mut status = 0;
    while !message.is_empty() {
        let key = number(&mut message)?;
        if key == FIRST_AS_NUMBER {
            status = number(&mut message)?;
        } else {
            skip(key, &mut message)?;
        }
    }
    Ok(match status {
        1 => Serving::Serving,
        2 => Serving::NotServing,
        3 => Serving::ServiceUnknown,
        _ => Serving::Unknown,
    })
}

/// Takes a number (a varint) from the front of `bytes`.
fn number(bytes: &mut &[u8]) -> Result<u64, &'static str> {
    let mut number = 0;
    // Ten groups of seven bits hold 64.
    for index in 0..10 {
        let (byte, rest) = bytes.split_first().ok_or("a message that ends in a field")?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f).checked_shl(7 * index).unwrap_or(0);
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err("a malformed number in the message")
}

/// Skips the value of a field that is not known.
fn skip(key: u64, bytes: &mut &[u8]) -> Result<(), &'static str> {
    if key >> 3 == 0 {
        return Err("a field without a number in the message");
    }
    let length = match key & 7 {
        0 => return number(bytes).map(|_| ()),
        1 => 8,
        2 => number(bytes)?,
        5 => 4,
        _ => return Err("a field of an unknown kind in the message"),
    };
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    let (_, rest) = bytes.split_at_checked(length).ok_or("a message that ends in a field")?;
    *bytes = rest;
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `message` behind its prefix.
    fn body(message: &[u8]) -> Vec<u8> {
        [&[0, 0, 0, 0, u8::try_from(message.len()).unwrap()], message].concat()
    }

    #[test]
    fn requests() {
        assert_eq!(request(""), [0, 0, 0, 0, 0]);
        assert_eq!(request("a.B"), b"\0\0\0\0\x05\x0a\x03a.B");
        let long = "s".repeat(300);
        let expected = [b"\0\0\0\x01\x2f\x0a\xac\x02", long.as_bytes()].concat();
        assert_eq!(request(&long), expected);
    }

    #[test]
    fn responses() {
        for (message, serving) in [
            (&b""[..], Serving::Unknown),
            (b"\x08\x00", Serving::Unknown),
            (b"\x08\x01", Serving::Serving),
            (b"\x08\x02", Serving::NotServing),
            (b"\x08\x03", Serving::ServiceUnknown),
            (b"\x08\x04", Serving::Unknown),
            (b"\x08\x81\x00", Serving::Serving),
            (b"\x08\x81\x80\x80\x80\x80\x80\x80\x80\x80\x01", Serving::Unknown),
            (b"\x08\x01\x08\x02", Serving::NotServing),
            (b"\x10\x05\x1a\x02hi\x08\x01\x25abcd\x29abcdefgh", Serving::Serving),
            // Field 1 of another kind is not the status.
            (b"\x0a\x01\x01", Serving::Unknown),
        ] {
            assert_eq!(response(&body(message)), Ok(serving), "{message:?}");
        }
    }

    #[test]
    fn refused_responses() {
        for message in [
            &b"\x08"[..],
            b"\x08\x80",
            b"\x08\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",
            b"\x1a\x03hi",
            b"\x1a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
            b"\x29abcdefg",
            b"\x25abc",
            b"\x0b",
            b"\x0e\x01",
            b"\x00\x01",
        ] {
            assert!(response(&body(message)).is_err(), "{message:?}");
        }
        for body in [
            &b""[..],
            b"\0\0\0\0",
            b"\0\0\0\0\x02\x08",
            b"\0\0\0\0\x02\x08\x01\x08",
            b"\x01\0\0\0\x02\x08\x01",
            b"\0\0\0\0\x02\x08\x01\0\0\0\0\0",
            b"\0\xff\xff\xff\xff\x08\x01",
        ] {
            assert!(response(body).is_err(), "{body:?}");
        }
    }

    proptest! {
        #[test]
        fn any_body_is_understood_or_refused(
            message in proptest::collection::vec(any::<u8>(), 0..40),
            whole: bool,
        ) {
            let bytes = if whole { body(&message) } else { message };
            let _ = response(&bytes);
        }
    }
}
