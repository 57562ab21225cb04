//! Queries: the parameters of a target, by name.

/// The value of the first parameter called `name` in `query`, which is what stands behind the
/// target's `?`; `None` where there is none, and empty for one without a `=`.
///
/// Pairs are parted by `&`, as forms send them (WHATWG URL 5.1). Nothing is decoded, neither `%61`
/// nor `+`: whoever compares values compares them as written.
pub fn query_parameter<'a>(query: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    query.split(|b| *b == b'&').find_map(|pair| match pair.strip_prefix(name)? {
        // What is empty (`a&&b`) is no parameter.
        [] if !pair.is_empty() => Some(&b""[..]),
        [b'=', value @ ..] => Some(value),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_first_parameter_of_that_name() {
        for (query, found) in [
            ("", None),
            ("a=1", Some("1")),
            ("b=2&a=1&c=3", Some("1")),
            ("a=1&a=2", Some("1")),
            ("a=", Some("")),
            ("a", Some("")),
            ("a&a=1", Some("")),
            ("b&&a=1&", Some("1")),
            ("a=1=2", Some("1=2")),
            ("a=%31+2", Some("%31+2")),
            ("a=1;b=2", Some("1;b=2")),
            ("%61=1", None),
            ("A=1", None),
            ("aa=1&ba=2&a.=3", None),
            ("b=a=1", None),
            ("=1", None),
        ] {
            let value = query_parameter(query.as_bytes(), b"a").map(String::from_utf8_lossy);
            assert_eq!(value.as_deref(), found, "{query}");
        }
        assert_eq!(query_parameter(b"&&b", b""), None);
    }

    proptest! {
        #[test]
        fn it_is_what_splitting_by_the_book_finds(query in "[ab=&%+]{0,24}", name in "[ab]{1,2}") {
            let mut pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
            let expected = pairs.find(|(n, _)| *n == name).map(|(_, v)| v.as_bytes());
            prop_assert_eq!(query_parameter(query.as_bytes(), name.as_bytes()), expected);
        }
    }
}
