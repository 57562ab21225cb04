//! WebSockets by Python's `websockets`, and by `h2` over HTTP/2 (RFC 8441).

use super::{secure, secure_with};
use crate::support::Tinylb;
use crate::support::certificates::Authority;
use crate::support::program::Serving;
use crate::support::python::{run_script, serve_script};

/// What the server by HTTP/1.1 agrees to: an extension that changes every frame.
const COMPRESSED: &str = "permessage-deflate";

/// A server that sends everything back, by HTTP/1.1 alone, and its address.
fn server(tls: &[&str]) -> Option<(Serving, String)> {
    let (serving, port) = serve_script("websockets", "websocket_server.py", tls)?;
    Some((serving, format!("127.0.0.1:{port}")))
}

/// The same by HTTP/2 alone.
fn http2_server() -> Option<(Serving, String)> {
    let (serving, port) = serve_script("h2, wsproto", "websocket_http2_server.py", &[])?;
    Some((serving, format!("127.0.0.1:{port}")))
}

/// Has a client of each version of HTTP talk with the server through a balancer, which has a
/// certificate from somebody whose own is `ca`, or no TLS. The server has `extensions`.
fn talk(tinylb: &Tinylb, ca: Option<&str>, extensions: &str) {
    let address = tinylb.address().to_string();
    let url = if ca.is_some() { "wss://a.test/" } else { "ws://a.test/" };
    let accepted = || tinylb.metric("tinylb_connections_accepted_total", &[]);
    let tunnels = || tinylb.metric("tinylb_tunnels_total", &[]);
    let arguments = [&[url, &address], ca.as_slice()].concat();
    if let Some(ran) = run_script("websockets", "websocket_client.py", &arguments) {
        let text = ran.ok().text();
        assert!(text.starts_with(extensions), "{text}");
        assert_eq!((accepted(), tunnels()), (2.0, 2.0));
    }
    let arguments = [&[&*address], ca.as_slice()].concat();
    let before = (accepted(), tunnels());
    if let Some(ran) = run_script("h2, wsproto", "websocket_http2_client.py", &arguments) {
        ran.ok();
        assert_eq!((accepted() - before.0, tunnels() - before.1), (1.0, 3.0));
    }
}

#[test]
fn messages_of_all_kinds_and_both_ends_pass() {
    let Some((server, address)) = server(&[]) else { return };
    talk(&Tinylb::start(&[format!("http://{address}")], &[]), None, COMPRESSED);
    for code in ["4000 as you wish", "4001 enough", "1000 bye"] {
        server.wait_for(&format!("closed {code}"));
    }
}

/// The server ends TLS without saying so, which is an end all the same.
#[test]
fn they_do_by_tls_on_both_sides() {
    let servers = Authority::new("Servers");
    let pair = servers.server("server", &["127.0.0.1"]);
    let Some((_server, address)) = server(&[&pair.cert, &pair.key]) else { return };
    let tls = format!("tls = {{ ca = {:?} }}", servers.ca());
    let (authority, tinylb) = secure_with(&format!("https://{address}"), "", &tls);
    talk(&tinylb, Some(&authority.ca()), COMPRESSED);
}

#[test]
fn they_do_by_http_2_to_the_server() {
    let Some((server, address)) = http2_server() else { return };
    let (authority, tinylb) = secure(&format!("h2c://{address}"), "");
    talk(&tinylb, Some(&authority.ca()), "None");
    for code in ["4001 enough", "1000 bye"] {
        server.wait_for(&format!("closed {code}"));
    }
}
