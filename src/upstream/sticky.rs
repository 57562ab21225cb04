//! Sticky sessions: the cookie that brings a client back to its endpoint.

use std::collections::HashMap;
use std::fmt::Write;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use crate::config::{self, SameSite};
use crate::http::hex::hex;

/// The block of SHA-256 in bytes (FIPS 180-4), which is what HMAC makes its key of.
const BLOCK: usize = 64;

/// How much of the code is used: 128 bits, which nobody guesses (RFC 2104 5 has half of it as the
/// least).
const CODE: usize = 16;

/// A cookie's value: a code in lower-case hexadecimal digits.
type Value = [u8; 2 * CODE];

/// The cookie of one upstream, with a value for each of its endpoints.
///
/// A value is the keyed hash (HMAC, RFC 2104) of the endpoint's label. Without the key, a list of
/// likely addresses could be hashed until one fits; with it, values reveal nothing and cannot be
/// made up. Instances that share a secret agree on them, whatever the order of their endpoints.
#[derive(Debug)]
pub struct Sticky {
    /// The cookie's name, as clients send it back.
    pub cookie: String,
    /// What stands behind the value in a Set-Cookie field, without `Secure`.
    attributes: String,
    same_site: SameSite,
    /// By the endpoint's index.
    values: Box<[Value]>,
    /// The endpoint's index by its value: a request may have very many cookies of the name, which are all looked at.
    indices: HashMap<Value, usize>,
}

impl Sticky {
    /// The cookie that `config` asks for, over the endpoints of `upstream` by their labels.
    /// `process_secret` is the key where the operator gave none; it should be 32 random bytes.
    pub fn new<'a>(
        config: &config::Sticky,
        process_secret: &[u8],
        upstream: &str,
        labels: impl Iterator<Item = &'a str>,
    ) -> Self {
        let secret = config.secret.as_ref().map_or(process_secret, |secret| secret.as_bytes());
        let keyed = keyed(secret);
        // The upstream's name is in it, so that two upstreams over the same endpoints don't show
        // that they are the same.
        let value =
            |label: &str| hex(code(&keyed, &[upstream.as_bytes(), b"\0", label.as_bytes()]));
        let mut attributes = "; Path=/; HttpOnly".to_owned();
        if let Some(max_age) = config.max_age {
            // Writing to a String cannot fail.
            let _ = write!(attributes, "; Max-Age={}", max_age.as_secs());
        }
        let values: Box<[Value]> = labels.map(value).collect();
        Self {
            cookie: config.cookie.clone(),
            attributes,
            same_site: config.same_site,
            indices: values.iter().enumerate().map(|(index, value)| (*value, index)).collect(),
            values,
        }
    }

    /// The index of the endpoint that `value` stands for; `None` where it stands for none (any
    /// more).
    ///
    /// The search may take longer the more is right. A value is no secret of ours before whom
    /// we would hide it: every client has one, and somebody who guessed another one's byte by byte
    /// would have chosen an endpoint, which is all that a value does.
    pub fn find(&self, value: &[u8]) -> Option<usize> {
        self.indices.get(value).copied()
    }

    /// The value of a Set-Cookie field (RFC 6265 4.1) that keeps a client with the endpoint at
    /// `index`; `secure` where the client came by TLS. `None` where there is no such endpoint.
    ///
    /// Without TLS, `SameSite=None` is left out: browsers drop such a cookie if it is not `Secure`
    /// (RFC 6265bis 5.7), and without either it is at least good within its site.
    pub fn set_cookie(&self, index: usize, secure: bool) -> Option<String> {
        let value = self.values.get(index)?;
        let mut field = format!("{}=", self.cookie);
        field.extend(value.iter().map(|digit| char::from(*digit)));
        field.push_str(&self.attributes);
        field.push_str(match self.same_site {
            SameSite::Lax => "; SameSite=Lax",
            SameSite::Strict => "; SameSite=Strict",
            SameSite::None if secure => "; SameSite=None",
            SameSite::None => "",
        });
        if secure {
            field.push_str("; Secure");
        }
        Some(field)
    }
}

/// HMAC-SHA256 with this key. One that is longer than a block is hashed, a shorter one is filled up
/// with zeros (RFC 2104 2), so that any length will do.
fn keyed(secret: &[u8]) -> Hmac<Sha256> {
    let hashed = Sha256::digest(secret);
    let secret = if secret.len() > BLOCK { hashed.as_slice() } else { secret };
    let mut block = [0; BLOCK];
    block.iter_mut().zip(secret).for_each(|(byte, secret)| *byte = *secret);
    Hmac::new(&block.into())
}

/// The code of `parts`, one after the other.
fn code(keyed: &Hmac<Sha256>, parts: &[&[u8]]) -> [u8; CODE] {
    let mut mac = keyed.clone();
    parts.iter().for_each(|part| mac.update(part));
    let whole: [u8; 32] = mac.finalize().into_bytes().into();
    let mut code = [0; CODE];
    code.iter_mut().zip(whole).for_each(|(byte, whole)| *byte = whole);
    code
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const LABELS: [&str; 3] = ["http://10.0.0.1:80", "http://10.0.0.2:80", "http://10.0.0.3:80"];

    fn sticky(secret: Option<&str>, process_secret: &[u8], upstream: &str) -> Sticky {
        let secret = secret.map(str::to_owned);
        let config = config::Sticky { secret, ..config::Sticky::new("tinylb") };
        Sticky::new(&config, process_secret, upstream, LABELS.into_iter())
    }

    fn text(value: &[u8]) -> &str {
        std::str::from_utf8(value).unwrap()
    }

    #[test]
    fn codes_are_those_of_the_standard() {
        // RFC 4231 4.2, 4.3 and 4.7, the last with a key longer than a block.
        for (key, data, expected) in [
            (&[0x0b; 20][..], "Hi There", "b0344c61d8db38535ca8afceaf0bf12b"),
            (b"Jefe", "what do ya want for nothing?", "5bdcc146bf60754e6a042426089575c7"),
            (
                &[0xaa; 131],
                "Test Using Larger Than Block-Size Key - Hash Key First",
                "60e431591ee0b67f0d8a26aacbf5b77f",
            ),
        ] {
            assert_eq!(text(&hex(code(&keyed(key), &[data.as_bytes()]))), expected);
        }
    }

    #[test]
    fn each_endpoint_is_found_by_its_own_value() {
        let sticky = sticky(None, b"secret", "api");
        for (index, value) in sticky.values.iter().enumerate() {
            assert_eq!(sticky.find(value), Some(index));
            assert!(value.iter().all(u8::is_ascii_hexdigit));
        }
        let value = sticky.values[0];
        for other in
            [&b""[..], b"0", &value[1..], &[&value[..], b"0"].concat(), b"http://10.0.0.1:80"]
        {
            assert_eq!(sticky.find(other), None);
        }
        assert_eq!(sticky.find(&value.to_ascii_uppercase()), None, "as it was given out");
    }

    #[test]
    fn values_go_by_secret_and_upstream_and_not_by_order() {
        let one = sticky(Some("a secret of an operator"), b"1", "api");
        let same = sticky(Some("a secret of an operator"), b"2", "api");
        assert_eq!(one.values, same.values, "whatever the process drew");
        for other in [
            sticky(Some("another secret"), b"1", "api"),
            sticky(None, b"1", "api"),
            sticky(None, b"2", "api"),
            sticky(Some("a secret of an operator"), b"1", "api2"),
        ] {
            assert!(one.values.iter().all(|value| other.find(value).is_none()));
        }
        let config = config::Sticky { secret: None, ..config::Sticky::new("tinylb") };
        let labels = [LABELS[2], LABELS[0]];
        let fewer = Sticky::new(&config, b"1", "api", labels.into_iter());
        let all = sticky(None, b"1", "api");
        assert_eq!([0, 1, 2].map(|i| fewer.find(&all.values[i])), [Some(1), None, Some(0)]);
    }

    #[test]
    fn the_field_says_what_the_operator_asked_for() {
        let mut config = config::Sticky::new("tinylb");
        let field = |config: &config::Sticky, secure| {
            let sticky = Sticky::new(config, b"secret", "api", LABELS.into_iter());
            let field = sticky.set_cookie(1, secure).unwrap();
            assert!(!field.contains("10.0"), "{field}");
            let value = text(&sticky.values[1]).to_owned();
            field.strip_prefix(&format!("tinylb={value}; Path=/; HttpOnly")).unwrap().to_owned()
        };
        assert_eq!(field(&config, false), "; SameSite=Lax");
        assert_eq!(field(&config, true), "; SameSite=Lax; Secure");
        config.same_site = SameSite::None;
        assert_eq!(field(&config, false), "");
        assert_eq!(field(&config, true), "; SameSite=None; Secure");
        config.same_site = SameSite::Strict;
        config.max_age = Some(Duration::from_secs(3600));
        assert_eq!(field(&config, false), "; Max-Age=3600; SameSite=Strict");
        assert_eq!(sticky(None, b"", "api").set_cookie(3, true), None);
    }
}
