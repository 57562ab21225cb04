//! Active checks: what they ask, what they decide, and whom they spare.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use serde_json::Value;

use crate::support::{Backend, PATIENCE, Refusing, Tinylb, config, eventually, ok};

/// A backend that answers `/check` as `is_well` has it, and everything else with `name`.
fn checked(name: &'static str, is_well: &Arc<AtomicBool>) -> Backend {
    let is_well = Arc::clone(is_well);
    Backend::new(move |mut conn| {
        while let Some(request) = conn.request() {
            let answer = match request.target() {
                "/check" if is_well.load(Ordering::Acquire) => ok("well"),
                "/check" => "HTTP/1.1 503 Ill\r\nContent-Length: 0\r\n\r\n".into(),
                _ => ok(name),
            };
            conn.send(answer);
        }
    })
}

fn run(endpoints: &[String], health: &str, upstream: &str) -> Tinylb {
    let health = format!("health = {{ {health} }}\n{upstream}");
    Tinylb::run(&config(endpoints, "", &health))
}

const OFTEN: &str = "path = \"/check\", interval = \"20ms\", timeout = \"10s\", rise = 2, fall = 2";

/// The admin address's word for the state of the endpoint at `url`.
fn state(tinylb: &Tinylb, url: &str) -> String {
    let endpoints: Value = serde_json::from_str(&tinylb.admin("/endpoints").text()).unwrap();
    let all = endpoints["upstreams"][0]["endpoints"].as_array().unwrap();
    let one = all.iter().find(|endpoint| endpoint["endpoint"] == url).unwrap();
    one["state"].as_str().unwrap().to_owned()
}

fn wait_for_state(tinylb: &Tinylb, url: &str, wanted: &str) {
    eventually(wanted, || (state(tinylb, url) == wanted).then_some(()));
}

#[test]
fn one_that_fails_its_checks_gets_nothing_until_it_passes_them() {
    let (well, ill) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(true)));
    let (one, two) = (checked("one", &well), checked("two", &ill));
    let tinylb = run(&[one.url(), two.url()], OFTEN, "policy = \"round-robin\"");
    let names = || (0..10).map(|_| tinylb.get("/").text()).collect::<Vec<_>>();
    assert!(names().contains(&"two".to_owned()));
    ill.store(false, Ordering::Release);
    wait_for_state(&tinylb, &two.url(), "down");
    assert!(names().iter().all(|name| name == "one"));
    let line = tinylb.wait_for_log("down: status 503");
    assert!(line.contains(&two.url()), "{line}");
    assert_eq!(tinylb.metric("tinylb_endpoint_up", &[&two.url()]), 0.0);
    eventually("failed checks are counted", || {
        let failed = tinylb.metric("tinylb_health_checks_total", &[&two.url(), "failed"]);
        (failed >= 2.0).then_some(())
    });
    ill.store(true, Ordering::Release);
    wait_for_state(&tinylb, &two.url(), "up");
    assert!(names().contains(&"two".to_owned()));
    tinylb.wait_for_log("up: the check passed");
}

#[test]
fn the_first_check_comes_before_the_first_request() {
    let well = Arc::new(AtomicBool::new(true));
    let (one, two) = (checked("one", &well), checked("two", &well));
    let tinylb = run(&[one.url()], OFTEN, "");
    for _ in 0..20 {
        assert_eq!(tinylb.get("/").status, 200);
    }
    assert_eq!(one.requests()[0].target(), "/check");
    let health = format!("health = {{ {OFTEN} }}");
    tinylb.rewrite(&config(&[one.url(), two.url()], "", &health));
    tinylb.signal(crate::support::Signal::HUP);
    eventually("the new endpoint is used", || (tinylb.get("/").text() == "two").then_some(()));
    assert_eq!(two.requests()[0].target(), "/check");
}

#[test]
fn an_endpoint_that_does_not_answer_its_check_holds_the_start_for_a_second_and_gets_nothing() {
    let well = Arc::new(AtomicBool::new(true));
    let one = checked("one", &well);
    let silent = Backend::new(|mut conn| _ = conn.drain());
    let slow = "path = \"/check\", interval = \"60s\", timeout = \"60s\"";
    let began = Instant::now();
    let tinylb = run(&[one.url(), silent.url()], slow, "");
    assert!(began.elapsed() < PATIENCE, "about a second");
    assert_eq!(state(&tinylb, &silent.url()), "unknown");
    tinylb.wait_for_log("not checked yet");
    for _ in 0..20 {
        assert_eq!(tinylb.get("/").text(), "one");
    }
    assert_eq!(tinylb.metric("tinylb_upstream_panic", &[]), 0.0);
}

#[test]
fn unknown_ones_alone_are_a_503_and_no_panic() {
    let silent = Backend::new(|mut conn| _ = conn.drain());
    let tinylb = run(&[silent.url()], "interval = \"60s\", timeout = \"60s\"", "");
    tinylb.get("/").assert_fault(503, "destination_unavailable");
    assert_eq!(tinylb.metric("tinylb_upstream_panic", &[]), 0.0);
    assert_eq!(silent.connections(), 1, "the check alone");
}

#[test]
fn all_down_is_panic_and_all_are_tried() {
    let ill = Arc::new(AtomicBool::new(false));
    let (one, two) = (checked("one", &ill), checked("two", &ill));
    let tinylb = run(&[one.url(), two.url()], OFTEN, "");
    wait_for_state(&tinylb, &one.url(), "down");
    wait_for_state(&tinylb, &two.url(), "down");
    assert_eq!(tinylb.get("/").status, 200, "better than nothing");
    assert_eq!(tinylb.metric("tinylb_upstream_panic", &[]), 1.0);
    tinylb.wait_for_log("panic: no endpoint is healthy");
    ill.store(true, Ordering::Release);
    tinylb.wait_for_log("panic is over");
    assert_eq!(tinylb.metric("tinylb_upstream_panic", &[]), 0.0);
}

/// Requests that wait for an endpoint's answer are asked elsewhere as soon as it is found down.
#[test]
fn requests_that_wait_on_an_endpoint_that_goes_down_are_answered_by_another() {
    let (ill, well) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(true)));
    let stuck = {
        let ill = Arc::clone(&ill);
        Backend::new(move |mut conn| {
            while let Some(request) = conn.request() {
                match request.target() {
                    "/check" if ill.load(Ordering::Acquire) => drop(conn.send(ok("well"))),
                    "/check" => drop(conn.send("HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n")),
                    _ => _ = conn.drain(),
                }
            }
        })
    };
    let other = checked("other", &well);
    let tinylb = run(&[stuck.url(), other.url()], OFTEN, "policy = \"round-robin\"");
    let mut clients: Vec<_> = (0..6).map(|_| tinylb.connect()).collect();
    for client in &mut clients {
        client.send("GET /waits HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    eventually("some wait for the one that is stuck", || {
        let waiting = stuck.requests().iter().filter(|r| r.target() == "/waits").count();
        (waiting == 3).then_some(())
    });
    ill.store(false, Ordering::Release);
    for client in &mut clients {
        assert_eq!(client.response().text(), "other");
    }
    assert_eq!(tinylb.metric("tinylb_retries_total", &["endpoint_down"]), 3.0);
}

#[test]
fn a_check_asks_what_it_is_told_to_and_looks_into_the_body() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let backend = Backend::new(move |mut conn| {
        while let Some(request) = conn.request() {
            if request.target() == "/deep?full=1" {
                counter.fetch_add(1, Ordering::AcqRel);
                assert_eq!(request.head.get("host"), Some("inside.test"));
                assert_eq!(request.head.get("x-check"), Some("1"));
                let agent = request.head.get("user-agent").unwrap_or_default();
                assert!(agent.starts_with("tinylb"), "{agent}");
                conn.send(ok("state: green"));
            } else {
                conn.send(ok("fine"));
            }
        }
    });
    let health = "path = \"/deep?full=1\", host = \"inside.test\", headers = { X-Check = \"1\" }, \
                  interval = \"20ms\", timeout = \"5s\", body_matches = \"^state: (green|yellow)$\"";
    let tinylb = run(&[backend.url()], health, "");
    eventually("it is asked again", || (asked.load(Ordering::Acquire) > 2).then_some(()));
    assert_eq!(state(&tinylb, &backend.url()), "up");
}

#[test]
fn a_port_of_its_own_and_a_connection_alone() {
    let (backend, port) = (Backend::named("fine"), Refusing::new());
    let health = format!(
        "type = \"tcp\", interval = \"20ms\", timeout = \"5s\", rise = 1, port = {}",
        port.address().port()
    );
    let tinylb = run(&[backend.url()], &health, "panic = false");
    assert_eq!(state(&tinylb, &backend.url()), "down");
    tinylb.get("/").assert_fault(503, "destination_unavailable");
    let _alive = port.revive(|mut conn| _ = conn.drain());
    wait_for_state(&tinylb, &backend.url(), "up");
    assert_eq!(tinylb.get("/").text(), "fine");
}
