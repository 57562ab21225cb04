//! The opening handshake of WebSocket in HTTP/1.1 (RFC 6455 4), for whom the other side speaks
//! HTTP/2, where there is none (RFC 8441 5).

use sha1::{Digest, Sha1};

/// What every server puts behind the key (RFC 6455 1.3).
const SUFFIX: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

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

#[cfg(test)]
mod tests {
    use super::*;

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
