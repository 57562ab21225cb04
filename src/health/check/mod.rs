//! One check: an endpoint is asked whether it is well, on a connection of its own, and what came of
//! it is said in words for the log.
//!
//! A check takes no longer than its timeout, and reads no more than a head of
//! [`MAX_HEAD`](crate::http::head::MAX_HEAD) and [`MAX_BODY`] of a body.

mod body;
mod connect;
mod grpc;
mod http;
mod http2;
mod response;

use std::fmt;
use std::io;

use humantime::format_duration;
use tokio::time::Instant;

use crate::config::{Check, Health, ProxyVersion};
use crate::net::dial::Address;
use crate::net::stream::Stream;
use crate::upstream::endpoint::Protocol;
pub use body::MAX_BODY;
pub(in crate::health) use connect::introduce;
use grpc::Grpc;
use http::Http;

/// What checks call themselves, so that endpoints can leave them out of their logs.
const AGENT: &str = concat!("tinylb-health/", env!("CARGO_PKG_VERSION"));

/// What is said of an answer that ends early.
const CUT: &str = "the connection closed before the answer was whole";

/// An endpoint that is checked, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Its number in this process.
    pub id: u64,
    /// Its name in logs.
    pub label: String,
    /// Where to connect, in the order to try, until one of them can be connected to. Empty while
    /// its name does not resolve.
    pub addresses: Vec<Address>,
    /// What is spoken there.
    pub protocol: Protocol,
    /// The PROXY header that it expects, if any.
    pub proxy: Option<ProxyVersion>,
    /// Its own authority, for a Host field.
    pub authority: String,
    /// What is asked, and how often.
    pub health: Health,
}

/// What came of a check.
pub type Verdict = Result<(), Failure>;

/// Why a check did not pass, in a few words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The endpoint is not well.
    Unwell(String),
    /// The check could not be made, for want of something that this process needs. It says nothing
    /// about the endpoint: running out of descriptors must not make all of them look dead.
    NotMade(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Unwell(why) | Self::NotMade(why)) = self;
        f.write_str(why)
    }
}

/// A check of one endpoint, prepared to be made again and again.
#[derive(Debug)]
pub struct Probe {
    target: Target,
    /// The addresses with the port that is asked.
    addresses: Vec<Address>,
    question: Result<Question, &'static str>,
}

/// What is asked.
#[derive(Debug)]
enum Question {
    Tcp,
    Http(Box<Http>),
    Grpc(Box<Grpc>),
}

/// What was wrong with an answer.
#[derive(Debug)]
enum Fault {
    /// This.
    Found(String),
    /// This is missing, and the time is over.
    Late(&'static str),
}

impl Probe {
    /// The check of `target`. A path is asked for as configured: it is not joined to the endpoint's
    /// base path, since whether a process is well is seldom said below the path of one service.
    pub fn new(target: Target) -> Self {
        let Health { check, port, .. } = &target.health;
        let addresses = target.addresses.iter().cloned();
        let addresses = addresses.map(|at| match port {
            Some(port) => at.with_port(*port),
            None => at,
        });
        let addresses = addresses.collect();
        let question = match check {
            Check::Tcp => Ok(Question::Tcp),
            Check::Grpc(service) => {
                Grpc::new(service, &target.authority).map(|grpc| Question::Grpc(Box::new(grpc)))
            }
            Check::Http(check) => {
                Http::new(check, &target.authority).map(|http| Question::Http(Box::new(http)))
            }
        };
        Self { target, addresses, question }
    }

    /// What is checked.
    pub const fn target(&self) -> &Target {
        &self.target
    }

    /// Makes the check.
    ///
    /// # Errors
    /// Why it did not pass.
    pub async fn make(&self) -> Verdict {
        let question = self.question.as_ref().map_err(|why| Failure::Unwell((*why).to_owned()))?;
        let due = Instant::now() + self.target.health.timeout;
        let Target { health: Health { timeout, .. }, .. } = self.target;
        let stream = connect::dial(&self.addresses, timeout, due).await?;
        self.ask(question, stream, due).await.map_err(|fault| {
            Failure::Unwell(match fault {
                Fault::Found(what) => what,
                Fault::Late(what) => format!("{what} within {}", format_duration(timeout)),
            })
        })
    }

    async fn ask(
        &self,
        question: &Question,
        mut stream: Stream,
        due: Instant,
    ) -> Result<(), Fault> {
        if let Some(version) = self.target.proxy {
            let introduced = connect::introduce(&mut stream, version).await;
            introduced.map_err(|error| Fault::Found(in_words(&error)))?;
        }
        if let Question::Tcp = question {
            return Ok(());
        }
        let (stream, is_http2) = connect::agree(&self.target.protocol, stream, due).await?;
        match question {
            Question::Tcp => Ok(()),
            Question::Http(http) if is_http2 => http.ask_by_http2(stream, due).await,
            Question::Http(http) => http.ask(stream, due).await,
            Question::Grpc(grpc) if is_http2 => grpc.ask(stream, due).await,
            Question::Grpc(_) => {
                Err(Fault::Found("the endpoint did not agree on HTTP/2".to_owned()))
            }
        }
    }
}

/// The usual errors in the standard library's words, without the number behind them.
fn in_words(error: &io::Error) -> String {
    use io::ErrorKind as Io;
    match error.kind() {
        kind @ (Io::ConnectionRefused
        | Io::ConnectionReset
        | Io::ConnectionAborted
        | Io::BrokenPipe
        | Io::HostUnreachable
        | Io::NetworkUnreachable
        | Io::NetworkDown) => kind.to_string(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Duration;

    use tokio::net::TcpListener;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// The verdict of a check of these addresses.
    async fn check(addresses: Vec<SocketAddr>, health: Health) -> Verdict {
        let (label, authority) = ("http://app:1".into(), "app:1".into());
        let addresses = addresses.into_iter().map(Address::from).collect();
        let (protocol, proxy) = (Protocol::Http1, None);
        let target = Target { id: 1, label, addresses, protocol, proxy, authority, health };
        Probe::new(target).make().await
    }

    fn unwell(why: &str) -> Verdict {
        Err(Failure::Unwell(why.into()))
    }

    async fn listen() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    /// An address that refuses connections.
    async fn closed() -> SocketAddr {
        listen().await.1
    }

    #[tokio::test]
    async fn a_connection_is_all_that_a_tcp_check_asks_for() {
        let (_listener, open) = listen().await;
        let tcp = || Health::new(Check::Tcp);
        assert_eq!(check(vec![open], tcp()).await, Ok(()));
        let closed = closed().await;
        assert_eq!(check(vec![closed], tcp()).await, unwell("connection refused"));
        assert_eq!(check(vec![closed, open], tcp()).await, Ok(()));
        assert_eq!(check(vec![], tcp()).await, unwell("the name has no address"));
        let other_port = Health { port: Some(open.port()), ..tcp() };
        assert_eq!(check(vec![closed], other_port).await, Ok(()));
    }

    /// A queue of accepted connections that is full drops handshakes, as a host that is gone does.
    #[tokio::test]
    async fn an_address_that_never_answers_has_its_time_and_leaves_some_to_the_next() {
        let full =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        full.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        full.listen(0).unwrap();
        let silent = full.local_addr().unwrap().as_socket().unwrap();
        let _waits = std::net::TcpStream::connect(silent).unwrap();
        let (_listener, open) = listen().await;
        tokio::time::pause();
        let start = Instant::now();
        let tcp = || Health::new(Check::Tcp);
        assert_eq!(check(vec![silent], tcp()).await, unwell("no connection within 1s"));
        let took = start.elapsed();
        assert!((SECOND..SECOND + SECOND / 100).contains(&took), "{took:?}");
        assert_eq!(check(vec![silent, open], tcp()).await, Ok(()));
    }

    #[test]
    fn failures_are_told_in_plain_words() {
        let words = |kind: io::ErrorKind| in_words(&kind.into());
        assert_eq!(words(io::ErrorKind::ConnectionRefused), "connection refused");
        assert_eq!(words(io::ErrorKind::HostUnreachable), "host unreachable");
        let refused = io::Error::from_raw_os_error(111);
        assert_eq!(in_words(&refused), "connection refused");
        assert_eq!(Failure::NotMade("x".into()).to_string(), "x");
    }
}
