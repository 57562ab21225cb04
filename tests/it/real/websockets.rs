//! WebSockets by Python's `websockets`, and by `h2` over HTTP/2 (RFC 8441).

use super::secure;
use crate::support::Tinylb;
use crate::support::program::Serving;
use crate::support::python::{run_script, serve_script};

/// A server that sends everything back.
fn server() -> Option<(Serving, String)> {
    let (serving, port) = serve_script("websockets", "websocket_server.py", &[])?;
    Some((serving, format!("http://127.0.0.1:{port}")))
}

#[test]
fn messages_of_all_kinds_and_both_ends_pass() {
    let Some((server, url)) = server() else { return };
    let plain = Tinylb::start(std::slice::from_ref(&url), &[]);
    let (authority, secure) = secure(&url, "");
    let [address, secure_address] = [&plain, &secure].map(|tinylb| tinylb.address().to_string());
    for arguments in
        [&["ws://a.test/", &address][..], &["wss://a.test/", &secure_address, &authority.ca()]]
    {
        let Some(ran) = run_script("websockets", "websocket_client.py", arguments) else { return };
        ran.ok();
    }
    for code in ["4000 as you wish", "4001 enough"] {
        server.wait_for(&format!("closed {code}"));
    }
    for tinylb in [&plain, &secure] {
        assert_eq!(tinylb.metric("tinylb_tunnels_total", &[]), 2.0);
    }
}

#[test]
fn websockets_share_a_connection_of_http_2() {
    let Some((_server, url)) = server() else { return };
    let plain = Tinylb::start(std::slice::from_ref(&url), &[]);
    let (authority, secure) = secure(&url, "");
    let [address, secure_address] = [&plain, &secure].map(|tinylb| tinylb.address().to_string());
    for arguments in [&[&*address][..], &[&secure_address, &authority.ca()]] {
        let ran = run_script("h2, wsproto", "websocket_http2_client.py", arguments);
        let Some(ran) = ran else { return };
        ran.ok();
    }
    for tinylb in [&plain, &secure] {
        assert_eq!(tinylb.metric("tinylb_tunnels_total", &[]), 3.0);
        assert_eq!(tinylb.metric("tinylb_connections_accepted_total", &[]), 1.0);
    }
}
