//! Sockets: listening, dialling, TLS, and how long to wait for them.

pub mod admission;
pub mod deadline;
pub mod descriptors;
pub mod dial;
pub mod http2;
pub mod listen;
pub mod metered;
pub mod origin;
pub mod send_queue;
pub mod socket_file;
pub mod stream;
pub mod tls;
