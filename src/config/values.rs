//! Single values as text, the same in the file and on the command line: durations, sizes, networks,
//! names; and what a refused value is told.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

/// The longest duration: a year. Longer ones are slips of the pen, and sums with the clock stay
/// far from overflowing.
pub const MAX_DURATION: Duration = Duration::from_secs(365 * 24 * 3600);

/// The longest name of an upstream, in bytes.
pub const MAX_NAME: usize = 64;

/// The longest text of a duration, in bytes. Longer ones add nothing, and humantime panics on
/// some sums close to `u64::MAX` seconds, which need more digits than this.
const MAX_DURATION_TEXT: usize = 20;

/// Why a value was refused, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{wrong}; {help}")]
pub struct ValueError {
    wrong: String,
    help: String,
}

impl ValueError {
    /// `wrong` states the fault, `help` what to write instead; neither ends in a full stop.
    pub(crate) fn new(wrong: impl Into<String>, help: impl Into<String>) -> Self {
        Self { wrong: wrong.into(), help: help.into() }
    }

    /// What is wrong, without advice.
    pub fn wrong(&self) -> &str {
        &self.wrong
    }

    /// What to write instead.
    pub fn help(&self) -> &str {
        &self.help
    }
}

/// `text` as a message shows it: in back-quotes, on one line, without anything a terminal obeys.
pub(super) fn quote(text: &str) -> impl fmt::Display + '_ {
    fmt::from_fn(move |f| write!(f, "`{}`", text.escape_debug()))
}

/// The one of `known` that `name` was probably meant to be.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_lowercase();
    let allowed = (name.chars().count() / 3).max(1);
    known
        .into_iter()
        .map(|known| (strsim::damerau_levenshtein(&name, &known.to_lowercase()), known))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}

/// "did you mean …?" where there is a nearest of `known`, else the list of them.
pub(super) fn suggest(name: &str, known: &[&str]) -> String {
    match nearest(name, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("write one of {}", list(known)),
    }
}

/// `a`, `b` and `c`, each in back-quotes.
pub(super) fn list(names: &[&str]) -> String {
    let quoted: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
    match quoted.as_slice() {
        [] => String::new(),
        [only] => only.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

/// A duration with its unit, `250ms` or `1m 30s`; zero is `0s`.
///
/// # Errors
/// A number without a unit, an unknown unit, less than a millisecond (other than zero), more than
/// [`MAX_DURATION`].
pub fn parse_duration(text: &str) -> Result<Duration, ValueError> {
    parse_duration_to(text, MAX_DURATION, "a year")
}

/// [`parse_duration`], with a bound of its own, `most`, and what that is called.
pub(super) fn parse_duration_to(
    text: &str,
    most: Duration,
    called: &str,
) -> Result<Duration, ValueError> {
    let refused =
        |help: String| ValueError::new(format!("{} is not a duration", quote(text)), help);
    let example = || "write a number and a unit, such as `5s`, `250ms` or `1m 30s`".to_owned();
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(refused(format!("write the unit: `{text}s` or `{text}ms`")));
    }
    if text.len() > MAX_DURATION_TEXT {
        return Err(refused(example()));
    }
    let duration = humantime::parse_duration(text).map_err(|_| refused(example()))?;
    let wrong = |what: &str| ValueError::new(format!("{} is {what}", quote(text)), example());
    match duration {
        Duration::ZERO => Ok(duration),
        _ if duration < Duration::from_millis(1) => Err(wrong("less than 1ms")),
        _ if duration > most => Err(wrong(&format!("more than {called}"))),
        _ => Ok(duration),
    }
}

/// A [duration](parse_duration) that is not zero.
///
/// # Errors
/// Those of [`parse_duration`], and zero.
pub fn parse_timeout(text: &str) -> Result<Duration, ValueError> {
    match parse_duration(text)? {
        Duration::ZERO => Err(ValueError::new(
            format!("{} leaves no time at all", quote(text)),
            "write at least `1ms`; a timeout cannot be turned off",
        )),
        duration => Ok(duration),
    }
}

/// What to write where a size was refused.
const SIZE_HELP: &str = "write a whole number of `B`, `KiB`, `MiB` or `GiB`, such as `10MiB`";

/// A [number of bytes](parse_bytes) that is not zero.
///
/// # Errors
/// Those of [`parse_bytes`], and zero.
pub fn parse_size(text: &str) -> Result<u64, ValueError> {
    match parse_bytes(text)? {
        0 => Err(ValueError::new(format!("{} lets no body pass", quote(text)), SIZE_HELP)),
        bytes => Ok(bytes),
    }
}

/// A number of bytes: `512KiB`, `10MiB`, `1GiB`, `1000B`.
///
/// # Errors
/// An unknown unit, a fraction, 2^63 bytes or more.
pub fn parse_bytes(text: &str) -> Result<u64, ValueError> {
    let refused = |what: &str| ValueError::new(format!("{} {what}", quote(text)), SIZE_HELP);
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim_start() {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => return Err(refused("is not a size")),
    };
    let number: u64 = number.parse().map_err(|_| refused("is not a size"))?;
    match number.checked_mul(1 << shift) {
        Some(bytes) if i64::try_from(bytes).is_ok() => Ok(bytes),
        _ => Err(refused("is too large")),
    }
}

/// A network `10.0.0.0/8`, or one address, which is the network of only itself.
///
/// # Errors
/// Neither of the two, or an address with bits set behind the prefix.
pub fn parse_network(text: &str) -> Result<IpNet, ValueError> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(IpNet::from(address));
    }
    let network: IpNet = text.parse().map_err(|_| {
        ValueError::new(
            format!("{} is not a network", quote(text)),
            "write an address such as `192.168.1.1`, or a network such as `10.0.0.0/8`",
        )
    })?;
    if network != network.trunc() {
        let (whole, one) = (network.trunc(), network.addr());
        return Err(ValueError::new(
            format!("{} has bits set behind its prefix", quote(text)),
            format!("write `{whole}` for the network, or `{one}` for the one address"),
        ));
    }
    Ok(network)
}

/// The path of a file.
///
/// # Errors
/// Empty, or with control characters, which no path has by intent.
pub fn parse_path(text: &str) -> Result<PathBuf, ValueError> {
    match text.is_empty() || text.chars().any(char::is_control) {
        true => Err(ValueError::new(
            format!("{} is not the path of a file", quote(text)),
            "write such as `cert.pem` or `/etc/ssl/cert.pem`",
        )),
        false => Ok(PathBuf::from(text)),
    }
}

/// The name of an upstream: what it is called in routes, logs and metrics.
///
/// # Errors
/// Empty, longer than [`MAX_NAME`], or with characters other than `A-Z a-z 0-9 . _ -`.
pub fn parse_name(text: &str) -> Result<String, ValueError> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    if text.is_empty() || text.len() > MAX_NAME || !text.bytes().all(allowed) {
        return Err(ValueError::new(
            format!("{} cannot be a name", quote(text)),
            format!("write 1 to {MAX_NAME} of the characters A-Z a-z 0-9 . _ -"),
        ));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_have_units_and_bounds() {
        for (text, millis) in
            [("5s", 5_000), ("250ms", 250), ("1m 30s", 90_000), ("0s", 0), ("1h", 3_600_000)]
        {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "5", "s", "5 parsecs", "-5s", "1ns", "2years", "+5s"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        let wrong = parse_duration("5").unwrap_err().to_string();
        assert_eq!(wrong, "`5` is not a duration; write the unit: `5s` or `5ms`");
        assert!(parse_timeout("0s").is_err());
        // humantime itself panics on this one.
        assert!(parse_duration("18446744073709551615s1000ms").is_err());
    }

    #[test]
    fn sizes_are_whole_and_binary() {
        for (text, bytes) in
            [("1", 1), ("10 B", 10), ("512KiB", 512 << 10), ("10MiB", 10 << 20), ("2GiB", 2 << 30)]
        {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in
            ["", "KiB", "10MB", "1.5MiB", "-1", "0", "+1", "9223372036854775808", "9999999999GiB"]
        {
            assert!(parse_size(text).is_err(), "{text}");
        }
        assert_eq!(parse_bytes("0KiB"), Ok(0));
    }

    #[test]
    fn networks_are_exact() {
        assert_eq!(parse_network("10.0.0.0/8").unwrap().to_string(), "10.0.0.0/8");
        assert_eq!(parse_network("192.168.1.1").unwrap().to_string(), "192.168.1.1/32");
        assert_eq!(parse_network("fd00::/8").unwrap().to_string(), "fd00::/8");
        let wrong = parse_network("10.1.2.3/8").unwrap_err().to_string();
        assert!(wrong.contains("write `10.0.0.0/8` for the network, or `10.1.2.3`"), "{wrong}");
        assert!(parse_network("10.0.0.0/33").is_err());
        assert!(parse_network("example.com").is_err());
    }

    #[test]
    fn names_fit_in_a_metric_label() {
        assert!(parse_name("api-v1.blue_2").is_ok());
        for text in ["", "a b", "ä", "a\"b", "a\n", &"a".repeat(MAX_NAME + 1)] {
            assert!(parse_name(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(text in ".{0,40}", digits in "[0-9. ]{0,22}(s|ms|m|h|y|ns)[0-9. ]{0,9}(s|ms)?") {
            for text in [text, digits] {
                let _ = (parse_duration(&text), parse_timeout(&text), parse_size(&text));
                let _ = (parse_network(&text), parse_name(&text), parse_path(&text));
            }
        }
    }
}
