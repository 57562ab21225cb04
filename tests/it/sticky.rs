//! Sticky sessions: the cookie that keeps a client with its endpoint.

use std::collections::HashSet;
use std::thread;

use crate::support::{Backend, Client, Held, Response, Signal, Tinylb, config, eventually, ok};

const SECRET: &str = "sticky = { cookie = \"s\", secret = \"0123456789abcdef\" }";

fn named(names: &[&str]) -> (Vec<Backend>, Vec<String>) {
    let backends: Vec<_> = names.iter().map(|name| Backend::named(name)).collect();
    let urls = backends.iter().map(Backend::url).collect();
    (backends, urls)
}

/// A request with these field lines.
fn get(client: &mut Client, fields: &str) -> Response {
    client.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
    client.response()
}

/// The cookie that a response sets, as a client sends it back.
fn cookie(response: &Response) -> Option<String> {
    let field = response.head.get("set-cookie")?;
    Some(field.split(';').next().unwrap().to_owned())
}

/// A new session: its cookie, and whose it is.
#[track_caller]
fn begin(tinylb: &Tinylb) -> (String, String) {
    let response = tinylb.get("/");
    (cookie(&response).expect("a new client gets a cookie"), response.text())
}

/// Who answers a request with these field lines, and the cookie that it sets.
fn answer(tinylb: &Tinylb, fields: &str) -> (String, Option<String>) {
    let response = get(&mut tinylb.connect(), fields);
    (response.text(), cookie(&response))
}

#[test]
fn a_client_stays_over_connections_and_workers() {
    for policy in ["p2c", "round-robin", "random", "consistent-hash", "least-time"] {
        let (_backends, urls) = named(&["a", "b", "c", "d"]);
        let upstream = format!("policy = {policy:?}\nhash = \"path\"\nsticky = \"s\"");
        let upstream = match policy {
            "consistent-hash" => upstream,
            _ => upstream.replace("hash = \"path\"\n", ""),
        };
        let tinylb = Tinylb::run(&config(&urls, "", &upstream));
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let (cookie, name) = begin(&tinylb);
                    let mut kept = tinylb.connect();
                    for n in 0..100 {
                        let fields = format!("Cookie: {cookie}\r\n");
                        let response = match n % 2 {
                            0 => get(&mut kept, &fields),
                            _ => get(&mut tinylb.connect(), &fields),
                        };
                        assert_eq!(response.text(), name, "{policy}: request {n}");
                        assert!(!response.head.has("set-cookie"), "{}", response.head.raw);
                    }
                });
            }
        });
    }
}

#[test]
fn new_clients_are_spread_and_each_endpoint_has_one_value() {
    let (_backends, urls) = named(&["a", "b", "c"]);
    let upstream = "policy = \"round-robin\"\nsticky = \"s\"";
    let tinylb = Tinylb::run(&config(&urls, "", upstream));
    let sessions: Vec<_> = (0..30).map(|_| begin(&tinylb)).collect();
    let different: HashSet<_> = sessions.iter().collect();
    assert_eq!(different.len(), 3, "{different:?}");
    let values: HashSet<_> = sessions.iter().map(|(cookie, _)| cookie).collect();
    assert_eq!(values.len(), 3, "{values:?}");
    for name in ["a", "b", "c"] {
        assert_eq!(sessions.iter().filter(|(_, who)| who == name).count(), 10);
    }
}

#[test]
fn the_cookie_says_what_the_operator_asked_for() {
    let proxy = "trusted_proxies = [\"127.0.0.1\"]";
    let tls = "X-Forwarded-Proto: https\r\n";
    for (listener, keys, fields, attributes) in [
        ("", "", "", "; Path=/; HttpOnly; SameSite=Lax"),
        ("", ", max_age = \"1h\"", "", "; Path=/; HttpOnly; Max-Age=3600; SameSite=Lax"),
        ("", ", same_site = \"strict\"", "", "; Path=/; HttpOnly; SameSite=Strict"),
        ("", ", same_site = \"none\"", "", "; Path=/; HttpOnly"),
        ("", "", tls, "; Path=/; HttpOnly; SameSite=Lax"),
        (proxy, "", "", "; Path=/; HttpOnly; SameSite=Lax"),
        (proxy, "", "X-Forwarded-Proto: http\r\n", "; Path=/; HttpOnly; SameSite=Lax"),
        (proxy, "", tls, "; Path=/; HttpOnly; SameSite=Lax; Secure"),
        (proxy, ", same_site = \"none\"", tls, "; Path=/; HttpOnly; SameSite=None; Secure"),
    ] {
        let backend = Backend::named("fine");
        let upstream = format!("sticky = {{ cookie = \"s-1\"{keys} }}");
        let tinylb = Tinylb::run(&config(&[backend.url()], listener, &upstream));
        let response = get(&mut tinylb.connect(), fields);
        let field = response.head.get("set-cookie").expect("a cookie");
        let value = field.strip_prefix("s-1=").and_then(|f| f.strip_suffix(attributes));
        let value = value.unwrap_or_else(|| panic!("{keys} {fields:?}: {field}"));
        assert_eq!(value.len(), 32, "{field}");
        assert!(value.bytes().all(|b| b"0123456789abcdef".contains(&b)), "{field}");
    }
}

#[test]
fn what_is_unknown_is_a_new_client() {
    let (_backends, urls) = named(&["a", "b"]);
    let tinylb = Tinylb::run(&config(&urls, "", SECRET));
    let (cookie, _) = begin(&tinylb);
    let (upper, longer) = (cookie[2..].to_uppercase(), format!("{}0", &cookie[2..]));
    let a = urls[0].as_str();
    for value in ["", "0", "deadbeefdeadbeefdeadbeefdeadbeef", a, &upper, &longer, "\u{e4}"] {
        let (_, set) = answer(&tinylb, &format!("Cookie: s={value}\r\n"));
        assert!(set.is_some() && set != Some(format!("s={value}")), "{value:?}: {set:?}");
    }
    // A name is a name.
    for field in [format!("Cookie: x{cookie}"), format!("Cookie: S{}", &cookie[1..])] {
        assert!(answer(&tinylb, &format!("{field}\r\n")).1.is_some(), "{field}");
    }
}

#[test]
fn the_cookie_is_found_among_others() {
    let (_backends, urls) = named(&["a", "b", "c"]);
    let tinylb = Tinylb::run(&config(&urls, "", SECRET));
    let (cookie, name) = begin(&tinylb);
    let quoted = format!("s=\"{}\"", &cookie[2..]);
    for fields in [
        format!("Cookie: a=1; {cookie}; b=2\r\n"),
        format!("Cookie: a=1\r\nAccept: */*\r\nCookie: b=2;{cookie}\r\n"),
        format!("cookie: xs=1; {cookie}\r\nCOOKIE: s=other\r\n"),
        format!("Cookie: {quoted}\r\n"),
    ] {
        for _ in 0..8 {
            assert_eq!(answer(&tinylb, &fields), (name.clone(), None), "{fields:?}");
        }
    }
}

/// The endpoint's own cookies pass both ways, beside ours.
#[test]
fn cookies_of_the_endpoints_are_left_alone() {
    let answer = "HTTP/1.1 200 OK\r\nSet-Cookie: own=1; Path=/x\r\nSet-Cookie: two=2\r\n\
        Content-Length: 2\r\n\r\nok";
    let backend = Backend::answering(answer);
    let tinylb = Tinylb::run(&config(&[backend.url()], "", SECRET));
    let response = get(&mut tinylb.connect(), "Cookie: own=0; other=1\r\n");
    let set = response.head.all("set-cookie");
    assert_eq!(set.len(), 3, "{set:?}");
    assert_eq!(set.iter().filter(|field| field.starts_with("s=")).count(), 1);
    assert!(set.contains(&"own=1; Path=/x") && set.contains(&"two=2"), "{set:?}");
    assert_eq!(backend.request().head.get("cookie"), Some("own=0; other=1"));
}

#[test]
fn instances_agree_where_they_share_a_secret() {
    let (_backends, urls) = named(&["a", "b", "c", "d"]);
    let mut reversed = urls.clone();
    reversed.reverse();
    let one = Tinylb::run(&config(&urls, "", SECRET));
    let two = Tinylb::run(&config(&reversed, "", SECRET));
    for _ in 0..20 {
        let (cookie, name) = begin(&one);
        assert_eq!(answer(&two, &format!("Cookie: {cookie}\r\n")), (name, None));
    }
    let other = SECRET.replace("0123456789abcdef", "another secret of 16");
    let other = Tinylb::run(&config(&urls, "", &other));
    let own = Tinylb::run(&config(&urls, "", "sticky = \"s\""));
    let (cookie, _) = begin(&one);
    for stranger in [&other, &own] {
        assert!(answer(stranger, &format!("Cookie: {cookie}\r\n")).1.is_some());
    }
}

#[test]
fn a_session_whose_endpoint_is_gone_begins_anew_elsewhere() {
    let backends = ["a", "b", "c"].map(|name| Backend::closing_after(ok(name)));
    let urls = [0, 1, 2].map(|i| backends[i].url());
    let tinylb = Tinylb::run(&config(&urls, "", SECRET));
    let (first, name) = begin(&tinylb);
    let mut backends: Vec<_> = backends.into_iter().collect();
    let at = ["a", "b", "c"].iter().position(|other| *other == name).unwrap();
    drop(backends.remove(at));
    let (next, set) = answer(&tinylb, &format!("Cookie: {first}\r\n"));
    assert_ne!(next, name);
    let second = set.expect("it is told where it belongs now");
    assert_ne!(second, first);
    for _ in 0..20 {
        let found = answer(&tinylb, &format!("Cookie: {second}\r\n"));
        assert_eq!(found, (next.clone(), None), "and stays there");
    }
}

/// One request that finds it full goes elsewhere; the session stays where it is.
#[test]
fn a_session_whose_endpoint_is_full_stays() {
    let backends = ["a", "b"].map(Held::new);
    let urls = [backends[0].url(), backends[1].url()];
    let upstream = format!("limits = {{ endpoint_requests = 1 }}\n{SECRET}");
    let tinylb = Tinylb::run(&config(&urls, "", &upstream));
    let mut first = tinylb.connect();
    first.send("GET /begin HTTP/1.1\r\nHost: a\r\n\r\n");
    backends.iter().for_each(|backend| backend.answer("/begin"));
    let response = first.response();
    let wait_for_idle = || {
        eventually("nothing is in flight", || {
            (tinylb.metric("tinylb_endpoint_requests_in_flight", &[]) == 0.0).then_some(())
        });
    };
    wait_for_idle();
    let (session, home) = (cookie(&response).unwrap(), response.text());
    let ask = |client: &mut Client, path: &str| {
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\nCookie: {session}\r\n\r\n"));
    };
    let mut clients = [tinylb.connect(), tinylb.connect()];
    ask(&mut clients[0], "/at-home");
    let at = if home == "a" { 0 } else { 1 };
    backends[at].wait_for(1);
    ask(&mut clients[1], "/astray");
    backends[1 - at].wait_for(1);
    backends.iter().for_each(Held::open);
    for client in &mut clients {
        let response = client.response();
        assert!(!response.head.has("set-cookie"), "{}", response.head.raw);
    }
    wait_for_idle();
    assert_eq!(answer(&tinylb, &format!("Cookie: {session}\r\n")), (home, None));
}

/// An endpoint that a reload takes away is no longer anybody's; those of others stay valid.
#[test]
fn sessions_outlive_a_reload() {
    let (_backends, urls) = named(&["a", "b", "c"]);
    let tinylb = Tinylb::run(&config(&urls, "", "sticky = \"s\""));
    let mut sessions = std::collections::HashMap::new();
    eventually("each has a session", || {
        let (cookie, name) = begin(&tinylb);
        sessions.insert(name, cookie);
        (sessions.len() == 3).then_some(())
    });
    let fewer = [urls[2].clone(), urls[0].clone()];
    tinylb.rewrite(&config(&fewer, "", "sticky = \"s\"\npolicy = \"random\""));
    tinylb.signal(Signal::HUP);
    eventually("the file is in force", || {
        answer(&tinylb, &format!("Cookie: {}\r\n", sessions["b"])).1
    });
    for _ in 0..20 {
        for name in ["a", "c"] {
            let found = answer(&tinylb, &format!("Cookie: {}\r\n", sessions[name]));
            assert_eq!(found, (name.to_owned(), None), "also with the process's own secret");
        }
    }
}

/// An answer of the balancer's own binds nobody to anything.
#[test]
fn own_answers_set_no_cookie() {
    let gone = crate::support::Refusing::new();
    let tinylb = Tinylb::run(&config(&[gone.url()], "", SECRET));
    for _ in 0..3 {
        let response = tinylb.get("/");
        assert_eq!(response.status, 502);
        assert!(!response.head.has("set-cookie"), "{}", response.head.raw);
    }
}

/// Several cookies of the name are what other sites of the domain, other paths and old secrets leave behind:
/// the first one that means something counts.
#[test]
fn every_cookie_of_the_name_is_looked_at() {
    let (_backends, urls) = named(&["a", "b", "c"]);
    let tinylb = Tinylb::run(&config(&urls, "", SECRET));
    let (cookie, name) = begin(&tinylb);
    let other = loop {
        let (other, who) = begin(&tinylb);
        if who != name {
            break other;
        }
    };
    for fields in [
        format!("Cookie: s=; {cookie}\r\n"),
        format!("Cookie: s=gone; x=1; s=; {cookie}; {other}\r\n"),
        format!("Cookie: s=\r\nX: y\r\nCookie: x=1\r\nCookie: s=0; {cookie}\r\n"),
        format!("Cookie: {}{cookie}\r\n", "s=0; ".repeat(1000)),
    ] {
        for _ in 0..10 {
            assert_eq!(answer(&tinylb, &fields), (name.clone(), None), "{fields:.60?}");
        }
    }
    let (_, set) = answer(&tinylb, "Cookie: s=; s=gone\r\n");
    assert!(set.is_some(), "none of them means anything");
}
