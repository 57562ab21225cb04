//! What holds for any file, held with files that are broken at random.

use proptest::prelude::*;
use tinylb::config;

use super::env;

/// A file with most keys, to be broken.
const MUCH: &str = include_str!("../../examples/full.toml");

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,80}") {
        if let Err(error) = config::parse("t.toml", &text, &env) {
            prop_assert!(error.to_string().contains("error: "));
        }
    }

    #[test]
    fn a_right_file_with_any_hole_and_any_splinter_is_read_or_refused(
        start in 0..MUCH.len(),
        length in 0..40usize,
        splinter in "[a-z0-9\\[\\]{}\"'=.,:/$#%\\n\\r\\\\ \u{e4}\u{202e}\u{0}-]{0,12}",
    ) {
        let start = MUCH.floor_char_boundary(start);
        let end = MUCH.ceil_char_boundary(start + length);
        let text = format!("{}{splinter}{}", &MUCH[..start], &MUCH[end..]);
        match config::parse("t.toml", &text, &env) {
            Ok(config) => prop_assert!(!config.listeners.is_empty() && !config.routes.is_empty()),
            Err(error) => {
                prop_assert!(error.to_string().contains("error: "));
                prop_assert!(error.report().render(true).contains("t.toml"));
            }
        }
    }

    #[test]
    fn any_value_of_any_key_is_read_or_refused(
        key in prop::sample::select(vec![
            "address", "half_close", "max_body", "max_connections", "trusted_proxies", "timeouts", "workers",
            "listen", "access", "timeout", "host", "path", "upstream", "policy", "endpoints",
            "resolve", "url", "weight", "head", "response", "max_connections_per_client", "idempotent",
            "hedge", "hash", "sticky", "health", "ejection", "panic", "retry", "limits", "queue",
            "slow_start", "priority", "backup", "drain", "type", "method", "headers", "status", "body",
            "body_matches", "port", "interval", "rise", "failures", "rate", "max_time", "max_share",
            "attempts", "on", "budget", "buffer", "hold", "requests", "adaptive", "size", "order",
            "time", "curve", "cookie", "secret", "max_age", "same_site", "max_requests", "tls",
            "http2", "redirect_https", "proxy_protocol", "handshake", "cert", "key", "ocsp",
            "certificates", "self_signed", "min_version", "client_ca", "client_auth", "hsts", "ca",
            "server_name", "insecure_skip_verify", "grpc_on", "service",
        ]),
        value in prop::sample::select(vec![
            "0", "-1", "1.5", "true", "[]", "{}", "[[]]", "[{}]", "\"\"", "\"${\"", "\"$${x}\"",
            "1979-05-27", "0x7fffffffffffffff", "'''\na\n'''", "\"\\u0000\"", "{ a = { b = 1 } }",
            "0.5", "-0.0", "nan", "inf", "1e400", "false", "[0.1]", "9223372036854775808", "\"5s\"",
            "\"5xx\"", "[\"5xx\", 404]",
            "\"1.3\"", "\"v1\"", "443", "[{ cert = \"a\", key = \"b\" }]", "[\"unavailable\"]",
        ]),
    ) {
        let at = MUCH.lines().position(|line| line.trim_start_matches("# ").starts_with(&format!("{key} =")));
        let lines: Vec<_> = MUCH
            .lines()
            .enumerate()
            .map(|(n, line)| if Some(n) == at { format!("{key} = {value}") } else { line.to_owned() })
            .collect();
        let _ = config::parse("t.toml", &lines.join("\n"), &env).map_err(|error| error.to_string());
    }
}
