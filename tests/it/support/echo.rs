//! Bodies in bulk: an asynchronous echo backend and client, which cut and frame what they send at
//! random.

use std::io;
use std::net::SocketAddr;

use fastrand::Rng;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// One end of a connection.
#[derive(Debug)]
pub struct Talk {
    stream: BufReader<TcpStream>,
    rng: Rng,
}

impl Talk {
    pub fn new(stream: TcpStream, seed: u64) -> Self {
        stream.set_nodelay(true).unwrap();
        Self { stream: BufReader::new(stream), rng: Rng::with_seed(seed) }
    }

    /// The next message: its first line and its body. `None` at a clean end.
    pub async fn message(&mut self) -> io::Result<Option<(String, Vec<u8>)>> {
        let first = self.line().await?;
        if first.is_empty() {
            return Ok(None);
        }
        let (mut length, mut chunked) = (0, false);
        loop {
            let line = self.line().await?.to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().map_err(io::Error::other)?;
            } else if let Some(value) = line.strip_prefix("transfer-encoding:") {
                chunked = value.trim() == "chunked";
            }
        }
        let mut body = vec![0; length];
        if !chunked {
            self.stream.read_exact(&mut body).await?;
            return Ok(Some((first, body)));
        }
        loop {
            let line = self.line().await?;
            let digits = line.split(';').next().unwrap_or_default();
            let size = usize::from_str_radix(digits, 16).map_err(io::Error::other)?;
            let begin = body.len();
            body.resize(begin + size, 0);
            self.stream.read_exact(&mut body[begin..]).await?;
            if !self.line().await?.is_empty() {
                return Err(io::Error::other("chunk data without its CRLF"));
            }
            if size == 0 {
                return Ok(Some((first, body)));
            }
        }
    }

    async fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        self.stream.read_until(b'\n', &mut line).await?;
        let line = String::from_utf8(line).map_err(io::Error::other)?;
        Ok(line.trim_end_matches(['\r', '\n']).to_owned())
    }

    /// Sends a message of `head` (without framing or the empty line) and `body`: framed, chunked
    /// and cut into writes at random.
    pub async fn send(&mut self, head: &str, body: &[u8]) -> io::Result<()> {
        let mut bytes = head.as_bytes().to_vec();
        if self.rng.bool() {
            bytes.extend(format!("Content-Length: {}\r\n\r\n", body.len()).bytes());
            bytes.extend(body);
        } else {
            bytes.extend(b"Transfer-Encoding: chunked\r\n\r\n");
            let mut left = body;
            while !left.is_empty() {
                let (chunk, rest) = left.split_at(self.draw(left.len()));
                bytes.extend(format!("{:x}\r\n", chunk.len()).bytes());
                bytes.extend(chunk);
                bytes.extend(b"\r\n");
                left = rest;
            }
            bytes.extend(b"0\r\n\r\n");
        }
        let mut left = bytes.as_slice();
        while !left.is_empty() {
            let (piece, rest) = left.split_at(self.draw(left.len()));
            self.stream.write_all(piece).await?;
            if self.rng.u8(..) < 32 {
                tokio::task::yield_now().await;
            }
            left = rest;
        }
        Ok(())
    }

    /// From 1 to `most`, of any order of magnitude; seldom a single byte of many.
    fn draw(&mut self, most: usize) -> usize {
        let bits = self.rng.u32(4..=18);
        self.rng.usize(1..=(1 << bits)).min(most)
    }
}

/// Answers every request with its own body, until the process ends.
pub async fn echo(listener: TcpListener, seed: u64) {
    for number in 0.. {
        let Ok((stream, _)) = listener.accept().await else { return };
        let mut talk = Talk::new(stream, seed.wrapping_add(number));
        tokio::spawn(async move {
            while let Ok(Some((_, body))) = talk.message().await {
                if talk.send("HTTP/1.1 200 OK\r\n", &body).await.is_err() {
                    return;
                }
            }
        });
    }
}

/// A connected client.
pub async fn connect(address: SocketAddr, seed: u64) -> io::Result<Talk> {
    Ok(Talk::new(TcpStream::connect(address).await?, seed))
}
