//! Paths: what routes match on, and how a base path is joined.

use std::borrow::Cow;

use memchr::memmem;

use crate::error::Error;

/// The path that `raw` means: dot segments resolved (RFC 3986 5.2.4), unreserved characters
/// decoded. Routes match on it; what is forwarded is `raw`.
///
/// # Errors
/// A path that climbs above its own root: joined to a base path it would leave it.
pub fn resolve(raw: &[u8]) -> Result<Cow<'_, [u8]>, Error> {
    if !raw.contains(&b'%') && memmem::find(raw, b"/.").is_none() {
        return Ok(Cow::Borrowed(if raw.is_empty() { b"/" } else { raw }));
    }
    let decoded = decode_unreserved(raw);
    let mut resolved = Vec::with_capacity(decoded.len());
    let mut segments = decoded.split(|b| *b == b'/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            b"." if last => resolved.push(b'/'),
            b"." => {}
            b".." => {
                let parent = resolved.iter().rposition(|b| *b == b'/');
                resolved
                    .truncate(parent.ok_or(Error::bad_request("the path climbs above its root"))?);
                if last {
                    resolved.push(b'/');
                }
            }
            _ => {
                resolved.push(b'/');
                resolved.extend_from_slice(segment);
            }
        }
    }
    if resolved.is_empty() {
        resolved.push(b'/');
    }
    Ok(Cow::Owned(resolved))
}

/// `raw` with the percent-encodings of unreserved characters decoded, which means the same (RFC
/// 3986 6.2.2.2). All others stay: `%2F` is not a slash.
fn decode_unreserved(raw: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let [first, after @ ..] = rest {
        let encoded = match (first, after) {
            (b'%', [high, low, behind @ ..]) => hex(*high, *low).map(|byte| (byte, behind)),
            _ => None,
        };
        match encoded {
            Some((byte, behind)) if is_unreserved(byte) => {
                decoded.push(byte);
                rest = behind;
            }
            _ => {
                decoded.push(*first);
                rest = after;
            }
        }
    }
    decoded
}

fn hex(high: u8, low: u8) -> Option<u8> {
    let digit = |b: u8| (b as char).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

/// RFC 3986 2.3.
const fn is_unreserved(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'-' | b'.' | b'_' | b'~')
}

/// Whether `path` is `prefix` or below it, on segment borders: `/v1` has `/v1` and `/v1/a`, not
/// `/v10`. A slash at the prefix's end makes no difference.
pub fn is_below(path: &[u8], prefix: &[u8]) -> bool {
    let prefix = prefix.strip_suffix(b"/").unwrap_or(prefix);
    match path.strip_prefix(prefix) {
        Some(rest) => matches!(rest, [] | [b'/', ..]),
        None => false,
    }
}

/// Appends `base` and `path` to `out`, joined with one slash: `/a` or `/a/`, and `/b`, make `/a/b`.
/// An empty path is `/`.
pub fn join(out: &mut Vec<u8>, base: &[u8], path: &[u8]) {
    let base = base.strip_suffix(b"/").unwrap_or(base);
    out.extend_from_slice(base);
    if path.is_empty() {
        out.push(b'/');
    }
    out.extend_from_slice(path);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn dot_segments_are_resolved_in_any_disguise() {
        for (raw, resolved) in [
            ("", "/"),
            ("/", "/"),
            ("/a//b", "/a//b"),
            ("/a/./b", "/a/b"),
            ("/a/b/..", "/a/"),
            ("/a/../b", "/b"),
            ("/a/%2e%2E/b", "/b"),
            ("/a/.%2e/b", "/b"),
            ("/a/.", "/a/"),
            ("/.", "/"),
            ("/a/..", "/"),
            ("/a/...", "/a/..."),
            ("/a/.b", "/a/.b"),
            ("/%61pi", "/api"),
            ("/a%2Fb", "/a%2Fb"),
            ("/a/..%2Fb", "/a/..%2Fb"),
            ("/a%", "/a%"),
            ("/a%2", "/a%2"),
            ("/a//../b", "/a/b"),
        ] {
            let got = resolve(raw.as_bytes()).unwrap();
            assert_eq!(String::from_utf8_lossy(&got), resolved, "{raw}");
        }
    }

    #[test]
    fn a_climb_above_the_root_is_refused() {
        for raw in ["/..", "/../a", "/a/../..", "/a/../../b", "/%2e%2e", "/./.%2E/a/b"] {
            assert!(resolve(raw.as_bytes()).is_err(), "{raw}");
        }
    }

    #[test]
    fn prefixes_match_on_segment_borders() {
        for prefix in ["/v1", "/v1/"] {
            assert!(is_below(b"/v1", prefix.as_bytes()));
            assert!(is_below(b"/v1/", prefix.as_bytes()));
            assert!(is_below(b"/v1/a", prefix.as_bytes()));
            assert!(!is_below(b"/v10", prefix.as_bytes()));
            assert!(!is_below(b"/", prefix.as_bytes()));
        }
        assert!(is_below(b"/anything", b"/"));
    }

    #[test]
    fn joined_with_one_slash() {
        for (base, path, joined) in [
            ("", "/b", "/b"),
            ("/", "/b", "/b"),
            ("/a", "/b", "/a/b"),
            ("/a/", "/b", "/a/b"),
            ("/a", "/", "/a/"),
            ("/a/", "", "/a/"),
            ("", "", "/"),
            ("/a", "//b", "/a//b"),
        ] {
            let mut out = Vec::new();
            join(&mut out, base.as_bytes(), path.as_bytes());
            assert_eq!(String::from_utf8_lossy(&out), joined, "{base} + {path}");
        }
    }

    proptest! {
        #[test]
        fn what_is_resolved_has_nothing_left_to_resolve(raw in "/([a.%2eE/]|%2e|\\.\\.|/){0,24}") {
            if let Ok(resolved) = resolve(raw.as_bytes()) {
                prop_assert!(resolved.starts_with(b"/"));
                let dotted = resolved.split(|b| *b == b'/').any(|s| s == b"." || s == b"..");
                prop_assert!(!dotted, "{raw} -> {}", String::from_utf8_lossy(&resolved));
            }
        }
    }
}
