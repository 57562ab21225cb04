//! The balancer from outside: raw bytes on real sockets, against the real binary.
//!
//! One binary for all topics, because linking is what takes the time. Each test starts its own
//! balancer and its own backends on ports that the kernel chooses, so they run in parallel.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failure of the harness is a failure of the test, also in its helper functions"
)]
#![allow(
    missing_docs,
    unreachable_pub,
    reason = "the harness is one crate with its tests: `pub` says that topics use it, and names say the rest"
)]

mod support;

mod access_log;
mod admin_clients;

mod admin_endpoints;
mod attempts;
mod backend_faults;
mod backend_stalls;
mod balance_workers;
mod bodies;
mod certificates;
mod client_closes;
mod client_timeouts;
mod colliding_fields;
mod drain;
mod drain_slow_readers;
mod ejection;
mod endpoint_down;
mod endpoint_drain;
mod exchange;
mod expect_retries;
mod forwarded_fields;
mod forwarding;
mod framing;
mod grpc;
mod harness;
mod hashing;
mod health;
mod health_grpc;
mod health_strict;
mod hedge_failures;
mod hedging;
mod held_answers;
mod http2;
mod http2_answers;
mod http2_attacks;
mod http2_bodies;
mod http2_endpoint_bodies;
mod http2_endpoint_chaos;
mod http2_endpoint_connections;
mod http2_endpoint_faults;
mod http2_endpoint_goaway;
mod http2_endpoint_resets;
mod http2_endpoint_retries;
mod http2_endpoint_upgrades;
mod http2_endpoints;
mod http2_faults;
mod http2_floods;
mod http2_frames;
mod http2_life;
mod http2_messages;
mod http2_smuggling;
mod http2_streams;
mod http2_tls;
mod http2_tunnels;
mod limits;
mod limits_clients;
mod limits_connections;
mod limits_requests;
mod listening;
mod metrics;
mod mixed_up;
mod names;
mod own_answers;
mod panic;
mod policies;
mod policies_by_time;
mod priorities;
mod proxy_protocol;
mod proxy_protocol_out;
mod proxy_protocol_tls;
mod queue;
mod queue_recovery;
mod real;
mod recovery;
mod redirects;
mod refused;
mod refused_bodies;
mod reload;
mod reload_slow;
mod request_trailers;
mod retries;
mod retry_bodies;
mod retry_budget;
mod retry_settled;
mod retry_statuses;
mod retry_timeouts;
mod slow_readers;
mod slow_start;
mod spoilt_connections;
mod standard_streams;
mod sticky;
mod tls_endpoints;
mod unfinished_bodies;
mod upgrade_required;
mod versions;
mod via;
mod websocket;
mod websocket_idle;
