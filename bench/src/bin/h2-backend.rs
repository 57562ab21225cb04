//! The backend of the measurements that speaks HTTP/2: the h2 crate on one thread, and as little around
//! it as there can be.
//!
//! `h2-backend LISTEN [CERT KEY]`. It speaks by prior knowledge, or over TLS with a certificate. It
//! answers:
//!
//! - `GET /` a small answer, as `backend` has it
//! - `GET /N` a body of N bytes
//! - `POST` of `application/grpc`: the message that it got, and `grpc-status: 0` as a trailer
//! - any other `POST`: how long its body was
//! - `GET /stats` in HTTP/1.1: connections accepted and requests answered so far
//!
//! Put in a proxy's place, it shows what the h2 crate costs by itself.

use std::cell::Cell;
use std::error::Error;
use std::net::SocketAddr;
use std::rc::Rc;

use bench::tls;
use bytes::{Bytes, BytesMut};
use h2::RecvStream;
use h2::server::{Builder, SendResponse};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, DATE, HeaderName, HeaderValue, SERVER};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::{LocalSet, spawn_local};
use tokio_rustls::TlsAcceptor;

/// Windows that no body of the measurements fills, so that nobody waits for the backend's.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 64 << 20;

/// As many streams as a proxy likes on one connection; the load has 256 at once.
const STREAMS: u32 = 1024;

/// No body is larger, so that a stray number cannot eat the memory.
const MAX_BODY: usize = 64 * 1024 * 1024;

/// Connections that wait to be accepted.
const BACKLOG: u32 = 4096;

/// What `backend` says as well.
const NOW: HeaderValue = HeaderValue::from_static("Thu, 05 Nov 2026 10:00:00 GMT");
const NAME: HeaderValue = HeaderValue::from_static("bench");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain");
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// What `/stats` tells.
#[derive(Default)]
struct Counts {
    connections: Cell<u64>,
    requests: Cell<u64>,
}

/// One more.
fn count(cell: &Cell<u64>) {
    cell.set(cell.get() + 1);
}

/// Takes connections for ever.
async fn serve(listener: TcpListener, acceptor: Option<TlsAcceptor>) -> Result<(), Box<dyn Error>> {
    let counts = Rc::new(Counts::default());
    loop {
        // The client left before we came, or we are out of descriptors: neither ends the program.
        let Ok((socket, _)) = listener.accept().await else { continue };
        socket.set_nodelay(true)?;
        count(&counts.connections);
        let (acceptor, counts) = (acceptor.clone(), Rc::clone(&counts));
        spawn_local(async move {
            // What a connection ends with is the proxy's own business.
            let _ = connection(socket, acceptor, &counts).await;
        });
    }
}

/// One connection, whatever it speaks.
async fn connection(
    mut socket: TcpStream,
    acceptor: Option<TlsAcceptor>,
    counts: &Rc<Counts>,
) -> Result<(), Box<dyn Error>> {
    if let Some(acceptor) = acceptor {
        return speak(acceptor.accept(socket).await?, counts).await;
    }
    let mut first = [0; 3];
    socket.peek(&mut first).await?;
    if &first == b"PRI" { speak(socket, counts).await } else { tell(&mut socket, counts).await }
}

/// Answers one HTTP/1.1 request, whatever it asks, with the counts.
async fn tell(socket: &mut TcpStream, counts: &Counts) -> Result<(), Box<dyn Error>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if socket.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    }
    let (connections, requests) = (counts.connections.get(), counts.requests.get());
    let body = format!("{{\"connections\": {connections}, \"requests\": {requests}}}\n");
    let length = body.len();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    Ok(socket.write_all(format!("{head}{body}").as_bytes()).await?)
}

/// HTTP/2 until the other side leaves.
async fn speak(
    io: impl AsyncRead + AsyncWrite + Unpin,
    counts: &Counts,
) -> Result<(), Box<dyn Error>> {
    let mut connection = Builder::new()
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(STREAMS)
        .handshake(io)
        .await?;
    while let Some(accepted) = connection.accept().await {
        let (request, mut respond) = accepted?;
        count(&counts.requests);
        // A task each, and be it for an answer that is there at once: `accept` sends what waits before
        // it looks for the next request, so that answers given here would go one by one.
        spawn_local(async move {
            let (head, body) = request.into_parts();
            // What becomes of a stream is the proxy's own business, too.
            if let Ok(body) = read(body).await {
                let _ = answer(&Request::from_parts(head, ()), body, &mut respond);
            }
        });
    }
    Ok(())
}

/// The whole body. Its window is given back at once.
async fn read(mut body: RecvStream) -> Result<Bytes, h2::Error> {
    let mut whole = BytesMut::new();
    while let Some(piece) = body.data().await {
        let piece = piece?;
        body.flow_control().release_capacity(piece.len())?;
        if body.is_end_stream() && whole.is_empty() {
            return Ok(piece);
        }
        whole.extend_from_slice(&piece);
    }
    Ok(whole.freeze())
}

/// Sends the answer to a request whose body has been read. The h2 crate keeps what does not fit into
/// the windows.
fn answer(
    request: &Request<()>,
    body: Bytes,
    respond: &mut SendResponse<Bytes>,
) -> Result<(), h2::Error> {
    if request.method() != Method::POST {
        return match content(request.uri().path()) {
            Some(content) => whole(StatusCode::OK, content, respond),
            None => whole(StatusCode::NOT_FOUND, Bytes::from_static(b"no such path\n"), respond),
        };
    }
    if request.headers().get(CONTENT_TYPE) != Some(&GRPC) {
        let received = format!("received {}\n", body.len());
        return whole(StatusCode::OK, received.into(), respond);
    }
    let mut stream = respond.send_response(head(StatusCode::OK, GRPC), false)?;
    stream.send_data(body, false)?;
    let mut trailers = HeaderMap::new();
    trailers.insert(GRPC_STATUS, HeaderValue::from_static("0"));
    stream.send_trailers(trailers)
}

/// What is at a path.
fn content(path: &str) -> Option<Bytes> {
    if path == "/" {
        return Some(Bytes::from_static(b"hello\n"));
    }
    let length: usize = path.strip_prefix('/')?.parse().ok()?;
    Some(vec![b'x'; length.min(MAX_BODY)].into())
}

/// An answer whose length is known.
fn whole(
    status: StatusCode,
    content: Bytes,
    respond: &mut SendResponse<Bytes>,
) -> Result<(), h2::Error> {
    let mut head = head(status, TEXT);
    head.headers_mut().insert(CONTENT_LENGTH, content.len().into());
    respond.send_response(head, false)?.send_data(content, true)
}

/// What each answer begins with.
fn head(status: StatusCode, kind: HeaderValue) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(SERVER, NAME);
    headers.insert(DATE, NOW);
    headers.insert(CONTENT_TYPE, kind);
    response
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (address, acceptor) = match arguments.as_slice() {
        [address] => (address, None),
        [address, cert, key] => (address, Some(tls::server(cert, key, &["h2"])?)),
        _ => return Err("usage: h2-backend LISTEN [CERT KEY]".into()),
    };
    let address: SocketAddr = address.parse()?;
    let acceptor = acceptor.map(TlsAcceptor::from);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let listener = socket.listen(BACKLOG)?;
        println!("{}", listener.local_addr()?);
        serve(listener, acceptor).await
    })
}
