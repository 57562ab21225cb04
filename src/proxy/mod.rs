//! The life of a request, on one worker.
//!
//! [`connection`] waits for requests of a `client`, after the `handshake` if it comes by TLS; in `http2`
//! each stream of it is a client. `exchange` reads a request and sees it through, `answer` says where it
//! goes, or why it goes nowhere. `forward` picks an endpoint, as `affinity` or the policy has it,
//! `connect`s (and `introduce`s the client where the PROXY protocol is asked for), and runs `send` and
//! `receive` at once; `patience` says how long an answer is waited for, `retry` whether a try that failed is
//! followed by another (`tries` are those so far), and `hedge` asks two endpoints at a time. `body` moves
//! payload, `tunnel` moves what is no longer HTTP, `reply` answers in our own name, [`access_log`] tells of
//! it. `progress` is what an exchange works with, [`worker`] what all share on one thread, [`snapshot`]
//! what is in force.

pub mod access_log;
pub mod connection;
pub mod snapshot;
pub mod worker;

mod affinity;
mod answer;
mod body;
mod client;
mod connect;
mod exchange;
mod forward;
mod handshake;
mod hedge;
mod http2;
mod introduce;
mod patience;
mod progress;
mod receive;
mod reply;
mod request_id;
mod retry;
mod send;
mod tries;
mod tunnel;
