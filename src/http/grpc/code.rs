//! The status codes of gRPC, and which of them a failure comes to.

use crate::error::Kind;
use crate::http::connection::decimal;

/// How a call ended (`statuscodes.md` of the gRPC project).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "they are the codes themselves")]
pub enum Code {
    Ok,
    Cancelled,
    Unknown,
    InvalidArgument,
    DeadlineExceeded,
    NotFound,
    AlreadyExists,
    PermissionDenied,
    ResourceExhausted,
    FailedPrecondition,
    Aborted,
    OutOfRange,
    Unimplemented,
    Internal,
    Unavailable,
    DataLoss,
    Unauthenticated,
}

impl Code {
    /// All of them, each at its number.
    pub const ALL: [Self; 17] = [
        Self::Ok,
        Self::Cancelled,
        Self::Unknown,
        Self::InvalidArgument,
        Self::DeadlineExceeded,
        Self::NotFound,
        Self::AlreadyExists,
        Self::PermissionDenied,
        Self::ResourceExhausted,
        Self::FailedPrecondition,
        Self::Aborted,
        Self::OutOfRange,
        Self::Unimplemented,
        Self::Internal,
        Self::Unavailable,
        Self::DataLoss,
        Self::Unauthenticated,
    ];

    /// Its number, 0 to 16, as in `grpc-status`.
    pub const fn number(self) -> u32 {
        self as u32
    }

    /// The code in a `grpc-status` field. What is none is [`Unknown`](Self::Unknown), as it is to
    /// clients.
    pub fn parse(value: &[u8]) -> Self {
        let number = decimal(value).and_then(|n| usize::try_from(n).ok());
        number.and_then(|n| Self::ALL.get(n).copied()).unwrap_or(Self::Unknown)
    }

    /// Its name in the configuration, in lower case.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Cancelled => "cancelled",
            Self::Unknown => "unknown",
            Self::InvalidArgument => "invalid_argument",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::NotFound => "not_found",
            Self::AlreadyExists => "already_exists",
            Self::PermissionDenied => "permission_denied",
            Self::ResourceExhausted => "resource_exhausted",
            Self::FailedPrecondition => "failed_precondition",
            Self::Aborted => "aborted",
            Self::OutOfRange => "out_of_range",
            Self::Unimplemented => "unimplemented",
            Self::Internal => "internal",
            Self::Unavailable => "unavailable",
            Self::DataLoss => "data_loss",
            Self::Unauthenticated => "unauthenticated",
        }
    }
}

/// What a client makes of a `status` other than 200 without a `grpc-status`
/// (`http-grpc-status-mapping.md` of the gRPC project).
pub const fn code_of_http(status: u16) -> Code {
    match status {
        400 => Code::Internal,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::Unimplemented,
        429 | 502..=504 => Code::Unavailable,
        _ => Code::Unknown,
    }
}

/// What a failure of ours is to a caller. Clients repeat a call that was [`Code::Unavailable`], so
/// that is what everything is called that another try may mend.
pub const fn code_of(kind: Kind) -> Code {
    match kind {
        Kind::NoRoute | Kind::MethodNotAllowed | Kind::NotImplemented => Code::Unimplemented,
        Kind::RequestTimeout | Kind::ResponseTimeout => Code::DeadlineExceeded,
        // What servers call a message over their limit.
        Kind::ContentTooLarge | Kind::TargetTooLong | Kind::HeadTooLarge => Code::ResourceExhausted,
        Kind::ClientClosed => Code::Cancelled,
        // Not ResourceExhausted, which few clients repeat: it is over in a moment.
        Kind::Unavailable
        | Kind::Overloaded
        | Kind::ConnectionRefused
        | Kind::ConnectionTimeout
        | Kind::Unroutable
        | Kind::TlsFailed
        | Kind::TlsCertificate
        | Kind::Http2Failed
        | Kind::ConnectionTerminated
        | Kind::Unprocessed
        | Kind::ResponseIncomplete => Code::Unavailable,
        Kind::StreamReset(code) => code_of_reset(code),
        Kind::BadRequest
        | Kind::ExpectationFailed
        | Kind::Misdirected
        | Kind::VersionNotSupported
        | Kind::LoopDetected
        | Kind::ResponseMalformed
        | Kind::ResponseHeadTooLarge
        | Kind::UpgradeFailed
        | Kind::Internal => Code::Internal,
    }
}

/// What a stream that its server resets with this error code of HTTP/2 is to a caller (`PROTOCOL-HTTP2.md` of
/// the gRPC project).
const fn code_of_reset(code: u32) -> Code {
    match code {
        REFUSED_STREAM => Code::Unavailable,
        CANCEL => Code::Cancelled,
        ENHANCE_YOUR_CALM => Code::ResourceExhausted,
        INADEQUATE_SECURITY => Code::PermissionDenied,
        _ => Code::Internal,
    }
}

// RFC 9113 7.
const REFUSED_STREAM: u32 = 0x7;
const CANCEL: u32 = 0x8;
const ENHANCE_YOUR_CALM: u32 = 0xb;
const INADEQUATE_SECURITY: u32 = 0xc;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_at_their_numbers() {
        for (number, code) in Code::ALL.into_iter().enumerate() {
            assert_eq!(code.number() as usize, number);
            assert_eq!(Code::parse(number.to_string().as_bytes()), code);
            // The names are those of the variants.
            let letters: String = code.name().chars().filter(|c| *c != '_').collect();
            assert_eq!(format!("{code:?}").to_lowercase(), letters);
        }
        assert_eq!((Code::Ok.number(), Code::Unauthenticated.number()), (0, 16));
    }

    #[test]
    fn statuses_are_what_every_client_takes_them_for() {
        for (status, code) in [
            (400, Code::Internal),
            (401, Code::Unauthenticated),
            (403, Code::PermissionDenied),
            (404, Code::Unimplemented),
            (429, Code::Unavailable),
            (500, Code::Unknown),
            (502, Code::Unavailable),
            (503, Code::Unavailable),
            (504, Code::Unavailable),
            (505, Code::Unknown),
            (200, Code::Unknown),
        ] {
            assert_eq!(code_of_http(status), code, "{status}");
        }
    }

    /// A client may repeat at once what never reached an endpoint.
    #[test]
    fn what_was_never_sent_may_be_repeated() {
        for kind in [
            Kind::ConnectionRefused,
            Kind::ConnectionTimeout,
            Kind::Unroutable,
            Kind::Overloaded,
            Kind::Unavailable,
        ] {
            assert_eq!(code_of(kind), Code::Unavailable, "{kind:?}");
        }
        assert_eq!(code_of(Kind::ResponseTimeout), Code::DeadlineExceeded);
        assert_eq!(code_of(Kind::NoRoute), Code::Unimplemented);
    }
}
