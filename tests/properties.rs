//! What must hold for any bytes, held with some: the checks of the fuzz targets (`fuzz/`), with
//! inputs made of what messages and files are made of, and with each that has failed before.

#![allow(clippy::unwrap_used, reason = "a failure here is a failure of the test")]

// The checks are those of another crate, where they are public and may panic.
#[allow(clippy::expect_used, clippy::panic, unreachable_pub, missing_docs)]
#[path = "../fuzz/src/lib.rs"]
mod checks;

use std::fs;
use std::path::Path;

use checks::Input;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

/// Each seed of a fuzz target; the findings are among them.
fn seeds(target: &str, check: impl Fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let mut count = 0;
    for entry in fs::read_dir(folder).unwrap() {
        check(&fs::read(entry.unwrap().path()).unwrap());
        count += 1;
    }
    assert!(count > 0);
}

#[test]
fn every_seed_holds() {
    seeds("request", |bytes| checks::request::check(Input::of(bytes)));
    seeds("response", |bytes| checks::response::check(Input::of(bytes)));
    seeds("chunked", |bytes| checks::chunked::check(Input::of(bytes)));
    seeds("path", checks::path::check);
    seeds("proxy_protocol", checks::proxy_protocol::check);
    seeds("config", checks::config::check);
}

/// One of the texts.
fn one_of(texts: &'static [&'static str]) -> impl Strategy<Value = String> + Clone {
    select(texts).prop_map(str::to_owned)
}

/// A name that the proxy looks at, or another.
fn name() -> impl Strategy<Value = String> {
    let known = one_of(&[
        "Connection",
        "Content-Length",
        "Date",
        "Expect",
        "FORWARDED",
        "Host",
        "Keep-Alive",
        "max-forwards",
        "Proxy-Connection",
        "TE",
        "Transfer-Encoding",
        "Upgrade",
        "VIA",
        "x-forwarded-for",
        "X-Forwarded-Host",
        "X-Forwarded-Proto",
        "X_Forwarded-Port",
        "X-Request-Id",
    ]);
    prop_oneof![4 => known, 1 => "[a-zX-]{1,8}"]
}

/// A field line that there may well be.
fn right_field() -> impl Strategy<Value = String> {
    let names = vec(name(), 1..4).prop_map(|names| names.join(" ,"));
    prop_oneof![
        4 => names.prop_map(|names| format!("Connection: {names}\r\n")),
        8 => one_of(&[
            "Connection: close\r\n",
            "connection:keep-alive\r\n",
            "Connection: Upgrade, TE\r\n",
            "Content-Length: 5\r\n",
            "content-length: 005 \r\n",
            "Content-Length: 0\r\n",
            "Content_Length: 9\r\n",
            "Transfer_Encoding: chunked\r\n",
            "X_Real_IP: 192.0.2.7\r\n",
            "X_Client_Subject: CN=a\r\n",
            "Transfer-Encoding: Chunked\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
            "Host: h\r\n",
            "Date: Tue, 15 Nov 1994 08:12:31 GMT\r\n",
            "Expect: 100-continue\r\n",
            "Forwarded: for=192.0.2.7\r\n",
            "Keep-Alive: timeout=5\r\n",
            "Max-Forwards: 7\r\n",
            "Proxy-Connection: keep-alive\r\n",
            "TE: gzip, Trailers\r\n",
            "Upgrade: websocket\r\n",
            "Upgrade: h2c\r\n",
            "Via: 1.0 a, 1.1 b (c)\r\n",
            "X-Forwarded-For: 192.0.2.7\r\n",
            "X-Forwarded-Host: a.example\r\n",
            "X-Forwarded-Proto: https\r\n",
            "X_Forwarded-Port: 1\r\n",
            "X-Request-Id: given\r\n",
            "x-request-id:\r\n",
        ]),
        4 => "[A-Za-z-]{1,8}:[ \t]?[ -~\tä]{0,12}\r\n",
    ]
}

/// A field line, nearly always as it should be.
fn field() -> impl Strategy<Value = String> {
    let value = "[a-z0-9,; \"\t]{0,8}";
    let odd = one_of(&[":\t", " : ", ":\n", ":\r", ":\0", "", ":\r\n "]);
    prop_oneof![
        40 => right_field(),
        2 => (name(), value).prop_map(|(name, value)| format!("{name}: {value}\r\n")),
        1 => (name(), odd, value).prop_map(|(name, odd, value)| format!("{name}{odd}{value}\r\n")),
    ]
}

fn fields() -> impl Strategy<Value = String> {
    vec(field(), 0..8).prop_map(|lines| lines.concat())
}

fn request_head() -> impl Strategy<Value = String> {
    let right =
        one_of(&["GET / HTTP/1.1\r\nHost: h\r\n", "OPTIONS * HTTP/1.1\r\nhost:[::1]:80\r\n"]);
    let lead = one_of(&["", "", "", "", "\r\n", "\r\n\r\n\r\n\r\n\r\n", "\n"]);
    let method = one_of(&["GET", "GET", "POST", "OPTIONS", "HEAD", "QUERY", "TRACE", "get "]);
    let target = prop_oneof![
        3 => "/[a-z./%?@;]{0,12}",
        2 => one_of(&["*", "http://a.example:80/b?c", "HTTPS://[::1]", "http://u@h/", "a", "//a#"]),
    ];
    let version = one_of(&["1.1", "1.1", "1.1", "1.0", "2.0", "1.1 "]);
    let host = one_of(&["host: h\r\n", "Host: h\r\n", "Host: a b\r\n", ""]);
    let any =
        (lead, method, target, version, host).prop_map(|(lead, method, target, version, host)| {
            format!("{lead}{method} {target} HTTP/{version}\r\n{host}")
        });
    let start = prop_oneof![1 => right, 1 => any];
    (start, fields()).prop_map(|(start, fields)| format!("{start}{fields}\r\nbehind"))
}

fn response_head() -> impl Strategy<Value = String> {
    let line = prop_oneof![
        6 => "HTTP/1\\.[01] (101|1[0-9]{2}|20[046]|304|[2-9][0-9]{2})( |)[ -~\tä]{0,8}",
        1 => one_of(&["HTTP/2.0 200 OK", "HTTP/1.1 99", "HTTP/1.1  200", "", "HTTP/1.1 200\nA: b"]),
    ];
    (line, fields()).prop_map(|(line, fields)| format!("{line}\r\n{fields}\r\nbehind"))
}

fn chunks() -> impl Strategy<Value = String> {
    let data = "[a\r\n0;]{1,20}";
    let size = one_of(&["0", "00", "1", "a", "+1", "", "8000000000000000", "f\r", " 1"]);
    let extension =
        one_of(&["", "", "", "", ";", " ;a=b", "\t;c=\"d e\"", " ", ";\n", ";\0", "\r"]);
    let end = one_of(&["\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\n", "", "xy", "x\r\n"]);
    let right = |(data, extension, end): (String, String, String)| {
        format!("{:x}{extension}\r\n{data}{end}", data.len())
    };
    let wrong =
        |(size, extension, data): (String, String, String)| format!("{size}{extension}{data}");
    let chunk = prop_oneof![
        12 => (data, extension.clone(), end).prop_map(right),
        1 => (size, extension.clone(), data).prop_map(wrong),
    ];
    (vec(chunk, 0..6), extension, fields()).prop_map(|(chunks, extension, trailers)| {
        format!("{}0{extension}\r\n{trailers}\r\nbehind", chunks.concat())
    })
}

/// A line of the PROXY protocol, mostly as it should be.
fn proxy_line() -> impl Strategy<Value = Vec<u8>> {
    let address = prop_oneof![
        6 => any::<std::net::Ipv4Addr>().prop_map(|ip| ip.to_string()),
        6 => any::<std::net::Ipv6Addr>().prop_map(|ip| ip.to_string()),
        4 => "(([0-9a-f]{1,5})?:){1,8}(1\\.2\\.3\\.4|[0-9A-F]{1,4})?",
        1 => "([0-9]{1,3}\\.){2,4}[0-9]{1,3}",
    ];
    let port = prop_oneof![4 => any::<u16>().prop_map(|port| port.to_string()), 1 => "[+0-9]{0,6}"];
    let family = one_of(&["TCP4", "TCP4", "TCP4", "TCP6", "TCP6", "TCP6", "UNKNOWN", "UDP4"]);
    let end = one_of(&["\r\n", "\r\n", "\r\n", "\r\n", "\n", "\r", "", " \r\n", "\r\r\n"]);
    let parts = (family, address.clone(), address, port.clone(), port, end);
    parts.prop_map(|(family, from, to, from_port, to_port, end)| {
        format!("PROXY {family} {from} {to} {from_port} {to_port}{end}behind").into_bytes()
    })
}

/// A binary header of it: a command, a family, and a block that is mostly as it should be.
fn proxy_header() -> impl Strategy<Value = Vec<u8>> {
    let value = vec(any::<u8>(), 0..6);
    let tlv = |kinds: &'static [u8]| {
        (select(kinds), value.clone()).prop_map(|(kind, value)| tlv(kind, &value))
    };
    let inner = (value.clone(), vec(tlv(&[0x21, 0x22, 0x23, 0x24]), 0..4));
    let ssl = inner.prop_map(|(front, inner)| tlv_of(0x20, &front, &inner));
    let tlvs = prop_oneof![
        4 => tlv(&[1, 2, 4, 5, 0x30]),
        2 => any::<[u8; 4]>().prop_map(|sum| tlv_of(3, &sum, &[])),
        1 => ssl,
        1 => value.clone(),
    ];
    let block = prop_oneof![vec(any::<u8>(), 12), vec(any::<u8>(), 36), vec(any::<u8>(), 216)];
    let command = select(&[0x20u8, 0x21, 0x21, 0x21, 0x21, 0x22][..]);
    let family = prop_oneof![8 => Just(None), 1 => any::<u8>().prop_map(Some)];
    (command, family, block, vec(tlvs, 0..5)).prop_map(|(command, family, block, tlvs)| {
        let usual = match block.len() {
            12 => 0x11,
            36 => 0x21,
            _ => 0x31,
        };
        let block = [block, tlvs.concat()].concat();
        let length = u16::try_from(block.len()).unwrap().to_be_bytes();
        let start = [command, family.unwrap_or(usual), length[0], length[1]];
        [b"\r\n\r\n\0\r\nQUIT\n", &start[..], &block, b"behind"].concat()
    })
}

fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
    tlv_of(kind, value, &[])
}

fn tlv_of(kind: u8, value: &[u8], inner: &[Vec<u8>]) -> Vec<u8> {
    let value = [value, &inner.concat()].concat();
    [&[kind, 0, u8::try_from(value.len()).unwrap()], &value[..]].concat()
}

/// A file in which each line may be missing, or come in another place.
fn file() -> impl Strategy<Value = String> {
    let line = one_of(&[
        "workers = 2",
        "workers = 1.5",
        "admin.listen = \"off\"",
        "[[listeners]]",
        "[[listeners]]\naddress = \":8080\"",
        "[[listeners]]\naddress = \"[::1]:80\"",
        "address = \"127.0.0.1:0\"",
        "trusted_proxies = [\"10.0.0.0/8\", \"x\"]",
        "[[routes]]\nupstream = \"a\"",
        "[[routes]]\nupstream = \"b\"",
        "host = \"*.example.com\"",
        "host = \"${HOST}\"",
        "host = \"${NONE}\"",
        "path = \"/v1/\"",
        "path = \"/%zz\"",
        "[upstreams.a]",
        "[upstreams.a]\nendpoints = [\"http://h:1\"]",
        "[upstreams.b]\nendpoints = [{ url = \"[::1]:1\", weight = 3 }, \"http://h/b/\"]",
        "policy = \"round-robin\"",
        "polcy = \"p2c\"",
        "timeouts = { connect = \"1s\", idle = \"1 fortnight\" }",
        "max_body = \"10MiB\"",
        "ä = '''",
        "[",
    ]);
    vec(line, 0..9).prop_map(|lines| lines.join("\n"))
}

/// The wire in any circumstances and any pieces.
fn with_input(choice: u8, pieces: &[u8], wire: &str, check: impl Fn(Input<'_>)) {
    check(Input { choice, pieces, wire: wire.as_bytes() });
}

fn pieces() -> impl Strategy<Value = Vec<u8>> {
    vec(0u8..40, 0..4)
}

proptest! {
    #[test]
    fn requests(choice: u8, pieces in pieces(), wire in request_head()) {
        with_input(choice, &pieces, &wire, checks::request::check);
    }

    #[test]
    fn responses(choice: u8, pieces in pieces(), wire in response_head()) {
        with_input(choice, &pieces, &wire, checks::response::check);
    }

    #[test]
    fn chunked_bodies(choice: u8, pieces in pieces(), wire in chunks()) {
        with_input(choice, &pieces, &wire, checks::chunked::check);
    }

    #[test]
    fn paths(path in "(/|\\.|%2[eEfF]|%[0-9a-z]|a|%25|[ -~]){0,16}") {
        checks::path::check(path.as_bytes());
    }

    #[test]
    fn lines_of_the_proxy_protocol(line in proxy_line()) {
        checks::proxy_protocol::check(&line);
    }

    #[test]
    fn headers_of_the_proxy_protocol(header in proxy_header()) {
        checks::proxy_protocol::check(&header);
    }

    #[test]
    fn files(file in file()) {
        checks::config::check(file.as_bytes());
    }

    #[test]
    fn any_bytes_at_all(bytes in vec(any::<u8>(), 0..200)) {
        checks::request::check(Input::of(&bytes));
        checks::response::check(Input::of(&bytes));
        checks::chunked::check(Input::of(&bytes));
        checks::path::check(&bytes);
        checks::proxy_protocol::check(&bytes);
        checks::config::check(&bytes);
    }
}
