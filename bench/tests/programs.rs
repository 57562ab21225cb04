//! That those programs which speak TLS and HTTP/2 do what the measurements need.

use std::error::Error;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;

use bytes::Bytes;
use http::Request;
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};

type Outcome = Result<(), Box<dyn Error>>;

/// A program of ours, until the end of the test.
struct Program {
    child: Child,
    address: SocketAddr,
}

impl Program {
    /// Starts one that listens and says where.
    fn start(path: &str, arguments: &[&str]) -> Result<Self, Box<dyn Error>> {
        let mut child =
            Command::new(path).arg("127.0.0.1:0").args(arguments).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        let output = child.stdout.take().ok_or("no standard output")?;
        BufReader::new(output).read_line(&mut line)?;
        Ok(Self { child, address: line.trim().parse()? })
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Files with a certificate for `localhost` and its key, for the test of that name.
fn certificate(test: &str) -> Result<(PathBuf, PathBuf), Box<dyn Error>> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let file = |part| Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{test}-{part}.pem"));
    let (cert, key) = (file("cert"), file("key"));
    std::fs::write(&cert, made.cert.pem())?;
    std::fs::write(&key, made.signing_key.serialize_pem())?;
    Ok((cert, key))
}

fn text(path: &Path) -> Result<&str, Box<dyn Error>> {
    path.to_str().ok_or_else(|| "not UTF-8".into())
}

#[test]
fn handshakes_are_of_the_kind_that_is_asked_for() -> Outcome {
    let (cert, key) = certificate("handshakes")?;
    let server = Program::start(env!("CARGO_BIN_EXE_tls-relay"), &[text(&cert)?, text(&key)?])?;
    for kind in ["full", "resumed"] {
        let ran = Command::new(env!("CARGO_BIN_EXE_tls-client"))
            .args([&server.address.to_string(), kind, "4", "0.5"])
            .output()?;
        let said = String::from_utf8(ran.stdout)?;
        // Another kind is an error.
        assert!(ran.status.success() && said.contains("\"errors\": {}"), "{kind}: {said}");
        let requests = said.split(['{', ',']).nth(1).and_then(|field| field.split(": ").nth(1));
        let requests: u64 = requests.ok_or("no requests")?.parse()?;
        // More than those four that have nothing to resume.
        assert!(requests > 8, "{kind}: {said}");
    }
    Ok(())
}

#[test]
fn a_client_that_wants_what_it_does_not_get_says_so() -> Outcome {
    // Whoever is asked hangs up.
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?.to_string();
    thread::spawn(move || listener.incoming().for_each(drop));
    let ran = Command::new(env!("CARGO_BIN_EXE_tls-client"))
        .args([&address, "full", "1", "0.1"])
        .output()?;
    let said = String::from_utf8(ran.stdout)?;
    assert!(said.contains("\"requests\": 0,") && said.contains("\"handshake\": "), "{said}");
    Ok(())
}

#[test]
fn the_relay_under_tls_passes_on_all_there_is() -> Outcome {
    const BODY: usize = 3 << 20;
    let backend = TcpListener::bind("127.0.0.1:0")?;
    let address = backend.local_addr()?.to_string();
    let (cert, key) = certificate("relay")?;
    let arguments = [text(&cert)?, text(&key)?, &address];
    let relay = Program::start(env!("CARGO_BIN_EXE_tls-relay"), &arguments)?;
    let answering = thread::spawn(move || -> std::io::Result<Vec<u8>> {
        let (mut socket, _) = backend.accept()?;
        let mut request = vec![0; BODY];
        socket.read_exact(&mut request)?;
        // And closes.
        socket.write_all(&request)?;
        Ok(request)
    });

    let name = ServerName::try_from("localhost")?;
    let tls = ClientConnection::new(bench::tls::client(false)?, name)?;
    let mut stream = StreamOwned::new(tls, TcpStream::connect(relay.address)?);
    let sent: Vec<u8> = (0..BODY).map(|at| (at % 251) as u8).collect();
    stream.write_all(&sent)?;
    let mut received = Vec::new();
    stream.read_to_end(&mut received)?;
    let request = answering.join().map_err(|_| "the backend panicked")??;
    assert!(request == sent && received == sent, "{} bytes came back", received.len());
    Ok(())
}

#[test]
fn the_backend_answers_get_post_and_grpc() -> Outcome {
    let backend = Program::start(env!("CARGO_BIN_EXE_h2-backend"), &[])?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let socket = tokio::net::TcpStream::connect(backend.address).await?;
        let (mut client, connection) = h2::client::handshake(socket).await?;
        tokio::spawn(connection);
        let message = Bytes::from_static(b"\0\0\0\0\x02hi");
        for (method, path, kind, wanted, status) in [
            ("GET", "/", "", &b"hello\n"[..], None),
            ("GET", "/100", "", &[b'x'; 100][..], None),
            ("POST", "/", "text/plain", &b"received 7\n"[..], None),
            ("POST", "/a.B/C", "application/grpc", &message[..], Some("0")),
        ] {
            let request = Request::builder().method(method).uri(format!("http://localhost{path}"));
            let get = method == "GET";
            let request = request.header("content-type", kind).body(())?;
            let (response, mut stream) = client.send_request(request, get)?;
            if !get {
                stream.send_data(message.clone(), true)?;
            }
            let mut body = response.await?.into_body();
            let mut received = Vec::new();
            while let Some(piece) = body.data().await {
                received.extend_from_slice(&piece?);
            }
            assert_eq!(received, wanted, "{method} {path}");
            let trailers = body.trailers().await?.unwrap_or_default();
            let got = trailers.get("grpc-status").map(|status| status.to_str()).transpose()?;
            assert_eq!(got, status, "{method} {path}");
        }
        Ok::<(), Box<dyn Error>>(())
    })?;

    // One connection for HTTP/2, with four requests, and this one.
    let mut plain = TcpStream::connect(backend.address)?;
    plain.write_all(b"GET /stats HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    let mut said = String::new();
    plain.read_to_string(&mut said)?;
    assert!(said.ends_with("\r\n\r\n{\"connections\": 2, \"requests\": 4}\n"), "{said}");
    Ok(())
}
