//! What there is only so much of: addresses, connections, descriptors, memory.

use std::net::TcpListener;
use std::time::Duration;

use crate::support::{Backend, Client, PATIENCE, Tinylb, config, eventually};

#[test]
fn an_address_in_use_is_an_error_that_names_it() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, said) = Tinylb::ends(&["http://127.0.0.1:1", "--listen", &address]);
    assert_eq!(code, Some(1), "{said}");
    let port = address.rsplit(':').next().unwrap();
    assert!(said.contains(port) && said.contains("listen"), "{said}");
}

/// SO_REUSEPORT would let the same user's second process in without a word.
#[test]
fn a_second_balancer_on_the_same_address_is_an_error() {
    let backend = Backend::named("the first");
    let tinylb = Tinylb::before(&backend);
    let address = tinylb.address().to_string();
    let (code, said) = Tinylb::ends(&["http://127.0.0.1:1", "--listen", &address]);
    assert_eq!(code, Some(1), "{said}");
    for _ in 0..20 {
        assert_eq!(tinylb.get("/").text(), "the first");
    }
}

#[test]
fn several_listeners_serve() {
    let backend = Backend::named("fine");
    let tinylb = Tinylb::start(&[backend.url()], &["--listen", "127.0.0.1:0"]);
    assert_eq!(tinylb.addresses().len(), 2);
    for address in tinylb.addresses() {
        assert_eq!(Client::connect(*address).get("/").text(), "fine");
    }
}

#[test]
fn a_listener_without_a_host_is_of_both_families() {
    let backend = Backend::named("fine");
    let tinylb = Tinylb::start(&[backend.url()], &["--listen", ":0"]);
    let port = tinylb.addresses()[1].port();
    assert_eq!(Client::connect(([127, 0, 0, 1], port).into()).get("/").text(), "fine");
    if TcpListener::bind("[::1]:0").is_err() {
        println!("skipped: no IPv6 here");
        return;
    }
    let mut client = Client::connect(format!("[::1]:{port}").parse().unwrap());
    assert_eq!(client.get("/six").text(), "fine");
    let requests = backend.requests();
    assert_eq!(requests[0].head.get("x-forwarded-for"), Some("127.0.0.1"), "not ::ffff:127.0.0.1");
    assert_eq!(requests[1].head.get("x-forwarded-for"), Some("::1"));
}

#[test]
fn connections_over_the_limit_wait_their_turn() {
    let backend = Backend::named("fine");
    let tinylb = Tinylb::run(&config(&[backend.url()], "max_connections = 4", ""));
    let mut open: Vec<_> = (0..4).map(|_| tinylb.connect()).collect();
    for client in &mut open {
        assert_eq!(client.get("/").status, 200);
    }
    let mut waiting = tinylb.connect();
    waiting.send("GET /waited HTTP/1.1\r\nHost: a\r\n\r\n");
    waiting.wire().stream().set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let peeked = waiting.wire().stream().peek(&mut [0]);
    assert!(peeked.is_err(), "it is not served yet: {peeked:?}");
    assert!(backend.requests().iter().all(|request| request.target() != "/waited"));
    open.pop();
    waiting.wire().stream().set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(waiting.response().text(), "fine");
    for client in &mut open {
        client.assert_open();
    }
}

#[test]
fn running_out_of_descriptors_is_survived() {
    let backend = Backend::named("fine");
    let more_than_there_are = config(&[backend.url()], "max_connections = 1000", "");
    let tinylb = Tinylb::run_with_few_descriptors(&more_than_there_are, 64);
    let mut first = tinylb.connect();
    assert_eq!(first.get("/").status, 200);
    let many: Vec<_> = (0..150).map(|_| tinylb.connect()).collect();
    tinylb.wait_for_log("accepting pauses");
    assert_eq!(first.get("/").status, 200, "what is connected goes on");
    drop(many);
    eventually("it goes on to accept", || {
        let mut client = tinylb.connect();
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        client.try_response_to("GET").filter(|response| response.status == 200)
    });
}

/// However long descriptors are out, the log says so now and then, and how often it was.
#[test]
fn running_out_of_descriptors_is_said_now_and_then() {
    let backend = Backend::named("fine");
    let more_than_there_are = config(&[backend.url()], "max_connections = 1000", "");
    let tinylb = Tinylb::run_with_few_descriptors(&more_than_there_are, 64);
    let began = std::time::Instant::now();
    // Before descriptors run out, so that it can be asked then.
    let mut operator = Client::connect(tinylb.admin_address());
    assert_eq!(operator.get("/healthz").status, 200);
    let _many: Vec<_> = (0..150).map(|_| tinylb.connect()).collect();
    tinylb.wait_for_log("accepting pauses");
    eventually("accepting has paused often", || {
        let text = operator.get("/metrics").text();
        let line = text.lines().find(|line| line.starts_with("tinylb_accept_pauses_total"))?;
        (line.rsplit_once(' ')?.1.parse::<u32>().ok()? >= 20).then_some(())
    });
    let lines = tinylb.log.all();
    let said = lines.iter().filter(|line| line.contains("accepting pauses")).count() as u64;
    assert!(said <= 1 + began.elapsed().as_secs() / 10, "{said} times");
    let line = tinylb.wait_for_log("accepting pauses");
    assert!(line.contains("pauses=1"), "{line}");
}

/// What few descriptors leave for connections is said at start, with the numbers.
#[test]
fn few_descriptors_are_warned_of() {
    let backend = Backend::named("fine");
    for (descriptors, possible) in [(300, 0), (323, 1), (400, 40)] {
        let text = config(&[backend.url()], "", "");
        let tinylb = Tinylb::run_with_few_descriptors(&text, descriptors);
        let line = tinylb.wait_for_log("leaves few connections");
        for part in [
            "WARN".to_owned(),
            format!("descriptors={descriptors}"),
            "reserved=320".to_owned(),
            format!("max_connections={}", possible.max(1)),
            "ulimit -n".to_owned(),
        ] {
            assert!(line.contains(&part), "{part} in {line}");
        }
        assert_eq!(tinylb.get("/").text(), "fine");
    }
    let tinylb = Tinylb::run_with_few_descriptors(&config(&[backend.url()], "", ""), 4096);
    assert!(tinylb.log.all().iter().all(|line| !line.contains("leaves few connections")));
}

/// Where nobody says otherwise, no more connections are accepted than there can be.
#[test]
fn with_few_descriptors_each_connection_has_its_turn() {
    let backend = Backend::named("fine");
    let tinylb = Tinylb::run_with_few_descriptors(&config(&[backend.url()], "", ""), 128);
    let mut many: Vec<_> = (0..120).map(|_| tinylb.connect()).collect();
    for client in &mut many {
        client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    }
    for client in &mut many {
        assert_eq!(client.response().text(), "fine");
    }
}

/// The resident memory now, in KiB.
fn resident_kib(tinylb: &Tinylb) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", tinylb.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").parse().expect("a number of KiB")
}

/// An idle connection holds no buffer. The aim is 1 KiB each; the bound here leaves room for a
/// debug build and for what the allocator keeps.
#[test]
fn idle_connections_hold_little_memory() {
    const CONNECTIONS: usize = 2000;
    let backend = Backend::named("fine");
    let tinylb = Tinylb::before(&backend);
    let mut warm: Vec<_> = (0..100).map(|_| tinylb.connect()).collect();
    warm.iter_mut().for_each(|client| drop(client.get("/")));
    let before = resident_kib(&tinylb);
    let mut idle: Vec<_> = (0..CONNECTIONS).map(|_| tinylb.connect()).collect();
    idle.iter_mut().for_each(|client| drop(client.get("/")));
    let each = (resident_kib(&tinylb).saturating_sub(before)) * 1024 / CONNECTIONS;
    println!("{each} bytes for each idle connection");
    assert!(each < 3 * 1024, "{each} bytes each");
}
