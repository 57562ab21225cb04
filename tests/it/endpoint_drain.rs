//! Endpoints that drain: nothing new goes there, and sessions go on.

use crate::support::{
    Backend, Client, Held, Response, Signal, Tinylb, config, config_of, eventually,
};

const STICKY: &str = "sticky = { cookie = \"s\", secret = \"0123456789abcdef\" }";

/// Sends a request of `method` to the admin address, with these field lines.
fn admin(tinylb: &Tinylb, method: &str, target: &str, fields: &str) -> Response {
    let mut client = Client::connect(tinylb.admin_address());
    client.send(format!("{method} {target} HTTP/1.1\r\nHost: admin\r\n{fields}\r\n"));
    client.response_to(method)
}

/// Has an operator drain the endpoint, or end that.
#[track_caller]
fn operate(tinylb: &Tinylb, verb: &str, url: &str) {
    let response = admin(tinylb, "POST", &format!("/{verb}?upstream=app&endpoint={url}"), "");
    assert_eq!(response.status, 200, "{:?}", response.text());
}

/// What the admin address says of the endpoint.
fn said(tinylb: &Tinylb, url: &str) -> serde_json::Value {
    let json: serde_json::Value = serde_json::from_str(&tinylb.admin("/endpoints").text()).unwrap();
    let endpoints = json["upstreams"][0]["endpoints"].as_array().unwrap();
    endpoints.iter().find(|endpoint| endpoint["endpoint"] == url).expect("it is listed").clone()
}

/// The state in the metrics, which is exactly one.
fn state(tinylb: &Tinylb, url: &str) -> String {
    let of_it = format!("endpoint=\"{url}\"");
    let mut states = tinylb.samples("tinylb_endpoint_state");
    states.retain(|(labels, value)| labels.contains(&of_it) && *value == 1.0);
    assert_eq!(states.len(), 1, "{states:?}");
    let (labels, _) = states.remove(0);
    labels.split("state=\"").nth(1).unwrap().split('"').next().unwrap().to_owned()
}

/// A request with the session's cookie; who answers, and whether a new cookie is set.
fn with_cookie(tinylb: &Tinylb, cookie: &str) -> (String, bool) {
    let request = format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: {cookie}\r\n\r\n");
    let response = tinylb.exchange(request);
    (response.text(), response.head.has("set-cookie"))
}

/// A session at the backend of this name, as a client would have it: `s=...`.
#[track_caller]
fn session_at(tinylb: &Tinylb, name: &str) -> String {
    eventually("a session begins there", || {
        let response = tinylb.get("/");
        let cookie = response.head.get("set-cookie")?.split(';').next()?.to_owned();
        (response.text() == name).then_some(cookie)
    })
}

#[test]
fn an_operator_drains_an_endpoint_and_takes_it_back() {
    let backends = ["a", "b"].map(Backend::named);
    let [a, b] = [backends[0].url(), backends[1].url()];
    let tinylb = Tinylb::run(&config(&[a.clone(), b.clone()], "", STICKY));
    let cookie = session_at(&tinylb, "a");
    assert_eq!((state(&tinylb, &a), state(&tinylb, &b)), ("up".into(), "up".into()));
    operate(&tinylb, "drain", &a);
    let line = tinylb.wait_for_log("draining: ");
    assert!(line.contains(&a), "{line}");
    assert_eq!(said(&tinylb, &a)["state"], "draining");
    assert_eq!(said(&tinylb, &b)["state"], "up");
    assert_eq!(state(&tinylb, &a), "draining");
    for _ in 0..40 {
        assert_eq!(tinylb.get("/").text(), "b", "nothing new goes there");
        assert_eq!(with_cookie(&tinylb, &cookie), ("a".into(), false), "sessions go on");
    }
    operate(&tinylb, "drain", &a);
    assert_eq!(tinylb.get("/").text(), "b", "twice is as good as once");
    operate(&tinylb, "undrain", &a);
    tinylb.wait_for_log("no longer draining");
    assert_eq!(said(&tinylb, &a)["state"], "up");
    eventually("it has new requests again", || (tinylb.get("/").text() == "a").then_some(()));
}

#[test]
fn the_file_drains_an_endpoint() {
    let backends = ["a", "b"].map(Backend::named);
    let [a, b] = [backends[0].url(), backends[1].url()];
    let whole = config(&[a.clone(), b.clone()], "", STICKY);
    let tinylb = Tinylb::run(&whole);
    let cookie = session_at(&tinylb, "a");
    let endpoints = format!("[{{ url = {a:?}, drain = true }}, {b:?}]");
    tinylb.rewrite(&config_of(&endpoints, "", STICKY));
    tinylb.signal(Signal::HUP);
    eventually("it drains", || (said(&tinylb, &a)["state"] == "draining").then_some(()));
    eventually("every worker knows", || {
        (0..10).all(|_| tinylb.get("/").text() == "b").then_some(())
    });
    for _ in 0..40 {
        assert_eq!(tinylb.get("/").text(), "b", "nothing new goes there");
        assert_eq!(with_cookie(&tinylb, &cookie), ("a".into(), false), "sessions go on");
    }
    assert_eq!(state(&tinylb, &a), "draining");
    tinylb.rewrite(&whole);
    tinylb.signal(Signal::HUP);
    eventually("it has new requests again", || (tinylb.get("/").text() == "a").then_some(()));
    assert_eq!(said(&tinylb, &a)["state"], "up");
}

#[test]
fn what_an_operator_drains_stays_drained_after_a_reload() {
    let backends = ["a", "b"].map(Backend::named);
    let [a, b] = [backends[0].url(), backends[1].url()];
    let tinylb = Tinylb::run(&config(&[a.clone(), b.clone()], "", "policy = \"random\""));
    operate(&tinylb, "drain", &a);
    tinylb.rewrite(&config(&[a.clone(), b], "", "policy = \"round-robin\""));
    tinylb.signal(Signal::HUP);
    tinylb.wait_for_log("reloaded");
    for _ in 0..40 {
        assert_eq!(tinylb.get("/").text(), "b");
    }
    assert_eq!(said(&tinylb, &a)["state"], "draining");
}

/// What is in flight there ends there, and is told of meanwhile.
#[test]
fn requests_in_flight_end_where_they_are() {
    let (held, other) = (Held::new("held"), Backend::named("other"));
    let upstream = "policy = \"round-robin\"";
    let tinylb = Tinylb::run(&config(&[held.url(), other.url()], "", upstream));
    let mut client = tinylb.connect();
    client.send("GET /held HTTP/1.1\r\nHost: a\r\n\r\n");
    held.wait_for(1);
    operate(&tinylb, "drain", &held.url());
    assert_eq!(said(&tinylb, &held.url())["requests_in_flight"], 1);
    for _ in 0..10 {
        assert_eq!(tinylb.get("/").text(), "other");
    }
    held.answer("/held");
    assert_eq!(client.response().text(), "held");
    eventually("it is told that the endpoint may go", || {
        (said(&tinylb, &held.url())["requests_in_flight"] == 0).then_some(())
    });
    assert_eq!(client.get("/").text(), "other");
}

#[test]
fn where_all_drain_there_is_nobody() {
    let backends = ["a", "b"].map(Backend::named);
    let urls = [backends[0].url(), backends[1].url()];
    let tinylb = Tinylb::run(&config(&urls, "", ""));
    urls.iter().for_each(|url| operate(&tinylb, "drain", url));
    tinylb.get("/").assert_fault(503, "destination_unavailable");
    operate(&tinylb, "undrain", &urls[1]);
    assert_eq!(tinylb.get("/").text(), "b");
}

/// A session whose endpoint drains and then goes is taken elsewhere, with a new cookie.
#[test]
fn a_session_leaves_an_endpoint_that_has_drained_and_gone() {
    let (a, b) = (Backend::closing_after(crate::support::ok("a")), Backend::named("b"));
    let a_url = a.url();
    let tinylb = Tinylb::run(&config(&[a_url.clone(), b.url()], "", STICKY));
    let cookie = session_at(&tinylb, "a");
    operate(&tinylb, "drain", &a_url);
    assert_eq!(with_cookie(&tinylb, &cookie), ("a".into(), false));
    drop(a);
    assert_eq!(with_cookie(&tinylb, &cookie), ("b".into(), true));
    operate(&tinylb, "undrain", &a_url);
    for _ in 0..10 {
        assert_eq!(tinylb.get("/").text(), "b", "that does not make it well");
    }
}

/// What the file drains goes on to drain, and whoever asks for its end is told so.
#[test]
fn an_operator_cannot_end_what_the_file_drains() {
    let backends = ["a", "b"].map(Backend::named);
    let [a, b] = [backends[0].url(), backends[1].url()];
    let whole = config(&[a.clone(), b.clone()], "", "");
    let endpoints = format!("[{{ url = {a:?}, drain = true }}, {b:?}]");
    let tinylb = Tinylb::run(&config_of(&endpoints, "", ""));
    let target = |verb: &str, url: &str| format!("/{verb}?upstream=app&endpoint={url}");
    let by_file = "`drain = true` in the configuration";
    let refused = |who: &str| {
        let response = admin(&tinylb, "POST", &target("undrain", &a), "");
        assert_eq!(response.status, 409, "{who}: {}", response.text());
        assert!(response.text().contains(by_file), "{who}: {}", response.text());
        assert_eq!(said(&tinylb, &a)["state"], "draining", "{who}");
    };
    assert!(said(&tinylb, &a)["why"].as_str().unwrap().contains(by_file));
    refused("the file alone");
    operate(&tinylb, "undrain", &b);
    // An operator may drain it beside the file, so that it stays drained whatever the file says next.
    operate(&tinylb, "drain", &a);
    let why = said(&tinylb, &a)["why"].as_str().unwrap().to_owned();
    assert!(why.contains(by_file) && why.contains("operator"), "{why}");
    tinylb.rewrite(&whole);
    tinylb.signal(Signal::HUP);
    eventually("the operator alone drains it", || {
        (said(&tinylb, &a)["why"] == "an operator drains it").then_some(())
    });
    operate(&tinylb, "undrain", &a);
    eventually("it has new requests again", || (tinylb.get("/").text() == "a").then_some(()));

    // The end of the operator's part is remembered, though the file's goes on.
    operate(&tinylb, "drain", &a);
    tinylb.rewrite(&config_of(&endpoints, "", ""));
    tinylb.signal(Signal::HUP);
    eventually("both drain it", || {
        said(&tinylb, &a)["why"].as_str().unwrap().contains(by_file).then_some(())
    });
    refused("both");
    tinylb.rewrite(&whole);
    tinylb.signal(Signal::HUP);
    eventually("nobody drains it", || (said(&tinylb, &a)["state"] == "up").then_some(()));
}
