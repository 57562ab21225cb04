//! Each client gets its own answers, in their order, whatever happens to its requests on the way.

use std::thread;

use crate::support::{Backend, Conn, Request, Tinylb, ok, ranked};

/// Says what was asked, and of what body.
fn echo(request: &Request) -> String {
    ok(&format!("{} {}", request.target(), String::from_utf8_lossy(&request.body)))
}

/// Fails in a way that goes by the number at the end of the path: seldom not at all.
fn fail(conn: &mut Conn, request: &Request, number: usize) -> bool {
    let answer = echo(request);
    match number % 8 {
        // A reset or a close without an answer.
        0 => return false,
        // A part of an answer.
        1 => {
            conn.send(&answer[..answer.len() - 1]);
        }
        2 => {
            conn.send("HTTP/1.1 200 OK\r\nContent-Le");
        }
        3 => {
            conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nlost\r\n");
        }
        // Nonsense.
        4 => {
            conn.send("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nlost");
        }
        // Nothing for too long.
        5 => {
            conn.drain();
        }
        // The connection goes on.
        6 => {
            return conn.send("HTTP/1.1 503 Sorry\r\nContent-Length: 4\r\n\r\nlost");
        }
        _ => return conn.send(answer),
    }
    false
}

fn pipeline(tinylb: &Tinylb, name: &str, count: usize) {
    let mut client = tinylb.connect();
    let mut bytes = String::new();
    for number in 0..count {
        let rest = match number % 3 {
            0 => "GET".to_owned(),
            1 => "DELETE".to_owned(),
            _ => "PUT".to_owned(),
        };
        let body = format!("{name}:{number}");
        let framing = match number % 3 {
            2 => format!("Content-Length: {}\r\n\r\n{body}", body.len()),
            _ => "\r\n".to_owned(),
        };
        bytes += &format!("{rest} /{name}/{number} HTTP/1.1\r\nHost: a\r\n{framing}");
    }
    let mut writer = client.wire().stream().try_clone().unwrap();
    let writing = thread::spawn(move || {
        use std::io::Write;
        writer.write_all(bytes.as_bytes()).unwrap();
    });
    for number in 0..count {
        let response = client.response();
        let body = if number % 3 == 2 { format!("{name}:{number}") } else { String::new() };
        assert_eq!(response.status, 200, "{name} {number}");
        assert_eq!(response.text(), format!("/{name}/{number} {body}"));
    }
    writing.join().unwrap();
    client.assert_open();
}

#[test]
fn two_clients_get_their_own_answers_through_all_of_it() {
    let failing = Backend::new(|mut conn| {
        while let Some(request) = conn.request() {
            let number = request.target().rsplit('/').next().and_then(|number| number.parse().ok());
            if !fail(&mut conn, &request, number.unwrap_or(7)) {
                return;
            }
        }
    });
    let well = Backend::new(|mut conn| {
        while let Some(request) = conn.request() {
            conn.send(echo(&request));
        }
    });
    let upstream = "ejection = false\n\
                    retry = { on = [503], timeout = \"50ms\", hold = \"64KiB\", budget = 1.0 }";
    let text = ranked(&[failing.url(), well.url()], "hedge = \"20ms\"", upstream);
    let tinylb = Tinylb::run(&text);
    thread::scope(|scope| {
        for name in ["ada", "bob"] {
            let tinylb = &tinylb;
            scope.spawn(move || pipeline(tinylb, name, 200));
        }
    });
    for reason in ["reset", "incomplete", "malformed", "timeout", "status", "hedge"] {
        let reason = format!("reason=\"{reason}\"");
        assert!(tinylb.metric("tinylb_retries_total", &[&reason]) > 0.0, "{reason} happened");
    }
}
