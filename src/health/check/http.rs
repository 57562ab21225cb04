//! A check by a request: in HTTP/1.1 with hyper's client, since there is one at a time on its connection
//! and none of them is on a request's path, or in HTTP/2.

use std::error::Error as _;
use std::io;
use std::pin::pin;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper::header::{
    CONNECTION, CONTENT_LENGTH, HOST, HeaderName, HeaderValue, TRANSFER_ENCODING, USER_AGENT,
};
use hyper::{Method, Request, Uri};
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, timeout_at};

use super::body::{Body, Pattern, read, read_http2};
use super::{AGENT, CUT, Fault, http2, in_words};
use crate::config::{HttpCheck, Statuses};
use crate::http::head::{MAX_FIELDS, MAX_HEAD};
use crate::net::stream::Stream;

/// Fields that HTTP/2 has no place for.
const OF_CONNECTIONS: [&str; 5] = ["connection", "keep-alive", "proxy-connection", "te", "upgrade"];

/// A request, and the answer that it should get.
#[derive(Debug)]
pub(super) struct Http {
    request: Request<Empty<Bytes>>,
    status: Statuses,
    body: Option<Pattern>,
}

impl Http {
    /// `check` of an endpoint with this authority. What does not make a request is said at each
    /// check; the configuration lets nothing of the kind through.
    pub(super) fn new(check: &HttpCheck, authority: &str) -> Result<Self, &'static str> {
        let method = Method::from_bytes(check.method.as_bytes());
        let method = method.map_err(|_| "the check's method is not valid")?;
        let expects_content = matches!(method, Method::POST | Method::PUT | Method::PATCH);
        let uri: Result<Uri, _> = check.path.parse();
        let uri = uri.map_err(|_| "the check's path is not valid")?;
        let mut request = Request::new(Empty::new());
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        let headers = request.headers_mut();
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        for (name, value) in &check.headers {
            let field = HeaderName::from_bytes(name.as_bytes()).ok();
            let field = field.zip(HeaderValue::from_bytes(value.as_bytes()).ok());
            let (field, value) = field.ok_or("a field of the check is not valid")?;
            headers.insert(field, value);
        }
        // Framing is always ours.
        headers.remove(TRANSFER_ENCODING);
        headers.remove(CONTENT_LENGTH);
        if expects_content {
            // Without it some servers refuse or wait (RFC 9110, 8.6).
            headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        let host = HeaderValue::from_str(check.host.as_deref().unwrap_or(authority));
        headers.insert(HOST, host.map_err(|_| "the check's host is not valid")?);
        let body = check.body.as_ref().map(Pattern::new).transpose()?;
        Ok(Self { request, status: check.status.clone(), body })
    }

    /// Sends the request on `stream`, and judges the answer, until `due`.
    pub(super) async fn ask(&self, stream: Stream, due: Instant) -> Result<(), Fault> {
        let mut builder = http1::Builder::new();
        builder.max_buf_size(MAX_HEAD).max_header_size(MAX_HEAD).max_headers(MAX_FIELDS);
        let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
        let answer = async {
            let response = timeout_at(due, sender.send_request(self.request.clone())).await;
            let response = response.map_err(|_| Fault::Late("no answer"))??;
            self.judge(response.status().as_u16())?;
            if self.body.is_some() {
                let body = timeout_at(due, read(response.into_body())).await;
                self.find(&body.map_err(|_| Fault::Late("the body did not end"))??)?;
            }
            Ok(())
        };
        let (mut answer, connection) = (pin!(answer), pin!(connection));
        tokio::select! {
            biased;
            answer = &mut answer => answer,
            // It has handed over all that there is; its error, if any, as well.
            _ = connection => answer.await,
        }
    }

    /// The same by HTTP/2.
    pub(super) async fn ask_by_http2(&self, stream: Stream, due: Instant) -> Result<(), Fault> {
        let request = self.request_by_http2(matches!(stream, Stream::Tls(_)))?;
        http2::ask(stream, request, Bytes::new(), due, async |head, body| {
            self.judge(head.status.as_u16())?;
            if self.body.is_some() {
                self.find(&read_http2(body).await?)?;
            }
            Ok(())
        })
        .await
    }

    /// The request as HTTP/2 has it: with its host in the target, and without fields that belong to a
    /// connection (RFC 9113 8.2.2).
    fn request_by_http2(&self, is_tls: bool) -> Result<Request<()>, Fault> {
        let wrong = |what: &str| Fault::Found(format!("the check's {what} is not valid in HTTP/2"));
        let mut headers = self.request.headers().clone();
        let host = headers.remove(HOST);
        for name in OF_CONNECTIONS {
            headers.remove(name);
        }
        let uri = Uri::builder()
            .scheme(if is_tls { "https" } else { "http" })
            .authority(host.as_ref().map_or(&b""[..], HeaderValue::as_bytes))
            .path_and_query(self.request.uri().path_and_query().map_or("/", |path| path.as_str()));
        let mut request = Request::new(());
        *request.method_mut() = self.request.method().clone();
        *request.uri_mut() = uri.build().map_err(|_| wrong("host or path"))?;
        *request.headers_mut() = headers;
        Ok(request)
    }

    fn judge(&self, status: u16) -> Result<(), Fault> {
        match self.status.contains(status) {
            true => Ok(()),
            false => Err(Fault::Found(format!("status {status}"))),
        }
    }

    fn find(&self, body: &Body) -> Result<(), Fault> {
        self.body.iter().try_for_each(|pattern| pattern.find_in(body)).map_err(Fault::Found)
    }
}

impl From<hyper::Error> for Fault {
    fn from(error: hyper::Error) -> Self {
        let cause = error.source().and_then(|source| source.downcast_ref::<io::Error>());
        let is_cut = error.is_incomplete_message() || error.is_canceled() || error.is_closed();
        Self::Found(if is_cut || cause.is_some_and(|c| c.kind() == io::ErrorKind::UnexpectedEof) {
            CUT.to_owned()
        } else if let Some(cause) = cause {
            match cause.raw_os_error() {
                Some(_) => in_words(cause),
                None => format!("the answer is malformed: {cause}"),
            }
        } else if error.is_parse_too_large() {
            format!("the answer's head is larger than {} KiB", MAX_HEAD >> 10)
        } else if error.is_parse() {
            format!("the answer is malformed: {error}")
        } else {
            error.to_string()
        })
    }
}

#[cfg(test)]
mod tests;
