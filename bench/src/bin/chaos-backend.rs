//! A backend of the chaos run, which can be told to be ill: `chaos-backend LISTEN NAME POSTS`.
//!
//! It answers `GET`, `PUT` and `POST /chaos/ID` as [`bench::chaos::answer`] has it, and `/healthz`. The
//! ids of POSTs that it has received go to the file POSTS, so that one that came twice is found.
//!
//! Each line on its standard input says how it is from now on; when that ends, so does the program:
//!
//! - `well`
//! - `slow FACTOR MS`: the work takes FACTOR times as long, and MS longer
//! - `reset accept|request|answer SHARE`: that share of connections (`accept`) or requests is reset: at
//!   once, with the request read and nothing said, or in the middle of the answer
//! - `unavailable`: 503 for everything
//!
//! Health checks see it as well, unless the line ends with `lies`.

use std::error::Error;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, SystemTime};

use bench::chaos::{self, Id, Method};
use bench::message::{Broken, Framing, Head, Wire, chunked};
use rustix::net::sockopt;

/// An answer is sent in pieces of this size, so that it can be interrupted.
const PIECE: usize = 16 * 1024;

/// Between two pieces.
const PAUSE: Duration = Duration::from_micros(500);

/// What is wrong.
#[derive(Clone, Copy)]
enum Illness {
    Well,
    Slow { factor: f64, longer: Duration },
    Reset { at: Moment, share: f64 },
    Unavailable,
}

/// When a connection is reset.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Moment {
    Accept,
    Request,
    Answer,
}

/// How the backend is.
#[derive(Clone, Copy)]
struct State {
    illness: Illness,
    /// Health checks are answered as if it were well.
    lies: bool,
}

impl State {
    const WELL: Self = Self { illness: Illness::Well, lies: false };

    /// Reads a line of the standard input.
    fn parse(line: &str) -> Option<Self> {
        let mut words: Vec<&str> = line.split_ascii_whitespace().collect();
        let lies = words.last() == Some(&"lies");
        if lies {
            words.pop();
        }
        let illness = match words.as_slice() {
            ["well"] => Illness::Well,
            ["slow", factor, longer] => Illness::Slow {
                factor: factor.parse().ok()?,
                longer: Duration::from_millis(longer.parse().ok()?),
            },
            ["reset", moment, share] => {
                let at = match *moment {
                    "accept" => Moment::Accept,
                    "request" => Moment::Request,
                    "answer" => Moment::Answer,
                    _ => return None,
                };
                Illness::Reset { at, share: share.parse().ok()? }
            }
            ["unavailable"] => Illness::Unavailable,
            _ => return None,
        };
        Some(Self { illness, lies })
    }

    /// Whether a reset is due at this moment.
    fn resets(self, moment: Moment, draw: u64) -> bool {
        matches!(self.illness, Illness::Reset { at, share }
            if at == moment && chaos::share(draw) < share)
    }
}

/// What all connections share.
struct Backend {
    name: String,
    state: Mutex<State>,
    /// Counts up; each draw and each answer takes one.
    number: AtomicU64,
    posts: File,
}

impl Backend {
    fn state(&self) -> State {
        *self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn number(&self) -> u64 {
        chaos::mix(self.number.fetch_add(1, Relaxed))
    }

    /// Answers a connection's requests until it ends.
    fn serve(&self, stream: TcpStream) -> Result<(), Broken> {
        if self.state().resets(Moment::Accept, self.number()) {
            return Ok(abort(&stream)?);
        }
        let mut wire = Wire::new(stream)?;
        loop {
            let head = wire.head()?;
            let framing = head.framing(Framing::Length(0))?;
            let close = head.closes();
            let healthz = head.word(1) == "/healthz";
            let state = match self.state() {
                state if healthz && state.lies => State::WELL,
                state => state,
            };
            let id = if healthz { Some(Id(0)) } else { named(&head) };
            let unavailable = matches!(state.illness, Illness::Unavailable);
            if let Some(id) = id
                && id.method() == Method::Post
                && !(healthz || unavailable)
            {
                (&self.posts).write_all(format!("{id}\n").as_bytes())?;
            }
            let body = wire.body(framing)?;
            if state.resets(Moment::Request, self.number()) {
                return Ok(abort(wire.stream())?);
            }
            let work = Duration::from_micros(id.map_or(0, Id::work));
            thread::sleep(match state.illness {
                Illness::Slow { factor, longer } => work.mul_f64(factor) + longer,
                _ if healthz => Duration::ZERO,
                _ => work,
            });
            let answer = match id {
                None => self.render("400 Bad Request", None, b"path and X-Chaos-Id differ\n"),
                Some(id) if unavailable => {
                    self.render("503 Service Unavailable", Some(id), b"unavailable\n")
                }
                Some(_) if healthz => self.render("200 OK", None, b"ok\n"),
                Some(id) => {
                    let answer = chaos::answer(id, &self.name, self.number(), &body);
                    self.render("200 OK", Some(id), &answer)
                }
            };
            if state.resets(Moment::Answer, self.number()) {
                return self.break_off(&mut wire, &answer);
            }
            send(&mut wire, &answer)?;
            if close {
                return Ok(());
            }
        }
    }

    fn render(&self, status: &str, id: Option<Id>, body: &[u8]) -> Vec<u8> {
        let mut answer = format!("HTTP/1.1 {status}\r\nX-Chaos-Backend: {}\r\n", self.name);
        if let Some(id) = id {
            answer += &format!("X-Chaos-Id: {id}\r\n");
        }
        let mut answer = answer.into_bytes();
        if id.is_some_and(Id::chunks_answer) {
            answer.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
            answer.extend_from_slice(&chunked(body));
        } else {
            answer.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
            answer.extend_from_slice(body);
        }
        answer
    }

    /// Ends an answer before its end: in the head or in the body, by a reset or as if all were well.
    fn break_off(&self, wire: &mut Wire, answer: &[u8]) -> Result<(), Broken> {
        let draw = self.number();
        let end = if draw.is_multiple_of(4) { 30 } else { answer.len() / 2 };
        send(wire, &answer[..end])?;
        // What was sent is on its way before the reset overtakes it.
        thread::sleep(Duration::from_millis(2));
        if (draw >> 8).is_multiple_of(2) {
            abort(wire.stream())?;
        }
        Ok(())
    }
}

/// The id of a request whose path and field agree on it.
fn named(head: &Head) -> Option<Id> {
    let id = head.word(1).strip_prefix("/chaos/")?;
    (head.field("x-chaos-id") == Some(id)).then(|| Id::parse(id)).flatten()
}

fn send(wire: &mut Wire, answer: &[u8]) -> Result<(), Broken> {
    for (number, piece) in answer.chunks(PIECE).enumerate() {
        if number > 0 {
            thread::sleep(PAUSE);
        }
        wire.send(piece)?;
    }
    Ok(())
}

/// Makes the connection end with a reset once it is dropped.
fn abort(stream: &TcpStream) -> io::Result<()> {
    Ok(sockopt::set_socket_linger(stream, Some(Duration::ZERO))?)
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, name, posts] = arguments.as_slice() else {
        return Err("usage: chaos-backend LISTEN NAME POSTS".into());
    };
    let listener = TcpListener::bind(address)?;
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let backend: &'static Backend = Box::leak(Box::new(Backend {
        name: name.clone(),
        state: Mutex::new(State::WELL),
        // Another start counts from elsewhere, so that no two answers are the same.
        number: AtomicU64::new(chaos::mix(
            since.as_nanos() as u64 ^ chaos::checksum(name.as_bytes()),
        )),
        posts: OpenOptions::new().create(true).append(true).open(posts)?,
    }));
    thread::spawn(move || {
        for stream in listener.incoming() {
            match stream {
                // How a connection ends is for the other side to tell.
                Ok(stream) => drop(thread::spawn(move || backend.serve(stream))),
                Err(error) => eprintln!("chaos-backend: {error}"),
            }
        }
    });
    for line in io::stdin().lines() {
        let line = line?;
        let state = State::parse(&line).ok_or_else(|| format!("what is {line:?}?"))?;
        *backend.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = state;
    }
    Ok(())
}
