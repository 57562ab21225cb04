//! One request by HTTP/2, on a connection for it alone.

use std::pin::pin;

use ::h2::client::{Builder, SendRequest};
use ::h2::{Reason, RecvStream};
use bytes::Bytes;
use hyper::http::response::Parts;
use hyper::{Method, Request};
use tokio::time::{Instant, timeout_at};

use super::{CUT, Fault, in_words};
use crate::error::Error;
use crate::http::h2::{parse_response, response_text};
use crate::http::head::MAX_HEAD;
use crate::http::request;
use crate::http::response::Response;
use crate::net::stream::Stream;

/// The largest head that is read, as HTTP/2 counts it, which is more than its bytes.
const MAX_HEADER_LIST: u32 = MAX_HEAD as u32;

/// Sends `request` with the body `message` on `stream`, and has `judge` look at the answer, until `due`.
pub(super) async fn ask(
    stream: Stream,
    request: Request<()>,
    message: Bytes,
    due: Instant,
    judge: impl AsyncFnOnce(Parts, RecvStream) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let mut builder = Builder::new();
    builder.enable_push(false).max_header_list_size(MAX_HEADER_LIST);
    let late = |_| Fault::Late("no answer");
    let method = request.method().clone();
    let handshake = timeout_at(due, builder.handshake::<_, Bytes>(stream));
    let (sender, connection) = handshake.await.map_err(late)??;
    let exchange = async {
        let (head, body) =
            timeout_at(due, send(sender, request, message)).await.map_err(late)??;
        check_head(&head, &method, body.is_end_stream())?;
        let judged = timeout_at(due, judge(head, body)).await;
        judged.map_err(|_| Fault::Late("the body did not end"))?
    };
    let (mut exchange, mut connection) = (pin!(exchange), pin!(connection));
    let judged = tokio::select! {
        biased;
        judged = &mut exchange => judged,
        // It has handed over all that there is; its error, if any, as well.
        _ = &mut connection => return exchange.await,
    };
    // With nobody left who could send on it, it says goodbye and ends.
    let _ = timeout_at(due, connection).await;
    judged
}

/// Looks at a head as is done in traffic, which is stricter than the library.
fn check_head(head: &Parts, method: &Method, is_end: bool) -> Result<(), Error> {
    let method = request::Method::of(method.as_str().as_bytes());
    let (mut text, mut fields) = (Vec::new(), Vec::new());
    response_text(head, method, is_end, None, &mut text)?;
    let line = parse_response(&text, &mut fields)?;
    Response::interpret(&text, line, &fields, method).map(|_| ())
}

async fn send(
    sender: SendRequest<Bytes>,
    request: Request<()>,
    message: Bytes,
) -> Result<(Parts, RecvStream), ::h2::Error> {
    let mut sender = sender.ready().await?;
    let (response, mut body) = sender.send_request(request, message.is_empty())?;
    if !message.is_empty() {
        body.send_data(message, true)?;
    }
    Ok(response.await?.into_parts())
}

impl From<::h2::Error> for Fault {
    fn from(error: ::h2::Error) -> Self {
        Self::Found(match (error.get_io(), error.reason()) {
            (Some(io), _) if io.raw_os_error().is_some() => in_words(io),
            (Some(_), _) => CUT.to_owned(),
            // The endpoint says so, or what it says is wrong.
            (None, Some(reason)) if error.is_remote() && error.is_reset() => {
                format!("the request was reset: {}", name(reason))
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
