//! What operators ask: /metrics, /healthz, /readyz.

use crate::support::{Backend, Refusing, Tinylb, config, eventually};

#[test]
fn requests_are_counted_by_upstream_endpoint_and_code() {
    let backend = Backend::new(|mut conn| {
        while let Some(request) = conn.request() {
            let code = request.target().trim_start_matches('/');
            conn.send(format!("HTTP/1.1 {code} X\r\nContent-Length: 0\r\n\r\n"));
        }
    });
    let tinylb = Tinylb::run(&config(&[backend.url()], "", ""));
    let mut client = tinylb.connect();
    for code in ["200", "200", "404", "503", "200"] {
        assert_eq!(client.get(&format!("/{code}")).status.to_string(), code);
    }
    let address = backend.address().to_string();
    for (code, expected) in [("200", 3.0), ("404", 1.0), ("503", 1.0)] {
        let code = format!("code=\"{code}\"");
        eventually("the counters say so", || {
            let wanted = ["upstream=\"app\"", address.as_str(), code.as_str()];
            let samples = tinylb.samples("tinylb_requests_total");
            let mut those = samples.iter().filter(|(l, _)| wanted.iter().all(|w| l.contains(w)));
            those.any(|(_, count)| *count == expected).then_some(())
        });
    }
    let samples = tinylb.samples("tinylb_requests_total");
    assert!(samples.iter().all(|(labels, _)| labels.contains("endpoint=\"")), "{samples:?}");
    eventually("durations are counted too", || {
        let count = tinylb.metric("tinylb_request_duration_seconds_count", &[]);
        (count == 5.0).then_some(())
    });
}

#[test]
fn failures_of_our_own_are_counted() {
    let tinylb = Tinylb::start(&[Refusing::new().url()], &[]);
    assert_eq!(tinylb.get("/").status, 502);
    eventually("the 502 is counted", || {
        let samples = tinylb.samples("tinylb_requests_total");
        let mut failures = samples.iter().filter(|(labels, _)| labels.contains("code=\"502\""));
        (failures.any(|(_, count)| *count == 1.0)).then_some(())
    });
}

/// A name is a name, a line is a line: what a Prometheus server reads.
#[test]
fn metrics_are_in_the_text_format() {
    let backend = Backend::named("fine");
    let tinylb = Tinylb::before(&backend);
    assert_eq!(tinylb.get("/secret-path?q=1").status, 200);
    let response = tinylb.admin("/metrics");
    assert_eq!(response.status, 200);
    let kind = response.head.get("content-type").expect("a content type");
    assert!(kind.starts_with("text/plain") || kind.starts_with("application/openmetrics-text"));
    let text = response.text();
    assert!(!text.contains("secret-path"), "labels stay bounded");
    let mut count = 0;
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line:?}"));
        assert!(value.parse::<f64>().is_ok(), "{line:?}");
        let name = series.split('{').next().unwrap_or_default();
        assert!(name.starts_with("tinylb_") || name.starts_with("process_"), "{line:?}");
        assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'), "{line:?}");
        assert!(series == name || series.ends_with('}'), "{line:?}");
        count += 1;
    }
    assert!(count > 5, "{text}");
}

#[test]
fn health_and_readiness_are_told_and_nothing_else_is_there() {
    let backend = Backend::named("fine");
    let tinylb = Tinylb::before(&backend);
    for (path, status) in [("/healthz", 200), ("/readyz", 200), ("/nothing", 404), ("/", 404)] {
        let response = tinylb.admin(path);
        assert!(
            response.status == status || (path == "/" && response.status == 200),
            "{path}: {}",
            response.status
        );
    }
    assert_eq!(backend.received(), b"", "the admin address forwards nothing");
}
