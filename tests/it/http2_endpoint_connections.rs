//! Connections in HTTP/2 to endpoints: how many there are, who shares them, and when they end.

use std::thread;
use std::time::{Duration, Instant};

use crate::support::{Client, Http2Backend, Response, Tinylb, assert_within, config, eventually};

/// Connections that one worker has to an endpoint at most.
const MOST: usize = 4;

/// Idle connections stay for longer than any test.
const KEPT: &str = "timeouts = { idle = \"5m\", connect = \"20s\" }";

/// One worker, so that it is known who has which connection.
fn alone(endpoints: &[String], upstream: &str) -> Tinylb {
    Tinylb::run(&config(endpoints, "", upstream).replace("workers = 2", "workers = 1"))
}

/// Asks for the paths `/0` to `/n`, each on a connection of its own, all at once.
fn burst(tinylb: &Tinylb, n: usize) -> Vec<thread::JoinHandle<Response>> {
    let mut clients: Vec<_> = (0..n).map(|_| tinylb.connect()).collect();
    let ask = |(n, mut client): (usize, Client)| {
        client.send(format!("GET /{n} HTTP/1.1\r\nHost: test\r\n\r\n"));
        thread::spawn(move || client.response())
    };
    clients.drain(..).enumerate().map(ask).collect()
}

#[track_caller]
fn all_are_served(asked: Vec<thread::JoinHandle<Response>>) {
    for response in asked {
        let response = response.join().unwrap();
        assert_eq!(response.status, 200, "{:?} {:?}", response.head.raw, response.text());
    }
}

#[test]
fn a_burst_shares_one_connection_for_each_worker() {
    let backend = Http2Backend::held();
    let tinylb = Tinylb::run(&config(&[backend.url()], "", KEPT));
    let asked = burst(&tinylb, 100);
    let streams = backend.next_of(100);
    assert_eq!(backend.connections(), 2, "one for each worker");
    streams.into_iter().for_each(|asked| asked.ok("shared"));
    all_are_served(asked);
    assert_eq!(tinylb.metric("tinylb_endpoint_connections_total", &[]), 2.0);
    assert_eq!(tinylb.metric("tinylb_endpoint_connection_reuses_total", &[]), 98.0);
}

#[test]
fn no_more_streams_are_open_than_an_endpoint_takes_and_the_others_wait_their_turn() {
    let backend = Http2Backend::held_with(|builder| {
        builder.max_concurrent_streams(2);
    });
    let tinylb = alone(&[backend.url()], KEPT);
    let asked = burst(&tinylb, 20);
    let mut open = backend.next_of(2 * MOST);
    for connection in 0..MOST {
        let streams = open.iter().filter(|asked| asked.connection == connection).count();
        assert_eq!(streams, 2, "streams are spread");
    }
    for left in (0..20 - 2 * MOST).rev() {
        assert!(backend.is_quiet(), "nobody comes who has to wait");
        let ended = open.remove(0);
        let connection = ended.connection;
        ended.ok("two at a time");
        let next = backend.next();
        assert_eq!(next.connection, connection, "with {left} left");
        open.push(next);
    }
    open.into_iter().for_each(|asked| asked.ok("two at a time"));
    all_are_served(asked);
    assert_eq!((backend.connections(), backend.requests()), (MOST, 20));
}

#[test]
fn who_waits_for_a_stream_in_vain_is_told_so_and_no_endpoint_is_to_blame() {
    let backend = Http2Backend::held_with(|builder| {
        builder.max_concurrent_streams(1);
    });
    let tinylb = alone(&[backend.url()], "timeouts = { connect = \"2s\" }");
    let asked = burst(&tinylb, MOST);
    let streams = backend.next_of(MOST);
    for late in burst(&tinylb, 6) {
        late.join().unwrap().assert_fault(503, "connection_limit_reached");
    }
    streams.into_iter().for_each(|asked| asked.ok("slow"));
    all_are_served(asked);
    let one_more = burst(&tinylb, 1);
    backend.next().ok("not ejected");
    all_are_served(one_more);
    assert!(tinylb.admin("/endpoints").text().contains("\"state\": \"up\""));
}

#[test]
fn connections_without_streams_end_after_their_time() {
    let backend = Http2Backend::answering("brief");
    let tinylb = alone(&[backend.url()], "timeouts = { idle = \"3s\" }");
    let mut client = tinylb.connect();
    for _ in 0..3 {
        client.get("/");
    }
    assert_eq!((backend.connections(), backend.open()), (1, 1));
    eventually("the idle connection ends", || (backend.open() == 0).then_some(()));
    assert_eq!(client.get("/").status, 200);
    assert_eq!(backend.connections(), 2);
}

#[test]
fn a_connection_with_a_stream_is_not_idle() {
    let backend = Http2Backend::held();
    let tinylb = alone(&[backend.url()], "timeouts = { idle = \"300ms\" }");
    let asked = burst(&tinylb, 1);
    let stream = backend.next();
    thread::sleep(Duration::from_millis(1200));
    stream.ok("late");
    all_are_served(asked);
    assert_eq!(backend.connections(), 1);
}

#[test]
fn an_endpoint_that_is_no_more_in_the_file_keeps_its_streams_until_they_end() {
    let (old, new) = (Http2Backend::held(), Http2Backend::answering("new"));
    let tinylb = alone(&[old.url()], KEPT);
    let asked = burst(&tinylb, 1);
    let stream = old.next();
    tinylb.rewrite(&config(&[new.url()], "", KEPT).replace("workers = 2", "workers = 1"));
    tinylb.signal(crate::support::Signal::HUP);
    tinylb.wait_for_log("reloaded");
    assert_eq!(tinylb.get("/").text(), "new");
    assert_eq!(old.open(), 1, "a stream is still under way");
    stream.ok("old");
    assert_eq!(asked.into_iter().next().unwrap().join().unwrap().text(), "old");
    eventually("its connection ends with it", || (old.open() == 0).then_some(()));
}

#[test]
fn limits_of_connections_limit_no_requests_and_are_kept() {
    for (limits, most) in [("endpoint_connections = 3", 3), ("connections = 2", 2)] {
        let backend = Http2Backend::with(
            |builder| {
                builder.max_concurrent_streams(10);
            },
            async |asked| {
                tokio::time::sleep(Duration::from_millis(100)).await;
                asked.ok("many");
            },
        );
        let upstream = format!("limits = {{ {limits} }}\n{KEPT}");
        let tinylb = Tinylb::run(&config(&[backend.url()], "", &upstream));
        all_are_served(burst(&tinylb, 60));
        assert!(backend.most_open() <= most, "{limits}: {}", backend.most_open());
        assert_eq!(tinylb.metric("tinylb_queued_requests_total", &[]), 0.0, "{limits}");
    }
}

#[test]
fn limits_of_requests_hold_for_streams() {
    let backend = Http2Backend::held();
    let upstream = format!("limits = {{ endpoint_requests = 5 }}\n{KEPT}");
    let tinylb = Tinylb::run(&config(&[backend.url()], "", &upstream));
    let asked = burst(&tinylb, 12);
    let mut open = backend.next_of(5);
    for _ in 0..7 {
        assert!(backend.is_quiet());
        open.remove(0).ok("in turn");
        open.push(backend.next());
    }
    open.into_iter().for_each(|asked| asked.ok("in turn"));
    all_are_served(asked);
}

/// With a place for one connection only one worker can have it; both are served all the same.
#[test]
fn the_only_place_changes_hands_between_workers() {
    for limits in ["endpoint_connections = 1", "connections = 1"] {
        let backend = Http2Backend::answering("fine");
        let upstream = format!("limits = {{ {limits} }}\n{KEPT}");
        let tinylb = Tinylb::run(&config(&[backend.url()], "", &upstream));
        let mut clients = [tinylb.connect(), tinylb.connect()];
        eventually("each worker has one of them", || {
            let counts = tinylb.samples("tinylb_worker_connections");
            counts.iter().all(|(_, n)| *n == 1.0).then_some(())
        });
        for turn in 0..10 {
            for client in &mut clients {
                let response = client.get("/");
                assert_eq!(response.status, 200, "turn {turn}: {:?}", response.head.raw);
            }
        }
        assert_eq!(backend.most_open(), 1, "{limits}");
    }
}

/// What waits is woken where it is, not after the time of some look.
#[test]
fn a_stream_that_ends_is_had_at_once_by_who_waits() {
    let took_by = |most_streams| {
        let backend = Http2Backend::with(
            move |builder| {
                builder.max_concurrent_streams(most_streams);
            },
            async |asked| {
                tokio::time::sleep(Duration::from_millis(2)).await;
                asked.ok("soon");
            },
        );
        let tinylb = alone(&[backend.url()], KEPT);
        let start = Instant::now();
        all_are_served(burst(&tinylb, 200));
        start.elapsed()
    };
    // Where nobody has to wait, on this machine and beside whatever else it does.
    let at_once = took_by(200);
    // A look every 50 ms would take 2.5 s longer.
    assert_within(4 * at_once + Duration::from_millis(1500), || took_by(1));
}
