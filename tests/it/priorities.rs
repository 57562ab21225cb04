//! Endpoints that are used only when others are gone or full.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::support::{Backend, Client, Held, Refusing, Tinylb, config_of, eventually, ok};

/// Endpoints as the file has them: URLs with further keys.
fn endpoints(all: &[(String, &str)]) -> String {
    let table = |(url, keys): &(String, &str)| format!("{{ url = {url:?}, {keys} }}");
    format!("[{}]", all.iter().map(table).collect::<Vec<_>>().join(", "))
}

const POLICIES: [&str; 7] = [
    "p2c",
    "least-requests",
    "round-robin",
    "random",
    "peak-ewma",
    "least-time",
    "consistent-hash",
];

/// Who answers `n` requests, one after the other over some connections.
fn answers(tinylb: &Tinylb, n: usize) -> Vec<String> {
    let mut clients: Vec<_> = (0..4).map(|_| tinylb.connect()).collect();
    (0..n).map(|i| clients[i % 4].get("/").text()).collect()
}

fn ask(tinylb: &Tinylb, path: &str) -> Client {
    let mut client = tinylb.connect();
    client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
    client
}

#[test]
fn a_backup_gets_nothing_while_others_are_well() {
    for policy in POLICIES {
        let backends = ["a", "b", "backup"].map(Backend::named);
        let list = endpoints(&[
            (backends[0].url(), "priority = 0"),
            (backends[1].url(), "weight = 1"),
            (backends[2].url(), "backup = true"),
        ]);
        let tinylb = Tinylb::run(&config_of(&list, "", &format!("policy = {policy:?}")));
        answers(&tinylb, 100);
        assert_eq!(backends[2].connections(), 0, "{policy}");
    }
}

#[test]
fn the_next_priority_takes_over_where_all_of_one_are_gone_and_gives_back() {
    for policy in POLICIES {
        let gone = [Refusing::new(), Refusing::new()];
        let urls = [gone[0].url(), gone[1].url()];
        let second = Backend::named("second");
        let backup = Backend::named("backup");
        let list = endpoints(&[
            (backup.url(), "backup = true"),
            (urls[0].clone(), "priority = 0"),
            (urls[1].clone(), "priority = 0"),
            (second.url(), "priority = 7"),
        ]);
        let tinylb = Tinylb::run(&config_of(&list, "", &format!("policy = {policy:?}")));
        for answer in answers(&tinylb, 30) {
            assert_eq!(answer, "second", "{policy}");
        }
        let [one, _other] = gone;
        let _back = one.revive(|mut conn| conn.answer_all(ok("first")));
        eventually("the first priority has the requests", || {
            let answer = tinylb.get("/").text();
            assert!(["first", "second"].contains(&answer.as_str()), "{policy}: {answer}");
            (answer == "first").then_some(())
        });
        // One that was on its way as it came back may still have been answered elsewhere.
        let all = answers(&tinylb, 30);
        assert!(all.iter().all(|answer| answer == "first"), "{policy}: {all:?}");
        assert_eq!(backup.connections(), 0, "{policy}");
    }
}

/// Also those that answer badly are gone.
#[test]
fn the_next_priority_takes_over_where_one_is_ejected() {
    let is_well = Arc::new(AtomicBool::new(true));
    let well = Arc::clone(&is_well);
    let first = Backend::new(move |mut conn| {
        while conn.request().is_some() {
            match well.load(Relaxed) {
                true => conn.send(ok("first")),
                false => conn.send("HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n"),
            };
        }
    });
    let backup = Backend::named("backup");
    let list = endpoints(&[(first.url(), "weight = 1"), (backup.url(), "backup = true")]);
    let upstream = "ejection = { failures = 3, status = [\"500\"], time = \"2s\" }";
    let tinylb = Tinylb::run(&config_of(&list, "", upstream));
    assert!(answers(&tinylb, 10).iter().all(|answer| answer == "first"));
    // Each is counted when its answer is over, for us.
    let counted = || tinylb.metric("tinylb_requests_total", &["200"]) >= 10.0;
    eventually("all are counted", || counted().then_some(()));
    is_well.store(false, Relaxed);
    let statuses: Vec<_> = (0..8).map(|_| tinylb.get("/").status).collect();
    // The last 200 may be counted only after the first 500.
    let failed = statuses.iter().take_while(|status| **status == 500).count();
    assert!((3..=4).contains(&failed), "{statuses:?}");
    assert!(statuses[failed..].iter().all(|status| *status == 200), "{statuses:?}");
    is_well.store(true, Relaxed);
    eventually("it is let in again", || (tinylb.get("/").text() == "first").then_some(()));
    assert!(answers(&tinylb, 10).iter().all(|answer| answer == "first"));
}

#[test]
fn the_next_priority_takes_what_the_first_has_no_room_for() {
    for policy in POLICIES {
        let (first, backup) = (Held::new("first"), Held::new("backup"));
        let list = endpoints(&[
            (first.url(), "max_requests = 2"),
            (backup.url(), "backup = true, max_requests = 1"),
        ]);
        let upstream = format!("policy = {policy:?}\nqueue = {{ timeout = \"1m\" }}");
        let tinylb = Tinylb::run(&config_of(&list, "", &upstream));
        let mut clients = Vec::new();
        for i in 0..3 {
            clients.push(ask(&tinylb, &format!("/{i}")));
            first.wait_for(2.min(i + 1));
            backup.wait_for(i.saturating_sub(1));
        }
        assert_eq!(backup.holds(), ["/2"], "{policy}");
        // The next one waits, and goes where room is first.
        clients.push(ask(&tinylb, "/3"));
        eventually("it waits", || {
            (tinylb.metric("tinylb_upstream_queue_length", &[]) == 1.0).then_some(())
        });
        first.answer("/0");
        eventually("it goes to the first", || {
            first.holds().contains(&"/3".to_owned()).then_some(())
        });
        first.open();
        backup.open();
        let answers: Vec<_> = clients.iter_mut().map(|client| client.response().text()).collect();
        assert_eq!(answers, ["first", "first", "backup", "first"], "{policy}");
        for _ in 0..10 {
            assert_eq!(tinylb.get("/").text(), "first", "{policy}");
        }
    }
}

/// The same number as `priority = 255`.
#[test]
fn a_backup_is_the_last_of_all() {
    let gone = Refusing::new();
    let (last, backup) = (Backend::named("254"), Backend::named("backup"));
    let also = Backend::named("255");
    let list = endpoints(&[
        (backup.url(), "backup = true"),
        (also.url(), "priority = 255"),
        (gone.url(), "priority = 0"),
        (last.url(), "priority = 254"),
    ]);
    let tinylb = Tinylb::run(&config_of(&list, "", "policy = \"round-robin\""));
    assert!(answers(&tinylb, 20).iter().all(|answer| answer == "254"));
    let drained = list.replace("priority = 254", "priority = 254, drain = true");
    tinylb.rewrite(&config_of(&drained, "", "policy = \"round-robin\""));
    tinylb.signal(crate::support::Signal::HUP);
    tinylb.wait_for_log("reloaded");
    eventually("the last two share the rest", || {
        let all = answers(&tinylb, 10);
        let count = |name: &str| all.iter().filter(|answer| *answer == name).count();
        (count("backup") == 5 && count("255") == 5).then_some(())
    });
}

/// A retry goes to the next priority once those of the first have been tried.
#[test]
fn a_retry_goes_to_the_next_priority() {
    let dying = [0; 2].map(|_| Backend::new(|mut conn| drop(conn.request())));
    let backup = Backend::named("backup");
    let list = endpoints(&[
        (dying[0].url(), "weight = 1"),
        (dying[1].url(), "weight = 1"),
        (backup.url(), "backup = true"),
    ]);
    let tinylb = Tinylb::run(&config_of(&list, "", "ejection = false"));
    let response = tinylb.get("/");
    assert_eq!(response.text(), "backup", "{:?}", response.head.raw);
    assert_eq!(dying.map(|backend| backend.requests().len()), [1, 1], "each once before");
}
