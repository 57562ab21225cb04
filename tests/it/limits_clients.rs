//! How many connections one client may have.

use crate::support::{Backend, Client, Tinylb, config, eventually};

fn limited(backend: &Backend, listener: &str) -> Tinylb {
    let listener = format!("max_connections_per_client = 2\n{listener}");
    Tinylb::run(&config(&[backend.url()], &listener, ""))
}

#[test]
fn one_connection_too_many_is_answered_with_429() {
    let backend = Backend::named("fine");
    let tinylb = limited(&backend, "");
    let mut clients = [tinylb.connect(), tinylb.connect()];
    for client in &mut clients {
        client.assert_open();
    }
    for _ in 0..3 {
        let mut third = tinylb.connect();
        let response = third.get("/");
        assert_eq!(response.status, 429);
        assert_eq!(response.head.get("retry-after"), Some("1"));
        assert!(response.proxy_status().contains("error=http_request_denied"));
        third.assert_closed();
    }
    assert!(tinylb.metric("tinylb_connections_refused_total", &[]) >= 3.0);
    tinylb.wait_for_log("max_connections_per_client");
    let [first, mut second] = clients;
    second.assert_open();
    drop(first);
    eventually("a place is given back", || (tinylb.connect().get("/").status == 200).then_some(()));
}

/// It could not read an answer that is not its own TLS.
#[test]
fn with_tls_one_connection_too_many_is_closed() {
    let backend = Backend::named("fine");
    let tinylb = limited(&backend, "tls = { self_signed = true }");
    let _clients = [tinylb.connect(), tinylb.connect()];
    eventually("both are accepted", || {
        (tinylb.metric("tinylb_worker_connections", &[]) == 2.0).then_some(())
    });
    tinylb.connect().assert_closed();
    assert_eq!(tinylb.metric("tinylb_connections_refused_total", &[]), 1.0);
}

#[test]
fn trusted_proxies_have_as_many_as_they_like() {
    let backend = Backend::named("fine");
    let tinylb = limited(&backend, "trusted_proxies = [\"127.0.0.0/8\"]");
    let mut clients: Vec<Client> = (0..5).map(|_| tinylb.connect()).collect();
    clients.iter_mut().for_each(Client::assert_open);
}
