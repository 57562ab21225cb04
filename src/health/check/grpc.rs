//! A check by a call of `grpc.health.v1.Health/Check`, on a connection of HTTP/2 for it alone.

use std::pin::pin;
use std::time::Duration;

use ::h2::client::{Builder, SendRequest};
use ::h2::{Reason, RecvStream};
use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue, TE, USER_AGENT};
use hyper::http::uri::{Authority, PathAndQuery, Scheme};
use hyper::{Method, Request, Uri};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout_at};

use super::{AGENT, CUT, Fault, in_words};
use crate::http::grpc::health::{MAX_RESPONSE, PATH, Serving, request, response};
use crate::http::grpc::{Code, is_grpc};
use crate::http::head::MAX_HEAD;

/// The largest head that is read, as HTTP/2 counts it, which is more than its bytes.
const MAX_HEADER_LIST: u32 = MAX_HEAD as u32;

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

    /// Makes the call on `stream`, which is TLS or not, and judges the answer, until `due`.
    pub(super) async fn ask(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin,
        is_tls: bool,
        due: Instant,
    ) -> Result<(), Fault> {
        let mut builder = Builder::new();
        builder.enable_push(false).max_header_list_size(MAX_HEADER_LIST);
        let late = |_| Fault::Late("no answer");
        let handshake = timeout_at(due, builder.handshake::<_, Bytes>(stream));
        let (sender, connection) = handshake.await.map_err(late)??;
        let mut connection = pin!(connection);
        let mut call = pin!(timeout_at(due, self.call(sender, is_tls, due)));
        let answer = tokio::select! {
            biased;
            answer = &mut call => answer,
            // It has handed over all that there is; its error, if any, as well.
            _ = &mut connection => return call.await.map_err(late)?,
        };
        // With nobody left who could send on it, it says goodbye and ends.
        let _ = timeout_at(due, connection).await;
        answer.map_err(late)?
    }

    async fn call(
        &self,
        sender: SendRequest<Bytes>,
        is_tls: bool,
        due: Instant,
    ) -> Result<(), Fault> {
        let mut sender = sender.ready().await?;
        let (response, mut body) = sender.send_request(self.request(is_tls, due)?, false)?;
        body.send_data(self.message.clone(), true)?;
        let (head, body) = response.await?.into_parts();
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
        judge(body).await
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

/// Reads the one message and the trailers.
async fn judge(mut body: RecvStream) -> Result<(), Fault> {
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

impl From<::h2::Error> for Fault {
    fn from(error: ::h2::Error) -> Self {
        Self::Found(match (error.get_io(), error.reason()) {
            (Some(io), _) if io.raw_os_error().is_some() => in_words(io),
            (Some(_), _) => CUT.to_owned(),
            // The endpoint says so, or what it says is wrong.
            (None, Some(reason)) if error.is_remote() && error.is_reset() => {
                format!("the call was reset: {}", name(reason))
            }
            (None, Some(reason)) if error.is_remote() => {
                format!("the endpoint ended the connection: {}", name(reason))
            }
            (None, Some(reason)) => format!("the answer is not HTTP/2: {}", name(reason)),
            (None, None) => error.to_string(),
        })
    }
}

/// The name of an error code (RFC 9113 7).
fn name(reason: Reason) -> String {
    format!("{reason:?}")
}

#[cfg(test)]
mod tests;
