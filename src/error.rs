//! What can go wrong with a request: whose fault it is, what kind, and whether it is safe to try
//! again.
//!
//! The kinds are those of the registry of RFC 9209 (2.3), so that a client's `Proxy-Status`, the
//! log and the metrics all say the same word. [`proxy::reply`](crate::proxy) is the one place that
//! turns an [`Error`] into an answer.

use std::fmt;
use std::io;

/// A request that failed: its kind, and a sentence for whoever reads the answer or the log. The
/// sentence is fixed text, so it cannot carry an address or anything from the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Error {
    /// What went wrong.
    pub kind: Kind,
    /// What exactly, in a few words.
    pub detail: &'static str,
}

/// Whose fault a failure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The client's: the same request will fail again.
    Client,
    /// The endpoint's, or the network's on the way to it.
    Endpoint,
    /// Ours, or nobody's that could be named.
    Proxy,
}

/// What went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// 400: the request is malformed or ambiguous.
    BadRequest,
    /// 404: no route for it.
    NoRoute,
    /// 405: a method that no endpoint gets from us.
    MethodNotAllowed,
    /// 408: the client stopped sending in mid-request.
    RequestTimeout,
    /// 413: the body is over the listener's limit.
    ContentTooLarge,
    /// 414: the request line is over the limit.
    TargetTooLong,
    /// 417: an expectation other than `100-continue`.
    ExpectationFailed,
    /// 421: the connection was not meant for this host.
    Misdirected,
    /// 431: the head is over the limit.
    HeadTooLarge,
    /// 501: a method or a transfer coding that is not implemented.
    NotImplemented,
    /// 505: a version that is not spoken on this connection.
    VersionNotSupported,
    /// 499 in the log, nothing on the wire: the client went away.
    ClientClosed,
    /// 502: the request has passed through this instance too often before.
    LoopDetected,
    /// 503: no endpoint can be tried.
    Unavailable,
    /// 503: the endpoints have as much to do as they may, and so has the queue.
    Overloaded,
    /// 502: the endpoint refused the connection.
    ConnectionRefused,
    /// 504: the connection to the endpoint was not made in time.
    ConnectionTimeout,
    /// 502: no TLS with the endpoint.
    TlsFailed,
    /// 502: the endpoint's certificate is not to be trusted.
    TlsCertificate,
    /// 502: the endpoint does not begin HTTP/2, which it is said to speak.
    Http2Failed,
    /// 502: no way to the endpoint's address.
    Unroutable,
    /// 502: the endpoint closed or reset the connection before its response was whole.
    ConnectionTerminated,
    /// 502: the endpoint turned the request away before it looked at it (REFUSED_STREAM, GOAWAY).
    Unprocessed,
    /// 504: the endpoint's response did not come in time.
    ResponseTimeout,
    /// 502: the endpoint's response ended early.
    ResponseIncomplete,
    /// 502: the endpoint reset the stream, with this error code of HTTP/2 (RFC 9113 7).
    StreamReset(u32),
    /// 502: the endpoint's response is malformed.
    ResponseMalformed,
    /// 502: the head of the endpoint's response is over the limit.
    ResponseHeadTooLarge,
    /// 502: the endpoint switched protocols without having been asked to, or answered well without switching
    /// where a client in HTTP/2 asked for nothing else.
    UpgradeFailed,
    /// 500: out of something that this process needs.
    Internal,
}

impl Kind {
    /// The status that the client gets, and that the log shows.
    pub const fn status(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::NoRoute => 404,
            Self::MethodNotAllowed => 405,
            Self::RequestTimeout => 408,
            Self::ContentTooLarge => 413,
            Self::TargetTooLong => 414,
            Self::ExpectationFailed => 417,
            Self::Misdirected => 421,
            Self::HeadTooLarge => 431,
            Self::ClientClosed => 499,
            Self::Internal => 500,
            Self::NotImplemented => 501,
            Self::LoopDetected
            | Self::ConnectionRefused
            | Self::Unroutable
            | Self::TlsFailed
            | Self::TlsCertificate
            | Self::Http2Failed
            | Self::ConnectionTerminated
            | Self::Unprocessed
            | Self::ResponseIncomplete
            | Self::StreamReset(_)
            | Self::ResponseMalformed
            | Self::ResponseHeadTooLarge
            | Self::UpgradeFailed => 502,
            Self::Unavailable | Self::Overloaded => 503,
            Self::ConnectionTimeout | Self::ResponseTimeout => 504,
            Self::VersionNotSupported => 505,
        }
    }

    /// The error type of RFC 9209 (2.3), the word in `Proxy-Status`, in the log and in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::BadRequest
            | Self::MethodNotAllowed
            | Self::RequestTimeout
            | Self::ContentTooLarge
            | Self::TargetTooLong
            | Self::ExpectationFailed
            | Self::Misdirected
            | Self::HeadTooLarge
            | Self::NotImplemented
            | Self::VersionNotSupported => "http_request_error",
            Self::NoRoute => "destination_not_found",
            // Not of the registry, and never on the wire: there is nobody left to tell.
            Self::ClientClosed => "client_closed",
            Self::LoopDetected => "proxy_loop_detected",
            Self::Unavailable => "destination_unavailable",
            Self::Overloaded => "connection_limit_reached",
            Self::ConnectionRefused => "connection_refused",
            Self::ConnectionTimeout => "connection_timeout",
            Self::TlsFailed => "tls_protocol_error",
            Self::TlsCertificate => "tls_certificate_error",
            Self::Unroutable => "destination_ip_unroutable",
            Self::ConnectionTerminated | Self::Unprocessed => "connection_terminated",
            Self::ResponseTimeout => "http_response_timeout",
            Self::ResponseIncomplete | Self::StreamReset(_) => "http_response_incomplete",
            Self::ResponseMalformed | Self::Http2Failed => "http_protocol_error",
            Self::ResponseHeadTooLarge => "http_response_header_section_size",
            Self::UpgradeFailed => "http_upgrade_failed",
            Self::Internal => "proxy_internal_error",
        }
    }

    /// Whose fault it is.
    pub const fn fault(self) -> Fault {
        match self {
            Self::Internal | Self::Unavailable | Self::Overloaded => Fault::Proxy,
            Self::ConnectionRefused
            | Self::ConnectionTimeout
            | Self::Unroutable
            | Self::TlsFailed
            | Self::TlsCertificate
            | Self::Http2Failed
            | Self::ConnectionTerminated
            | Self::Unprocessed
            | Self::ResponseTimeout
            | Self::ResponseIncomplete
            | Self::StreamReset(_)
            | Self::ResponseMalformed
            | Self::ResponseHeadTooLarge
            | Self::UpgradeFailed => Fault::Endpoint,
            _ => Fault::Client,
        }
    }

    /// Whether it is no connection that could be made, or none on which anything could be asked.
    pub const fn is_unreachable(self) -> bool {
        matches!(
            self,
            Self::ConnectionRefused
                | Self::ConnectionTimeout
                | Self::Unroutable
                | Self::TlsFailed
                | Self::TlsCertificate
                | Self::Http2Failed
        )
    }

    /// Whether nothing can have reached an endpoint, or it has looked at nothing, so that any request may
    /// be tried elsewhere.
    pub const fn is_before_sending(self) -> bool {
        self.is_unreachable()
            || matches!(self, Self::Unprocessed | Self::Overloaded | Self::Internal)
    }
}

impl Error {
    /// An error of this kind; `detail` says what exactly, in a few words.
    pub const fn new(kind: Kind, detail: &'static str) -> Self {
        Self { kind, detail }
    }

    /// A request that is malformed or ambiguous (400).
    pub const fn bad_request(detail: &'static str) -> Self {
        Self::new(Kind::BadRequest, detail)
    }

    /// A response that is malformed or ambiguous (502).
    pub const fn bad_response(detail: &'static str) -> Self {
        Self::new(Kind::ResponseMalformed, detail)
    }

    /// A stream that the endpoint reset with this error code of HTTP/2.
    pub const fn stream_reset(code: u32) -> Self {
        Self::new(Kind::StreamReset(code), "the endpoint reset the stream")
    }

    /// The client went away.
    pub const CLIENT_CLOSED: Self =
        Self::new(Kind::ClientClosed, "the client closed the connection");

    /// What a failed dial means.
    pub fn connecting(error: &io::Error) -> Self {
        use io::ErrorKind as Io;
        // Out of descriptors, ports or memory is our own fault, not the endpoint's.
        const OURS: [i32; 4] = [
            rustix::io::Errno::MFILE.raw_os_error(),
            rustix::io::Errno::NFILE.raw_os_error(),
            rustix::io::Errno::ADDRNOTAVAIL.raw_os_error(),
            rustix::io::Errno::NOBUFS.raw_os_error(),
        ];
        if error.raw_os_error().is_some_and(|code| OURS.contains(&code)) {
            return Self::new(Kind::Internal, "out of descriptors or local ports");
        }
        match error.kind() {
            Io::TimedOut => Self::new(Kind::ConnectionTimeout, "the connection timed out"),
            Io::HostUnreachable | Io::NetworkUnreachable => {
                Self::new(Kind::Unroutable, "the endpoint is unreachable")
            }
            _ => Self::new(Kind::ConnectionRefused, "the endpoint refused the connection"),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind.name(), self.detail)
    }
}

impl std::error::Error for Error {}
