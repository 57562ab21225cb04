//! Values out of a closed set as text, the same in the file and on the command line.

use std::fmt;
use std::str::FromStr;

use super::fields::{parse_cookie_name, parse_field_name, parse_parameter};
use super::model::{
    AccessLog, HashKey, Hedge, HostMode, LogLevel, Policy, ProxyVersion, QueueOrder, SameSite,
    TlsVersion,
};
use super::values::{ValueError, parse_timeout, quote, suggest};

/// The one of `choices` that is called `text`.
pub(super) fn choose<T: Copy>(
    what: &str,
    text: &str,
    choices: &[(&str, T)],
) -> Result<T, ValueError> {
    if let Some((_, choice)) = choices.iter().find(|(name, _)| *name == text) {
        return Ok(*choice);
    }
    let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
    Err(ValueError::new(format!("unknown {what} {}", quote(text)), suggest(text, &names)))
}

impl FromStr for Policy {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        choose("policy", text, &Self::ALL.map(|policy| (policy.name(), policy)))
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for HostMode {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        choose("host mode", text, &[("pass", Self::Pass), ("endpoint", Self::Endpoint)])
    }
}

impl FromStr for AccessLog {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let choices = [("off", Self::Off), ("text", Self::Text), ("json", Self::Json)];
        choose("access log format", text, &choices)
    }
}

impl FromStr for LogLevel {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let choices = [
            ("error", Self::Error),
            ("warn", Self::Warn),
            ("info", Self::Info),
            ("debug", Self::Debug),
        ];
        choose("log level", text, &choices)
    }
}

impl FromStr for QueueOrder {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        choose("order", text, &[("adaptive", Self::Adaptive), ("fifo", Self::Fifo)])
    }
}

impl FromStr for SameSite {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let choices = [("lax", Self::Lax), ("strict", Self::Strict), ("none", Self::None)];
        choose("value of SameSite", text, &choices)
    }
}

impl FromStr for TlsVersion {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        choose("version of TLS", text, &[("1.2", Self::Tls12), ("1.3", Self::Tls13)])
    }
}

impl fmt::Display for TlsVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tls12 => "1.2",
            Self::Tls13 => "1.3",
        })
    }
}

impl FromStr for ProxyVersion {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        choose("version of the PROXY protocol", text, &[("v1", Self::V1), ("v2", Self::V2)])
    }
}

impl fmt::Display for ProxyVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
        })
    }
}

impl FromStr for HashKey {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text.split_once(':') {
            Some(("header", name)) => Ok(Self::Header(parse_field_name(name)?)),
            Some(("cookie", name)) => Ok(Self::Cookie(parse_cookie_name(name)?)),
            Some(("query", name)) => Ok(Self::Query(parse_parameter(name)?)),
            _ if text == "client" => Ok(Self::Client),
            _ if text == "path" => Ok(Self::Path),
            _ => {
                let forms = ["client", "path", "header:NAME", "cookie:NAME", "query:NAME"];
                let wrong = format!("{} is nothing to hash by", quote(text));
                Err(ValueError::new(wrong, suggest(text, &forms)))
            }
        }
    }
}

impl FromStr for Hedge {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text {
            "p95" => Ok(Self::P95),
            // Another percentile, which durations never look like.
            _ if text.starts_with(['p', 'P']) => Err(ValueError::new(
                format!("{} is no time to wait for", quote(text)),
                "write `p95`, or a duration such as `50ms`",
            )),
            _ => parse_timeout(text).map(Self::After),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    #[test]
    fn names_of_choices_are_read_and_corrected() {
        for policy in Policy::ALL {
            assert_eq!(policy.name().parse(), Ok(policy));
        }
        let wrong = "round_robin".parse::<Policy>().unwrap_err().to_string();
        assert_eq!(wrong, "unknown policy `round_robin`; did you mean `round-robin`?");
        let wrong = "verbose".parse::<LogLevel>().unwrap_err().to_string();
        assert_eq!(
            wrong,
            "unknown log level `verbose`; write one of `error`, `warn`, `info` and `debug`"
        );
        assert_eq!("json".parse(), Ok(AccessLog::Json));
        assert_eq!("endpoint".parse(), Ok(HostMode::Endpoint));
    }

    #[test]
    fn what_is_hashed_has_a_valid_name() {
        for (text, key) in [
            ("client", HashKey::Client),
            ("path", HashKey::Path),
            ("header:X-User", HashKey::Header("x-user".into())),
            ("cookie:SID", HashKey::Cookie("SID".into())),
            ("query:id", HashKey::Query("id".into())),
        ] {
            assert_eq!(text.parse(), Ok(key), "{text}");
        }
        for (text, part) in [
            ("cleint", "did you mean `client`?"),
            ("ip", "write one of `client`, `path`, `header:NAME`"),
            ("Header:x", "is nothing to hash by"),
            ("header:", "cannot be the name of a field"),
            ("header:a b", "cannot be the name of a field"),
            ("cookie:a=b", "cannot be the name of a cookie"),
            ("query:a&b", "cannot be the name of a parameter"),
        ] {
            let wrong = text.parse::<HashKey>().unwrap_err().to_string();
            assert!(wrong.contains(part), "{text}: {wrong}");
        }
    }

    #[test]
    fn hedges_are_a_percentile_or_a_time() {
        assert_eq!("p95".parse(), Ok(Hedge::P95));
        assert_eq!("50ms".parse(), Ok(Hedge::After(Duration::from_millis(50))));
        let wrong = "p99".parse::<Hedge>().unwrap_err().to_string();
        assert_eq!(
            wrong,
            "`p99` is no time to wait for; write `p95`, or a duration such as `50ms`"
        );
        assert!("0s".parse::<Hedge>().is_err());
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "(header:|cookie:|query:|p)?.{0,20}") {
            let _ = (text.parse::<Policy>(), text.parse::<HashKey>(), text.parse::<Hedge>());
            let _ = (text.parse::<SameSite>(), text.parse::<QueueOrder>());
            let _ = (text.parse::<TlsVersion>(), text.parse::<ProxyVersion>());
        }
    }
}
