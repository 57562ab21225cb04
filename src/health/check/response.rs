//! A response in HTTP/1.1 to a check, parsed by the rules for traffic: a response that traffic would refuse fails
//! the check.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::body::{Body, MAX_BODY};
use super::{CUT, Fault, in_words};
use crate::error::{Error, Kind};
use crate::http::body::{Decoder, Framing, Step};
use crate::http::buffer::Buffer;
use crate::http::head::{MAX_HEAD, Scanner, as_response_fault, parse_response, parse_trailers};
use crate::http::request::Method;
use crate::http::response::{Response, UNASKED_SWITCH};
use crate::net::stream::Stream;

/// Informational answers before the final one; more is an endpoint in a loop.
const MAX_INFORMATIONAL: usize = 64;

/// How much is read at first: a usual head, and often all of the answer.
const FIRST: usize = 4 * 1024;

/// What every answer begins with.
const START: &[u8] = b"HTTP/";

/// A response that is being read.
pub(super) struct CheckResponse {
    stream: Stream,
    buffer: Buffer,
    framing: Framing,
    /// Why not all of the request could be sent. The answer may have come all the same.
    unsent: Option<io::Error>,
}

impl CheckResponse {
    /// Sends the head of a request without a body, whose answer is read next.
    pub(super) async fn to(mut stream: Stream, request: &[u8]) -> Self {
        let sent = match stream.write_all(request).await {
            Ok(()) => stream.flush().await,
            Err(error) => Err(error),
        };
        let buffer = Buffer::with_capacity(FIRST);
        Self { stream, buffer, framing: Framing::Empty, unsent: sent.err() }
    }

    /// Reads the head of the final answer to a `method`, and returns its status.
    pub(super) async fn status(&mut self, method: Method) -> Result<u16, Fault> {
        let mut fields = Vec::new();
        for _ in 0..=MAX_INFORMATIONAL {
            let length = match self.head().await {
                Ok(length) => length,
                Err(fault) => return Err(self.unsent.as_ref().map_or(fault, failed)),
            };
            let head = self.buffer.filled().get(..length).unwrap_or_default();
            let line = parse_response(head, &mut fields)?;
            let response = Response::interpret(head, line, &fields, method)?;
            let (status, framing) = (response.status, response.framing);
            let is_final = !response.is_informational();
            self.buffer.consume(length);
            match status {
                101 => return Err(UNASKED_SWITCH.into()),
                _ if is_final => {
                    self.framing = framing;
                    return Ok(status);
                }
                _ => {}
            }
        }
        Err(Error::bad_response("more than 64 informational responses").into())
    }

    /// Reads until a whole head is at the front of the buffer, and returns its length.
    async fn head(&mut self) -> Result<usize, Fault> {
        let mut scanner = Scanner::default();
        loop {
            let filled = self.buffer.filled();
            // Other protocols are known by their first bytes, whether or not they end a head.
            if !filled.iter().zip(START).all(|(byte, expected)| byte == expected) {
                return Err(Error::bad_response("it does not begin with HTTP/").into());
            }
            if let Some(length) = scanner.scan(filled).map_err(as_response_fault)? {
                return Ok(length);
            }
            if !self.fill().await? {
                return Err(Fault::Found(CUT.to_owned()));
            }
        }
    }

    /// Reads the body, at most [`MAX_BODY`] of it.
    pub(super) async fn body(mut self) -> Result<Body, Fault> {
        let mut decoder = Decoder::new(self.framing);
        let mut bytes = Vec::new();
        loop {
            match decoder.decode(&mut self.buffer)? {
                Step::Data { payload, consume } => {
                    let data = self.buffer.filled().get(..payload).unwrap_or_default();
                    let room = MAX_BODY - bytes.len();
                    bytes.extend_from_slice(data.get(..room).unwrap_or(data));
                    if data.len() > room {
                        return Ok(Body { bytes, is_whole: false });
                    }
                    self.buffer.consume(consume);
                }
                Step::More => {
                    if !self.fill().await? {
                        return match decoder.ends_with_stream() {
                            true => Ok(Body { bytes, is_whole: true }),
                            false => Err(Fault::Found(CUT.to_owned())),
                        };
                    }
                }
                Step::End { trailers } => {
                    let section = self.buffer.filled().get(..trailers).unwrap_or_default();
                    if !section.is_empty() {
                        parse_trailers(section, &mut Vec::new())?;
                    }
                    return Ok(Body { bytes, is_whole: true });
                }
            }
        }
    }

    /// Reads what there is; false at the end.
    async fn fill(&mut self) -> Result<bool, Fault> {
        if self.buffer.spare().is_empty() {
            self.buffer.grow(MAX_HEAD);
        }
        let n = self.stream.read(self.buffer.spare()).await.map_err(|error| failed(&error))?;
        self.buffer.fill(n);
        Ok(n > 0)
    }
}

/// What a failure of the connection is called.
fn failed(error: &io::Error) -> Fault {
    Fault::Found(match (error.kind(), error.raw_os_error()) {
        (io::ErrorKind::UnexpectedEof, _) => CUT.to_owned(),
        (_, Some(_)) => in_words(error),
        _ => format!("the answer is malformed: {error}"),
    })
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        let detail = error.detail;
        Self::Found(match error.kind {
            Kind::ResponseHeadTooLarge | Kind::HeadTooLarge => {
                format!("the answer's head is too large: {detail}")
            }
            Kind::ResponseMalformed | Kind::BadRequest | Kind::NotImplemented => {
                format!("the answer is malformed: {detail}")
            }
            _ => detail.to_owned(),
        })
    }
}
