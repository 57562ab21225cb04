//! WebSocket as far as a proxy has to know it: the opening handshake in HTTP/1.1 (RFC 6455 4), for whom
//! the other side speaks HTTP/2, where there is none (RFC 8441 5); and where frames end (5.2), so that a
//! tunnel can be closed between two of them.

use sha1::{Digest, Sha1};

use super::head::Head;

/// Whether the protocol that an `Upgrade` field names is WebSocket.
pub const fn is_websocket(protocol: &[u8]) -> bool {
    protocol.eq_ignore_ascii_case(b"websocket")
}

/// What every server puts behind the key (RFC 6455 1.3).
const SUFFIX: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The name of the field with the client's key.
const KEY: &[u8] = b"sec-websocket-key";

/// The key in the head of a request for WebSocket.
pub fn key_in(request: Head<'_>) -> Option<&[u8]> {
    request.lines().find(|(_, name, _)| name.eq_ignore_ascii_case(KEY)).map(|(_, _, key)| key)
}

/// A new `Sec-WebSocket-Key`. It proves nothing, and only has to be another one each time.
pub fn key() -> [u8; 24] {
    let mut nonce = [0; 16];
    fastrand::fill(&mut nonce);
    base64(&nonce)
}

/// The `Sec-WebSocket-Accept` that answers `key`.
pub fn accept(key: &[u8]) -> [u8; 28] {
    let mut hash = Sha1::new();
    hash.update(key);
    hash.update(SUFFIX);
    base64(hash.finalize().as_slice())
}

/// `bytes` in base64 (RFC 4648 4), `N` being the number of characters that they come to.
fn base64<const N: usize>(bytes: &[u8]) -> [u8; N] {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = [b'='; N];
    for (four, three) in text.chunks_exact_mut(4).zip(bytes.chunks(3)) {
        let at = |i: usize| three.get(i).copied().unwrap_or(0);
        let bits = u32::from_be_bytes([0, at(0), at(1), at(2)]);
        // Of an incomplete group, only as many digits as there is something in.
        for (index, digit) in four.iter_mut().enumerate().take(three.len() + 1) {
            *digit = DIGITS[(bits >> (18 - 6 * index) & 0x3f) as usize];
        }
    }
    text
}

/// The frame by which a server goes away (status 1001, RFC 6455 7.4.1).
pub const GOING_AWAY: [u8; 4] = [0x88, 2, 0x03, 0xe9];

/// The same as a client says it: masked (RFC 6455 5.3).
pub fn masked_going_away() -> [u8; 8] {
    let [opcode, length, high, low] = GOING_AWAY;
    let [a, b, c, d] = fastrand::u32(..).to_be_bytes();
    [opcode, length | MASKED, a, b, c, d, high ^ a, low ^ b]
}

const MASKED: u8 = 0x80;

/// The opcode in the first byte of a frame, and that of Close (RFC 6455 5.2).
const OPCODE: u8 = 0x0f;
const CLOSE: u8 = 0x8;

/// Follows the frames that go one way, however their bytes are split.
#[derive(Debug, Default)]
pub struct Frames {
    /// What is there of the header that has begun.
    header: [u8; 14],
    length: usize,
    /// Payload of the frame that has begun and is still to come.
    left: u64,
    /// Whether a Close frame has begun, behind which there is nothing (RFC 6455 5.5.1).
    is_closing: bool,
}

impl Frames {
    /// Whether all that went so far is whole frames.
    pub const fn are_whole(&self) -> bool {
        self.length == 0 && self.left == 0
    }

    /// Whether a Close frame has gone, all of it.
    pub const fn have_closed(&self) -> bool {
        self.is_closing && self.are_whole()
    }

    /// Takes note of the next `bytes`.
    pub fn pass(&mut self, mut bytes: &[u8]) {
        loop {
            let part = bytes.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
            self.left -= part as u64;
            bytes = bytes.get(part..).unwrap_or_default();
            let Some((byte, rest)) = bytes.split_first() else { return };
            bytes = rest;
            if let Some(next) = self.header.get_mut(self.length) {
                *next = *byte;
            }
            self.length += 1;
            if let Some(payload) = self.payload() {
                self.length = 0;
                self.left = payload;
                self.is_closing |= self.header[0] & OPCODE == CLOSE;
            }
        }
    }

    /// The length of the payload, once the header is whole.
    fn payload(&self) -> Option<u64> {
        let [_, second, rest @ ..] = &self.header;
        let (extended, mask) = match second & !MASKED {
            126 => (2, second & MASKED),
            127 => (8, second & MASKED),
            _ => (0, second & MASKED),
        };
        let whole = 2 + extended + if mask == 0 { 0 } else { 4 };
        if self.length < whole {
            return None;
        }
        let number = rest.iter().take(extended).fold(0, |n, byte| n << 8 | u64::from(*byte));
        Some(if extended == 0 { u64::from(second & !MASKED) } else { number })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_followed_however_they_are_split() {
        let frame = |first: &[u8], payload: usize| [first, &vec![0x81; payload][..]].concat();
        let all = [
            frame(&[0x81, 0], 0),
            frame(&[0x81, 5], 5),
            frame(&[0x81, 0x85, 1, 2, 3, 4], 5),
            frame(&[0x82, 126, 1, 0], 256),
            frame(&[0x82, 126 | MASKED, 1, 0, 9, 9, 9, 9], 256),
            frame(&[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0], 65536),
            GOING_AWAY.to_vec(),
            masked_going_away().to_vec(),
        ];
        let borders: Vec<usize> = all
            .iter()
            .scan(0, |at, frame| {
                *at += frame.len();
                Some(*at)
            })
            .collect();
        let bytes = all.concat();
        for step in [1, 2, 3, 7, 1000] {
            let mut frames = Frames::default();
            for (index, part) in bytes.chunks(step).enumerate() {
                frames.pass(part);
                let at = index * step + part.len();
                assert_eq!(frames.are_whole(), borders.contains(&at), "{at} by {step}");
            }
        }
    }

    #[test]
    fn a_close_frame_is_known_once_it_is_whole() {
        let bytes = [&b"\x81\x02\x88\x00"[..], &masked_going_away()].concat();
        for step in 1..bytes.len() {
            let mut frames = Frames::default();
            for (index, part) in bytes.chunks(step).enumerate() {
                frames.pass(part);
                let at = index * step + part.len();
                assert_eq!(frames.have_closed(), at == bytes.len(), "{at} by {step}");
            }
        }
    }

    #[test]
    fn a_masked_farewell_says_the_same() {
        let [first, length, mask @ .., high, low] = masked_going_away();
        assert_eq!([first, length & !MASKED, high ^ mask[0], low ^ mask[1]], GOING_AWAY);
        assert!(length & MASKED != 0);
    }

    #[test]
    fn the_example_of_the_rfc_is_accepted() {
        assert_eq!(&accept(b"dGhlIHNhbXBsZSBub25jZQ=="), b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn base64_of_any_length() {
        assert_eq!(&base64::<4>(b"f"), b"Zg==");
        assert_eq!(&base64::<4>(b"fo"), b"Zm8=");
        assert_eq!(&base64::<4>(b"foo"), b"Zm9v");
        assert_eq!(&base64::<8>(&[0xff, 0xef, 0xbe, 0xff]), b"/+++/w==");
        assert_eq!(&base64::<24>(b"the sample nonce"), b"dGhlIHNhbXBsZSBub25jZQ==");
    }

    #[test]
    fn keys_differ_and_are_sixteen_bytes_long() {
        let (one, other) = (key(), key());
        assert_ne!(one, other);
        assert!(one.ends_with(b"==") && one[21] != b'=');
    }
}
