//! What is done about endpoints that fail, are full, or have just come.

use std::time::Duration;

use super::{GrpcStatuses, Statuses};

/// When an endpoint that fails in traffic is left alone.
#[derive(Debug, Clone, PartialEq)]
pub struct Ejection {
    /// Failures in a row that eject; never where 0.
    pub failures: u32,
    /// How far its rate of failures must be above that of the others, 0 to 1; never where 0.
    pub rate: f64,
    /// Answers that are failures too.
    pub status: Statuses,
    /// How long the first time; each time soon after another doubles it.
    pub time: Duration,
    /// The longest.
    pub max_time: Duration,
    /// The share of the upstream's endpoints that may be unavailable before no further one is
    /// ejected.
    pub max_share: f64,
}

impl Default for Ejection {
    fn default() -> Self {
        Self {
            failures: 5,
            rate: 0.2,
            status: Statuses::default(),
            time: Duration::from_secs(10),
            max_time: Duration::from_secs(300),
            max_share: 0.5,
        }
    }
}

/// What is sent again once it was sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Retry {
    /// How often a request is sent at most.
    pub attempts: u32,
    /// Answers that are not passed on if another endpoint can be asked.
    pub on: Statuses,
    /// The `grpc-status` codes that are not passed on if another endpoint can be asked; only of answers
    /// without messages (trailers-only).
    pub grpc_on: GrpcStatuses,
    /// How long one try may take to the head of its answer while another endpoint can be asked;
    /// as long as all of them where `None`.
    pub timeout: Option<Duration>,
    /// Retries at once, as a share of the active requests.
    pub budget: f64,
    /// How much of a request's body is kept to be sent again, in bytes.
    pub buffer: usize,
    /// How large an answer is held until it is whole, in bytes; none where 0.
    pub hold: usize,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts: 3,
            on: Statuses::default(),
            grpc_on: GrpcStatuses::default(),
            timeout: None,
            budget: 0.2,
            buffer: 64 * 1024,
            hold: 0,
        }
    }
}

/// How much is asked at once; no limits where `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// Requests in flight to all endpoints.
    pub requests: Option<u32>,
    /// Connections to all endpoints.
    pub connections: Option<u32>,
    /// Requests in flight to each endpoint that has no limit of its own.
    pub endpoint_requests: Option<u32>,
    /// Connections to each endpoint that has no limit of its own.
    pub endpoint_connections: Option<u32>,
    /// Whether each endpoint's limit of requests follows its latency.
    pub adaptive: bool,
}

/// Where requests wait while a limit is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queue {
    /// How many; one more is refused with 503.
    pub size: usize,
    /// How long; then 503.
    pub timeout: Duration,
    /// Who goes first.
    pub order: QueueOrder,
}

impl Default for Queue {
    fn default() -> Self {
        Self { size: 1024, timeout: Duration::from_secs(1), order: QueueOrder::Adaptive }
    }
}

/// Who goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueueOrder {
    /// The oldest, but under pressure the newest, whose client is still there.
    Adaptive,
    /// The oldest.
    Fifo,
}

/// How endpoints that are new or came back are eased in.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SlowStart {
    /// How long until one has its whole share.
    pub time: Duration,
    /// 1 is a straight line; larger ones begin faster, smaller ones slower.
    pub curve: f64,
}
