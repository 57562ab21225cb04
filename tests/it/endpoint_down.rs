//! Requests that wait for an endpoint when it turns out to be gone.

use std::net::SocketAddr;

use crate::support::{Backend, Client, Conn, Gate, Refusing, Tinylb, ok, ranked};

/// Fails where it is asked for `/fail`; answers all else once `gate` is open.
fn stalling(gate: &Gate) -> impl Fn(Conn) + Send + Sync + 'static {
    let gate = gate.clone();
    move |mut conn| {
        while let Some(request) = conn.request() {
            if request.target() == "/fail" {
                return conn.reset();
            }
            gate.pass();
            conn.send(ok("at last"));
        }
    }
}

fn ask(tinylb: &Tinylb, request: &str) -> Client {
    let mut client = tinylb.connect();
    client.send(request);
    client
}

fn get(number: usize) -> String {
    format!("GET /get-{number} HTTP/1.1\r\nHost: a\r\n\r\n")
}

const PUT: &str = "PUT /put HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody";
const POST: &str = "POST /post HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody";

/// So many GETs, a PUT and a POST that wait for `bad`.
fn waiting(tinylb: &Tinylb, bad: &Backend, gets: usize) -> (Vec<Client>, Client) {
    let mut again: Vec<_> = (0..gets).map(|number| ask(tinylb, &get(number))).collect();
    again.push(ask(tinylb, PUT));
    let post = ask(tinylb, POST);
    bad.wait_for_requests(gets + 2);
    (again, post)
}

#[test]
fn what_may_be_sent_twice_goes_elsewhere_at_once_and_the_rest_waits() {
    let gate = Gate::new();
    let (bad, good) = (Backend::new(stalling(&gate)), Backend::named("good"));
    let upstream = "ejection = { failures = 3, time = \"10m\" }";
    let tinylb = Tinylb::run(&ranked(&[bad.url(), good.url()], "", upstream));
    let (mut again, mut post) = waiting(&tinylb, &bad, 8);
    assert_eq!(good.connections(), 0, "they wait");
    for _ in 0..3 {
        assert_eq!(tinylb.get("/fail").text(), "good");
    }
    tinylb.wait_for_log("ejected: 3 failures in a row");
    for client in &mut again {
        assert_eq!(client.response().text(), "good");
    }
    for path in ["/get-0", "/get-7", "/put"] {
        tinylb.assert_tries(path, 2, Some("endpoint_down"));
    }
    assert_eq!(tinylb.metric("tinylb_retries_total", &["reason=\"endpoint_down\""]), 9.0);
    let failures = tinylb.metric("tinylb_endpoint_failures_total", &[&bad.url()]);
    assert_eq!(failures, 3.0, "whoever left it says nothing of it");
    gate.open();
    assert_eq!(post.response().text(), "at last");
    tinylb.assert_tries("/post", 1, None);
    let posts = |backend: &Backend| {
        backend.requests().iter().filter(|request| request.method() == "POST").count()
    };
    assert_eq!((posts(&bad), posts(&good)), (1, 0));
    assert!(good.requests().iter().any(|r| r.method() == "PUT" && r.body == b"body"));
}

/// Its process is gone, or its machine: nobody listens any more.
#[test]
fn it_is_the_same_where_it_cannot_be_connected_to_any_more() {
    let gate = Gate::new();
    let (bad, good) = (Backend::new(stalling(&gate)), Backend::named("good"));
    let (url, address): (String, SocketAddr) = (bad.url(), bad.address());
    let tinylb = Tinylb::run(&ranked(&[url.clone(), good.url()], "", "ejection = false"));
    let (mut again, mut post) = waiting(&tinylb, &bad, 4);
    // Its connections stay.
    drop(bad);
    assert!(std::net::TcpStream::connect(address).is_err(), "nobody listens");
    assert_eq!(tinylb.get("/find-out").text(), "good");
    assert_eq!(tinylb.state(&url), "unreachable");
    for client in &mut again {
        assert_eq!(client.response().text(), "good");
    }
    tinylb.assert_tries("/put", 2, Some("endpoint_down"));
    gate.open();
    assert_eq!(post.response().text(), "at last");
}

#[test]
fn where_there_is_no_other_all_of_them_wait() {
    let gate = Gate::new();
    let (dead, bad) = (Refusing::new(), Backend::new(stalling(&gate)));
    let (url, urls) = (bad.url(), [dead.url(), bad.url()]);
    let tinylb = Tinylb::run(&ranked(&urls, "", ""));
    let (mut again, mut post) = waiting(&tinylb, &bad, 2);
    drop(bad);
    tinylb.get("/find-out").assert_fault(502, "connection_refused");
    assert_eq!(tinylb.state(&url), "unreachable");
    gate.open();
    for client in again.iter_mut().chain([&mut post]) {
        assert_eq!(client.response().text(), "at last");
    }
    assert_eq!(tinylb.told("/get-1")["attempts"], 1);
}

/// More at once than the budget has room for: they take turns.
#[test]
fn many_that_leave_at_once_share_the_budget() {
    let gate = Gate::new();
    let (bad, good) = (Backend::new(stalling(&gate)), Backend::named("good"));
    let upstream = "retry = { budget = 0.0 }\nejection = { failures = 1, time = \"10m\" }";
    let tinylb = Tinylb::run(&ranked(&[bad.url(), good.url()], "", upstream));
    let (mut again, mut post) = waiting(&tinylb, &bad, 40);
    assert_eq!(tinylb.get("/fail").text(), "good");
    for client in &mut again {
        assert_eq!(client.response().text(), "good");
    }
    assert_eq!(tinylb.metric("tinylb_retries_over_budget_total", &[]), 0.0);
    gate.open();
    assert_eq!(post.response().text(), "at last");
}
