//! nghttp and h2load, of nghttp2: HTTP/2 by another library, and much of it.

use super::{echo, megabyte, secure};
use crate::support::certificates::Folder;
use crate::support::program::run;
use crate::support::{Backend, Tinylb, ok};

/// The numbers on the line of h2load's report that begins with `words`.
#[track_caller]
fn numbers(report: &str, words: &str) -> Vec<u64> {
    let line = report.lines().find(|line| line.starts_with(words));
    let line = line.unwrap_or_else(|| panic!("{words}: {report}"));
    let words = line.split(|c: char| !c.is_ascii_alphanumeric());
    words.filter_map(|word| word.parse().ok()).collect()
}

/// Asserts that all of `count` requests got their 2xx, on connections that nobody had to open anew.
#[track_caller]
pub(super) fn assert_all_served(report: &str, count: u64) {
    // total, started, done, succeeded, failed, errored, timeout
    let requests = numbers(report, "requests:");
    assert_eq!(requests, [count, count, count, count, 0, 0, 0], "{report}");
    // 2xx, 3xx, 4xx, 5xx, whose names are no numbers
    assert_eq!(numbers(report, "status codes:"), [count, 0, 0, 0], "{report}");
}

#[test]
fn many_streams_on_many_connections_are_all_served() {
    let backend = Backend::named("hello");
    let plain = Tinylb::before(&backend);
    let (_authority, secure) = secure(&backend.url(), "");
    let runs = [
        (format!("http://{}/", plain.address()), &[][..], "h2c"),
        (format!("http://{}/", plain.address()), &["--h1"], "http/1.1"),
        (format!("https://{}/", secure.address()), &[], "h2"),
        (format!("https://{}/", secure.address()), &["--h1"], "http/1.1"),
    ];
    for (url, options, protocol) in runs {
        let load = ["-n", "2000", "-c", "10", "-m", "20", &url];
        let Some(ran) = run("h2load", &[options, &load].concat(), b"") else { return };
        let report = ran.ok().text();
        assert_all_served(&report, 2000);
        assert!(report.contains(&format!("Application protocol: {protocol}\n")), "{report}");
    }
    assert_eq!(backend.requests().len(), 8000);
}

#[test]
fn uploads_and_downloads_share_windows_and_all_arrive() {
    let backend = echo();
    let (_authority, tinylb) = secure(&backend.url(), "");
    let folder = Folder::new();
    let data = folder.write("upload", megabyte());
    let url = format!("https://{}/", tinylb.address());
    let arguments = ["-n", "32", "-c", "2", "-m", "16", "-d", &data, &url];
    let Some(ran) = run("h2load", &arguments, b"") else { return };
    let report = ran.ok().text();
    assert_all_served(&report, 32);
    // total, headers, data; in bytes
    let traffic = report.lines().find(|line| line.starts_with("traffic:")).unwrap();
    assert!(traffic.contains(&format!("({}) data", 32 << 20)), "{report}");
    assert!(backend.requests().iter().all(|request| request.body.len() == 1 << 20));
}

#[test]
fn narrow_windows_make_no_difference_but_time() {
    let backend = echo();
    let tinylb = Tinylb::before(&backend);
    let folder = Folder::new();
    let body = megabyte();
    let data = folder.write("upload", &body[..300_000]);
    let url = format!("http://{}/", tinylb.address());
    // Windows of 1 KiB for what comes back.
    let arguments = ["-w", "10", "-W", "10", "-d", &data, &url];
    let Some(ran) = run("nghttp", &arguments, b"") else { return };
    assert!(ran.ok().stdout == body[..300_000]);
}

#[test]
fn heads_with_continuations_and_paddings_are_understood() {
    let backend = echo();
    let tinylb = Tinylb::before(&backend);
    let url = format!("http://{}/", tinylb.address());
    let arguments = ["--continuation", "-b", "255", "-H", "x-mine: yes", &url];
    let Some(ran) = run("nghttp", &arguments, b"") else { return };
    ran.ok();
    let request = backend.request();
    assert_eq!(request.head.get("x-mine"), Some("yes"));
    // More than a HEADERS frame takes (RFC 9113 4.2).
    assert!(request.head.raw.len() > 16 << 10, "{}", request.head.raw.len());
}

#[test]
fn trailers_go_both_ways() {
    let backend = Backend::answering(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
         5\r\nhello\r\n0\r\nX-Sum: 5\r\n\r\n",
    );
    let tinylb = Tinylb::before(&backend);
    let folder = Folder::new();
    let data = folder.write("upload", "hello");
    let url = format!("http://{}/", tinylb.address());
    let options = ["-v", "-H", "te: trailers", "--no-content-length", "--trailer", "x-sent: 7"];
    let Some(ran) = run("nghttp", &[&options[..], &["-d", &data, &url]].concat(), b"") else {
        return;
    };
    let text = ran.ok().text();
    assert!(text.contains(") x-sum: 5"), "{text}");
    let request = backend.request();
    assert_eq!(request.body, b"hello");
    assert_eq!(request.trailers, [("x-sent".to_owned(), "7".to_owned())]);
}

#[test]
fn settings_say_what_is_possible() {
    let backend = Backend::answering(ok("hello"));
    let tinylb = Tinylb::before(&backend);
    let url = format!("http://{}/", tinylb.address());
    let Some(ran) = run("nghttp", &["-nv", "--expect-continue", &url], b"") else { return };
    let text = ran.ok().text();
    for setting in
        ["SETTINGS_MAX_CONCURRENT_STREAMS(0x03):256", "SETTINGS_ENABLE_CONNECT_PROTOCOL(0x08):1"]
    {
        assert!(text.contains(setting), "{setting}: {text}");
    }
    // Whoever asks in HTTP/1.1 for an upgrade is answered in HTTP/1.1 (RFC 9113 3.1).
    let ran = run("nghttp", &["-u", &url], b"").unwrap();
    assert!(ran.stderr.contains("HTTP Upgrade failed"), "{}{}", ran.text(), ran.stderr);
}
