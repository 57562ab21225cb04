//! How many requests may be sent again at once.

use crate::support::{Backend, Client, Conn, Gate, Tinylb, eventually, ok, ranked};

/// Answers all it is asked once `gate` is open.
fn waiting_for(gate: &Gate) -> impl Fn(Conn) + Send + Sync + 'static {
    let gate = gate.clone();
    move |mut conn| {
        while conn.request().is_some() {
            gate.pass();
            if !conn.send(ok("at last")) {
                return;
            }
        }
    }
}

/// So many clients that have each asked once.
fn asking(tinylb: &Tinylb, count: usize) -> Vec<Client> {
    let ask = |number| {
        let mut client = tinylb.connect();
        client.send(format!("GET /{number} HTTP/1.1\r\nHost: a\r\n\r\n"));
        client
    };
    (0..count).map(ask).collect()
}

fn balancing(failing: &Backend, slow: &Backend, budget: &str) -> Tinylb {
    let upstream = format!("ejection = false\nretry = {{ budget = {budget} }}");
    Tinylb::run(&ranked(&[failing.url(), slow.url()], "", &upstream))
}

#[test]
fn who_finds_no_room_in_the_budget_gets_the_failure() {
    let gate = Gate::new();
    let (failing, slow) = (Backend::resetting(), Backend::new(waiting_for(&gate)));
    let tinylb = balancing(&failing, &slow, "0.0");
    let first = asking(&tinylb, 3);
    slow.wait_for_requests(3);
    assert_eq!(tinylb.metric("tinylb_upstream_retries_running", &[]), 3.0);
    for mut client in asking(&tinylb, 17) {
        client.response().assert_fault(502, "connection_terminated");
    }
    assert_eq!(tinylb.metric("tinylb_retries_over_budget_total", &[]), 17.0);
    assert_eq!((failing.requests().len(), slow.requests().len()), (20, 3));
    gate.open();
    for mut client in first {
        assert_eq!(client.response().text(), "at last");
    }
    eventually("the places are given back", || {
        (tinylb.metric("tinylb_upstream_retries_running", &[]) == 0.0).then_some(())
    });
    assert_eq!(tinylb.get("/later").text(), "at last");
    assert_eq!(tinylb.metric("tinylb_retries_over_budget_total", &[]), 17.0);
}

#[test]
fn who_finds_no_room_waits_for_it_a_while() {
    let gate = Gate::new();
    let (failing, slow) = (Backend::resetting(), Backend::new(waiting_for(&gate)));
    let tinylb = balancing(&failing, &slow, "0.0");
    let mut clients = asking(&tinylb, 3);
    slow.wait_for_requests(3);
    clients.extend(asking(&tinylb, 1));
    failing.wait_for_requests(4);
    gate.open();
    for mut client in clients {
        assert_eq!(client.response().text(), "at last");
    }
    assert_eq!(tinylb.metric("tinylb_retries_over_budget_total", &[]), 0.0);
}

#[test]
fn a_share_of_what_is_active_may_be_sent_again() {
    let (held, gate) = (Gate::new(), Gate::new());
    let failing = Backend::new({
        let held = held.clone();
        move |mut conn| {
            if conn.request().is_some() {
                held.pass();
                conn.reset();
            }
        }
    });
    let slow = Backend::new(waiting_for(&gate));
    let tinylb = balancing(&failing, &slow, "1.0");
    // All are active when the first fails.
    let clients = asking(&tinylb, 20);
    failing.wait_for_requests(20);
    held.open();
    // A few wait until others are active again.
    slow.wait_for_requests(10);
    gate.open();
    for mut client in clients {
        assert_eq!(client.response().text(), "at last");
    }
    assert_eq!(tinylb.metric("tinylb_retries_over_budget_total", &[]), 0.0);
}

/// An answer that would be asked for again is passed on where there is no room for that.
#[test]
fn a_status_is_passed_on_where_there_is_no_room() {
    let gate = Gate::new();
    let busy = Backend::answering("HTTP/1.1 503 Sorry\r\nContent-Length: 4\r\n\r\nbusy");
    let slow = Backend::new(waiting_for(&gate));
    let upstream = "retry = { on = [503], budget = 0.0 }";
    let tinylb = Tinylb::run(&ranked(&[busy.url(), slow.url()], "", upstream));
    let first = asking(&tinylb, 3);
    slow.wait_for_requests(3);
    let response = tinylb.get("/busy");
    assert_eq!((response.status, response.text().as_str()), (503, "busy"));
    tinylb.assert_tries("/busy", 1, None);
    gate.open();
    for mut client in first {
        assert_eq!(client.response().text(), "at last");
    }
}
