//! curl, in every version of HTTP and TLS.

use std::net::TcpStream;
use std::thread;

use super::{curl, echo, megabyte, secure};
use crate::support::certificates::Folder;
use crate::support::{Backend, Conn, Gate, Signal, Tinylb, eventually, ok};

/// Ways to speak without TLS, and the version that comes of each. The second asks for an upgrade to
/// HTTP/2, which nobody has to grant (RFC 9113 3.1).
const CLEARTEXT: [(&str, &str); 3] =
    [("--http1.1", "1.1"), ("--http2", "1.1"), ("--http2-prior-knowledge", "2")];

/// Ways to speak with TLS: the version of it, that of HTTP, and what comes of each.
const SECURE: [(&str, &str, &str, &str); 4] = [
    ("1.2", "--http1.1", "TLSv1.2", "1.1"),
    ("1.3", "--http1.1", "TLSv1.3", "1.1"),
    ("1.2", "--http2", "TLSv1.2", "2"),
    ("1.3", "--http2", "TLSv1.3", "2"),
];

/// Says how each transfer went: status, version of HTTP, and how many connections it took.
const FORM: &str = "[%{http_code} %{http_version} %{num_connects}]";

#[test]
fn each_version_of_http_keeps_its_connection() {
    let backend = echo();
    let tinylb = Tinylb::before(&backend);
    let url = "http://a.test/x?y";
    for (option, version) in CLEARTEXT {
        // curl 7.88, for one, cannot use a connection again where it has prior knowledge of HTTP/2.
        let urls = if version == "2" { &[url][..] } else { &[url, url, url] };
        let arguments = [&[option, "-d", "hello", "-w", FORM], urls].concat();
        let Some(ran) = curl(tinylb.address(), &arguments) else { return };
        let expected =
            format!("hello[200 {version} 1]hello[200 {version} 0]hello[200 {version} 0]");
        let expected: String = expected.split_inclusive(']').take(urls.len()).collect();
        assert_eq!(ran.ok().text(), expected, "{option}");
        let request = backend.requests().pop().unwrap();
        assert_eq!(request.target(), "/x?y");
        assert_eq!(request.head.get("host"), Some("a.test"));
        assert_eq!(request.head.get("x-forwarded-proto"), Some("http"));
        assert!(!request.head.has("upgrade") && !request.head.has("http2-settings"));
    }
    assert_eq!(backend.requests().len(), 7);
}

#[test]
fn each_version_of_tls_carries_each_of_http() {
    let backend = echo();
    let (authority, tinylb) = secure(&backend.url(), "");
    let (ca, url) = (authority.ca(), "https://a.test/x?y");
    for (tls, option, tls_version, version) in SECURE {
        let arguments =
            ["-v", "--cacert", &ca, "--tls-max", tls, option, "-d", "hello", "-w", FORM];
        let Some(ran) = curl(tinylb.address(), &[&arguments[..], &[url, url]].concat()) else {
            return;
        };
        let ran = ran.ok();
        assert_eq!(ran.text(), format!("hello[200 {version} 1]hello[200 {version} 0]"));
        assert!(
            ran.stderr.contains(&format!("SSL connection using {tls_version}")),
            "{}",
            ran.stderr
        );
        let request = backend.requests().pop().unwrap();
        assert_eq!(request.head.get("host"), Some("a.test"));
        assert_eq!(request.head.get("x-forwarded-proto"), Some("https"));
        let via = format!("{version}{} tinylb", if version == "2" { ".0" } else { "" });
        assert!(request.head.get("via").unwrap().starts_with(&via), "{:?}", request.head.raw);
    }
    assert_eq!(backend.requests().len(), 8);
}

#[test]
fn many_transfers_share_one_connection_of_http_2() {
    let backend = echo();
    let (authority, tinylb) = secure(&backend.url(), "");
    let ca = authority.ca();
    let arguments = ["--cacert", &ca, "-Z", "-d", "hello", "-w", FORM, "https://a.test/[1-100]"];
    let Some(ran) = curl(tinylb.address(), &arguments) else { return };
    let text = ran.ok().text();
    assert_eq!(text.matches("hello").count(), 100, "{text}");
    assert_eq!(text.matches("[200 2 0]").count(), 99, "{text}");
    assert_eq!(text.matches("[200 2 1]").count(), 1, "{text}");
    let mut targets: Vec<_> = backend.requests().iter().map(|r| r.target().to_owned()).collect();
    targets.sort_unstable();
    targets.dedup();
    assert_eq!(targets.len(), 100);
}

#[test]
fn uploads_come_back_whichever_way() {
    let backend = echo();
    let plain = Tinylb::before(&backend);
    let (authority, secure) = secure(&backend.url(), "");
    let (folder, body) = (Folder::new(), megabyte());
    let data = format!("@{}", folder.write("upload", &body));
    let ca = authority.ca();
    let headers = ["Transfer-Encoding: chunked", "Expect: 100-continue", "Expect:"];
    for header in headers {
        let upload = ["--cacert", &ca, "-H", header, "--data-binary", &data];
        for (address, option, url) in [
            (plain.address(), "--http1.1", "http://a.test/up"),
            (plain.address(), "--http2-prior-knowledge", "http://a.test/up"),
            (secure.address(), "--http1.1", "https://a.test/up"),
            (secure.address(), "--http2", "https://a.test/up"),
        ] {
            // curl says itself how HTTP/2 frames a body of unknown length.
            let Some(ran) = curl(address, &[&upload[..], &[option, url]].concat()) else { return };
            assert!(ran.ok().stdout == body, "{option} {url} {header}");
        }
    }
}

#[test]
fn a_head_has_no_body_and_http_1_0_no_connection_to_keep() {
    let backend = echo();
    let tinylb = Tinylb::before(&backend);
    for (option, first) in
        [("--http1.1", "HTTP/1.1 200"), ("--http2-prior-knowledge", "HTTP/2 200")]
    {
        let arguments = ["-I", option, "http://a.test/x"];
        let Some(ran) = curl(tinylb.address(), &arguments) else { return };
        assert!(ran.ok().text().starts_with(first), "{option}");
    }
    let url = "http://a.test/x";
    let arguments = ["-0", "-d", "old", "-w", FORM, url, url];
    let Some(ran) = curl(tinylb.address(), &arguments) else { return };
    assert_eq!(ran.ok().text(), "old[200 1.1 1]old[200 1.1 1]");
}

#[test]
fn bodies_without_a_length_end_where_they_end_and_cut_ones_are_errors() {
    let chunks = |conn: &mut Conn, last: &str| {
        let body = "4\r\nhalf\r\n".repeat(1000);
        conn.send(format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{body}{last}"))
    };
    let backend = Backend::new(move |mut conn| {
        while let Some(request) = conn.request() {
            let goes_on = match request.target() {
                "/whole" => chunks(&mut conn, "0\r\n\r\n"),
                "/none" => conn.send("HTTP/1.1 204 No Content\r\n\r\n"),
                "/cut" => !chunks(&mut conn, ""),
                _ => !conn.send("HTTP/1.1 200 OK\r\n\r\nup to the end"),
            };
            if !goes_on {
                return;
            }
        }
    });
    let (authority, tinylb) = secure(&backend.url(), "");
    let ca = authority.ca();
    // What curl ends with when a body is cut: CURLE_PARTIAL_FILE, CURLE_HTTP2_STREAM.
    for (option, cut) in [("--http1.1", 18), ("--http2", 92)] {
        let get = |path: &str| {
            curl(tinylb.address(), &["--cacert", &ca, option, &format!("https://a.test{path}")])
        };
        let Some(whole) = get("/whole") else { return };
        assert_eq!(whole.ok().text(), "half".repeat(1000));
        assert_eq!(get("/none").unwrap().ok().text(), "");
        assert_eq!(get("/close").unwrap().ok().text(), "up to the end");
        assert!("half".repeat(1000).starts_with(&get("/cut").unwrap().ended_with(cut).text()));
    }
}

#[test]
fn an_early_hint_goes_before_the_answer() {
    let hint = "HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n";
    let backend = Backend::answering(format!("{hint}{}", ok("page")));
    let (authority, tinylb) = secure(&backend.url(), "");
    for (option, version) in [("--http1.1", "HTTP/1.1"), ("--http2", "HTTP/2")] {
        let arguments = ["--cacert", &authority.ca(), option, "-i", "https://a.test/"];
        let Some(ran) = curl(tinylb.address(), &arguments) else { return };
        let text = ran.ok().text().to_ascii_lowercase();
        let hint = text.find(&format!("{version} 103").to_ascii_lowercase()).expect("a hint");
        let answer = text.find(&format!("{version} 200").to_ascii_lowercase()).expect("an answer");
        assert!(hint < answer && text[hint..answer].contains("link: </style.css>"), "{text}");
        assert!(text.ends_with("page"), "{text}");
    }
}

#[test]
fn who_speaks_plain_http_to_a_port_with_tls_is_told() {
    let backend = echo();
    let (_authority, tinylb) = secure(&backend.url(), "");
    let arguments = ["-i", "http://a.test/"];
    let Some(ran) = curl(tinylb.address(), &arguments) else { return };
    let text = ran.ok().text();
    assert!(text.starts_with("HTTP/1.1 400 "), "{text}");
    assert!(text.contains("plain HTTP on a port with TLS"), "{text}");
    // CURLE_HTTP2: what comes is no HTTP/2.
    let arguments = ["--http2-prior-knowledge", "http://a.test/"];
    let ran = curl(tinylb.address(), &arguments).unwrap();
    assert_ne!(ran.code, Some(0), "{}", ran.text());
    // CURLE_SSL_CONNECT_ERROR, the other way round.
    let plain = Tinylb::before(&backend);
    curl(plain.address(), &["-k", "https://a.test/"]).unwrap().ended_with(35);
    assert!(backend.requests().is_empty());
}

#[test]
fn a_certificate_made_at_start_is_for_localhost() {
    let backend = echo();
    let tinylb = Tinylb::start(&[backend.url()], &["--tls-self-signed"]);
    let port = tinylb.address().port();
    let url = format!("https://localhost:{port}/");
    // CURLE_PEER_FAILED_VERIFICATION: nobody knows it.
    let Some(ran) = curl(tinylb.address(), &[&url]) else { return };
    ran.ended_with(60);
    let ran = curl(tinylb.address(), &["-k", "-d", "hello", &url]).unwrap();
    assert_eq!(ran.ok().text(), "hello");
}

#[test]
fn what_is_under_way_is_finished_when_the_balancer_ends() {
    for option in ["--http1.1", "--http2"] {
        let (go, arrived) = (Gate::new(), Gate::new());
        let backend = Backend::new({
            let (go, arrived) = (go.clone(), arrived.clone());
            move |mut conn| {
                conn.request().unwrap();
                conn.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello");
                arrived.open();
                go.pass();
                conn.send("world");
            }
        });
        let (authority, mut tinylb) = secure(&backend.url(), "");
        let (address, ca) = (tinylb.address(), authority.ca());
        let ran = thread::scope(|scope| {
            let curl = scope.spawn(|| curl(address, &["--cacert", &ca, option, "https://a.test/"]));
            eventually("the request arrives", || {
                (arrived.is_open() || curl.is_finished()).then_some(())
            });
            tinylb.signal(Signal::TERM);
            eventually("it stops listening", || TcpStream::connect(address).is_err().then_some(()));
            go.open();
            curl.join().unwrap()
        });
        let Some(ran) = ran else { return };
        assert_eq!(ran.ok().text(), "helloworld");
        assert!(tinylb.wait_exit().success());
    }
}
