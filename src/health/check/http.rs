//! A check by a request in HTTP/1.1 or HTTP/2, parsed by the rules for traffic.

use bytes::Bytes;
use hyper::header::{
    CONNECTION, CONTENT_LENGTH, HOST, HeaderName, HeaderValue, TRANSFER_ENCODING, USER_AGENT,
};
use hyper::{Method, Request, Uri};
use tokio::time::{Instant, timeout_at};

use super::body::{Body, Pattern, read_http2};
use super::response::CheckResponse;
use super::{AGENT, Fault, http2};
use crate::config::{HttpCheck, Statuses};
use crate::http::request;
use crate::http::rewrite::line;
use crate::net::stream::Stream;

/// Fields that HTTP/2 has no place for.
const OF_CONNECTIONS: [&str; 5] = ["connection", "keep-alive", "proxy-connection", "te", "upgrade"];

/// A request, and the answer that it should get.
#[derive(Debug)]
pub(super) struct Http {
    request: Request<()>,
    /// The request as text.
    text: Vec<u8>,
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
        let mut request = Request::new(());
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
        let text = text(&request);
        Ok(Self { request, text, status: check.status.clone(), body })
    }

    /// Sends the request on `stream`, and judges the answer, until `due`.
    pub(super) async fn ask(&self, stream: Stream, due: Instant) -> Result<(), Fault> {
        let method = request::Method::of(self.request.method().as_str().as_bytes());
        let answer = async {
            let mut answer = CheckResponse::to(stream, &self.text).await;
            answer.status(method).await.map(|status| (status, answer))
        };
        let answer = timeout_at(due, answer).await.map_err(|_| Fault::Late("no answer"))?;
        let (status, answer) = answer?;
        self.judge(status)?;
        match timeout_at(due, answer.body()).await {
            Ok(body) => self.find(&body?),
            // Nothing is wrong with a body that goes on, such as an event stream.
            Err(_) if self.body.is_none() => Ok(()),
            Err(_) => Err(Fault::Late("the body did not end")),
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

/// The head of `request` in HTTP/1.1.
fn text(request: &Request<()>) -> Vec<u8> {
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
    let mut text = format!("{} {target} HTTP/1.1\r\n", request.method()).into_bytes();
    for (name, value) in request.headers() {
        line(&mut text, name.as_str().as_bytes(), value.as_bytes());
    }
    text.extend_from_slice(b"\r\n");
    text
}

#[cfg(test)]
mod tests;
