//! Active checks by gRPC, of a server that the h2 crate speaks for.

use std::net::SocketAddr;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;

use bytes::Bytes;
use h2::server::SendResponse;
use http::Response;
use http::header::{HeaderMap, HeaderValue};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};

use crate::support::{Tinylb, config, eventually};

/// What the server says: a message, or nothing but a status.
type Answer = Result<&'static [u8], &'static str>;

const SERVING: Answer = Ok(b"\0\0\0\0\x02\x08\x01");
const NOT_SERVING: Answer = Ok(b"\0\0\0\0\x02\x08\x02");

/// The URLs and the messages that came.
type Asked = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

/// A server that answers every call so, and what it was asked.
struct Server {
    address: SocketAddr,
    answer: Arc<Mutex<Answer>>,
    asked: Asked,
}

impl Server {
    fn new() -> Self {
        let (answer, asked) = (Arc::new(Mutex::new(SERVING)), Asked::default());
        let (tell, told) = channel();
        let (answers, calls) = (Arc::clone(&answer), Arc::clone(&asked));
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                tell.send(listener.local_addr().unwrap()).unwrap();
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(serve(stream, Arc::clone(&answers), Arc::clone(&calls)));
                }
            });
        });
        Self { address: told.recv().unwrap(), answer, asked }
    }

    fn url(&self) -> String {
        format!("h2c://{}", self.address)
    }

    fn says(&self, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
    }
}

async fn serve(stream: TcpStream, answer: Arc<Mutex<Answer>>, asked: Asked) {
    stream.set_nodelay(true).unwrap();
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    while let Some(Ok((request, respond))) = connection.accept().await {
        let (answer, asked) = (Arc::clone(&answer), Arc::clone(&asked));
        tokio::spawn(async move {
            let (head, mut body) = request.into_parts();
            let mut message = Vec::new();
            while let Some(Ok(data)) = body.data().await {
                message.extend_from_slice(&data);
            }
            asked.lock().unwrap().push((head.uri.to_string(), message));
            let answer = *answer.lock().unwrap();
            send(respond, answer);
        });
    }
}

fn send(mut respond: SendResponse<Bytes>, answer: Answer) {
    let head = Response::builder().header("content-type", "application/grpc");
    match answer {
        Ok(message) => {
            let mut stream = respond.send_response(head.body(()).unwrap(), false).unwrap();
            stream.send_data(Bytes::from_static(message), false).unwrap();
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            stream.send_trailers(trailers).unwrap();
        }
        Err(status) => {
            let head = head.header("grpc-status", status).body(()).unwrap();
            respond.send_response(head, true).unwrap();
        }
    }
}

fn run(endpoints: &[String], service: &str) -> Tinylb {
    let health = format!(
        "health = {{ type = \"grpc\", interval = \"20ms\", timeout = \"5s\", rise = 1, fall = 2{service} }}"
    );
    Tinylb::run(&config(endpoints, "", &health))
}

fn wait_for_state(tinylb: &Tinylb, url: &str, wanted: &str) {
    eventually(wanted, || {
        let endpoints: Value = serde_json::from_str(&tinylb.admin("/endpoints").text()).unwrap();
        let all = endpoints["upstreams"][0]["endpoints"].as_array().unwrap();
        let one = all.iter().find(|endpoint| endpoint["endpoint"] == url).unwrap();
        (one["state"] == wanted).then_some(())
    });
}

#[test]
fn a_service_that_does_not_serve_gets_nothing_until_it_does() {
    let (one, two) = (Server::new(), Server::new());
    let tinylb = run(&[one.url(), two.url()], ", service = \"my.Service\"");
    wait_for_state(&tinylb, &one.url(), "up");
    wait_for_state(&tinylb, &two.url(), "up");
    let asked = two.asked.lock().unwrap()[0].clone();
    assert_eq!(asked.0, format!("http://{}/grpc.health.v1.Health/Check", two.address));
    assert_eq!(asked.1, b"\0\0\0\0\x0c\x0a\x0amy.Service");

    two.says(NOT_SERVING);
    wait_for_state(&tinylb, &two.url(), "down");
    let line = tinylb.wait_for_log("down: not serving");
    assert!(line.contains(&two.url()), "{line}");
    two.says(SERVING);
    wait_for_state(&tinylb, &two.url(), "up");
    // `NOT_FOUND`: the server does not know the service.
    one.says(Err("5"));
    wait_for_state(&tinylb, &one.url(), "down");
    tinylb.wait_for_log("down: gRPC status not_found");
}

#[test]
fn the_server_as_a_whole_is_asked_after_where_no_service_is_named() {
    let server = Server::new();
    let tinylb = run(&[server.url()], "");
    wait_for_state(&tinylb, &server.url(), "up");
    assert_eq!(server.asked.lock().unwrap()[0].1, b"\0\0\0\0\0");
}
