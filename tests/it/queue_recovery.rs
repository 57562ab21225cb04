//! Where limits are reached and things go wrong: no place is lost, and room is used as soon as it is
//! there.

use std::time::Duration;

use fastrand::Rng;

use crate::support::{
    Backend, Client, Held, Refusing, Signal, Tinylb, assert_within, config, eventually, load, ok,
};

#[track_caller]
fn wait_for_queue(tinylb: &Tinylb, length: usize) {
    eventually(&format!("{length} wait"), || {
        let waiting = tinylb.metric("tinylb_upstream_queue_length", &[]);
        (waiting == length as f64).then_some(())
    });
}

#[track_caller]
fn wait_for_state(tinylb: &Tinylb, url: &str, state: &str) {
    let state_of = [format!("endpoint=\"{url}\""), format!("state=\"{state}\"")];
    eventually(&format!("{url} is {state}"), || {
        let value = tinylb.metric("tinylb_endpoint_state", &[&state_of[0], &state_of[1]]);
        (value == 1.0).then_some(())
    });
}

/// Sends a request without waiting for its answer.
fn ask(tinylb: &Tinylb, path: &str) -> Client {
    let mut client = tinylb.connect();
    client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
    client
}

/// A client that does something worth being afraid of.
fn misbehave(tinylb: &Tinylb, rng: &mut Rng, path: &str) {
    let mut client = tinylb.connect();
    let get = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
    let post = format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n");
    match rng.u8(..6) {
        // Gone with its request in flight or in the queue, by a reset or not.
        0 => {
            client.send(get);
            client.reset();
        }
        1 => client.send(get),
        // Gone in the middle of the body, or of the answer.
        2 => {
            client.send(post);
            client.send("four");
            client.reset();
        }
        3 => {
            client.send(get);
            let _ = client.wire().head();
            client.reset();
        }
        // In time.
        4 => {
            client.send(format!("{get}{get}"));
            let _ = client.try_response_to("GET");
        }
        _ => {
            client.send(format!("{post}123456789"));
            let _ = client.try_response_to("POST");
        }
    }
}

/// A backend that answers well, late, badly, in part or not at all, as it draws.
fn moody(seed: u64) -> Backend {
    Backend::new(move |mut conn| {
        let mut rng = Rng::with_seed(seed.wrapping_add(conn.index as u64));
        while let Some(request) = conn.request() {
            let is_sane = request.target().starts_with("/sane");
            match if is_sane { 9 } else { rng.u8(..10) } {
                0 => return,
                1 => {
                    conn.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nfour");
                    return;
                }
                2 => drop(conn.send("NONSENSE\r\n\r\n")),
                3 => std::thread::sleep(Duration::from_millis(30)),
                _ => {}
            }
            conn.send(ok("fine"));
        }
    })
}

#[test]
fn no_place_is_lost_whatever_happens() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let backends = [moody(seed), moody(seed ^ 1)];
    let urls = [backends[0].url(), backends[1].url()];
    let limits = "limits = { requests = 5, endpoint_requests = 3, endpoint_connections = 4 }\n";
    let short = "queue = { size = 6, timeout = \"100ms\" }\n\
        ejection = { time = \"20ms\", max_time = \"20ms\" }\n\
        retry = { on = [\"503\"], timeout = \"20ms\" }\ntimeouts = { response = \"1s\" }";
    let tinylb = Tinylb::run(&config(&urls, "", &format!("{limits}{short}")));
    std::thread::scope(|scope| {
        for client in 0..20 {
            let tinylb = &tinylb;
            scope.spawn(move || {
                let mut rng = Rng::with_seed(seed.wrapping_add(client));
                for round in 0..60 {
                    misbehave(tinylb, &mut rng, &format!("/{client}/{round}"));
                }
            });
        }
    });
    eventually("nothing is in flight", || {
        let in_flight = tinylb.metric("tinylb_endpoint_requests_in_flight", &[]);
        let waiting = tinylb.metric("tinylb_upstream_queue_length", &[]);
        let retries = tinylb.metric("tinylb_upstream_retries_running", &[]);
        (in_flight + waiting + retries == 0.0).then_some(())
    });
    assert!(tinylb.metric("tinylb_queued_requests_total", &[]) > 0.0);
    assert!(tinylb.metric("tinylb_queue_full_requests_total", &[]) > 0.0);
    for url in &urls {
        eventually("both are well again", || {
            let _ = tinylb.get("/sane");
            let up = [format!("endpoint=\"{url}\""), "state=\"up\"".to_owned()];
            let value = tinylb.metric("tinylb_endpoint_state", &[&up[0], &up[1]]);
            (value == 1.0).then_some(())
        });
    }
    // As many as five have room, and nobody is refused, where nobody is in a hurry.
    let long = "queue = { size = 6, timeout = \"1m\" }\nejection = false";
    tinylb.rewrite(&config(&urls, "", &format!("{limits}{long}")));
    tinylb.signal(Signal::HUP);
    tinylb.wait_for_log("reloaded");
    std::thread::scope(|scope| {
        for _ in 0..5 {
            scope.spawn(|| {
                let mut client = tinylb.connect();
                for _ in 0..40 {
                    assert_eq!(client.get("/sane").status, 200);
                }
            });
        }
    });
}

/// The same with a backend that can be looked into: all places are there.
#[test]
fn after_many_aborts_the_whole_capacity_is_there() {
    let backend = Held::new("fine");
    let upstream = "limits = { requests = 4 }\nqueue = { size = 8, timeout = \"1m\" }";
    let tinylb = Tinylb::run(&config(&[backend.url()], "", upstream));
    for round in 0..25 {
        let clients: Vec<_> = (0..10).map(|i| ask(&tinylb, &format!("/{round}/{i}"))).collect();
        wait_for_queue(&tinylb, 6);
        clients.into_iter().for_each(Client::reset);
        wait_for_queue(&tinylb, 0);
        eventually("nothing is in flight", || {
            let in_flight = tinylb.metric("tinylb_endpoint_requests_in_flight", &[]);
            (in_flight == 0.0 && backend.holds().is_empty()).then_some(())
        });
    }
    let mut clients: Vec<_> = (0..12).map(|i| ask(&tinylb, &format!("/last/{i}"))).collect();
    backend.wait_for(4);
    wait_for_queue(&tinylb, 8);
    backend.open();
    for client in &mut clients {
        assert_eq!(client.response().text(), "fine");
    }
}

/// An endpoint that is back has room for all that wait at once, not for one after the other.
#[test]
fn who_waits_goes_to_an_endpoint_that_comes_back() {
    // One every 100 ms would take three seconds.
    assert_within(Duration::from_secs(1), until_all_are_there);
}

/// How long it takes until 29 that wait have gone to an endpoint that has come back.
fn until_all_are_there() -> Duration {
    let (here, gone) = (Held::new("here"), Refusing::new());
    let gone_url = gone.url();
    let upstream = "limits = { endpoint_requests = 30 }\nqueue = { timeout = \"1m\" }";
    let tinylb = Tinylb::run(&config(&[here.url(), gone_url.clone()], "", upstream));
    let mut clients: Vec<_> = (0..30).map(|i| ask(&tinylb, &format!("/{i}"))).collect();
    here.wait_for(30);
    wait_for_state(&tinylb, &gone_url, "unreachable");
    clients.extend((30..60).map(|i| ask(&tinylb, &format!("/{i}"))));
    wait_for_queue(&tinylb, 30);
    let back = Held::revived("back", gone);
    // The first one finds out whether it is well.
    let probe = eventually("one goes there", || back.holds().into_iter().next());
    back.answer(&probe);
    let start = std::time::Instant::now();
    eventually("all others go there at once", || (back.holds().len() == 29).then_some(()));
    let took = start.elapsed();
    here.open();
    back.open();
    for client in &mut clients {
        assert_eq!(client.response().status, 200);
    }
    took
}

/// A retry of what was sent nowhere waits for room as everything else.
#[test]
fn a_retry_waits_where_all_others_are_full() {
    let (full, gone) = (Held::new("full"), Refusing::new());
    let upstream = "policy = \"round-robin\"\nlimits = { endpoint_requests = 1 }\nqueue = { timeout = \"1m\" }";
    let tinylb = Tinylb::run(&config(&[full.url(), gone.url()], "", upstream));
    let mut first = ask(&tinylb, "/first");
    full.wait_for(1);
    let mut second = ask(&tinylb, "/second");
    wait_for_queue(&tinylb, 1);
    assert_eq!(tinylb.metric("tinylb_retries_total", &["reason=\"connect\""]), 1.0);
    full.answer("/first");
    full.answer("/second");
    assert_eq!(first.response().text(), "full");
    assert_eq!(second.response().text(), "full");
}

/// What was sent and failed is sent again to whoever has room, also where it has to wait for that.
#[test]
fn a_retry_of_what_was_sent_is_answered_under_limits() {
    let dying = Backend::new(|mut conn| drop(conn.request()));
    let well = Held::working("well", Duration::from_millis(2));
    let upstream = "limits = { endpoint_requests = 1 }\nqueue = { timeout = \"30s\" }\n\
        ejection = { failures = 3, time = \"1m\" }\nretry = { attempts = 10 }";
    let tinylb = Tinylb::run(&config(&[dying.url(), well.url()], "", upstream));
    load(&tinylb, 8, 10);
    assert!(!dying.requests().is_empty());
    assert_eq!(well.most(), 1);
    wait_for_queue(&tinylb, 0);
}
