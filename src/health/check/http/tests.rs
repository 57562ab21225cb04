use std::future::Future;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::config::{BodyMatch, Check, Health};
use crate::health::check::{Failure, MAX_BODY, Probe, Target};
use crate::upstream::endpoint::Protocol;

/// The verdict on a server that answers with what `serve` does to its first connection once the
/// request has come, and the request.
async fn check<F: Future>(
    check: HttpCheck,
    serve: impl FnOnce(TcpStream) -> F,
) -> (Result<(), String>, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let health = Health {
        // Nothing but a fault in the check makes a test last that long.
        timeout: Duration::from_secs(20),
        ..Health::new(Check::Http(check))
    };
    let probe = Probe::new(Target {
        id: 1,
        label: "http://app:8001/base".into(),
        addresses: vec![listener.local_addr().unwrap().into()],
        protocol: Protocol::Http1,
        proxy: None,
        authority: "app:8001".into(),
        health,
    });
    let served = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0);
        }
        serve(stream).await;
        String::from_utf8(request).unwrap()
    };
    let (verdict, request) = tokio::join!(probe.make(), served);
    let verdict = verdict.map_err(|failure| match failure {
        Failure::Unwell(why) => why,
        Failure::NotMade(why) => panic!("not made: {why}"),
    });
    (verdict, request)
}

/// The verdict on an answer of these bytes, after which the server closes.
async fn verdict(wanted: HttpCheck, answer: impl AsRef<[u8]>) -> Result<(), String> {
    let serve = async |mut stream: TcpStream| {
        // The check may have seen enough before the end.
        let _ = stream.write_all(answer.as_ref()).await;
    };
    check(wanted, serve).await.0
}

fn with_body(body: BodyMatch) -> HttpCheck {
    HttpCheck { body: Some(body), ..HttpCheck::default() }
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[tokio::test]
async fn the_request_is_what_was_configured() {
    let serve = async |mut stream: TcpStream| stream.write_all(OK.as_bytes()).await;
    let (verdict, request) = check(HttpCheck::default(), serve).await;
    assert_eq!(verdict, Ok(()));
    let agent = format!("user-agent: {AGENT}");
    assert_eq!(
        request.split("\r\n").collect::<Vec<_>>(),
        ["GET / HTTP/1.1", &agent, "connection: close", "host: app:8001", "", ""]
    );
    let asked = HttpCheck {
        method: "POST".into(),
        path: "//healthz?deep=1".into(),
        host: Some("api.internal".into()),
        headers: [("X-Check", "1"), ("user-agent", "me"), ("content-length", "5")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec(),
        ..HttpCheck::default()
    };
    let (verdict, request) = check(asked, serve).await;
    assert_eq!(verdict, Ok(()));
    assert!(request.starts_with("POST //healthz?deep=1 HTTP/1.1\r\n"), "{request}");
    for line in ["x-check: 1", "user-agent: me", "host: api.internal", "content-length: 0"] {
        assert!(request.contains(&format!("\r\n{line}\r\n")), "{line} in {request}");
    }
}

#[tokio::test]
async fn a_status_is_well_or_not() {
    let cases = [
        ("HTTP/1.1 204 No Content\r\n\r\n", Ok(())),
        ("HTTP/1.0 200 OK\r\n\r\n", Ok(())),
        ("HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n", Ok(())),
        ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", Ok(())),
        ("HTTP/1.1 503 \r\nContent-Length: 0\r\n\r\n", Err("status 503".to_owned())),
        ("HTTP/1.1 404 Not Found\r\n\r\n", Err("status 404".to_owned())),
    ];
    for (answer, expected) in cases {
        assert_eq!(verdict(HttpCheck::default(), answer).await, expected, "{answer}");
    }
    let teapot = HttpCheck { status: Statuses(vec![418..=418]), ..HttpCheck::default() };
    assert_eq!(verdict(teapot.clone(), "HTTP/1.1 418 \r\n\r\n").await, Ok(()));
    assert_eq!(verdict(teapot, OK).await, Err("status 200".into()));
}

#[tokio::test]
async fn a_body_has_what_was_asked_for_or_not() {
    let ok = || with_body(BodyMatch::Contains("ok".into()));
    assert_eq!(verdict(ok(), OK).await, Ok(()));
    let chunked =
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n1\r\nk\r\n0\r\n\r\n";
    assert_eq!(verdict(ok(), chunked).await, Ok(()));
    assert_eq!(verdict(ok(), "HTTP/1.1 200 OK\r\n\r\nall is ok").await, Ok(()));
    let sick = OK.replace("ok", "ko");
    assert_eq!(verdict(ok(), &sick).await, Err("the body lacks `ok`".into()));
    let regex = || with_body(BodyMatch::Matches("^(?i)OK$".into()));
    assert_eq!(verdict(regex(), OK).await, Ok(()));
    let wrong = Err("the body does not match `^(?i)OK$`".into());
    assert_eq!(verdict(regex(), sick).await, wrong);
}

#[tokio::test]
async fn the_answer_to_head_has_no_body() {
    let head = || HttpCheck { method: "HEAD".into(), ..HttpCheck::default() };
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n";
    assert_eq!(verdict(head(), answer).await, Ok(()));
    let body = Some(BodyMatch::Contains("ok".into()));
    let verdict = verdict(HttpCheck { body, ..head() }, answer).await;
    assert_eq!(verdict, Err("the body lacks `ok`".into()));
}

#[tokio::test]
async fn a_body_without_an_end_is_read_no_further_than_the_bound() {
    let mut sent = 0;
    let serve = async |mut stream: TcpStream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        while stream.write_all(&[b'x'; 4096]).await.is_ok() {
            sent += 4096;
        }
    };
    let wanted = with_body(BodyMatch::Contains("ok".into()));
    let (verdict, _) = check(wanted, serve).await;
    let lacks = "the beginning of the body, 64 KiB, lacks `ok`";
    assert_eq!(verdict, Err(lacks.into()));
    assert!(sent >= MAX_BODY);
}

#[tokio::test]
async fn a_body_is_not_waited_for_where_nothing_is_asked_of_it() {
    let (seen, mut closed) = tokio::sync::oneshot::channel();
    let serve = async |mut stream: TcpStream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nbegun").await.unwrap();
        seen.send(stream.read(&mut [0]).await.unwrap_or(0)).unwrap();
    };
    assert_eq!(check(HttpCheck::default(), serve).await.0, Ok(()));
    assert_eq!(closed.try_recv(), Ok(0), "the check has closed its connection");
}

/// The clock stands still once the server has done its part, and then goes on by itself.
#[tokio::test]
async fn what_does_not_come_is_waited_for_until_the_timeout() {
    let cases = [
        ("", "no answer within 20s"),
        ("HTTP/1.1 200 OK\r\nX: ", "no answer within 20s"),
        ("HTTP/1.1 200 OK\r\n\r\no", "the body did not end within 20s"),
    ];
    for (answer, expected) in cases {
        let serve = async |mut stream: TcpStream| {
            stream.write_all(answer.as_bytes()).await.unwrap();
            tokio::task::yield_now().await;
            tokio::time::pause();
            assert_eq!(stream.read(&mut [0]).await.unwrap_or(0), 0);
            tokio::time::resume();
        };
        let wanted = with_body(BodyMatch::Contains("ok".into()));
        assert_eq!(check(wanted, serve).await.0, Err(expected.into()));
    }
}

#[tokio::test]
async fn answers_that_are_none_are_failures() {
    let head = |count: usize, length: usize| {
        let field = format!("X: {}\r\n", "x".repeat(length));
        format!("HTTP/1.1 200 OK\r\n{}\r\n", field.repeat(count))
    };
    let closed = "the connection closed before the answer was whole";
    let too_large = "the answer's head is too large: head over 32 KiB";
    let too_many = "the answer's head is too large: more than 128 fields";
    let chunk = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n".to_owned();
    let short = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok".to_owned();
    let cases = [
        ("SSH-2.0-OpenSSH_9.2\r\n".to_owned(), "the answer is malformed: "),
        ("HTTP/1.1 2000 OK\r\n\r\n".to_owned(), "the answer is malformed: "),
        ("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n".to_owned(), "the answer is malformed: "),
        (String::new(), closed),
        ("HTTP/1.1 200 OK\r\n".to_owned(), closed),
        (short, closed),
        (chunk, "the answer is malformed: "),
        (head(1, 40_000), too_large),
        (head(1000, 1), too_many),
    ];
    for (answer, expected) in cases {
        let wanted = with_body(BodyMatch::Contains("ok".into()));
        let why = verdict(wanted, &answer).await.unwrap_err();
        assert!(why.starts_with(expected), "{:.60}: {why}", answer);
    }
}

#[tokio::test]
async fn a_reset_is_called_one() {
    let serve = async |stream: TcpStream| {
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    };
    let (verdict, _) = check(HttpCheck::default(), serve).await;
    assert_eq!(verdict, Err("connection reset".into()));
}

#[test]
fn what_makes_no_request_is_said() {
    let wrong = |check: HttpCheck| Http::new(&check, "app").unwrap_err();
    let default = HttpCheck::default;
    assert_eq!(
        wrong(HttpCheck { method: "A B".into(), ..default() }),
        "the check's method is not valid"
    );
    assert_eq!(
        wrong(HttpCheck { path: "/ x".into(), ..default() }),
        "the check's path is not valid"
    );
    let headers = vec![("x".into(), "\n".into())];
    assert_eq!(wrong(HttpCheck { headers, ..default() }), "a field of the check is not valid");
    assert_eq!(
        wrong(HttpCheck { host: Some("\n".into()), ..default() }),
        "the check's host is not valid"
    );
}
