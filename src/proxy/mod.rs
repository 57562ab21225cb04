//! The life of a request, on one worker.
//!
//! [`connection`] waits for requests, `exchange` reads a head and sees its request through,
//! `forward` picks an endpoint, connects and sends, `receive` passes the response on, `body` moves
//! payload, `tunnel` moves what is no longer HTTP, `reply` answers in our own name, [`access_log`]
//! tells of it. [`worker`] is what they all share on one thread, [`snapshot`] what is in force.

pub mod access_log;
pub mod connection;
pub mod snapshot;
pub mod worker;

mod body;
mod exchange;
mod forward;
mod receive;
mod reply;
mod tunnel;
