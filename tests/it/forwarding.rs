//! What the endpoint gets: the target, Host, the forwarded fields, and everything else untouched.

use crate::support::{Backend, Request, Tinylb, config};

/// What a backend gets of `request` from a balancer with `options`, `base` on the endpoint's URL.
#[track_caller]
fn forwarded(base: &str, options: &[&str], request: impl AsRef<[u8]>) -> Request {
    let backend = Backend::named("fine");
    let tinylb = Tinylb::start(&[format!("{}{base}", backend.url())], options);
    let response = tinylb.exchange(request);
    assert_eq!(response.status, 200, "{:?}", response.head.raw);
    backend.request()
}

/// The same without a base path or options, for a GET with these field lines.
#[track_caller]
fn with_lines(lines: &str) -> Request {
    forwarded("", &[], format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n"))
}

#[test]
fn base_and_path_are_joined_with_one_slash_and_nothing_else_changes() {
    for (base, target, expected) in [
        ("", "/", "/"),
        ("/", "/", "/"),
        ("", "/b", "/b"),
        ("/", "/b", "/b"),
        ("/a", "/b", "/a/b"),
        ("/a/", "/b", "/a/b"),
        ("/a", "/", "/a/"),
        ("/a/", "/", "/a/"),
        ("/a/c", "/b/", "/a/c/b/"),
        ("/a", "//b", "/a//b"),
        ("/a", "/?x=1", "/a/?x=1"),
        ("/a/", "/b?", "/a/b?"),
        ("/a", "/b?x=%20&y=a;b?c/../d&&=", "/a/b?x=%20&y=a;b?c/../d&&="),
        ("/a", "/%41%7e%2F%2f%zz%", "/a/%41%7e%2F%2f%zz%"),
        ("/a", "/x/../y/./z", "/a/x/../y/./z"),
        ("/%7ea", "/b", "/%7ea/b"),
        ("", "/a'()*!$&+,;=:@[]|\"<>^`{}b", "/a'()*!$&+,;=:@[]|\"<>^`{}b"),
    ] {
        let request = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        let got = forwarded(base, &[], request);
        assert_eq!(got.head.first_line, format!("GET {expected} HTTP/1.1"), "{base} + {target}");
    }
}

#[test]
fn a_path_that_climbs_out_of_the_base_is_refused() {
    let backend = Backend::named("out");
    let tinylb = Tinylb::start(&[format!("{}/a/b", backend.url())], &[]);
    for target in ["/..", "/../", "/../b/c", "/x/../../y", "/%2e%2e/x", "/.%2E/x", "/x/%2e%2E/../y"]
    {
        tinylb.get(target).assert_fault(400, "http_request_error");
    }
    assert_eq!(backend.received(), b"");
    assert_eq!(tinylb.get("/x/../y").status, 200, "one that stays within passes");
}

#[test]
fn absolute_targets_name_the_host_and_are_forwarded_as_paths() {
    for (target, expected) in [
        ("http://example.com/x?y", "/x?y"),
        ("http://example.com", "/"),
        ("http://example.com/", "/"),
        ("http://example.com?q=/", "/?q=/"),
        ("HTTP://example.com/x", "/x"),
    ] {
        let got = forwarded("", &[], format!("GET {target} HTTP/1.1\r\nHost: other\r\n\r\n"));
        assert_eq!(got.target(), expected, "{target}");
        assert_eq!(got.head.get("host"), Some("example.com"), "{target}: the target has the word");
    }
    let got = forwarded("", &[], "GET http://example.com:81/ HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(got.head.get("host"), Some("example.com:81"));
}

#[test]
fn methods_pass_as_they_are() {
    for method in ["GET", "PUT", "DELETE", "PATCH", "PROPFIND", "get", "X!#$%&'*+-.^_`|~9"] {
        let got = forwarded("", &[], format!("{method} /m HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(got.method(), method);
    }
}

#[test]
fn options_asterisk_and_max_forwards() {
    let options = |target: &str, lines: &str| {
        forwarded("", &[], format!("OPTIONS {target} HTTP/1.1\r\nHost: a\r\n{lines}\r\n"))
    };
    assert_eq!(options("*", "").target(), "*");
    assert_eq!(options("http://a", "").target(), "*", "RFC 9112 3.2.4: the asterisk form of it");
    assert_eq!(options("/x", "Max-Forwards: 5\r\n").head.get("max-forwards"), Some("4"));
    assert_eq!(options("*", "Max-Forwards: 1\r\n").head.get("max-forwards"), Some("0"));
    let got = with_lines("Max-Forwards: 5");
    assert_eq!(got.head.get("max-forwards"), Some("5"), "only OPTIONS and TRACE count");

    let backend = Backend::named("too far");
    let tinylb = Tinylb::before(&backend);
    for target in ["*", "/x"] {
        let head = format!("OPTIONS {target} HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n");
        let response = tinylb.exchange(head);
        assert!(matches!(response.status, 200 | 204), "answered here: {:?}", response.head.raw);
    }
    assert_eq!(backend.received(), b"", "it goes no further");
}

#[test]
fn host_is_passed_or_the_endpoints() {
    let backend = Backend::named("fine");
    let head = "GET / HTTP/1.1\r\nHost: Example.com:8080\r\n\r\n";
    let url = [backend.url()];
    assert_eq!(Tinylb::start(&url, &[]).exchange(head).status, 200);
    assert_eq!(Tinylb::start(&url, &["--host", "pass"]).exchange(head).status, 200);
    assert_eq!(Tinylb::start(&url, &["--host", "endpoint"]).exchange(head).status, 200);
    let hosts: Vec<_> =
        backend.requests().iter().map(|r| r.head.get("host").unwrap().to_owned()).collect();
    assert_eq!(hosts, ["Example.com:8080", "Example.com:8080", &backend.address().to_string()]);
    let got = &backend.requests()[2];
    assert_eq!(got.head.get("x-forwarded-host"), Some("Example.com:8080"), "what it was is told");
}

#[test]
fn a_client_of_http_1_0_without_host_is_forwarded_with_one() {
    let got = forwarded("", &[], "GET /x HTTP/1.0\r\n\r\n");
    assert_eq!(got.head.first_line, "GET /x HTTP/1.1");
    assert!(got.head.get("host").is_some(), "HTTP/1.1 needs one: {:?}", got.head.raw);
}

/// Order and number of fields carry meaning, whatever else is rewritten.
#[test]
fn fields_keep_their_order_and_number() {
    let backend = Backend::answering(
        "HTTP/1.1 200 Some Reason\r\nSet-Cookie: a=1\r\nX-One: 1\r\nSet-Cookie: b=2; Path=/\r\n\
         X-Empty:\r\nSet-Cookie: a=1\r\nContent-Length: 0\r\n\r\n",
    );
    let tinylb = Tinylb::before(&backend);
    let response = tinylb.exchange(
        "GET / HTTP/1.1\r\nX-A: 1\r\nHost: a\r\nX-B: 2\r\nx-a: 3\r\nX-C:\r\nX-A:  4  \r\n\r\n",
    );
    let named = |fields: &[(String, String)], prefixes: &[&str]| -> Vec<(String, String)> {
        let lower = fields.iter().map(|(n, v)| (n.to_ascii_lowercase(), v.clone()));
        lower.filter(|(n, _)| prefixes.contains(&n.as_str())).collect()
    };
    let pairs = |list: &[(&str, &str)]| -> Vec<(String, String)> {
        list.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()
    };
    assert_eq!(
        named(&backend.request().head.fields, &["x-a", "x-b", "x-c"]),
        pairs(&[("x-a", "1"), ("x-b", "2"), ("x-a", "3"), ("x-c", ""), ("x-a", "4")])
    );
    assert_eq!(
        named(&response.head.fields, &["set-cookie", "x-one", "x-empty"]),
        pairs(&[
            ("set-cookie", "a=1"),
            ("x-one", "1"),
            ("set-cookie", "b=2; Path=/"),
            ("x-empty", ""),
            ("set-cookie", "a=1"),
        ])
    );
    assert_eq!(response.head.first_line, "HTTP/1.1 200 Some Reason");
}

#[test]
fn a_missing_date_is_added_and_one_that_is_there_is_kept() {
    let answer =
        "HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: 0\r\n\r\n";
    let dated = Backend::answering(answer);
    let response = Tinylb::before(&dated).get("/");
    assert_eq!(response.head.get("date"), Some("Sun, 06 Nov 1994 08:49:37 GMT"));
    let response = Tinylb::before(&Backend::named("undated")).get("/");
    let date = response.head.get("date").expect("a Date is added");
    let shape: String = date.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    assert!(date.len() == 29 && shape.ends_with(" 0000 00:00:00 GMT"), "an IMF-fixdate: {date:?}");
}

#[test]
fn routes_match_the_resolved_path_and_the_raw_path_is_forwarded() {
    let (api, rest) = (Backend::named("api"), Backend::named("rest"));
    let text = format!(
        "{}[[routes]]\npath = \"/api/\"\nupstream = \"api\"\n[upstreams.api]\nendpoints = [{:?}]\n",
        config(&[rest.url()], "", ""),
        api.url()
    );
    let tinylb = Tinylb::run(&text);
    for (path, expected) in [
        ("/api/x", "api"),
        ("/x/../api/y", "api"),
        ("/./api/y", "api"),
        ("/x/%2e%2E/api/y", "api"),
        ("/apix", "rest"),
        ("/API/x", "rest"),
        ("/x?/api/", "rest"),
        ("/api/../x", "rest"),
        ("/api/%2e%2e/x", "rest"),
        ("/api/.%2e/x", "rest"),
    ] {
        assert_eq!(tinylb.get(path).text(), expected, "{path}");
        let last = if expected == "api" { api.requests() } else { rest.requests() };
        assert_eq!(last.last().unwrap().target(), path, "the raw path is forwarded");
    }
}

#[test]
fn routes_match_hosts_and_what_matches_none_is_a_404() {
    let (exact, any, long) =
        (Backend::named("exact"), Backend::named("any"), Backend::named("long"));
    let text = format!(
        "admin = {{ listen = \"127.0.0.1:0\" }}\n\
         [[listeners]]\naddress = \"127.0.0.1:0\"\n\
         [[routes]]\nhost = \"*.example.com\"\nupstream = \"any\"\n\
         [[routes]]\nhost = \"api.example.com\"\nupstream = \"exact\"\n\
         [[routes]]\nhost = \"api.example.com\"\npath = \"/long\"\nupstream = \"long\"\n\
         [upstreams.any]\nendpoints = [{:?}]\n\
         [upstreams.exact]\nendpoints = [{:?}]\n\
         [upstreams.long]\nendpoints = [{:?}]\n",
        any.url(),
        exact.url(),
        long.url()
    );
    let tinylb = Tinylb::run(&text);
    let at = |host: &str, path: &str| {
        tinylb.exchange(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"))
    };
    for (host, path, expected) in [
        ("api.example.com", "/", "exact"),
        ("API.Example.COM:8080", "/", "exact"),
        ("api.example.com", "/long", "long"),
        ("api.example.com", "/long/er", "long"),
        ("api.example.com", "/longer", "exact"),
        ("www.example.com", "/long", "any"),
        ("a.b.example.com", "/", "any"),
    ] {
        assert_eq!(at(host, path).text(), expected, "{host}{path}");
    }
    for host in ["example.com", "example.org", "xexample.com"] {
        at(host, "/").assert_fault(404, "destination_not_found");
    }
}
