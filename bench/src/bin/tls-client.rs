//! A client that makes a new TLS connection for each request:
//! `tls-client ADDRESS full|resumed CONNECTIONS SECONDS`.
//!
//! CONNECTIONS of them at a time, on one thread, until SECONDS have passed: connect, handshake,
//! `GET /` with `Connection: close`, and read to the end. With `resumed` each goes on with a session
//! of the one before it, so that all but the first of each have no certificate in them; with `full`
//! none does. A handshake that was not of the kind that is asked for counts as an error. At the end
//! the program prints what it saw, as JSON.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bench::histogram::Histogram;
use bench::tls;
use rustls::HandshakeKind;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// The name in the certificate.
const NAME: &str = "localhost";

/// An answer that takes longer is an error.
const LIMIT: Duration = Duration::from_secs(10);

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// Room for the answer, whatever a proxy adds to it.
const ANSWER: usize = 1024;

/// What one of those at a time saw.
#[derive(Default)]
struct Report {
    bytes: usize,
    answered: u64,
    errors: BTreeMap<&'static str, u64>,
    times: Histogram,
}

impl Report {
    fn merge(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.answered += other.answered;
        for (kind, count) in other.errors {
            *self.errors.entry(kind).or_default() += count;
        }
        self.times.merge(other.times);
    }

    fn json(&self, took: Duration) -> String {
        let errors: Vec<_> =
            self.errors.iter().map(|(kind, count)| format!("\"{kind}\": {count}")).collect();
        format!(
            "{{\"requests\": {}, \"bytes\": {}, \"seconds\": {:.6}, \"errors\": {{{}}},\n\
             \"times\": {}}}",
            self.answered,
            self.bytes,
            took.as_secs_f64(),
            errors.join(", "),
            self.times.json(),
        )
    }
}

/// One connection after the other until the end.
async fn ask_until(end: Instant, address: SocketAddr, resumes: bool, tls: TlsConnector) -> Report {
    let mut report = Report::default();
    let mut first = true;
    while Instant::now() < end {
        let began = Instant::now();
        match timeout(LIMIT, ask(address, &tls)).await.unwrap_or(Err("timeout")) {
            Ok((bytes, kind)) => {
                report.answered += 1;
                report.bytes += bytes;
                report.times.add(began.elapsed());
                let wanted =
                    if resumes && !first { HandshakeKind::Resumed } else { HandshakeKind::Full };
                if kind != Some(wanted) {
                    *report.errors.entry("other handshake").or_default() += 1;
                }
                first = false;
            }
            Err(kind) => *report.errors.entry(kind).or_default() += 1,
        }
    }
    report
}

/// One request on a connection of its own; how long the answer was, and how the handshake went.
async fn ask(
    address: SocketAddr,
    tls: &TlsConnector,
) -> Result<(usize, Option<HandshakeKind>), &'static str> {
    let socket = TcpStream::connect(address).await.map_err(|_| "connect")?;
    socket.set_nodelay(true).map_err(|_| "connect")?;
    let name = ServerName::try_from(NAME).map_err(|_| "name")?;
    let mut stream = tls.connect(name, socket).await.map_err(|_| "handshake")?;
    let kind = stream.get_ref().1.handshake_kind();
    stream.write_all(REQUEST).await.map_err(|_| "write")?;
    let mut answer = Vec::with_capacity(ANSWER);
    loop {
        match stream.read_buf(&mut answer).await {
            Ok(0) => break,
            Ok(_) => {}
            // Some servers just close after an answer whose length is known.
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => break,
            Err(_) => return Err("read"),
        }
    }
    if !answer.starts_with(b"HTTP/1.1 200 ") || !answer.ends_with(b"\r\n\r\nhello\n") {
        return Err("answer");
    }
    Ok((answer.len(), kind))
}

async fn run(
    address: SocketAddr,
    resumes: bool,
    connections: usize,
    time: Duration,
) -> Result<String, Box<dyn Error>> {
    let began = Instant::now();
    let mut loops = JoinSet::new();
    for _ in 0..connections {
        // Each remembers its own sessions, so that nobody takes another's.
        let connector = TlsConnector::from(tls::client(resumes)?);
        loops.spawn(ask_until(began + time, address, resumes, connector));
    }
    let mut report = Report::default();
    while let Some(one) = loops.join_next().await {
        report.merge(one?);
    }
    Ok(report.json(began.elapsed()))
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let usage = "usage: tls-client ADDRESS full|resumed CONNECTIONS SECONDS";
    let [address, kind, connections, seconds] = arguments.as_slice() else {
        return Err(usage.into());
    };
    let resumes = match kind.as_str() {
        "full" => false,
        "resumed" => true,
        _ => return Err(usage.into()),
    };
    let time = Duration::from_secs_f64(seconds.parse()?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(run(address.parse()?, resumes, connections.parse()?, time))?;
    println!("{report}");
    Ok(())
}
