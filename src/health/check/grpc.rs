//! A check by a call of `grpc.health.v1.Health/Check`.

use std::time::Duration;

use ::h2::RecvStream;
use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue, TE, USER_AGENT};
use hyper::http::response::Parts;
use hyper::http::uri::{Authority, PathAndQuery, Scheme};
use hyper::{Method, Request, Uri};
use tokio::time::Instant;

use super::{AGENT, Fault, http2};
use crate::http::grpc::health::{MAX_RESPONSE, PATH, Serving, request, response};
use crate::http::grpc::{Code, is_grpc};
use crate::http::h2::trailers_text;
use crate::net::stream::Stream;

/// The most milliseconds that a `grpc-timeout` has room for.
const MAX_MILLISECONDS: u128 = 99_999_999;

/// A question about a service.
#[derive(Debug)]
pub(super) struct Grpc {
    authority: Authority,
    message: Bytes,
}

impl Grpc {
    /// Asks after `service`, or the server as a whole where it is empty, at an endpoint with this
    /// authority.
    pub(super) fn new(service: &str, authority: &str) -> Result<Self, &'static str> {
        let authority = Authority::try_from(authority);
        let authority = authority.map_err(|_| "the endpoint's host is not valid")?;
        Ok(Self { authority, message: request(service).into() })
    }

    /// Makes the call on `stream`, and judges the answer, until `due`.
    pub(super) async fn ask(&self, stream: Stream, due: Instant) -> Result<(), Fault> {
        let request = self.request(matches!(stream, Stream::Tls(_)), due)?;
        http2::ask(stream, request, self.message.clone(), due, judge).await
    }

    fn request(&self, is_tls: bool, due: Instant) -> Result<Request<()>, Fault> {
        let scheme = if is_tls { Scheme::HTTPS } else { Scheme::HTTP };
        let uri = Uri::builder()
            .scheme(scheme)
            .authority(self.authority.clone())
            .path_and_query(PathAndQuery::from_static(PATH));
        let left = due.saturating_duration_since(Instant::now());
        let request = Request::builder()
            .method(Method::POST)
            .uri(uri.build().unwrap_or_default())
            .header(CONTENT_TYPE, HeaderValue::from_static("application/grpc"))
            .header(TE, HeaderValue::from_static("trailers"))
            .header(USER_AGENT, HeaderValue::from_static(AGENT))
            .header("grpc-timeout", in_milliseconds(left));
        request.body(()).map_err(|_| Fault::Found("the check makes no request".to_owned()))
    }
}

/// A `grpc-timeout`, so that a server does not go on with what nobody waits for.
fn in_milliseconds(time: Duration) -> String {
    format!("{}m", time.as_millis().clamp(1, MAX_MILLISECONDS))
}

/// Looks at the head, and reads the one message and the trailers.
async fn judge(head: Parts, mut body: RecvStream) -> Result<(), Fault> {
    if head.status != 200 {
        return Err(Fault::Found(format!("status {}", head.status.as_u16())));
    }
    if !head.headers.get(CONTENT_TYPE).is_some_and(|value| is_grpc(value.as_bytes())) {
        return Err(Fault::Found("the answer is not of gRPC".to_owned()));
    }
    // Without a message everything is said in the head.
    if let Some(code) = code_in(&head.headers) {
        check(code)?;
    }
    let mut message = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        if message.len() + data.len() > MAX_RESPONSE {
            return Err(Fault::Found("the answer is larger than 1 KiB".to_owned()));
        }
        message.extend_from_slice(&data);
        body.flow_control().release_capacity(data.len())?;
    }
    let trailers = body.trailers().await?;
    if let Some(trailers) = &trailers {
        // As in traffic, which is stricter than the library.
        trailers_text(trailers, &mut Vec::new())?;
    }
    let code = trailers.as_ref().and_then(code_in);
    check(code.ok_or_else(|| Fault::Found("the answer has no grpc-status".to_owned()))?)?;
    match response(&message) {
        Ok(Serving::Serving) => Ok(()),
        Ok(Serving::NotServing) => Err(Fault::Found("not serving".to_owned())),
        Ok(Serving::ServiceUnknown) => Err(Fault::Found("the service is not known".to_owned())),
        Ok(Serving::Unknown) => Err(Fault::Found("it is not known whether it serves".to_owned())),
        Err(why) => Err(Fault::Found(format!("the answer is malformed: {why}"))),
    }
}

fn code_in(fields: &HeaderMap) -> Option<Code> {
    fields.get("grpc-status").map(|value| Code::parse(value.as_bytes()))
}

fn check(code: Code) -> Result<(), Fault> {
    match code {
        Code::Ok => Ok(()),
        code => Err(Fault::Found(format!("gRPC status {}", code.name()))),
    }
}

#[cfg(test)]
mod tests;
