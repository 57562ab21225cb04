//! One line a request, and no way to write one from the wire.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::support::{Backend, Refusing, Tinylb, config, eventually};

const KEYS: [&str; 20] = [
    "time",
    "client",
    "method",
    "host",
    "path",
    "status",
    "bytes_in",
    "bytes_out",
    "duration",
    "upstream_duration",
    "route",
    "upstream",
    "endpoint",
    "attempts",
    "connect_failures",
    "retries",
    "policy",
    "error",
    "detail",
    "request_id",
];

fn logging(format: &str, endpoints: &[String], listener: &str) -> Tinylb {
    let text = config(endpoints, listener, "");
    Tinylb::run(&format!("log = {{ access = {format:?} }}\n{text}"))
}

fn json(line: &str) -> Value {
    let value: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
    assert!(value.is_object(), "{line}");
    value
}

/// Reads a line of `key=value`, where a value with spaces or quotes stands in quotes.
fn text(line: &str) -> BTreeMap<String, String> {
    let mut pairs = BTreeMap::new();
    let mut chars = line.chars().peekable();
    while chars.peek().is_some() {
        let key: String = chars.by_ref().take_while(|c| *c != '=').collect();
        let mut value = String::new();
        if chars.next_if_eq(&'"').is_some() {
            loop {
                match chars.next().unwrap_or_else(|| panic!("an open quote: {line}")) {
                    '"' => break,
                    '\\' => value.extend(['\\', chars.next().expect("what is escaped")]),
                    c => value.push(c),
                }
            }
            assert!(matches!(chars.next(), None | Some(' ')), "after a quote: {line}");
        } else {
            value.extend(chars.by_ref().take_while(|c| *c != ' '));
        }
        assert!(KEYS.contains(&key.as_str()), "a key {key:?}: {line}");
        assert!(pairs.insert(key.clone(), value).is_none(), "{key} twice: {line}");
    }
    pairs
}

#[test]
fn a_line_of_json_has_every_field() {
    let backend = Backend::named("hello world");
    let tinylb = logging("json", &[backend.url()], "");
    let mut client = tinylb.connect();
    client.send("POST /x/y?q=1 HTTP/1.1\r\nHost: site.test\r\nContent-Length: 5\r\n\r\n12345");
    assert_eq!(client.response().status, 200);
    let line = json(&tinylb.wait_for_access("/x/y"));
    assert_eq!(line["method"], "POST");
    assert_eq!(line["host"], "site.test");
    assert_eq!(line["status"], 200);
    assert_eq!(line["upstream"], "app");
    assert_eq!(line["route"], "/");
    assert_eq!(line["policy"], "p2c");
    assert_eq!(line["attempts"], 1);
    assert!(line["path"].as_str().unwrap().starts_with("/x/y"), "{line}");
    assert!(line["client"].as_str().unwrap().starts_with("127.0.0.1"), "{line}");
    let address = backend.address().to_string();
    assert!(line["endpoint"].as_str().unwrap().contains(&address), "{line}");
    assert!(line["bytes_in"].as_u64().unwrap() >= 5, "{line}");
    assert!(line["bytes_out"].as_u64().unwrap() >= 11, "{line}");
    let (total, upstream) = (line["duration"].as_f64(), line["upstream_duration"].as_f64());
    assert!(upstream.unwrap() > 0.0 && total >= upstream && total.unwrap() < 10.0, "{line}");
    let time = line["time"].as_str().unwrap();
    assert!(time.len() >= 20 && time.as_bytes()[10] == b'T' && time.ends_with('Z'), "{time}");
    assert_eq!(line["request_id"].as_str(), backend.request().head.get("x-request-id"));
    assert!(line.get("error").is_none_or(Value::is_null), "no error: {line}");
    let unknown: Vec<_> =
        line.as_object().unwrap().keys().filter(|key| !KEYS.contains(&key.as_str())).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}

/// What was refused is told of as far as it was understood, and why in words.
#[test]
fn a_refusal_is_explained() {
    let backend = Backend::named("fine");
    let tinylb = logging("json", &[backend.url()], "");
    for (request, method, path, detail) in [
        ("TRACE /traced?q HTTP/1.1\r\nHost: a\r\n\r\n", "TRACE", "/traced", "TRACE is not served"),
        ("GET /no-host HTTP/1.1\r\n\r\n", "GET", "/no-host", "no Host"),
    ] {
        tinylb.exchange(request);
        let line = json(&tinylb.wait_for_access(path));
        assert_eq!((&line["method"], &line["path"]), (&method.into(), &path.into()), "{line}");
        assert_eq!(line["error"], "http_request_error");
        assert_eq!(line["detail"], detail);
    }
}

#[test]
fn a_line_of_text_has_every_field() {
    let backend = Backend::named("hello world");
    let tinylb = logging("text", &[backend.url()], "");
    assert_eq!(tinylb.get("/x").status, 200);
    let line = tinylb.wait_for_access("/x");
    let pairs = text(&line);
    for key in KEYS {
        assert!(pairs.contains_key(key), "{key}: {line}");
    }
    let has = |key: &str, value: &str| assert_eq!(pairs[key], value, "{key}: {line}");
    has("method", "GET");
    has("host", "test");
    has("path", "/x");
    has("status", "200");
    has("upstream", "app");
    has("attempts", "1");
    has("error", "-");
}

#[test]
fn failures_are_in_the_words_of_proxy_status() {
    let (dead, gone) = (Refusing::new(), Refusing::new());
    let tinylb = logging("json", &[dead.url(), gone.url()], "");
    assert_eq!(tinylb.get("/dead").status, 502);
    let line = json(&tinylb.wait_for_access("/dead"));
    assert_eq!(line["status"], 502);
    assert_eq!(line["error"], "connection_refused");
    assert_eq!(line["attempts"], 0, "nothing was sent: {line}");

    let early = Backend::new(|mut conn| {
        conn.request();
        conn.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
    });
    let tinylb = logging("json", &[early.url()], "");
    assert!(!tinylb.get("/half").complete);
    let line = json(&tinylb.wait_for_access("/half"));
    assert_eq!(line["status"], 200, "what the client got: {line}");
    assert_eq!(line["error"], "http_response_incomplete");
}

#[test]
fn refused_requests_are_logged_too() {
    let backend = Backend::named("fine");
    let tinylb = logging("json", &[backend.url()], "");
    let response = tinylb.exchange("GET /refused HTTP/1.1\r\nHost: a\r\nExpect: x\r\n\r\n");
    assert_eq!(response.status, 417);
    let line = json(&tinylb.access.wait_for(|line| line.contains("417")).expect("a line"));
    assert_eq!((&line["status"], &line["error"]), (&417.into(), &"http_request_error".into()));
}

/// Requests whose every part tries to end its quotes, its value or its line.
fn forgeries() -> Vec<Vec<u8>> {
    let mut requests: Vec<Vec<u8>> = [
        "GET /a\"b=c\\ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /\"status=500,\"x\":\"y HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /%0Astatus=500%22 HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id: x\" status=500 y=\"\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id: x\\\" status=500\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id: {\"status\":500}\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id: \u{85}\u{2028}é\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id: tab\tin it\r\n\r\n",
        "GET /\nstatus=500 HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /\u{1b}[31m HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\" status=500 b=\"\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\nstatus=500\r\n\r\n",
        "status=500 / HTTP/1.1\r\nHost: a\r\n\r\n",
        "G|`'*^!#$%&+.~ET / HTTP/1.1\r\nHost: a\r\n\r\n",
    ]
    .iter()
    .map(|request| request.as_bytes().to_vec())
    .collect();
    requests.push(b"GET /\xff\xfe HTTP/1.1\r\nHost: a\r\n\r\n".to_vec());
    requests.push(b"GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id: \xff\xc0\x80\r\n\r\n".to_vec());
    requests
}

#[test]
fn nothing_on_the_wire_forges_a_line() {
    for format in ["json", "text"] {
        let backend = Backend::named("fine");
        let trusted = "trusted_proxies = [\"127.0.0.1/32\"]";
        let tinylb = logging(format, &[backend.url()], trusted);
        let forgeries = forgeries();
        for request in &forgeries {
            let mut client = tinylb.connect();
            client.send(request);
            assert!(matches!(client.response().status, 200 | 400), "{:?}", request.escape_ascii());
        }
        assert_eq!(tinylb.get("/last!").status, 200);
        tinylb.wait_for_access("/last!");
        let lines = eventually("there is a line for each request", || {
            Some(tinylb.access.all()).filter(|lines| lines.len() > forgeries.len())
        });
        assert_eq!(lines.len(), forgeries.len() + 1, "one a request: {lines:#?}");
        for line in &lines {
            assert!(!line.chars().any(char::is_control), "{line:?}");
            let status = match format {
                "json" => json(line)["status"].to_string(),
                _ => text(line)["status"].clone(),
            };
            assert!(matches!(status.as_str(), "200" | "400"), "{line}");
        }
    }
}

#[test]
fn it_is_off_unless_asked_for() {
    let backend = Backend::named("fine");
    let mut tinylb = Tinylb::before(&backend);
    assert_eq!(tinylb.get("/").status, 200);
    tinylb.signal(crate::support::Signal::TERM);
    tinylb.wait_exit();
    assert_eq!(tinylb.access.all(), Vec::<String>::new());
}

/// What is logged when it ends is written before it ends.
#[test]
fn no_line_is_lost_at_the_end() {
    let backend = Backend::named("fine");
    let mut tinylb = logging("json", &[backend.url()], "");
    let mut client = tinylb.connect();
    for i in 0..500 {
        assert_eq!(client.get(&format!("/{i}!")).status, 200);
    }
    tinylb.signal(crate::support::Signal::TERM);
    assert_eq!(tinylb.wait_exit().code(), Some(0));
    tinylb.wait_for_access("/499!");
    assert_eq!(tinylb.access.all().len(), 500);
}

/// A pipe that nobody reads fills up; requests go on, lines are dropped and counted.
#[test]
fn it_never_blocks_a_worker() {
    let backend = Backend::named("fine");
    let options = ["--access-log", "json", "--workers", "1"];
    let tinylb = Tinylb::start_unread(&[backend.url()], &options);
    let mut client = tinylb.connect();
    let path = format!("/{}", "long".repeat(1000));
    for _ in 0..3000 {
        assert_eq!(client.get(&path).status, 200);
    }
    let dropped = tinylb.metric("tinylb_access_log_dropped_lines_total", &[]);
    assert!(dropped > 0.0, "what was dropped is counted");
}

/// A body of the balancer's own is a body too.
#[test]
fn own_answers_are_logged_with_their_bytes_and_the_connections_that_failed() {
    let dead = [(); 3].map(|()| Refusing::new());
    let urls = dead.each_ref().map(Refusing::url);
    let tinylb = logging("json", &urls, "");
    let mut client = tinylb.connect();
    let response = client.get("/nobody");
    response.assert_fault(502, "connection_refused");
    let line = tinylb.told("/nobody");
    assert_eq!(line["bytes_out"], response.body.len());
    assert_eq!((&line["attempts"], &line["connect_failures"]), (&0.into(), &3.into()), "{line}");
    client.send("HEAD /head HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.response_to("HEAD").status, 502);
    assert_eq!(tinylb.told("/head")["bytes_out"], 0);
    // One that is refused before it is understood.
    client.send("GET /bad HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n");
    let response = client.response();
    assert_eq!(response.status, 400);
    assert_eq!(tinylb.told("/bad")["bytes_out"], response.body.len());
    let sent = tinylb.metric("tinylb_sent_bytes_total", &[]);
    let bodies = ["/nobody", "/bad"].map(|path| tinylb.told(path)["bytes_out"].as_f64().unwrap());
    assert_eq!(sent, bodies.iter().sum::<f64>());
}
