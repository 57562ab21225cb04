//! A client that sends exactly what it is told to.

use std::io;
use std::net::{SocketAddr, TcpStream};

use super::message::Response;
use super::wire::{End, PATIENCE, Wire, connect_narrow};

#[derive(Debug)]
pub struct Client {
    wire: Wire,
}

impl Client {
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&address, PATIENCE).expect("the balancer listens");
        Self::over(stream)
    }

    pub fn over(stream: TcpStream) -> Self {
        Self { wire: Wire::new(stream) }
    }

    /// A client that lets only a little lie unread in its kernel's buffers.
    pub fn connect_narrow(address: SocketAddr, receive_buffer: usize) -> Self {
        Self::over(connect_narrow(address, receive_buffer).expect("the balancer listens"))
    }

    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.wire.send(bytes).expect("the balancer reads");
    }

    /// Sends where the balancer may have closed already.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.wire.send(bytes)
    }

    /// Sends one byte a write, as far as the balancer takes them.
    pub fn send_bytewise(&mut self, bytes: impl AsRef<[u8]>) {
        for byte in bytes.as_ref() {
            if self.wire.send([*byte]).is_err() {
                return;
            }
        }
    }

    /// The next response, interim ones too, to a request that is no HEAD.
    #[track_caller]
    pub fn response(&mut self) -> Response {
        self.response_to("GET")
    }

    #[track_caller]
    pub fn response_to(&mut self, method: &str) -> Response {
        match self.try_response_to(method) {
            Some(response) => response,
            None => panic!(
                "no response, {:?} after {:?}",
                self.wire.end(),
                String::from_utf8_lossy(&self.wire.record().lock().unwrap().bytes)
            ),
        }
    }

    /// The next response, or `None` where the connection ends without one.
    #[track_caller]
    pub fn try_response_to(&mut self, method: &str) -> Option<Response> {
        let response = Response::read(&mut self.wire, method);
        assert_ne!(self.wire.end(), Some(End::Stalled), "no whole response in time");
        response
    }

    #[track_caller]
    pub fn get(&mut self, path: &str) -> Response {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n"));
        self.response()
    }

    /// Asserts that the balancer closes, and says nothing more before it does.
    #[track_caller]
    pub fn assert_closed(&mut self) {
        let rest = self.wire.rest();
        assert_eq!(String::from_utf8_lossy(&rest), "", "nothing more is said");
        assert_ne!(self.wire.end(), Some(End::Stalled), "the connection is closed");
    }

    /// Asserts that the connection still carries requests.
    #[track_caller]
    pub fn assert_open(&mut self) {
        assert_eq!(self.get("/still-open").status, 200);
    }

    pub fn half_close(&self) {
        self.wire.half_close();
    }

    pub fn reset(self) {
        self.wire.reset();
    }

    pub fn wire(&mut self) -> &mut Wire {
        &mut self.wire
    }
}
