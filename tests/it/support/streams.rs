//! HTTP/2 as it should be spoken: a client of the h2 crate.

use bytes::Bytes;
use h2::client::{Builder, ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::process::Tinylb;
use super::wire::PATIENCE;

/// Runs a test that waits for several things at once.
pub fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(test)
}

/// Waits for something that is to happen.
#[track_caller]
pub fn soon<T>(what: &str, future: impl Future<Output = T>) -> impl Future<Output = T> {
    let place = std::panic::Location::caller();
    async move {
        match timeout(PATIENCE, future).await {
            Ok(output) => output,
            Err(_) => panic!("timed out waiting until {what} ({place})"),
        }
    }
}

/// A connection, and the task that moves its bytes.
#[derive(Debug)]
pub struct Streams {
    sender: SendRequest<Bytes>,
    driver: JoinHandle<Result<(), h2::Error>>,
}

impl Drop for Streams {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Streams {
    /// Whose windows are wide, so that one stream does not stand in the way of others.
    pub async fn connect(tinylb: &Tinylb) -> Self {
        let mut builder = Builder::new();
        builder.initial_window_size(1 << 20).initial_connection_window_size(1 << 30);
        Self::with(tinylb, &builder).await
    }

    pub async fn with(tinylb: &Tinylb, builder: &Builder) -> Self {
        let stream = TcpStream::connect(tinylb.address()).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self::over(stream, builder).await
    }

    pub async fn over<S>(stream: S, builder: &Builder) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = builder.handshake(stream).await.unwrap();
        Self { sender, driver: tokio::spawn(connection) }
    }

    /// Sends a head, when the balancer allows one more stream.
    pub async fn send(
        &mut self,
        request: Request<()>,
        is_end: bool,
    ) -> (ResponseFuture, SendStream<Bytes>) {
        let ready = self.sender.clone().ready();
        self.sender = soon("a stream is free", ready).await.expect("the connection lives");
        self.sender.send_request(request, is_end).unwrap()
    }

    pub async fn get(&mut self, path: &str) -> Answer {
        let request = Request::get(format!("http://test{path}")).body(()).unwrap();
        let (response, _) = self.send(request, true).await;
        Answer::of(response).await
    }

    /// Sends a whole request, and waits for the whole answer.
    pub async fn exchange(&mut self, request: Request<&[u8]>) -> Answer {
        let (parts, body) = request.into_parts();
        let request = Request::from_parts(parts, ());
        let (response, mut stream) = self.send(request, body.is_empty()).await;
        if !body.is_empty() {
            stream.send_data(Bytes::copy_from_slice(body), true).unwrap();
        }
        Answer::of(response).await
    }

    /// How the connection ends.
    pub async fn end(&mut self) -> Result<(), h2::Error> {
        soon("the connection ends", &mut self.driver).await.unwrap()
    }

    pub fn is_extended_connect_enabled(&self) -> bool {
        self.sender.is_extended_connect_protocol_enabled()
    }
}

/// An answer, as far as it came.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: HeaderMap,
    pub body: Vec<u8>,
    pub trailers: Option<HeaderMap>,
    /// Why the stream was reset, if it was.
    pub reset: Option<Reason>,
}

impl Answer {
    /// The one that is waited for, which must have a head.
    pub async fn of(response: ResponseFuture) -> Self {
        let response = soon("an answer comes", response).await;
        Self::rest(response.expect("a head")).await
    }

    /// The rest of the one whose head has come.
    pub async fn rest(response: Response<RecvStream>) -> Self {
        let (parts, mut payload) = response.into_parts();
        let (status, head) = (parts.status.as_u16(), parts.headers);
        let mut answer = Self { status, head, body: Vec::new(), trailers: None, reset: None };
        while let Some(data) = soon("more of the body comes", payload.data()).await {
            match data {
                Ok(data) => {
                    answer.body.extend_from_slice(&data);
                    payload.flow_control().release_capacity(data.len()).unwrap();
                }
                Err(error) => {
                    answer.reset = Some(error.reason().expect("a reset of the stream"));
                    return answer;
                }
            }
        }
        match soon("the trailers come", payload.trailers()).await {
            Ok(trailers) => answer.trailers = trailers,
            Err(error) => answer.reset = Some(error.reason().expect("a reset of the stream")),
        }
        answer
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The value of the one field called `name`.
    #[track_caller]
    pub fn get(&self, name: &str) -> Option<&str> {
        let mut values = self.head.get_all(name).iter();
        let value = values.next().map(|value| value.to_str().unwrap());
        assert!(values.next().is_none(), "more than one {name} in {:?}", self.head);
        value
    }

    /// Asserts that this is a failure of the balancer's own, in the field's words.
    #[track_caller]
    pub fn assert_fault(&self, status: u16, error: &str) {
        let proxy_status = self.get("proxy-status").unwrap_or_default();
        assert_eq!(self.status, status, "{self:?}");
        assert!(proxy_status.starts_with("tinylb; "), "{self:?}");
        assert!(proxy_status.contains(&format!("error={error};")), "{self:?}");
    }
}

/// Sends all of a body, as fast as it is taken.
pub async fn send_all(stream: &mut SendStream<Bytes>, body: Bytes, is_end: bool) {
    let mut rest = body;
    while !rest.is_empty() {
        let room = soon("the balancer takes more", capacity(stream, rest.len())).await;
        let part = rest.split_to(room.min(rest.len()));
        stream.send_data(part, is_end && rest.is_empty()).unwrap();
    }
}

/// Waits until something can be sent, and says how much.
pub async fn capacity(stream: &mut SendStream<Bytes>, wanted: usize) -> usize {
    stream.reserve_capacity(wanted);
    while stream.capacity() == 0 {
        let more = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await;
        more.expect("the stream lives").expect("the stream lives");
    }
    stream.capacity()
}
