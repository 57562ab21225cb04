//! Endpoints that are new or have come back are eased in.

use std::time::{Duration, Instant};

use crate::support::{Backend, Refusing, Signal, Tinylb, config, eventually, ok};

/// How long the slow start of these tests takes.
const TIME: Duration = Duration::from_secs(3);

const EASED: &str = "policy = \"random\"\nslow_start = \"3s\"";

/// Who answered, how long after `start` it was asked.
type Answers = Vec<(Duration, String)>;

/// Asks from `start` on until a while after the slow start is over.
fn ask_on(tinylb: &Tinylb, start: Instant) -> Answers {
    let mut clients: Vec<_> = (0..4).map(|_| tinylb.connect()).collect();
    let mut answers = Answers::new();
    while start.elapsed() < TIME + Duration::from_secs(1) {
        let client = &mut clients[answers.len() % 4];
        let asked = start.elapsed();
        let response = client.get("/");
        assert_eq!(response.status, 200);
        answers.push((asked, response.text()));
        std::thread::sleep(Duration::from_micros(500));
    }
    answers
}

/// The share of those asked between two times that `name` answered; with enough of them to tell.
#[track_caller]
fn share(answers: &Answers, name: &str, from: Duration, to: Duration) -> f64 {
    let within: Vec<_> = answers.iter().filter(|(at, _)| (from..to).contains(at)).collect();
    assert!(within.len() >= 60, "only {} were asked from {from:?} to {to:?}", within.len());
    within.iter().filter(|(_, who)| who == name).count() as f64 / within.len() as f64
}

/// Of two, the new one begins with about a tenth of its share and has the whole in the end.
#[track_caller]
fn assert_eased_in(answers: &Answers, name: &str) {
    let begin = share(answers, name, Duration::ZERO, TIME / 6);
    let middle = share(answers, name, TIME * 2 / 5, TIME * 3 / 5);
    let end = share(answers, name, TIME + TIME / 30, TIME * 2);
    assert!(begin > 0.0 && begin < 0.25, "{begin} at first, {middle} in the middle, {end} then");
    assert!((0.12..0.46).contains(&middle), "{begin} at first, {middle} in the middle, {end} then");
    assert!((0.35..0.65).contains(&end), "{begin} at first, {middle} in the middle, {end} then");
}

fn state(tinylb: &Tinylb, url: &str) -> String {
    let json: serde_json::Value = serde_json::from_str(&tinylb.admin("/endpoints").text()).unwrap();
    let endpoints = json["upstreams"][0]["endpoints"].as_array().unwrap();
    let it = endpoints.iter().find(|e| e["endpoint"] == url).expect("it is listed");
    it["state"].as_str().unwrap().to_owned()
}

/// Waits until an answer comes from `name`.
#[track_caller]
fn wait_for(tinylb: &Tinylb, name: &str) -> Instant {
    eventually(&format!("{name} answers"), || (tinylb.get("/").text() == name).then(Instant::now))
}

#[test]
fn one_that_comes_back_is_eased_in() {
    let (here, gone) = (Backend::named("here"), Refusing::new());
    let gone_url = gone.url();
    let tinylb = Tinylb::run(&config(&[here.url(), gone_url.clone()], "", EASED));
    eventually("it is known to be gone", || {
        assert_eq!(tinylb.get("/").text(), "here");
        (state(&tinylb, &gone_url) == "unreachable").then_some(())
    });
    let _back = gone.revive(|mut conn| conn.answer_all(ok("back")));
    let start = wait_for(&tinylb, "back");
    assert_eq!(state(&tinylb, &gone_url), "warming");
    let answers = ask_on(&tinylb, start);
    assert_eased_in(&answers, "back");
    assert_eq!(state(&tinylb, &gone_url), "up");
}

#[test]
fn one_that_a_reload_brings_is_eased_in() {
    let (old, new) = (Backend::named("old"), Backend::named("new"));
    let tinylb = Tinylb::run(&config(&[old.url()], "", EASED));
    assert_eq!(tinylb.get("/").text(), "old");
    tinylb.rewrite(&config(&[old.url(), new.url()], "", EASED));
    tinylb.signal(Signal::HUP);
    tinylb.wait_for_log("reloaded");
    let answers = ask_on(&tinylb, Instant::now());
    assert_eased_in(&answers, "new");
}

#[test]
fn one_that_an_operator_takes_back_is_eased_in() {
    let (kept, drained) = (Backend::named("kept"), Backend::named("drained"));
    let tinylb = Tinylb::run(&config(&[kept.url(), drained.url()], "", EASED));
    let operate = |verb: &str| {
        let mut client = crate::support::Client::connect(tinylb.admin_address());
        let target = format!("/{verb}?upstream=app&endpoint={}", drained.url());
        client.send(format!("POST {target} HTTP/1.1\r\nHost: admin\r\n\r\n"));
        assert_eq!(client.response().status, 200);
    };
    operate("drain");
    assert_eq!(tinylb.get("/").text(), "kept");
    operate("undrain");
    assert_eased_in(&ask_on(&tinylb, Instant::now()), "drained");
}

/// At the start of the process all are as new, and share alike.
#[test]
fn at_the_start_nobody_is_eased_in() {
    let (a, b) = (Backend::named("a"), Backend::named("b"));
    let upstream = "policy = \"random\"\nslow_start = \"1h\"";
    let tinylb = Tinylb::run(&config(&[a.url(), b.url()], "", upstream));
    let mut client = tinylb.connect();
    let to_a = (0..400).filter(|_| client.get("/").text() == "a").count();
    assert!((120..280).contains(&to_a), "{to_a} of 400");
    assert_eq!((state(&tinylb, &a.url()), state(&tinylb, &b.url())), ("up".into(), "up".into()));
}

/// What is eased in may have everything if there is no other.
#[test]
fn the_only_one_left_has_everything_at_once() {
    let (first, gone) = (Backend::closing_after(ok("first")), Refusing::new());
    let upstream = "slow_start = \"1h\"";
    let tinylb = Tinylb::run(&config(&[first.url(), gone.url()], "", upstream));
    for _ in 0..10 {
        assert_eq!(tinylb.get("/").text(), "first");
    }
    let _second = gone.revive(|mut conn| conn.answer_all(ok("second")));
    wait_for(&tinylb, "second");
    drop(first);
    let mut client = tinylb.connect();
    for _ in 0..100 {
        assert_eq!(client.get("/").text(), "second");
    }
}

/// Requests that are tried once more meanwhile change nothing about it.
#[test]
fn retries_do_not_end_a_slow_start() {
    let (here, gone) = (Backend::named("here"), Refusing::new());
    let answers_503 = Backend::answering("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n");
    let gone_url = gone.url();
    let urls = [gone_url.clone(), answers_503.url(), here.url()];
    let upstream = "policy = \"random\"\nslow_start = \"1h\"\n\
        retry = { on = [\"503\"], budget = 1.0 }\nejection = false";
    let tinylb = Tinylb::run(&config(&urls, "", upstream));
    eventually("one is known to be gone", || {
        assert_eq!(tinylb.get("/").status, 200);
        (state(&tinylb, &gone_url) == "unreachable").then_some(())
    });
    let _back = gone.revive(|mut conn| conn.answer_all(ok("back")));
    wait_for(&tinylb, "back");
    let mut client = tinylb.connect();
    let back = (0..400).filter(|_| client.get("/").text() == "back").count();
    assert!(tinylb.metric("tinylb_retries_total", &["reason=\"status\""]) > 30.0);
    assert_eq!(state(&tinylb, &gone_url), "warming");
    assert!((1..120).contains(&back), "{back} of 400, where half would be its whole share");
}
