//! A gRPC server by tonic. Its methods are those of `python/grpc_server.py`, as far as it has them,
//! and its messages bytes as well.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::thread;

use bytes::{Buf, BufMut, Bytes};
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use tonic::body::Body;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::KeyAndValueRef;
use tonic::server::{Grpc, NamedService};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};
use tower::{Service, service_fn};

/// Messages as they are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(message);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}

/// A server that lives as long as the test.
#[derive(Debug, Clone)]
pub(super) struct Test {
    address: SocketAddr,
    hanging: Arc<AtomicUsize>,
}

impl Test {
    pub(super) fn serve() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let test = Self { address: listener.local_addr().unwrap(), hanging: Arc::default() };
        let service = test.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        thread::spawn(move || {
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                let serving = Server::builder().add_service(service);
                serving.serve_with_incoming(TcpIncoming::from(listener)).await.unwrap();
            });
        });
        test
    }

    pub(super) fn url(&self) -> String {
        format!("h2c://{}", self.address)
    }

    /// How many calls hang at the moment.
    pub(super) fn hanging(&self) -> usize {
        self.hanging.load(Ordering::Acquire)
    }
}

impl NamedService for Test {
    const NAME: &'static str = "test.Test";
}

impl Service<http::Request<Body>> for Test {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let hanging = Arc::clone(&self.hanging);
        Box::pin(async move {
            let mut grpc = Grpc::new(Raw);
            let hang = service_fn(move |_: Request<Bytes>| hang_after_one(Arc::clone(&hanging)));
            Ok(match request.uri().path().to_owned().as_str() {
                "/test.Test/Unary" => grpc.unary(service_fn(unary), request).await,
                "/test.Test/Count" => grpc.server_streaming(service_fn(count), request).await,
                "/test.Test/Total" => grpc.client_streaming(service_fn(total), request).await,
                "/test.Test/Both" => grpc.streaming(service_fn(both), request).await,
                "/test.Test/Fail" => grpc.unary(service_fn(fail), request).await,
                "/test.Test/HangAfterOne" => grpc.server_streaming(hang, request).await,
                _ => Status::unimplemented("no such method").into_http(),
            })
        })
    }
}

/// Sends the message back, and the metadata that begins with `x-`.
async fn unary(request: Request<Bytes>) -> Result<Response<Bytes>, Status> {
    let (metadata, _, message) = request.into_parts();
    let mut response = Response::new(message);
    for pair in metadata.iter() {
        match pair {
            KeyAndValueRef::Ascii(key, value) if key.as_str().starts_with("x-") => {
                response.metadata_mut().append(key, value.clone());
            }
            KeyAndValueRef::Binary(key, value) => {
                response.metadata_mut().append_bin(key, value.clone());
            }
            KeyAndValueRef::Ascii(..) => {}
        }
    }
    Ok(response)
}

type Answers = Pin<Box<dyn Stream<Item = Result<Bytes, Status>> + Send>>;

async fn count(request: Request<Bytes>) -> Result<Response<Answers>, Status> {
    let count = str::from_utf8(request.get_ref()).ok().and_then(|text| text.parse().ok());
    let count: u64 = count.ok_or_else(|| Status::invalid_argument("a number"))?;
    let numbers = stream::iter(0..count).map(|number| Ok(number.to_string().into()));
    Ok(Response::new(numbers.boxed()))
}

async fn total(request: Request<Streaming<Bytes>>) -> Result<Response<Bytes>, Status> {
    let add = |(count, sum), message: Bytes| async move { Ok((count + 1, sum + message.len())) };
    let (count, sum) = request.into_inner().try_fold((0, 0), add).await?;
    Ok(Response::new(format!("{count} {sum}").into()))
}

async fn both(request: Request<Streaming<Bytes>>) -> Result<Response<Answers>, Status> {
    Ok(Response::new(request.into_inner().boxed()))
}

async fn fail(request: Request<Bytes>) -> Result<Response<Bytes>, Status> {
    let message = String::from_utf8_lossy(request.get_ref()).into_owned();
    let details = Bytes::from_static(b"\0\xff");
    Err(Status::with_details(tonic::Code::FailedPrecondition, message, details))
}

/// Counts a call while somebody waits for its end.
struct Hanging(Arc<AtomicUsize>);

impl Drop for Hanging {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

async fn hang_after_one(hanging: Arc<AtomicUsize>) -> Result<Response<Answers>, Status> {
    hanging.fetch_add(1, Ordering::AcqRel);
    let guard = Hanging(hanging);
    let never = stream::poll_fn(move |_| {
        let _alive = &guard;
        Poll::Pending
    });
    Ok(Response::new(stream::once(async { Ok("one".into()) }).chain(never).boxed()))
}
