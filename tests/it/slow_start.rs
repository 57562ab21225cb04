//! Endpoints that are new or have come back are eased in.

use crate::support::{Backend, Refusing, Signal, Tinylb, config, eventually, ok};

/// So long that all that is asked in a test is asked at its beginning.
const LONG: &str = "policy = \"random\"\nslow_start = \"1h\"";

/// So short that its end is soon there.
const SHORT: &str = "policy = \"random\"\nslow_start = \"300ms\"";

/// How many of 400 requests `name` answers.
fn of_400(tinylb: &Tinylb, name: &str) -> usize {
    let mut client = tinylb.connect();
    (0..400).filter(|_| client.get("/").text() == name).count()
}

/// Of two, the one at `url` has about a tenth of its share at first, a twentieth of all.
#[track_caller]
fn assert_begins(tinylb: &Tinylb, url: &str, name: &str) {
    let answered = of_400(tinylb, name);
    assert!((1..80).contains(&answered), "{answered} of 400, where half would be its whole share");
    assert_eq!(state(tinylb, url), "warming");
}

/// Of two, the one at `url` has its whole share in the end.
#[track_caller]
fn assert_ends(tinylb: &Tinylb, url: &str, name: &str) {
    eventually("it has its whole share", || (state(tinylb, url) == "up").then_some(()));
    let answered = of_400(tinylb, name);
    assert!((120..280).contains(&answered), "{answered} of 400");
}

fn state(tinylb: &Tinylb, url: &str) -> String {
    let json: serde_json::Value = serde_json::from_str(&tinylb.admin("/endpoints").text()).unwrap();
    let endpoints = json["upstreams"][0]["endpoints"].as_array().unwrap();
    let it = endpoints.iter().find(|e| e["endpoint"] == url).expect("it is listed");
    it["state"].as_str().unwrap().to_owned()
}

/// Waits until an answer comes from `name`.
#[track_caller]
fn wait_for(tinylb: &Tinylb, name: &str) {
    eventually(&format!("{name} answers"), || (tinylb.get("/").text() == name).then_some(()));
}

#[test]
fn one_that_comes_back_is_eased_in() {
    for eased in [LONG, SHORT] {
        let (here, gone) = (Backend::named("here"), Refusing::new());
        let gone_url = gone.url();
        let tinylb = Tinylb::run(&config(&[here.url(), gone_url.clone()], "", eased));
        eventually("it is known to be gone", || {
            assert_eq!(tinylb.get("/").text(), "here");
            (state(&tinylb, &gone_url) == "unreachable").then_some(())
        });
        let _back = gone.revive(|mut conn| conn.answer_all(ok("back")));
        wait_for(&tinylb, "back");
        match eased {
            LONG => assert_begins(&tinylb, &gone_url, "back"),
            _ => assert_ends(&tinylb, &gone_url, "back"),
        }
    }
}

#[test]
fn one_that_a_reload_brings_is_eased_in() {
    for eased in [LONG, SHORT] {
        let (old, new) = (Backend::named("old"), Backend::named("new"));
        let tinylb = Tinylb::run(&config(&[old.url()], "", eased));
        assert_eq!(tinylb.get("/").text(), "old");
        tinylb.rewrite(&config(&[old.url(), new.url()], "", eased));
        tinylb.signal(Signal::HUP);
        tinylb.wait_for_log("reloaded");
        match eased {
            LONG => assert_begins(&tinylb, &new.url(), "new"),
            _ => assert_ends(&tinylb, &new.url(), "new"),
        }
    }
}

#[test]
fn one_that_an_operator_takes_back_is_eased_in() {
    for eased in [LONG, SHORT] {
        let (kept, drained) = (Backend::named("kept"), Backend::named("drained"));
        let tinylb = Tinylb::run(&config(&[kept.url(), drained.url()], "", eased));
        let operate = |verb: &str| {
            let mut client = crate::support::Client::connect(tinylb.admin_address());
            let target = format!("/{verb}?upstream=app&endpoint={}", drained.url());
            client.send(format!("POST {target} HTTP/1.1\r\nHost: admin\r\n\r\n"));
            assert_eq!(client.response().status, 200);
        };
        operate("drain");
        assert_eq!(tinylb.get("/").text(), "kept");
        operate("undrain");
        match eased {
            LONG => assert_begins(&tinylb, &drained.url(), "drained"),
            _ => assert_ends(&tinylb, &drained.url(), "drained"),
        }
    }
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
