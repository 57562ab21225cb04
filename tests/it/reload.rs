//! HUP reads the file again: checked whole, swapped whole, or nothing changes.

use std::sync::{Mutex, mpsc};

use crate::support::{Backend, PATIENCE, Signal, Tinylb, config, eventually, ok};

/// Rewrites the file, says so, and waits until requests go to the backend called `expected`.
#[track_caller]
fn reload(tinylb: &Tinylb, text: &str, expected: &str) {
    tinylb.rewrite(text);
    tinylb.signal(Signal::HUP);
    eventually("the new file is in force", || (tinylb.get("/").text() == expected).then_some(()));
}

#[test]
fn hup_swaps_the_routes() {
    let (old, new) = (Backend::named("old"), Backend::named("new"));
    let tinylb = Tinylb::run(&config(&[old.url()], "", ""));
    let mut kept = tinylb.connect();
    assert_eq!(kept.get("/").text(), "old");
    reload(&tinylb, &config(&[new.url()], "", ""), "new");
    assert_eq!(kept.get("/").text(), "new", "connections stay and follow");
    assert_eq!(tinylb.metric("tinylb_config_last_reload_success", &[]), 1.0);
    reload(&tinylb, &config(&[old.url()], "", ""), "old");
}

#[test]
fn what_is_in_flight_ends_where_it_began() {
    let (go, goes) = mpsc::channel::<()>();
    let (come, comes) = mpsc::channel();
    let goes = Mutex::new(goes);
    let old = Backend::new(move |mut conn| {
        while conn.request().is_some() {
            come.send(()).unwrap();
            goes.lock().unwrap().recv().unwrap();
            conn.send(ok("old"));
        }
    });
    let new = Backend::named("new");
    let tinylb = Tinylb::run(&config(&[old.url()], "", ""));
    let mut client = tinylb.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    comes.recv_timeout(PATIENCE).expect("the request arrives");
    tinylb.rewrite(&config(&[new.url()], "", ""));
    tinylb.signal(Signal::HUP);
    tinylb.wait_for_log("reloaded");
    go.send(()).unwrap();
    assert_eq!(client.response().text(), "old");
    assert_eq!(client.get("/").text(), "new");
}

#[test]
fn an_invalid_file_changes_nothing_and_says_why() {
    let (old, new) = (Backend::named("old"), Backend::named("new"));
    let tinylb = Tinylb::run(&config(&[old.url()], "", ""));
    for (mistake, why) in [
        ("polcy = \"random\"", "polcy"),
        ("policy = \"rundom\"", "rundom"),
        ("timeouts = { connect = \"fast\" }", "fast"),
        ("[[routes]]\nupstream = \"nowhere\"\npath = \"/x\"", "nowhere"),
        ("this is no TOML", "no TOML"),
        (
            "[[routes]]\nupstream = \"tls\"\npath = \"/x\"\n[upstreams.tls]\n\
             endpoints = [\"https://a.invalid\"]\ntls.ca = \"missing.pem\"",
            "| tls.ca = \"missing.pem\"",
        ),
    ] {
        tinylb.rewrite(&config(&[new.url()], "", mistake));
        tinylb.signal(Signal::HUP);
        tinylb.wait_for_log(why);
        for _ in 0..5 {
            assert_eq!(tinylb.get("/").text(), "old", "{mistake}");
        }
        eventually("the metric says so", || {
            let metrics = tinylb.admin("/metrics").text();
            metrics.contains("tinylb_config_last_reload_success 0").then_some(())
        });
    }
    reload(&tinylb, &config(&[new.url()], "", ""), "new");
}

#[test]
fn reloads_under_load_lose_nothing() {
    let backends = [Backend::named("fine"), Backend::named("fine")];
    let tinylb = Tinylb::run(&config(&[backends[0].url()], "", ""));
    let (stop, stops) = mpsc::channel::<()>();
    let stops = Mutex::new(stops);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut kept = tinylb.connect();
                while matches!(stops.lock().unwrap().try_recv(), Err(mpsc::TryRecvError::Empty)) {
                    assert_eq!(kept.get("/").text(), "fine");
                    assert_eq!(tinylb.get("/").text(), "fine");
                }
            });
        }
        for round in 1..=10 {
            let target = &backends[round % 2];
            let before = target.requests().len();
            tinylb.rewrite(&config(&[target.url()], "", ""));
            tinylb.signal(Signal::HUP);
            eventually("the load moves over", || {
                (target.requests().len() > before + 5).then_some(())
            });
        }
        drop(stop);
    });
}

/// A name that a reload brings in is resolved before it is needed.
#[test]
fn a_reload_to_a_name_loses_no_request() {
    let backend = Backend::named("fine");
    let url = backend.url();
    let by_name = url.replace("127.0.0.1", "localhost");
    let tinylb = Tinylb::run(&config(std::slice::from_ref(&url), "", ""));
    let mut client = tinylb.connect();
    for round in 1..=6 {
        let endpoint = if round % 2 == 1 { &by_name } else { &url };
        tinylb.rewrite(&config(std::slice::from_ref(endpoint), "", ""));
        tinylb.signal(Signal::HUP);
        eventually("the file is in force", || {
            assert_eq!(client.get("/").status, 200, "round {round}");
            let metrics = tinylb.admin("/metrics").text();
            // Behind the URL of a name stands the address in use.
            metrics
                .contains(&format!("tinylb_endpoint_up{{upstream=\"app\",endpoint=\"{endpoint}"))
                .then_some(())
        });
    }
}

/// What a reload does not put in force is named.
#[test]
fn changes_that_need_a_restart_are_named() {
    let backend = Backend::named("fine");
    let text = config(&[backend.url()], "", "");
    let tinylb = Tinylb::run(&text);
    let changed = text
        .replace("workers = 2", "workers = 3")
        .replace("[[listeners]]", "[[listeners]]\nmax_connections = 9");
    tinylb.rewrite(&changed);
    tinylb.signal(Signal::HUP);
    tinylb.wait_for_log("section=\"workers\"");
    tinylb.wait_for_log("section=\"[[listeners]]\"");
    tinylb.wait_for_log("reloaded");
}
