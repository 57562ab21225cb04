//! tinylb, a tiny load balancer.
//!
//! # The life of a request
//!
//! [`server`] accepts a connection and hands it to the least-loaded worker. There [`proxy`] owns
//! it: reads a head ([`http`]), finds the route, lets the upstream's policy pick an endpoint
//! ([`upstream`]), takes an idle connection to it or dials one ([`net`]), renders the head anew,
//! and relays both bodies at once. A failure becomes one [`error::Error`], which one place turns
//! into a status and a `Proxy-Status` field. Beside that path, never on it, one control thread
//! resolves names ([`health`]), reloads the configuration ([`config`]), and answers operators
//! ([`control`]).
//!
//! # The floors
//!
//! Modules are listed bottom to top; a file imports only from modules above its own in this list
//! (`tests/layers.rs` holds them to it).

pub mod error;
pub mod stats;

pub mod config;

pub mod http;

pub mod net;

pub mod upstream;

pub mod health;

pub mod proxy;

pub mod server;

pub mod control;

pub mod cli;
