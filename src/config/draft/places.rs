//! Where values of an upstream are in the file.

use std::ops::Range;

use crate::config::places::TlsPlaces;

/// Where those values are that can be wrong together with others; `None` where the file has none.
#[derive(Default)]
pub(in crate::config) struct Places {
    pub(in crate::config) tls: TlsPlaces,
    pub(in crate::config) http2: Option<Range<usize>>,
    pub(in crate::config) proxy_protocol: Option<Range<usize>>,
    pub(in crate::config) hash: Option<Range<usize>>,
    pub(in crate::config) sticky: Option<Range<usize>>,
    pub(in crate::config) queue: Option<Range<usize>>,
    pub(in crate::config) endpoint_requests: Option<Range<usize>>,
    pub(in crate::config) endpoint_connections: Option<Range<usize>>,
    pub(in crate::config) health: Option<Range<usize>>,
    pub(in crate::config) health_port: Option<Range<usize>>,
    pub(in crate::config) health_timeout: Option<Range<usize>>,
    pub(in crate::config) ejection: Option<Range<usize>>,
    pub(in crate::config) ejection_max_time: Option<Range<usize>>,
    pub(in crate::config) retry_on: Option<Range<usize>>,
    pub(in crate::config) retry_grpc_on: Option<Range<usize>>,
    pub(in crate::config) retry_timeout: Option<Range<usize>>,
}
