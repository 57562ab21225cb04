//! A backend that speaks HTTP/2, by the h2 crate, and does with each request what it is told to.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread;

use bytes::Bytes;
use h2::server::{Builder, Connection, SendResponse};
use h2::{Reason, RecvStream, SendStream};
use http::request::Parts;
use http::{HeaderMap, Response};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, LocalSet, spawn_local};

use super::listen;
use super::wire::PATIENCE;

/// A request that waits for its answer, which may come from any thread.
#[derive(Debug)]
pub struct Asked {
    /// The connection that it came on: how many came before it.
    pub connection: usize,
    pub head: Parts,
    pub body: RecvStream,
    pub respond: SendResponse<Bytes>,
}

impl Asked {
    pub fn path(&self) -> &str {
        self.head.uri.path()
    }

    /// Answers 200 with this body.
    pub fn ok(mut self, body: &str) {
        let response = Response::builder().header("content-length", body.len());
        // The balancer may have given it up.
        let response = response.body(()).unwrap();
        if let Ok(mut stream) = self.respond.send_response(response, false) {
            let _ = stream.send_data(Bytes::copy_from_slice(body.as_bytes()), true);
        }
    }

    /// Sends a head without fields, with more to come.
    pub fn begin(&mut self) -> SendStream<Bytes> {
        self.respond.send_response(Response::new(()), false).unwrap()
    }

    pub fn reset(mut self, reason: Reason) {
        self.respond.send_reset(reason);
    }

    /// All of the body, and its trailers; an error where the stream ends otherwise.
    pub async fn whole(&mut self) -> Result<(Vec<u8>, Option<HeaderMap>), h2::Error> {
        let mut body = Vec::new();
        while let Some(data) = self.body.data().await {
            let data = data?;
            body.extend_from_slice(&data);
            self.body.flow_control().release_capacity(data.len())?;
        }
        Ok((body, self.body.trailers().await?))
    }
}

/// What is done to a connection.
#[derive(Debug)]
enum Command {
    /// It says that no new streams are welcome, and goes on with those it has.
    EndGracefully,
    /// It is cut.
    Cut,
}

#[derive(Debug, Default)]
struct Shared {
    connections: Mutex<Vec<mpsc::UnboundedSender<Command>>>,
    open: AtomicUsize,
    most_open: AtomicUsize,
    requests: AtomicUsize,
    has_failed: AtomicBool,
}

/// Counts a connection while it is open.
struct Open(Arc<Shared>);

impl Open {
    async fn new(shared: &Arc<Shared>) -> Self {
        // The end of another may have come before, and not have been read yet.
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        let open = shared.open.fetch_add(1, Ordering::SeqCst) + 1;
        shared.most_open.fetch_max(open, Ordering::SeqCst);
        Self(Arc::clone(shared))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A listening backend, whose connections end with it.
#[derive(Debug)]
pub struct Http2Backend {
    address: SocketAddr,
    shared: Arc<Shared>,
    asked: Option<Mutex<Receiver<Asked>>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Http2Backend {
    /// Hands each request to the test, which takes it with [`next`](Self::next).
    pub fn held() -> Self {
        Self::held_with(|_| {})
    }

    /// The same, with settings of its own.
    pub fn held_with(settings: impl Fn(&mut Builder) + Send + 'static) -> Self {
        let (tell, asked) = channel();
        let mut backend = Self::with(settings, async move |asked| drop(tell.send(asked)));
        backend.asked = Some(asked.into());
        backend
    }

    /// Answers each request with this body.
    pub fn answering(body: &'static str) -> Self {
        Self::new(async move |asked| asked.ok(body))
    }

    /// Serves each request so.
    pub fn new(serve: impl AsyncFn(Asked) + Send + 'static) -> Self {
        Self::with(|_| {}, serve)
    }

    /// The same, with settings of its own.
    pub fn with(
        settings: impl Fn(&mut Builder) + Send + 'static,
        serve: impl AsyncFn(Asked) + Send + 'static,
    ) -> Self {
        let listener = listen();
        Self::on(listener, settings, serve)
    }

    /// One that listens there.
    pub fn on(
        listener: std::net::TcpListener,
        settings: impl Fn(&mut Builder) + Send + 'static,
        serve: impl AsyncFn(Asked) + Send + 'static,
    ) -> Self {
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let (stop, stopped) = oneshot::channel();
        let thread = thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                let (settings, serve) = (Rc::new(settings), Rc::new(serve));
                LocalSet::new().block_on(&runtime.unwrap(), async move {
                    tokio::select! {
                        () = accept(listener, shared, settings, serve) => {}
                        _ = stopped => {}
                    }
                });
            }
        });
        Self { address, shared, asked: None, stop: Some(stop), thread: Some(thread) }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn url(&self) -> String {
        format!("h2c://{}", self.address)
    }

    /// The next request that came.
    #[track_caller]
    pub fn next(&self) -> Asked {
        let asked = self.asked.as_ref().expect("requests are held").lock().unwrap();
        asked.recv_timeout(PATIENCE).expect("another request comes")
    }

    /// The next `n` requests that came.
    #[track_caller]
    pub fn next_of(&self, n: usize) -> Vec<Asked> {
        (0..n).map(|_| self.next()).collect()
    }

    /// Whether no further request has come.
    pub fn is_quiet(&self) -> bool {
        let asked = self.asked.as_ref().expect("requests are held").lock().unwrap();
        asked.try_recv().is_err()
    }

    /// How many connections have begun to speak.
    pub fn connections(&self) -> usize {
        self.shared.connections.lock().unwrap().len()
    }

    /// How many are open.
    pub fn open(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }

    /// The most that were ever open at once.
    pub fn most_open(&self) -> usize {
        self.shared.most_open.load(Ordering::SeqCst)
    }

    /// How many requests came.
    pub fn requests(&self) -> usize {
        self.shared.requests.load(Ordering::SeqCst)
    }

    /// Says on a connection that no new streams are welcome.
    pub fn end_gracefully(&self, connection: usize) {
        self.tell(connection, Command::EndGracefully);
    }

    /// Cuts a connection.
    pub fn cut(&self, connection: usize) {
        self.tell(connection, Command::Cut);
    }

    fn tell(&self, connection: usize, command: Command) {
        let _ = self.shared.connections.lock().unwrap()[connection].send(command);
    }

    fn end(&mut self) {
        if let (Some(stop), Some(thread)) = (self.stop.take(), self.thread.take()) {
            let _ = stop.send(());
            let _ = thread.join();
        }
    }
}

impl Drop for Http2Backend {
    fn drop(&mut self) {
        self.end();
        if self.shared.has_failed.load(Ordering::SeqCst) && !thread::panicking() {
            panic!("a backend's script failed; its message is above");
        }
    }
}

async fn accept(
    listener: std::net::TcpListener,
    shared: Arc<Shared>,
    settings: Rc<impl Fn(&mut Builder) + 'static>,
    serve: Rc<impl AsyncFn(Asked) + 'static>,
) {
    listener.set_nonblocking(true).unwrap();
    let listener = TcpListener::from_std(listener).unwrap();
    while let Ok((stream, _)) = listener.accept().await {
        stream.set_nodelay(true).unwrap();
        let open = Open::new(&shared).await;
        let (shared, settings, serve) = (Arc::clone(&shared), settings.clone(), serve.clone());
        spawn_local(async move {
            let _open = open;
            let mut builder = Builder::new();
            builder.initial_window_size(1 << 20).initial_connection_window_size(1 << 24);
            settings(&mut builder);
            let Ok(connection) = builder.handshake(stream).await else { return };
            let (tell, told) = mpsc::unbounded_channel();
            let index = {
                let mut connections = shared.connections.lock().unwrap();
                connections.push(tell);
                connections.len() - 1
            };
            drive(connection, index, shared, told, serve).await;
        });
    }
}

/// Serves a connection's requests until it ends, or is told to.
async fn drive(
    mut connection: Connection<TcpStream, Bytes>,
    index: usize,
    shared: Arc<Shared>,
    mut told: mpsc::UnboundedReceiver<Command>,
    serve: Rc<impl AsyncFn(Asked) + 'static>,
) {
    loop {
        let accepted = tokio::select! {
            command = told.recv() => match command {
                Some(Command::EndGracefully) => {
                    connection.graceful_shutdown();
                    continue;
                }
                Some(Command::Cut) | None => return,
            },
            accepted = connection.accept() => accepted,
        };
        let Some(Ok((request, respond))) = accepted else { return };
        shared.requests.fetch_add(1, Ordering::SeqCst);
        let (head, body) = request.into_parts();
        let asked = Asked { connection: index, head, body, respond };
        let (serve, watched) = (Rc::clone(&serve), Arc::clone(&shared));
        let served: JoinHandle<()> = spawn_local(async move { serve(asked).await });
        spawn_local(async move {
            if served.await.is_err_and(|error| error.is_panic()) {
                watched.has_failed.store(true, Ordering::SeqCst);
            }
        });
    }
}
