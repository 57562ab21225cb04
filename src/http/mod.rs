//! What the wire says, without a socket or a clock: heads, body framing, and the rules of RFC 9110
//! and RFC 9112 for a proxy.
//!
//! In the order of a request: [`head`] finds and parses, [`request`] interprets, [`path`] resolves
//! what routes match on, [`rewrite`] renders what goes on, [`body`] finds payload and end,
//! [`response`] interprets what comes back. [`cookie`] and [`query`] find what policies go by.
//! [`h2`] turns the heads of HTTP/2 into the text that all of these work on, and back; [`grpc`] says
//! failures so that callers by gRPC understand them.
//! [`proxy_protocol`] reads and writes what may come before all of it.

pub mod body;
pub mod buffer;
pub mod connection;
pub mod cookie;
pub mod grpc;
pub mod h2;
pub mod head;
pub mod hex;
pub mod path;
pub mod proxy_protocol;
pub mod query;
pub mod request;
pub mod response;
pub mod rewrite;
pub mod websocket;
