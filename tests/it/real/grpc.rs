//! gRPC by Python's `grpcio`, on both sides.

use super::secure_with;
use crate::support::certificates::Authority;
use crate::support::program::Serving;
use crate::support::python::{run_script, serve_script};
use crate::support::{Backend, Tinylb, config, eventually};

/// Everything that needs one server that is well.
const CHECKS: [&str; 11] = [
    "unary",
    "server_stream",
    "client_stream",
    "both_streams",
    "metadata",
    "errors",
    "deadline",
    "cancellation",
    "many",
    "compressed",
    "health",
];

/// A server called `name`, and its address.
fn server(name: &str, tls: &[&str]) -> Option<(Serving, String)> {
    let arguments = [&[name], tls].concat();
    let (serving, port) = serve_script("grpc", "grpc_server.py", &arguments)?;
    Some((serving, format!("127.0.0.1:{port}")))
}

/// Makes `checks` with the balancer at `address`; what it printed.
#[track_caller]
fn check(tinylb: &Tinylb, tls: &[&str], checks: &[&str]) -> Option<String> {
    let address = tinylb.address().to_string();
    let ran = run_script("grpc", "grpc_client.py", &[&[&*address], tls, checks].concat())?;
    Some(ran.ok().text())
}

/// A server has heard how long its callers wait, and that they do so no longer.
#[track_caller]
fn assert_calls_end(server: &Serving) {
    for (call, seconds) in [("deadline", 5), ("late-deadline", 5), ("cancelled", 999)] {
        let left: i32 = server.wait_for(&format!("hangs {call} ")).parse().unwrap();
        assert!((seconds - 2..=seconds).contains(&left), "{call}: {left} s");
        server.wait_for(&format!("over {call}"));
    }
}

#[test]
fn every_kind_of_call_passes_in_cleartext() {
    let Some((server, address)) = server("one", &[]) else { return };
    let tinylb = Tinylb::run(&config(&[format!("h2c://{address}")], "", ""));
    if check(&tinylb, &[], &CHECKS).is_some() {
        assert_calls_end(&server);
    }
}

#[test]
fn every_kind_of_call_passes_with_tls_on_both_sides() {
    let servers = Authority::new("Servers");
    let pair = servers.server("server", &["grpc.test"]);
    let Some((server, address)) = server("one", &[&pair.cert, &pair.key]) else { return };
    let tls = format!("tls = {{ ca = {:?}, server_name = \"grpc.test\" }}", servers.ca());
    let (authority, tinylb) = secure_with(&format!("https://{address}"), "", &tls);
    if check(&tinylb, &["--ca", &authority.ca()], &CHECKS).is_some() {
        assert_calls_end(&server);
    }
}

#[test]
fn calls_of_one_connection_are_shared_out() {
    let (Some((_one, one)), Some((two, other))) = (server("one", &[]), server("two", &[])) else {
        return;
    };
    let endpoints = [one, other].map(|address| format!("h2c://{address}"));
    let upstream = "policy = \"round-robin\"\nhealth = { type = \"grpc\", interval = \"100ms\", timeout = \"10s\" }";
    let tinylb = Tinylb::run(&config(&endpoints, "", upstream));
    let up = || tinylb.metric("tinylb_endpoint_up", &[]);
    eventually("both are well", || (up() == 2.0).then_some(()));
    let Some(names) = check(&tinylb, &[], &["names"]) else { return };
    assert_eq!(names, "one two\n");
    // What is gone, calls no longer go to.
    drop(two);
    eventually("one is down", || (up() == 1.0).then_some(()));
    assert_eq!(check(&tinylb, &[], &["names"]).unwrap(), "one\n");
}

#[test]
fn calls_that_a_busy_server_turns_away_go_to_another() {
    let (Some((_one, one)), Some((_busy, busy))) = (server("one", &[]), server("busy", &[])) else {
        return;
    };
    let endpoints = [one, busy].map(|address| format!("h2c://{address}"));
    let common = "policy = \"round-robin\"\nejection = false\n";
    for (upstream, expected) in [
        (common.to_owned(), "20 RESOURCE_EXHAUSTED\n"),
        (format!("{common}retry = {{ grpc_on = [\"resource_exhausted\"], budget = 1.0 }}"), "0\n"),
    ] {
        let tinylb = Tinylb::run(&config(&endpoints, "", &upstream));
        let Some(turned_away) = check(&tinylb, &[], &["busy"]) else { return };
        assert_eq!(turned_away, expected, "{upstream}");
    }
}

#[test]
fn a_call_whose_server_goes_is_unavailable() {
    let Some((server, address)) = server("one", &[]) else { return };
    let tinylb = Tinylb::run(&config(&[format!("h2c://{address}")], "", ""));
    std::thread::scope(|scope| {
        let client = scope.spawn(|| check(&tinylb, &[], &["cut"]));
        server.wait_for("hangs cut ");
        eventually("the answer begins", || {
            (client.is_finished()
                || tinylb.metric("tinylb_endpoint_requests_in_flight", &[]) == 1.0)
                .then_some(())
        });
        drop(server);
        client.join().unwrap();
    });
    // From now on nobody is there.
    let said = check(&tinylb, &[], &["unavailable"]).unwrap();
    assert_eq!(said, "connection_refused: the endpoint refused the connection\n");
}

#[test]
fn where_no_route_leads_nothing_is_implemented() {
    let backend = Backend::named("web");
    let text = config(&[backend.url()], "", "");
    let tinylb = Tinylb::run(&text.replace("[[routes]]", "[[routes]]\npath = \"/web\""));
    let Some(said) = check(&tinylb, &[], &["unimplemented"]) else { return };
    assert!(said.contains("no route"), "{said}");
    assert!(backend.requests().is_empty());
}
