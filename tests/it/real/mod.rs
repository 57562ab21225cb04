//! Clients and servers that others wrote, on either side of the balancer.
//!
//! Those that are programs need not be installed: what is missing is counted as skipped, and `.ci/run`,
//! which installs all of them, shows the count.

mod curl;
mod grpc;
mod https;
mod hyper;
mod mutual_tls;
mod nghttp2;
mod nginx;
mod openssl;
mod proxy_protocol;
mod tonic;
mod tonic_server;
mod websockets;

use std::net::SocketAddr;

use crate::support::certificates::Authority;
use crate::support::program::{self, Ran};
use crate::support::{Backend, Tinylb, config};

/// Sends each request's body back, says "go on" where that is expected.
fn echo() -> Backend {
    Backend::new(|mut conn| {
        while let Some(head) = conn.head() {
            let expects = head.has("expect");
            if expects && !conn.send("HTTP/1.1 100 Continue\r\n\r\n") {
                return;
            }
            let Some(request) = conn.body(head) else { return };
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", request.body.len());
            let body = if request.method() == "HEAD" { &[][..] } else { &request.body };
            if !conn.send([head.as_bytes(), body].concat()) {
                return;
            }
        }
    })
}

/// A balancer for `https://a.test` before `endpoint`, and who has given it its certificate. `keys` are
/// further keys of its `tls`.
fn secure(endpoint: &str, keys: &str) -> (Authority, Tinylb) {
    secure_with(endpoint, keys, "")
}

/// The same with further lines of its upstream.
fn secure_with(endpoint: &str, keys: &str, upstream: &str) -> (Authority, Tinylb) {
    let authority = Authority::new("Test Authority");
    let pair = authority.server("server", &["a.test", "b.test"]);
    let tls = format!("tls = {{ {}, {keys} }}", pair.keys());
    let tinylb = Tinylb::run(&config(&[endpoint.to_owned()], &tls, upstream));
    (authority, tinylb)
}

/// Runs curl, which takes every name for `address`.
#[track_caller]
fn curl(address: SocketAddr, arguments: &[&str]) -> Option<Ran> {
    let connect = format!("::{address}");
    let common = ["-sS", "--max-time", "30", "--noproxy", "*", "--connect-to", &connect];
    program::run("curl", &[&common, arguments].concat(), b"")
}

/// A megabyte that does not repeat itself.
fn megabyte() -> Vec<u8> {
    let mut bytes = vec![0; 1 << 20];
    fastrand::Rng::with_seed(1).fill(&mut bytes);
    bytes
}
