//! Consistent hashing: the same key goes to the same endpoint, and few keys move.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;

use crate::support::{
    Backend, Client, Held, Refusing, Signal, Tinylb, config, config_of, eventually, ok,
};

fn named(n: usize) -> (Vec<Backend>, Vec<String>) {
    let backends: Vec<_> = (0..n).map(|i| Backend::named(&i.to_string())).collect();
    let urls = backends.iter().map(Backend::url).collect();
    (backends, urls)
}

/// By the key alone: with so high a bound no load matters, also not that of a request whose answer
/// has arrived and that is still being counted off.
fn by(on: &str) -> String {
    format!("policy = \"consistent-hash\"\nhash = {{ on = {on:?}, bound = 100 }}")
}

/// Who answers a request for `target` with these field lines.
fn ask(client: &mut Client, target: &str, fields: &str) -> String {
    client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
    let response = client.response();
    assert_eq!(response.status, 200, "{:?}", response.head.raw);
    response.text()
}

/// Whose each of `n` keys is.
fn owners(tinylb: &Tinylb, n: usize) -> Vec<String> {
    let mut clients = [tinylb.connect(), tinylb.connect()];
    (0..n).map(|key| ask(&mut clients[key % 2], "/", &format!("X-Key: user-{key}\r\n"))).collect()
}

/// What each way of naming a key makes a request of it; with `other` in the places of all else.
fn request(on: &str, key: &str, other: usize) -> (String, String) {
    match on {
        "path" => (format!("/{key}?q={other}"), format!("X-Key: {other}\r\nCookie: k={other}\r\n")),
        "query:q" => (format!("/{other}?a={other}&q={key}"), format!("X-Key: {other}\r\n")),
        "header:X-Key" => (format!("/{other}?q={other}"), format!("x-kEY: {key}\r\n")),
        _ => (format!("/{other}"), format!("X-Key: {other}\r\nCookie: a={other}; k={key}\r\n")),
    }
}

#[test]
fn the_same_key_goes_to_the_same_endpoint_over_connections_and_workers() {
    for on in ["path", "query:q", "header:X-Key", "cookie:k"] {
        let (_backends, urls) = named(5);
        let tinylb = Tinylb::run(&config(&urls, "", &by(on)));
        let mut seen = HashSet::new();
        for key in 0..20 {
            let key = format!("key-{key}");
            let mut whose = HashSet::new();
            for other in 0..10 {
                let (target, fields) = request(on, &key, other);
                whose.insert(ask(&mut tinylb.connect(), &target, &fields));
            }
            assert_eq!(whose.len(), 1, "{on}: {key} goes to {whose:?}");
            seen.extend(whose);
        }
        assert!(seen.len() >= 3, "{on}: keys are spread: {seen:?}");
    }
}

#[test]
fn without_the_key_a_request_goes_anywhere() {
    for on in ["query:q", "header:X-Key", "cookie:k"] {
        let (_backends, urls) = named(3);
        let tinylb = Tinylb::run(&config(&urls, "", &by(on)));
        let mut client = tinylb.connect();
        let seen: HashSet<_> = (0..60).map(|_| ask(&mut client, "/same?a=1", "")).collect();
        assert_eq!(seen.len(), 3, "{on}: {seen:?}");
    }
}

/// A client that connects from an address of this machine's own choice.
fn client_from(last: u8, to: SocketAddr) -> Client {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, last], 0)).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    Client::over(socket.into())
}

#[test]
fn by_default_it_is_the_clients_address() {
    let (_backends, urls) = named(4);
    let upstream = "policy = \"consistent-hash\"\nhash = { bound = 100 }";
    let tinylb = Tinylb::run(&config(&urls, "", upstream));
    let mut seen = HashSet::new();
    for last in 2..22 {
        let whose: HashSet<_> = (0..6)
            .map(|n| {
                let mut client = client_from(last, tinylb.address());
                ask(&mut client, &format!("/{n}"), &format!("X-Forwarded-For: 10.0.0.{n}\r\n"))
            })
            .collect();
        assert_eq!(whose.len(), 1, "127.0.0.{last} goes to {whose:?}");
        seen.extend(whose);
    }
    assert!(seen.len() >= 3, "{seen:?}");
}

#[test]
fn runs_and_instances_agree_whatever_the_order_of_the_endpoints() {
    let (_backends, urls) = named(5);
    let first = owners(&Tinylb::run(&config(&urls, "", &by("header:X-Key"))), 100);
    let again = owners(&Tinylb::run(&config(&urls, "", &by("header:X-Key"))), 100);
    assert_eq!(first, again);
    let mut turned = urls.clone();
    turned.rotate_left(2);
    let turned = owners(&Tinylb::run(&config(&turned, "", &by("header:X-Key"))), 100);
    assert_eq!(first, turned);
}

#[test]
fn shares_go_by_weight() {
    let (_backends, urls) = named(3);
    let endpoints = format!(
        "[{:?}, {{ url = {:?}, weight = 2 }}, {{ url = {:?}, weight = 0 }}]",
        urls[0], urls[1], urls[2]
    );
    let tinylb = Tinylb::run(&config_of(&endpoints, "", &by("header:X-Key")));
    let owners = owners(&tinylb, 600);
    let count = |name: &str| owners.iter().filter(|owner| *owner == name).count();
    assert_eq!(count("2"), 0);
    assert!((120..280).contains(&count("0")), "a third of 600: {}", count("0"));
}

#[test]
fn where_one_of_six_goes_only_its_keys_move_and_they_spread() {
    const KEYS: usize = 300;
    let (_backends, urls) = named(6);
    let tinylb = Tinylb::run(&config(&urls, "", &by("header:X-Key")));
    let before = owners(&tinylb, KEYS);
    for gone in [1, 4] {
        let mut fewer = urls.clone();
        fewer.remove(gone);
        tinylb.rewrite(&config(&fewer, "", &by("header:X-Key")));
        tinylb.signal(Signal::HUP);
        let name = gone.to_string();
        let after = eventually("it has no keys any more", || {
            let after = owners(&tinylb, KEYS);
            (!after.contains(&name)).then_some(after)
        });
        let mut to = HashMap::<_, usize>::new();
        for (was, is) in before.iter().zip(&after) {
            if *was == name {
                *to.entry(is.clone()).or_default() += 1;
            } else {
                assert_eq!(was, is, "a key of another one has moved");
            }
        }
        let moved: usize = to.values().sum();
        assert!((20..100).contains(&moved), "about 50 of {KEYS}: {moved}");
        assert!(to.len() >= 4, "not all to the same one: {to:?}");
        tinylb.rewrite(&config(&urls, "", &by("header:X-Key")));
        tinylb.signal(Signal::HUP);
        eventually("all are back where they were", || {
            (owners(&tinylb, KEYS) == before).then_some(())
        });
    }
}

/// The same where one is not removed, but cannot be reached.
#[test]
fn where_one_is_unreachable_only_its_keys_move_and_come_back() {
    let (_backends, mut urls) = named(3);
    let gone = Refusing::new();
    urls.push(gone.url());
    let tinylb = Tinylb::run(&config(&urls, "", &by("header:X-Key")));
    // Whoever finds it out is tried elsewhere.
    let without = owners(&tinylb, 120);
    let second = owners(&tinylb, 120);
    assert_eq!(without, second, "a key without its first choice has a second one");
    let _back = gone.revive(|mut conn| conn.answer_all(ok("back")));
    let with = eventually("it has its keys, and nothing moves any more", || {
        let with = owners(&tinylb, 120);
        let has = with.iter().filter(|owner| *owner == "back").count();
        (has > 10 && with == owners(&tinylb, 120)).then_some(with)
    });
    for (was, is) in without.iter().zip(&with) {
        assert!(is == "back" || is == was, "{was} became {is}");
    }
}

#[test]
fn a_hot_key_spills_over_where_its_endpoint_has_too_much() {
    let backends = ["0", "1", "2"].map(Held::new);
    let urls = [0, 1, 2].map(|i| backends[i].url());
    let upstream = "policy = \"consistent-hash\"\nhash = \"header:X-Key\"";
    let tinylb = Tinylb::run(&config(&urls, "", upstream));
    let mut clients = Vec::new();
    for n in 0..30 {
        let mut client = tinylb.connect();
        client.send(format!("GET /{n} HTTP/1.1\r\nHost: a\r\nX-Key: hot\r\n\r\n"));
        clients.push(client);
        eventually("it arrives", || {
            let held: usize = backends.iter().map(|backend| backend.holds().len()).sum();
            (held == n + 1).then_some(())
        });
    }
    let mut loads = [0, 1, 2].map(|i| backends[i].holds().len());
    loads.sort_unstable();
    // One may have half as much again as its share: 1.5 x 30 / 3.
    assert!((14..=15).contains(&loads[2]), "{loads:?}");
    backends.iter().for_each(Held::open);
    for client in &mut clients {
        assert_eq!(client.response().status, 200);
    }
    // Where nothing is in flight, a key is where it belongs.
    let mut client = tinylb.connect();
    eventually("all are at one endpoint again", || {
        let whose: HashSet<_> =
            (0..10).map(|n| ask(&mut client, &format!("/again/{n}"), "X-Key: hot\r\n")).collect();
        (whose.len() == 1).then_some(())
    });
}

#[test]
fn the_bound_is_the_operators() {
    let backends = ["0", "1"].map(Held::new);
    let urls = [backends[0].url(), backends[1].url()];
    let upstream = "policy = \"consistent-hash\"\nhash = { on = \"path\", bound = 100 }";
    let tinylb = Tinylb::run(&config(&urls, "", upstream));
    let mut clients: Vec<_> = (0..20).map(|_| tinylb.connect()).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        client.send(format!("GET /hot?{n} HTTP/1.1\r\nHost: a\r\n\r\n"));
    }
    eventually("all arrive at one", || {
        let mut loads = [backends[0].holds().len(), backends[1].holds().len()];
        loads.sort_unstable();
        assert_eq!(loads[0], 0);
        (loads[1] == 20).then_some(())
    });
    backends.iter().for_each(Held::open);
    for client in &mut clients {
        assert_eq!(client.response().status, 200);
    }
}

/// Behind a trusted proxy the client is whom that names last, and nobody else's word counts.
#[test]
fn the_client_behind_a_trusted_proxy_is_whom_it_names() {
    let backends = ["0", "1", "2", "3"].map(Backend::named);
    let urls = [0, 1, 2, 3].map(|i| backends[i].url());
    for (trusted, many) in [("trusted_proxies = [\"127.0.0.0/8\"]", true), ("", false)] {
        let upstream = "policy = \"consistent-hash\"\nhash = { bound = 100 }";
        let tinylb = Tinylb::run(&config(&urls, trusted, upstream));
        let mut client = tinylb.connect();
        let mut whose =
            |forwarded: &str| ask(&mut client, "/", &format!("X-Forwarded-For: {forwarded}\r\n"));
        let all: HashSet<_> = (0..40).map(|n| whose(&format!("10.0.0.{n}"))).collect();
        assert_eq!(all.len() > 1, many, "{trusted}: {all:?}");
        // What stands before the last address that is not trusted, the client may have made up.
        let made_up: HashSet<_> =
            (0..40).map(|n| whose(&format!("10.0.0.{n}, 192.0.2.1, 127.0.0.9"))).collect();
        assert_eq!(made_up.len(), 1, "{trusted}: {made_up:?}");
    }
}
