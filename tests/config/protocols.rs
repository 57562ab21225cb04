//! What a file says about TLS, HTTP/2, gRPC, the PROXY protocol and Unix sockets: every key, what is
//! refused, and what is doubtful.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tinylb::config::values::parse_path;
use tinylb::config::{
    self, Certificate, Check, ClientAuth, ClientTls, Config, EndpointHost, EndpointUrl,
    ListenAddress, ProxyVersion, Scheme, Section, ServerTls, TlsVersion, Upstream,
};

use super::doubts::doubts;
use super::{env, faults, right};

/// A file whose only listener has `rest`.
pub(super) fn listener(rest: &str) -> String {
    format!("[[listeners]]\naddress = \":8443\"\n{rest}\n[upstreams.app]\nendpoints = [\"a:1\"]\n")
}

/// A file whose only upstream has these endpoints, and `rest`.
pub(super) fn upstream(endpoints: &str, rest: &str) -> String {
    format!(
        "[[listeners]]\naddress = \":8443\"\n[upstreams.app]\n{rest}\nendpoints = [{endpoints}]\n"
    )
}

fn certificate(cert: &str, key: &str) -> Certificate {
    Certificate { cert: cert.into(), key: key.into(), ocsp: None }
}

#[track_caller]
fn tls(rest: &str) -> ServerTls {
    let [listener] = right(&listener(rest)).listeners.try_into().unwrap();
    listener.tls.unwrap()
}

#[track_caller]
fn only(config: Config) -> Upstream {
    let [upstream] = config.upstreams.try_into().unwrap();
    upstream
}

#[test]
fn every_key_reaches_the_model() {
    let config = right(
        r#"
[[listeners]]
address = ":443"
http2 = false
proxy_protocol = ["10.0.0.0/8", "::1"]
timeouts = { handshake = "3s" }
[listeners.tls]
certificates = [
    { cert = "a.pem", key = "${PORT}.pem", ocsp = "a.der" },
    { cert = "/etc/b.pem", key = "b.key" },
]
min_version = "1.3"
client_ca = "clients.pem"
client_auth = "optional"
hsts = "730d"

[[listeners]]
address = ":80"
redirect_https = true

[[listeners]]
address = ":81"
redirect_https = 8443

[[listeners]]
address = "unix:/run/tinylb.sock"
redirect_https = false

[upstreams.app]
endpoints = ["https://a", "https://b:8443/base", "h2c://c:50051", "unix:/run/app.sock"]
http2 = false
tls = { ca = "ca.pem", server_name = "App.internal", cert = "c.pem", key = "k.pem" }
retry = { grpc_on = ["unavailable", "resource_exhausted"] }
"#,
    );
    let [tls, plain, other, unix] = config.listeners.clone().try_into().unwrap();
    let networks: Vec<_> = tls.proxy_protocol.iter().map(ToString::to_string).collect();
    assert_eq!((tls.http2, networks), (false, vec!["10.0.0.0/8".into(), "::1/128".into()]));
    assert_eq!(tls.timeouts.handshake, Duration::from_secs(3));
    let first = Certificate { ocsp: Some("a.der".into()), ..certificate("a.pem", "8001.pem") };
    let expected = ServerTls {
        certificates: vec![first, certificate("/etc/b.pem", "b.key")],
        self_signed: false,
        min_version: TlsVersion::Tls13,
        client: Some(ClientAuth { ca: "clients.pem".into(), required: false }),
        hsts: Some(Duration::from_secs(63_072_000)),
    };
    assert_eq!(tls.tls, Some(expected));
    assert_eq!((plain.tls, plain.http2, plain.redirect_https), (None, true, Some(443)));
    assert_eq!((other.redirect_https, unix.redirect_https), (Some(8443), None));
    assert_eq!(unix.address, ListenAddress::Unix("/run/tinylb.sock".into()));

    let app = only(config);
    let schemes: Vec<_> = app.endpoints.iter().map(|e| (e.url.scheme, e.url.port)).collect();
    let expected =
        [(Scheme::Https, 443), (Scheme::Https, 8443), (Scheme::H2c, 50051), (Scheme::Unix, 0)];
    assert_eq!(schemes, expected);
    let host = EndpointHost::Unix("/run/app.sock".into());
    let unix = EndpointUrl { scheme: Scheme::Unix, host, port: 0, base_path: String::new() };
    assert_eq!(app.endpoints[3].url, unix);
    let expected = ClientTls {
        ca: Some("ca.pem".into()),
        server_name: Some("app.internal".into()),
        identity: Some(("c.pem".into(), "k.pem".into())),
        insecure_skip_verify: false,
    };
    assert_eq!((app.tls, app.http2, app.proxy_protocol), (expected, false, None));
    assert_eq!(app.retry.grpc_on.0, 1 << 14 | 1 << 8);
}

#[test]
fn one_certificate_is_short_for_a_list_of_one() {
    let short = tls("tls = { cert = \"c.pem\", key = \"k.pem\" }");
    assert_eq!(short, ServerTls::new(vec![certificate("c.pem", "k.pem")]));
    let long = tls("tls.certificates = [{ cert = \"c.pem\", key = \"k.pem\" }]");
    assert_eq!(short, long);
    let self_signed = tls("tls.self_signed = true");
    assert_eq!(self_signed, ServerTls { self_signed: true, ..ServerTls::new(Vec::new()) });
    let clients = tls("tls = { self_signed = true, client_ca = \"ca.pem\" }").client;
    assert_eq!(clients, Some(ClientAuth { ca: "ca.pem".into(), required: true }));
}

#[test]
fn paths_are_relative_to_the_directory_of_the_file() {
    let text = listener("tls = { cert = \"c.pem\", key = \"/k.pem\", client_ca = \"../ca.pem\" }")
        + "tls.ca = \"sub/ca.pem\"\n";
    let text = text.replace("\"a:1\"", "\"https://a\"");
    let paths = |config: Config| {
        let tls = config.listeners[0].tls.clone().unwrap();
        let Certificate { cert, key, .. } = tls.certificates[0].clone();
        [cert, key, tls.client.unwrap().ca, only(config).tls.ca.unwrap()]
    };
    let of = |name: &str| paths(config::parse(name, &text, &env).unwrap());
    let expected = |paths: [&str; 4]| paths.map(PathBuf::from);
    assert_eq!(of("t.toml"), expected(["c.pem", "/k.pem", "../ca.pem", "sub/ca.pem"]));
    let below = ["/etc/lb/c.pem", "/k.pem", "/etc/lb/../ca.pem", "/etc/lb/sub/ca.pem"];
    assert_eq!(of("/etc/lb/t.toml"), expected(below));

    let name = format!("paths-{}.toml", std::process::id());
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&file, &text).unwrap();
    let [cert, ..] = paths(config::load(&file).unwrap());
    std::fs::remove_file(&file).unwrap();
    assert_eq!(cert, Path::new(env!("CARGO_TARGET_TMPDIR")).join("c.pem"));
}

#[test]
fn checks_by_grpc_name_a_service_or_none() {
    let health = |rest: &str| {
        let file = upstream("\"h2c://a:1\", \"https://b\"", &format!("health = {{ {rest} }}"));
        only(right(&file)).health.unwrap().check
    };
    assert_eq!(health("type = \"grpc\""), Check::Grpc(String::new()));
    let named = health("type = \"grpc\", service = \"my.Service\"");
    assert_eq!(named, Check::Grpc("my.Service".into()));
}

/// A PROXY header is for one client; a connection with HTTP/2 is not.
#[test]
fn with_proxy_protocol_no_http2_is_offered() {
    let of = |rest: &str| only(right(&upstream("\"https://a\"", rest)));
    assert!(of("").http2);
    let proxied = of("proxy_protocol = \"v2\"");
    assert_eq!((proxied.proxy_protocol, proxied.http2), (Some(ProxyVersion::V2), false));
    assert_eq!(of("proxy_protocol = \"v1\"").proxy_protocol, Some(ProxyVersion::V1));
}

#[test]
fn clients_of_unix_sockets_are_this_machine() {
    let file = |rest: &str| listener(rest).replace("\":8443\"", "\"unix:/run/lb.sock\"");
    for right in [
        "",
        "proxy_protocol = [\"10.0.0.0/8\", \"127.0.0.1\"]\nmax_connections_per_client = 5",
        "trusted_proxies = [\"127.0.0.0/8\"]",
    ] {
        assert_eq!(doubts(&file(right)), "", "{right}");
    }
    for (key, doubt) in [
        ("proxy_protocol = [\"10.0.0.0/8\"]", "`proxy_protocol` has no client of a Unix socket"),
        ("trusted_proxies = [\"::1\"]", "`trusted_proxies` has no client of a Unix socket"),
        ("max_connections_per_client = 5", "the clients of a Unix socket count as one"),
    ] {
        let found = doubts(&file(key));
        assert!(found.starts_with(&format!("warning: {doubt}\n --> t.toml:3:")), "{found}");
        assert!(found.contains("its clients are 127.0.0.1"), "{found}");
    }
}

#[test]
fn a_unix_socket_is_for_one_listener_and_no_endpoint() {
    let file = |rest: &str| listener(rest).replace("\":8443\"", "\"unix:/run/lb.sock\"");
    let twice = file("[[listeners]]\naddress = \"unix:/run/lb.sock\"");
    let found = faults(&twice);
    assert_eq!(found[0], "the listeners unix:/run/lb.sock and unix:/run/lb.sock collide");
    assert_eq!(found[2], "remove one of them, or give it another path");
    let itself = file("").replace("\"a:1\"", "\"unix:/run/lb.sock\"");
    assert_eq!(faults(&itself)[0], "the endpoint unix:/run/lb.sock is this balancer itself");
}

#[test]
fn what_is_probably_not_meant_is_a_doubt() {
    let tls = |rest: &str| upstream("\"https://a\"", rest);
    for (text, doubt) in [
        (
            listener("redirect_https = 8443"),
            "this leads to port 8443 again, where there is no HTTPS",
        ),
        (
            listener("timeouts.handshake = \"5s\""),
            "there is no handshake without `tls` or `proxy_protocol`",
        ),
        (
            listener("tls = { self_signed = true, hsts = \"1d\" }"),
            "`hsts` with `self_signed` may lock browsers out of this host",
        ),
        (
            upstream("\"http://a\"", "tls = { ca = \"ca.pem\" }"),
            "no endpoint of the upstream `app` speaks TLS",
        ),
        (
            upstream("\"h2c://a\"", "http2 = false"),
            "`http2` is about endpoints with `https://` only",
        ),
        (tls("tls = { insecure_skip_verify = true }"), "whoever answers is taken for the endpoint"),
        (
            tls("proxy_protocol = \"v1\"\nhttp2 = true"),
            "HTTP/2 is not offered together with `proxy_protocol`",
        ),
        (
            upstream("\"a:1\", \"unix:/run/a.sock\"", "health = { port = 8081 }"),
            "a Unix socket has no port, and is asked itself",
        ),
        (
            upstream("\"h2c://a\"", "retry = { attempts = 1, grpc_on = [\"unavailable\"] }"),
            "no answer is retried with one attempt",
        ),
    ] {
        let found = doubts(&text);
        assert!(found.starts_with(&format!("warning: {doubt}\n --> t.toml:")), "{text}\n{found}");
        assert!(found.ends_with("t.toml: 1 warning"), "{text}\n{found}");
    }
    let both = doubts(&tls("tls = { insecure_skip_verify = true, ca = \"ca.pem\" }"));
    assert!(both.contains("`ca` says nothing with `insecure_skip_verify`"), "{both}");
    assert!(both.ends_with("t.toml: 2 warnings"), "{both}");
}

#[test]
fn what_makes_sense_raises_no_doubt() {
    for text in [
        listener("redirect_https = true\nhttp2 = false"),
        listener("tls = { self_signed = true, hsts = \"0s\" }\ntimeouts.handshake = \"5s\""),
        listener("proxy_protocol = [\"10.0.0.1\"]\ntimeouts.handshake = \"5s\""),
        listener("proxy_protocol = []\nredirect_https = false"),
        upstream("\"https://a\", \"http://b\"", "tls = { ca = \"ca.pem\" }\nhttp2 = false"),
        upstream("\"https://a\"", "proxy_protocol = \"v2\""),
        upstream("\"h2c://a\"", "http2 = true\nhealth.type = \"grpc\""),
        upstream("\"https://10.0.0.1\"", "tls = { insecure_skip_verify = false }"),
    ] {
        assert_eq!(doubts(&text), "", "{text}");
    }
}

/// The reader does not open what a file names; whoever does shows what is wrong there in its place.
#[test]
fn what_is_wrong_with_a_file_is_shown_where_it_is_named() {
    let text = listener(
        "tls.certificates = [\n{ cert = \"a\", key = \"b\" },\n{ cert = \"c\", key = \"d\" },\n]",
    );
    let (_, mut report) = config::parse_with_doubts("t.toml", &text, &env).unwrap();
    assert!(report.is_empty() && !report.has_faults());
    let fault = || parse_path("").unwrap_err();
    report.add_fault(Section::Listener(0), "key", 1, fault());
    assert!(report.has_faults());
    assert_eq!(
        report.to_string(),
        "\
error: `` is not the path of a file
 --> t.toml:5:21
  |
5 | { cert = \"c\", key = \"d\" },
  |                     ^^^
  |
  = help: write such as `cert.pem` or `/etc/ssl/cert.pem`

t.toml: 1 error"
    );
    report.add_doubt(Section::Listener(0), "cert", 0, fault());
    // Where the value is not in the file its table is shown, or what its section is called.
    report.add_doubt(Section::Listener(0), "client_ca", 0, fault());
    report.add_doubt(Section::Upstream(0), "ca", 0, fault());
    let shown = report.to_string();
    let places: Vec<_> = shown.lines().filter_map(|line| line.split_once("--> ")).collect();
    let places: Vec<_> = places.into_iter().map(|(_, place)| place).collect();
    assert_eq!(places, ["t.toml:3:1", "t.toml:4:10", "t.toml:5:21", "t.toml:7:12"]);
    assert!(shown.ends_with("t.toml: 1 error, 3 warnings"), "{shown}");
}
