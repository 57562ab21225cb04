//! The queue where limits are reached: who waits, for how long, in which order, and who gives up.

use std::time::{Duration, Instant};

use crate::support::{Client, Held, Response, Tinylb, config, eventually};

/// A balancer that lets one request at a time to `backend`, with these keys of the queue.
fn one_at_a_time(backend: &Held, queue: &str) -> Tinylb {
    let upstream = format!("limits = {{ requests = 1 }}\nqueue = {{ {queue} }}");
    Tinylb::run(&config(&[backend.url()], "", &upstream))
}

fn waiting(tinylb: &Tinylb) -> usize {
    tinylb.metric("tinylb_upstream_queue_length", &[]) as usize
}

#[track_caller]
fn wait_for_queue(tinylb: &Tinylb, length: usize) {
    eventually(&format!("{length} wait"), || (waiting(tinylb) == length).then_some(()));
}

/// Sends a request without waiting for its answer.
fn ask(tinylb: &Tinylb, path: &str) -> Client {
    let mut client = tinylb.connect();
    client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
    client
}

/// Puts `/first` in flight, and lines up `/0`, `/1` and so on behind it, in this order.
fn line_up(tinylb: &Tinylb, backend: &Held, n: usize) -> Vec<Client> {
    let mut clients = vec![ask(tinylb, "/first")];
    backend.wait_for(1);
    for i in 0..n {
        clients.push(ask(tinylb, &format!("/{i}")));
        wait_for_queue(tinylb, i + 1);
    }
    clients
}

/// Answers what the backend holds, one after the other, and says in which order it got the `n`
/// that waited.
fn order(backend: &Held, n: usize) -> Vec<String> {
    backend.answer("/first");
    let next = |_| {
        let target = eventually("the next one has its turn", || {
            backend.holds().into_iter().find(|target| target != "/first")
        });
        backend.answer(&target);
        eventually("it is answered", || (!backend.holds().contains(&target)).then_some(()));
        target
    };
    (0..n).map(next).collect()
}

#[track_caller]
fn assert_refused(response: &Response) {
    response.assert_fault(503, "connection_limit_reached");
    assert_eq!(response.head.get("retry-after"), Some("1"), "{:?}", response.head.raw);
}

#[test]
fn fifo_is_the_order_in_which_they_came() {
    let backend = Held::new("fine");
    let tinylb = one_at_a_time(&backend, "size = 8, timeout = \"1m\", order = \"fifo\"");
    let mut clients = line_up(&tinylb, &backend, 8);
    assert_eq!(order(&backend, 8), ["/0", "/1", "/2", "/3", "/4", "/5", "/6", "/7"]);
    for client in &mut clients {
        assert_eq!(client.response().text(), "fine", "whichever worker it is on");
    }
    assert_eq!(backend.most(), 1);
    assert_eq!(tinylb.metric("tinylb_queued_requests_total", &[]), 8.0);
}

#[test]
fn adaptive_is_the_newest_first_while_the_queue_is_more_than_half_full() {
    let backend = Held::new("fine");
    let tinylb = one_at_a_time(&backend, "size = 8, timeout = \"1m\"");
    let mut clients = line_up(&tinylb, &backend, 6);
    assert_eq!(order(&backend, 6), ["/5", "/4", "/0", "/1", "/2", "/3"]);
    for client in &mut clients {
        assert_eq!(client.response().text(), "fine");
    }
}

#[test]
fn adaptive_is_the_newest_first_once_the_oldest_is_late() {
    let backend = Held::new("fine");
    let tinylb = one_at_a_time(&backend, "size = 100, timeout = \"10s\"");
    let mut clients = line_up(&tinylb, &backend, 3);
    // The oldest is late after half of the time.
    std::thread::sleep(Duration::from_millis(5100));
    assert_eq!(order(&backend, 3)[0], "/2");
    assert_eq!(clients.remove(0).response().text(), "fine");
}

#[test]
fn a_full_queue_is_said_so_at_once() {
    let backend = Held::new("fine");
    let tinylb = one_at_a_time(&backend, "size = 2, timeout = \"1m\"");
    let clients = line_up(&tinylb, &backend, 2);
    let mut refused: Vec<_> = (1..=4).map(|_| ask(&tinylb, "/refused")).collect();
    for client in &mut refused {
        assert_refused(&client.response());
    }
    assert_eq!(tinylb.metric("tinylb_queue_full_requests_total", &[]), 4.0);
    backend.open();
    for mut client in clients {
        assert_eq!(client.response().status, 200);
    }
    for client in &mut refused {
        client.assert_open();
    }
    assert!(backend.backend().requests().iter().all(|r| r.target() != "/refused"));
}

#[test]
fn without_a_queue_nobody_waits() {
    let backend = Held::new("fine");
    let tinylb = one_at_a_time(&backend, "size = 0");
    let mut clients = line_up(&tinylb, &backend, 0);
    for _ in 0..6 {
        assert_refused(&ask(&tinylb, "/refused").response());
    }
    assert_eq!(tinylb.metric("tinylb_queue_full_requests_total", &[]), 6.0);
    assert_eq!(tinylb.metric("tinylb_queued_requests_total", &[]), 0.0);
    backend.open();
    assert_eq!(clients[0].response().status, 200);
    assert_eq!(clients[0].get("/again").status, 200);
}

#[test]
fn whoever_waits_too_long_is_told_so() {
    let backend = Held::new("fine");
    let tinylb = one_at_a_time(&backend, "timeout = \"400ms\"");
    let mut first = line_up(&tinylb, &backend, 0);
    let start = Instant::now();
    let mut late: Vec<_> = (0..6).map(|i| ask(&tinylb, &format!("/late/{i}"))).collect();
    for client in &mut late {
        assert_refused(&client.response());
    }
    assert!(start.elapsed() >= Duration::from_millis(400), "{:?}", start.elapsed());
    assert_eq!(tinylb.metric("tinylb_queue_timeout_requests_total", &[]), 6.0);
    assert_eq!(waiting(&tinylb), 0);
    backend.open();
    assert_eq!(first[0].response().status, 200);
    for client in &mut late {
        client.assert_open();
    }
    let reached = backend.backend().requests();
    assert!(reached.iter().all(|r| !r.target().starts_with("/late")));
}

/// Its body is read only once there is somebody to send it to.
#[test]
fn a_request_with_a_body_waits_as_well() {
    let backend = Held::new("fine");
    let tinylb = one_at_a_time(&backend, "timeout = \"1m\"");
    let mut clients = line_up(&tinylb, &backend, 0);
    let body = "x".repeat(200_000);
    let mut post = tinylb.connect();
    let head = format!("POST /post HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len());
    std::thread::scope(|scope| {
        let sending = scope.spawn(|| {
            post.send(&head);
            post.send(&body);
            post.response()
        });
        wait_for_queue(&tinylb, 1);
        backend.open();
        assert_eq!(sending.join().unwrap().status, 200);
    });
    assert_eq!(clients[0].response().status, 200);
    let requests = backend.backend().requests();
    let post = requests.iter().find(|r| r.target() == "/post").unwrap();
    assert_eq!(post.body, body.as_bytes());
}

#[test]
fn a_client_that_goes_away_gives_its_place_up() {
    let backend = Held::new("fine");
    let tinylb = one_at_a_time(&backend, "size = 2, timeout = \"1m\"");
    let mut clients = line_up(&tinylb, &backend, 2);
    clients.remove(1).reset();
    wait_for_queue(&tinylb, 1);
    clients.push(ask(&tinylb, "/next"));
    wait_for_queue(&tinylb, 2);
    clients.remove(1).reset();
    clients.remove(1).reset();
    wait_for_queue(&tinylb, 0);
    backend.open();
    assert_eq!(clients[0].response().status, 200);
    assert_eq!(clients[0].get("/again").status, 200);
    let targets: Vec<_> =
        backend.backend().requests().iter().map(|r| r.target().to_owned()).collect();
    assert_eq!(targets, ["/first", "/again"], "nothing is sent for those who have gone");
}
