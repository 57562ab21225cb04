//! A drain under load with clients that read slowly: each gets every byte of its response, or the exit code
//! and the access log report the loss.

use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::certificates::Authority;
use crate::support::http2::{
    ACK, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PREFACE, RST_STREAM, SETTINGS,
    WINDOW_UPDATE, frame, literals, request, setting,
};
use crate::support::tls_client::{over, tls_client};
use crate::support::{Backend, Signal, Tinylb, config, connect_narrow, eventually, find};

/// The receive buffer of a client in bytes, so that most of a response waits on the balancer's side.
const RECEIVE_BUFFER: usize = 16 * 1024;

/// The rate of a client that does not pause.
const UNLIMITED: usize = usize::MAX;

/// The bytes that a client reads between two pauses.
const PIECE: usize = 8 * 1024;

/// The bytes after which a client sends WINDOW_UPDATE frames; half of a default window.
const WINDOW_STEP: usize = 32 * 1024;

/// A window that is larger than any response.
const WIDE: u32 = 1 << 30;

/// The window of a connection or stream where nobody says otherwise (RFC 9113 6.9.2).
const DEFAULT_WINDOW: u32 = 65_535;

/// The bytes of its body that each client has read before the drain begins.
const BEGUN: usize = 20_000;

/// Sizes of responses in bytes, and the rate in bytes per second at which each is read.
const RESPONSES: [(usize, usize); 4] =
    [(300_000, 100_000), (1_000_000, 400_000), (2_000_000, 500_000), (8_000_000, 4_000_000)];

/// How a client speaks to the balancer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Http1,
    /// HTTP/2 with windows of this size, which the client opens as it reads if it sends updates.
    Http2 {
        window: u32,
        sends_updates: bool,
    },
}

/// HTTP/2 in which the client sends no WINDOW_UPDATE.
const NO_UPDATES: [Protocol; 1] = [Protocol::Http2 { window: WIDE, sends_updates: false }];

/// HTTP/2 in which the client sends WINDOW_UPDATE frames until it has read everything.
const UPDATES: [Protocol; 2] = [
    Protocol::Http2 { window: WIDE, sends_updates: true },
    Protocol::Http2 { window: DEFAULT_WINDOW, sends_updates: true },
];

/// A connection in cleartext or by TLS.
trait Connection: Read + Write + Send {}

impl<T: Read + Write + Send> Connection for T {}

/// The body of `size` bytes, different in every place.
fn body(size: usize) -> Vec<u8> {
    (0..size).map(|i| (i * 31 + i / 251) as u8).collect()
}

/// Sends as many bytes as the last segment of the path says.
fn sized() -> Backend {
    Backend::new(|mut conn| {
        while let Some(request) = conn.request() {
            let size: usize = request.target().rsplit('/').next().unwrap().parse().unwrap();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n");
            if !conn.send([head.as_bytes(), &body(size)].concat()) {
                return;
            }
        }
    })
}

/// The balancer, by TLS where there is an authority. Its access log is JSON.
fn balancer(backend: &Backend, authority: Option<&Authority>, drain_timeout: &str) -> Tinylb {
    let tls = authority.map_or(String::new(), |authority| {
        format!("tls = {{ {} }}", authority.server("server", &["a.test"]).keys())
    });
    let text = config(&[backend.url()], &tls, "");
    Tinylb::run(&format!(
        "log = {{ access = \"json\" }}\ndrain = {{ timeout = {drain_timeout:?} }}\n{text}"
    ))
}

/// Opens a connection that speaks `protocol`, with a small receive buffer; `None` where nobody listens.
fn connect(
    tinylb: &Tinylb,
    authority: Option<&Authority>,
    protocol: Protocol,
) -> Option<Box<dyn Connection>> {
    let socket = connect_narrow(tinylb.address(), RECEIVE_BUFFER).ok()?;
    let Some(authority) = authority else { return Some(Box::new(socket)) };
    let alpn = if protocol == Protocol::Http1 { "http/1.1" } else { "h2" };
    Some(Box::new(over(&tls_client(authority, &[alpn], None), socket)))
}

/// A client that reads at `rate` bytes per second and counts the bytes of its body.
struct Reader<'a> {
    connection: Box<dyn Connection>,
    rate: usize,
    /// The bytes that have been read.
    read: usize,
    began: Instant,
    body: Vec<u8>,
    /// Clients that have read [`BEGUN`] bytes of their bodies.
    begun: &'a AtomicUsize,
}

impl<'a> Reader<'a> {
    fn new(connection: Box<dyn Connection>, rate: usize, begun: &'a AtomicUsize) -> Self {
        Self { connection, rate, read: 0, began: Instant::now(), body: Vec::new(), begun }
    }

    /// Reads once, when the rate allows it.
    fn fill(&mut self, piece: &mut [u8]) -> io::Result<usize> {
        let due = Duration::from_secs_f64(self.read as f64 / self.rate as f64);
        thread::sleep(due.saturating_sub(self.began.elapsed()));
        let most = piece.len().min(PIECE);
        let count = self.connection.read(&mut piece[..most])?;
        self.read += count;
        match count {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            count => Ok(count),
        }
    }

    fn fill_all(&mut self, piece: &mut [u8]) -> io::Result<()> {
        let mut filled = 0;
        while filled < piece.len() {
            filled += self.fill(&mut piece[filled..])?;
        }
        Ok(())
    }

    fn take_body(&mut self, bytes: &[u8]) {
        let before = self.body.len();
        self.body.extend_from_slice(bytes);
        if before < BEGUN && self.body.len() >= BEGUN {
            self.begun.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Asks for `path` in HTTP/1.1, and reads the response to its end.
    fn get_http1(&mut self, path: &str) -> io::Result<()> {
        write!(self.connection, "GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n")?;
        let (mut head, mut piece) = (Vec::new(), [0; PIECE]);
        let end = loop {
            let count = self.fill(&mut piece)?;
            head.extend_from_slice(&piece[..count]);
            if let Some(at) = find(&head, b"\r\n\r\n") {
                break at + 4;
            }
        };
        let text = String::from_utf8_lossy(&head[..end]).to_ascii_lowercase();
        assert!(text.starts_with("http/1.1 200 "), "{text}");
        let length = text.split_once("content-length: ").unwrap().1;
        let length: usize = length.split_once("\r\n").unwrap().0.parse().unwrap();
        self.take_body(&head[end..]);
        while self.body.len() < length {
            let count = self.fill(&mut piece)?;
            self.take_body(&piece[..count]);
        }
        Ok(())
    }

    /// Asks for `path` in HTTP/2, and reads the response up to END_STREAM.
    fn get_http2(&mut self, path: &str, window: u32, sends_updates: bool) -> io::Result<()> {
        const INITIAL_WINDOW_SIZE: u16 = 4;
        let mut begin = PREFACE.to_vec();
        begin.extend(frame(SETTINGS, 0, 0, &setting(INITIAL_WINDOW_SIZE, window)));
        if window > DEFAULT_WINDOW {
            begin.extend(frame(WINDOW_UPDATE, 0, 0, &(window - DEFAULT_WINDOW).to_be_bytes()));
        }
        let fields = literals(&request("GET", path));
        begin.extend(frame(HEADERS, END_HEADERS | END_STREAM, 1, &fields));
        self.connection.write_all(&begin)?;
        let mut unacknowledged = 0;
        loop {
            let mut head = [0; 9];
            self.fill_all(&mut head)?;
            let [a, b, c, kind, flags, ..] = head;
            let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
            self.fill_all(&mut payload)?;
            match kind {
                DATA => self.take_body(&payload),
                SETTINGS if flags & ACK == 0 => self.send(&frame(SETTINGS, ACK, 0, &[])),
                PING if flags & ACK == 0 => self.send(&frame(PING, ACK, 0, &payload)),
                RST_STREAM => return Err(io::Error::other("the stream was reset")),
                GOAWAY => assert_eq!(payload[4..8], [0; 4], "no error"),
                _ => {}
            }
            if kind == DATA && flags & END_STREAM != 0 {
                return Ok(());
            }
            unacknowledged += if kind == DATA { payload.len() } else { 0 };
            if sends_updates && unacknowledged >= WINDOW_STEP {
                let by = u32::try_from(unacknowledged).unwrap().to_be_bytes();
                let updates = [frame(WINDOW_UPDATE, 0, 0, &by), frame(WINDOW_UPDATE, 0, 1, &by)];
                self.send(&updates.concat());
                unacknowledged = 0;
            }
        }
    }

    /// Sends where the balancer may have closed: what it sent before that is still to be read.
    fn send(&mut self, bytes: &[u8]) {
        let _ = self.connection.write_all(bytes).and_then(|()| self.connection.flush());
    }
}

/// A response as a client got it.
#[derive(Debug)]
struct Outcome {
    what: String,
    path: String,
    size: usize,
    got: usize,
    /// Why the response ended early, or which byte was another one.
    error: Option<String>,
}

/// Asks for `size` bytes under `path`, and reads the response at `rate`.
fn read_slowly(
    connection: Box<dyn Connection>,
    protocol: Protocol,
    (path, size, rate): (String, usize, usize),
    begun: &AtomicUsize,
) -> Outcome {
    let mut reader = Reader::new(connection, rate, begun);
    let read = match protocol {
        Protocol::Http1 => reader.get_http1(&path),
        Protocol::Http2 { window, sends_updates } => reader.get_http2(&path, window, sends_updates),
    };
    let expected = body(size);
    let wrong = reader.body.iter().zip(&expected).position(|(got, expected)| got != expected);
    let error = match (read, wrong) {
        (_, Some(at)) => Some(format!("byte {at} is another one")),
        (Err(error), None) => Some(error.to_string()),
        (Ok(()), None) => None,
    };
    let what = format!("{protocol:?}, {size} bytes at {rate} bytes/s");
    let got = reader.body.len();
    Outcome { what, path, size, got, error: error.or((got != size).then(|| "short".to_owned())) }
}

/// Sends small requests until the balancer takes no more connections.
fn load(tinylb: &Tinylb, authority: Option<&Authority>) {
    let nobody = AtomicUsize::new(0);
    while let Some(connection) = connect(tinylb, authority, Protocol::Http1) {
        let mut reader = Reader::new(connection, UNLIMITED, &nobody);
        while reader.get_http1("/load/100").is_ok() {
            reader.body.clear();
        }
    }
}

/// Begins a drain while clients that speak each of `protocols` read each of `responses`. Returns the exit
/// code and what each client got.
fn drain(
    tinylb: &mut Tinylb,
    authority: Option<&Authority>,
    protocols: &[Protocol],
    responses: &[(usize, usize)],
) -> (Option<i32>, Vec<Outcome>) {
    let begun = AtomicUsize::new(0);
    let outcomes = thread::scope(|scope| {
        let (balancer, begun) = (&*tinylb, &begun);
        let mut readers = Vec::new();
        for protocol in protocols {
            for (size, rate) in responses {
                let asked = (format!("/{}/{size}", readers.len()), *size, *rate);
                let connection = connect(balancer, authority, *protocol).expect("it listens");
                readers.push(scope.spawn(move || read_slowly(connection, *protocol, asked, begun)));
            }
        }
        (0..4).for_each(|_| drop(scope.spawn(|| load(balancer, authority))));
        eventually("all clients have begun to read", || {
            (begun.load(Ordering::SeqCst) == readers.len()).then_some(())
        });
        balancer.signal(Signal::TERM);
        readers.into_iter().map(|reader| reader.join().unwrap()).collect()
    });
    (tinylb.wait_exit().code(), outcomes)
}

#[track_caller]
fn assert_nothing_is_lost(protocols: &[Protocol], is_tls: bool) {
    let backend = sized();
    let authority = is_tls.then(|| Authority::new("Test Authority"));
    let mut tinylb = balancer(&backend, authority.as_ref(), "1m");
    let (code, outcomes) = drain(&mut tinylb, authority.as_ref(), protocols, &RESPONSES);
    let lost: Vec<_> = outcomes
        .iter()
        .filter_map(|outcome| {
            let Outcome { what, size, got, error, .. } = outcome;
            error.as_ref().map(|error| format!("{what}: {got} of {size}: {error}"))
        })
        .collect();
    assert!(lost.is_empty(), "{lost:#?}, and the exit code is {code:?}");
    assert_eq!(code, Some(0));
    for Outcome { path, size, .. } in &outcomes {
        let line = tinylb.told(path);
        assert_eq!(line["status"], 200, "{line}");
        assert!(line["bytes_out"].as_u64() >= Some(*size as u64), "{line}");
    }
}

#[test]
fn in_http_1_1_nothing_is_lost() {
    assert_nothing_is_lost(&[Protocol::Http1], false);
}

#[test]
fn in_http_1_1_by_tls_nothing_is_lost() {
    assert_nothing_is_lost(&[Protocol::Http1], true);
}

#[test]
fn in_http_2_without_window_updates_nothing_is_lost() {
    assert_nothing_is_lost(&NO_UPDATES, false);
}

#[test]
fn in_http_2_by_tls_without_window_updates_nothing_is_lost() {
    assert_nothing_is_lost(&NO_UPDATES, true);
}

#[test]
fn in_http_2_with_window_updates_nothing_is_lost() {
    assert_nothing_is_lost(&UPDATES, false);
}

#[test]
fn in_http_2_by_tls_with_window_updates_nothing_is_lost() {
    assert_nothing_is_lost(&UPDATES, true);
}

/// A deadline that comes before all is read: a response that is lost shows in the exit code and in the log.
#[track_caller]
fn assert_losses_are_reported(protocols: &[Protocol], is_tls: bool) {
    // More than the kernel takes, and less than that.
    for response in [(20_000_000, 500_000), (600_000, 200_000)] {
        let backend = sized();
        let authority = is_tls.then(|| Authority::new("Test Authority"));
        let mut tinylb = balancer(&backend, authority.as_ref(), "500ms");
        let (code, outcomes) = drain(&mut tinylb, authority.as_ref(), protocols, &[response]);
        let lost: Vec<_> = outcomes.iter().filter(|outcome| outcome.error.is_some()).collect();
        // A connection that is cut off at the deadline may still be delivered by the kernel.
        if lost.is_empty() {
            assert!(response.0 < 20_000_000, "the deadline cuts this one off");
        } else {
            assert_eq!(code, Some(1), "{lost:?}");
            tinylb.wait_for_log("the drain's deadline has passed");
        }
    }
}

#[test]
fn in_http_1_1_the_deadline_is_reported() {
    assert_losses_are_reported(&[Protocol::Http1], false);
}

#[test]
fn in_http_1_1_by_tls_the_deadline_is_reported() {
    assert_losses_are_reported(&[Protocol::Http1], true);
}

#[test]
fn in_http_2_the_deadline_is_reported() {
    assert_losses_are_reported(&[NO_UPDATES[0], UPDATES[0], UPDATES[1]], false);
}

#[test]
fn in_http_2_by_tls_the_deadline_is_reported() {
    assert_losses_are_reported(&[NO_UPDATES[0], UPDATES[0], UPDATES[1]], true);
}
