//! HAProxy and nginx on either side, with a PROXY protocol header between them and the balancer.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::Stdio;

use super::{curl, echo};
use crate::support::certificates::{Authority, Folder};
use crate::support::program::Serving;
use crate::support::{Backend, Client, PATIENCE, Tinylb, config, eventually};

/// Where clients come from: not the address of whoever stands between.
const CLIENT: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 5);

/// What a listener has that HAProxy stands before.
const FROM_HERE: &str = "proxy_protocol = [\"127.0.0.1\"]";

/// HAProxy, and where it listens.
struct Front {
    address: SocketAddr,
    _haproxy: Serving,
    _folder: Folder,
}

/// HAProxy as a proxy of TCP before `tinylb`, with these options where it listens and of its server.
/// `None` where it is not installed.
fn haproxy_before(tinylb: &Tinylb, bind: &str, server: &str) -> Option<Front> {
    let (folder, listener) = (Folder::new(), TcpListener::bind("127.0.0.1:0").unwrap());
    let address = listener.local_addr().unwrap();
    let text = format!(
        "global\n maxconn 100\n\
         defaults\n mode tcp\n timeout connect 10s\n timeout client 60s\n timeout server 60s\n\
         listen front\n bind fd@0 {bind}\n server s {} {server}\n",
        tinylb.address()
    );
    let file = folder.write("haproxy.cfg", text);
    let listener = Stdio::from(OwnedFd::from(listener));
    let haproxy = Serving::start_with("haproxy", &["-db", "-f", &file], listener)?;
    Some(Front { address, _haproxy: haproxy, _folder: folder })
}

/// A client of `address` at its own address.
fn client_of(address: SocketAddr) -> Client {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((CLIENT, 0)).into()).unwrap();
    socket.connect_timeout(&address.into(), PATIENCE).unwrap();
    Client::over(TcpStream::from(socket))
}

#[test]
fn haproxy_says_who_the_client_is() {
    let backend = Backend::named("fine");
    let options =
        "proxy-v2-options ssl,cert-cn,ssl-cipher,cert-key,cert-sig,crc32c,authority,unique-id";
    for server in ["send-proxy", "send-proxy-v2", &format!("send-proxy-v2 {options}")] {
        let tinylb = Tinylb::run(&config(&[backend.url()], FROM_HERE, ""));
        let Some(front) = haproxy_before(&tinylb, "", server) else { return };
        let mut client = client_of(front.address);
        for _ in 0..3 {
            assert_eq!(client.get("/").text(), "fine", "{server}");
            let request = backend.requests().pop().unwrap();
            assert_eq!(request.head.get("x-forwarded-for"), Some("127.0.0.5"), "{server}");
            assert_eq!(request.head.get("x-forwarded-proto"), Some("http"), "{server}");
        }
        assert_eq!(tinylb.metric("tinylb_proxy_protocol_errors_total", &[]), 0.0);
    }
}

/// HAProxy ends TLS, and all of what it knows of that comes in the header.
#[test]
fn haproxy_says_that_the_client_came_by_tls() {
    let backend = echo();
    let authority = Authority::new("Test Authority");
    let (server, client) =
        (authority.server("server", &["a.test"]), authority.client("client", "Å"));
    let read = |path: &str| std::fs::read_to_string(path).unwrap();
    let both = authority.folder.write("both.pem", read(&server.cert) + &read(&server.key));
    let bind = format!("ssl crt {both} ca-file {} verify optional alpn http/1.1", authority.ca());
    let options =
        "proxy-v2-options ssl,cert-cn,ssl-cipher,cert-key,cert-sig,crc32c,authority,unique-id";
    let tinylb = Tinylb::run(&config(&[backend.url()], FROM_HERE, ""));
    let server = format!("send-proxy-v2 {options}");
    let Some(front) = haproxy_before(&tinylb, &bind, &server) else { return };
    let common = ["--cacert", &authority.ca(), "--interface", "127.0.0.5", "-d", "hello"];
    for own in [&[][..], &["--cert", &client.cert, "--key", &client.key]] {
        let arguments = [&common[..], own, &["https://a.test/"]].concat();
        let Some(ran) = curl(front.address, &arguments) else { return };
        assert_eq!(ran.ok().text(), "hello");
        let request = backend.requests().pop().unwrap();
        assert_eq!(request.head.get("x-forwarded-for"), Some("127.0.0.5"));
        assert_eq!(request.head.get("x-forwarded-proto"), Some("https"));
    }
    assert_eq!(tinylb.metric("tinylb_proxy_protocol_errors_total", &[]), 0.0);
}

/// The header comes before TLS, which HAProxy passes on here.
#[test]
fn behind_the_header_there_may_be_tls() {
    let backend = echo();
    let authority = Authority::new("Test Authority");
    let pair = authority.server("server", &["a.test"]);
    let listener = format!("{FROM_HERE}\ntls = {{ {} }}", pair.keys());
    for server in ["send-proxy", "send-proxy-v2 proxy-v2-options crc32c,unique-id"] {
        let tinylb = Tinylb::run(&config(&[backend.url()], &listener, ""));
        let Some(front) = haproxy_before(&tinylb, "", server) else { return };
        for version in ["--http1.1", "--http2"] {
            let ca = authority.ca();
            let arguments = ["--cacert", &ca, "--interface", "127.0.0.5", version, "-d", "hello"];
            let arguments = [&arguments[..], &["https://a.test/"]].concat();
            let Some(ran) = curl(front.address, &arguments) else { return };
            assert_eq!(ran.ok().text(), "hello", "{server} {version}");
            let request = backend.requests().pop().unwrap();
            assert_eq!(request.head.get("x-forwarded-for"), Some("127.0.0.5"));
            assert_eq!(request.head.get("x-forwarded-proto"), Some("https"));
        }
        assert_eq!(tinylb.metric("tinylb_proxy_protocol_errors_total", &[]), 0.0);
    }
}

#[test]
fn checks_of_haproxy_are_no_errors() {
    let backend = Backend::named("fine");
    for server in [
        "check inter 50ms send-proxy",
        "check inter 50ms send-proxy-v2 proxy-v2-options crc32c",
        "check inter 50ms send-proxy no-check-send-proxy",
    ] {
        let tinylb = Tinylb::run(&config(&[backend.url()], FROM_HERE, ""));
        let Some(front) = haproxy_before(&tinylb, "", server) else { return };
        eventually("it is checked", || {
            let accepted = tinylb.metric("tinylb_connections_accepted_total", &[]);
            (accepted >= 5.0).then_some(())
        });
        assert_eq!(client_of(front.address).get("/").text(), "fine", "{server}");
        assert_eq!(tinylb.metric("tinylb_proxy_protocol_errors_total", &[]), 0.0, "{server}");
    }
}

/// A server of others that tells each client who it is, on a Unix socket, and its folder.
struct Back {
    url: String,
    _server: Serving,
    _folder: Folder,
}

impl Back {
    fn start(program: &str, text: impl Fn(&str) -> String, options: &[&str]) -> Option<Self> {
        let folder = Folder::new();
        let socket = folder.path("back.sock");
        let file = folder.write("back.conf", text(&socket));
        let server = Serving::start(program, &[options, &[&file]].concat())?;
        eventually("it listens", || UnixStream::connect(&socket).ok());
        Some(Self { url: format!("unix:{socket}"), _server: server, _folder: folder })
    }

    /// HAProxy, which tells the client's name for the server as well.
    fn haproxy() -> Option<Self> {
        let text = |socket: &str| {
            format!(
                "global\n maxconn 100\n\
                 defaults\n mode http\n timeout connect 10s\n timeout client 60s\n\
                 frontend back\n bind unix@{socket} accept-proxy\n\
                 http-request return status 200 content-type text/plain lf-string \
                 \"%[src]:%[src_port] %[dst]:%[dst_port] %[fc_pp_authority]\"\n"
            )
        };
        Self::start("haproxy", text, &["-db", "-f"])
    }

    /// nginx, which does not know that one.
    fn nginx() -> Option<Self> {
        let text = |socket: &str| {
            format!(
                "daemon off;\nmaster_process off;\npid {socket}.pid;\nerror_log stderr;\n\
                 events {{}}\n\
                 http {{\n access_log off;\n client_body_temp_path {socket}.body;\n\
                 server {{\n listen unix:{socket} proxy_protocol;\n\
                 location / {{ return 200 \"$proxy_protocol_addr:$proxy_protocol_port \
                 $proxy_protocol_server_addr:$proxy_protocol_server_port \"; }}\n }}\n}}\n"
            )
        };
        Self::start("nginx", text, &["-e", "stderr", "-c"])
    }
}

#[test]
fn haproxy_and_nginx_are_told_who_the_client_is() {
    for start in [Back::haproxy, Back::nginx] {
        let Some(back) = start() else { continue };
        for version in ["v1", "v2"] {
            let upstream = format!(
                "proxy_protocol = {version:?}\nhealth = {{ path = \"/\", interval = \"100ms\", timeout = \"10s\" }}"
            );
            let tinylb = Tinylb::run(&config(std::slice::from_ref(&back.url), "", &upstream));
            let mut client = client_of(tinylb.address());
            let own = client.wire().stream().local_addr().unwrap();
            for _ in 0..3 {
                let response = client.get("/");
                assert_eq!(response.text(), format!("{own} {} ", tinylb.address()), "{version}");
            }
            eventually("it is checked more than once", || {
                let checks = tinylb.metric("tinylb_health_checks_total", &["passed"]);
                (checks >= 3.0).then_some(())
            });
        }
    }
}

#[test]
fn haproxy_is_told_what_the_client_asked_for_by_tls() {
    let authority = Authority::new("Test Authority");
    let pair = authority.server("server", &["a.test"]);
    let client = authority.client("client", "Å, B+C");
    let tls = format!("tls = {{ {}, client_ca = {:?} }}", pair.keys(), authority.ca());
    let Some(back) = Back::haproxy() else { return };
    let tinylb =
        Tinylb::run(&config(std::slice::from_ref(&back.url), &tls, "proxy_protocol = \"v2\""));
    for version in ["--http1.1", "--http2"] {
        let ca = authority.ca();
        let arguments = ["--cacert", &ca, "--cert", &client.cert, "--key", &client.key, version];
        let arguments = [&arguments[..], &["https://a.test/"]].concat();
        let Some(ran) = curl(tinylb.address(), &arguments) else { return };
        let said = ran.ok().text();
        assert!(said.starts_with("127.0.0.1:") && said.ends_with(" a.test"), "{said}");
    }
}

/// The header comes before TLS here too.
#[test]
fn endpoints_by_tls_are_told_as_well() {
    let authority = Authority::new("Test Authority");
    let pair = authority.server("server", &["127.0.0.1"]);
    let read = |path: &str| std::fs::read_to_string(path).unwrap();
    let both = authority.folder.write("both.pem", read(&pair.cert) + &read(&pair.key));
    let text = format!(
        "global\n maxconn 100\n\
         defaults\n mode http\n timeout connect 10s\n timeout client 60s\n\
         frontend back\n bind fd@0 accept-proxy ssl crt {both} alpn h2,http/1.1\n\
         http-request return status 200 content-type text/plain lf-string \"%[src]:%[src_port]\"\n"
    );
    let file = authority.folder.write("haproxy.cfg", text);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let listener = Stdio::from(OwnedFd::from(listener));
    let arguments = ["-db", "-f", &file];
    let Some(_haproxy) = Serving::start_with("haproxy", &arguments, listener) else { return };
    for version in ["v1", "v2"] {
        let upstream = format!(
            "proxy_protocol = {version:?}\ntls = {{ ca = {:?} }}\nhealth = {{ path = \"/\" }}",
            authority.ca()
        );
        let tinylb = Tinylb::run(&config(std::slice::from_ref(&url), "", &upstream));
        let mut client = client_of(tinylb.address());
        let own = client.wire().stream().local_addr().unwrap();
        for _ in 0..3 {
            assert_eq!(client.get("/").text(), own.to_string(), "{version}");
        }
    }
}

/// The client that the first names is the one that the last is told of.
#[test]
fn a_client_is_known_through_a_chain_of_three() {
    for start in [Back::haproxy, Back::nginx] {
        let Some(back) = start() else { continue };
        for version in ["v1", "v2"] {
            let upstream = format!("proxy_protocol = {version:?}");
            let tinylb =
                Tinylb::run(&config(std::slice::from_ref(&back.url), FROM_HERE, &upstream));
            let Some(front) = haproxy_before(&tinylb, "", "send-proxy-v2") else { return };
            let mut client = client_of(front.address);
            let own = client.wire().stream().local_addr().unwrap();
            assert_eq!(client.get("/").text(), format!("{own} {} ", front.address));
        }
    }
}
