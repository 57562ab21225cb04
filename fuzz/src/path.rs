//! Paths: what routes match on, and what endpoints get.

use tinylb::http::path::{is_below, join, resolve};

use super::show;

/// What is resolved is what RFC 3986 says, has nothing left to resolve, and does not leave a base
/// path that it is joined to.
pub fn check(bytes: &[u8]) {
    let raw = match bytes {
        [] | [b'/', ..] => bytes.to_vec(),
        _ => [b"/", bytes].concat(),
    };
    let Ok(resolved) = resolve(&raw) else {
        assert!(raw.split(|b| *b == b'/').any(|s| decoded(s) == b".."), "{}", show(&raw));
        return;
    };
    let shown = format!("{} -> {}", show(&raw), show(&resolved));
    assert!(resolved.starts_with(b"/"), "{shown}");
    let is_dots = |segment: &[u8]| segment == b"." || segment == b"..";
    assert!(!resolved.split(|b| *b == b'/').any(is_dots), "{shown}");
    // A percent sign with less than two digits behind it means nothing; what it becomes together
    // with what is decoded behind it is nobody's intention.
    if is_well_encoded(&raw) {
        assert!(!resolved.split(|b| *b == b'/').any(|s| is_dots(&decoded(s))), "{shown}");
        assert_eq!(resolve(&resolved).expect(&shown), resolved, "{shown}");
        assert_eq!(decoded(&resolved), *resolved, "{shown}");
    }
    assert_eq!(*resolved, remove_dot_segments(&decoded(&raw)), "{shown}");
    for base in [&b""[..], b"/", b"/base", b"/a/b/"] {
        let mut joined = Vec::new();
        join(&mut joined, base, &raw);
        let joined = resolve(&joined).expect(&shown);
        assert!(is_below(&joined, base), "{shown}, below {} {}", show(base), show(&joined));
    }
}

fn digits(bytes: &[u8]) -> Option<u8> {
    let digits = bytes.get(1..3).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))?;
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

fn is_well_encoded(path: &[u8]) -> bool {
    (0..path.len()).filter(|at| path[*at] == b'%').all(|at| digits(&path[at..]).is_some())
}

/// RFC 3986 6.2.2.2.
fn decoded(path: &[u8]) -> Vec<u8> {
    let (mut decoded, mut at) = (Vec::new(), 0);
    while at < path.len() {
        let byte = if path[at] == b'%' { digits(&path[at..]) } else { None };
        match byte.filter(|b| b.is_ascii_alphanumeric() || b"-._~".contains(b)) {
            Some(byte) => {
                decoded.push(byte);
                at += 3;
            }
            None => {
                decoded.push(path[at]);
                at += 1;
            }
        }
    }
    decoded
}

/// RFC 3986 5.2.4, to the letter.
fn remove_dot_segments(path: &[u8]) -> Vec<u8> {
    let (mut input, mut output) = (path.to_vec(), Vec::new());
    while !input.is_empty() {
        if input.starts_with(b"/./") {
            input.drain(..2);
        } else if input == b"/." {
            input.pop();
        } else if input.starts_with(b"/../") || input == b"/.." {
            input.splice(..input.len().min(4), *b"/");
            output.truncate(output.iter().rposition(|b| *b == b'/').unwrap_or(0));
        } else {
            let end = input.iter().skip(1).position(|b| *b == b'/').map_or(input.len(), |n| n + 1);
            output.extend(input.drain(..end));
        }
    }
    if output.is_empty() { b"/".to_vec() } else { output }
}
