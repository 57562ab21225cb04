//! The standing of an endpoint, told to operators.

use std::time::Duration;

use tokio::time::Instant;

use super::condition::Condition;
use super::endpoint::Endpoint;
use crate::config::SlowStart;

/// Why an endpoint drains that the file drains.
pub const DRAINED_BY_FILE: &str = "`drain = true` in the configuration";

/// The standing of an endpoint.
#[derive(Debug, Clone)]
pub struct Description {
    /// What it is.
    pub condition: Condition,
    /// How long ago it changed.
    pub since: Duration,
    /// Why it changed; empty if it never has.
    pub why: String,
}

impl Endpoint {
    /// Its standing, with what the configuration and its name make of it.
    pub fn describe(&self, now: Instant, slow_start: Option<SlowStart>) -> Description {
        let (condition, since, why) = self.state.condition(now, slow_start);
        let is_well = matches!(condition, Condition::Up | Condition::Warming);
        let (condition, why) = match condition {
            _ if is_well && self.addresses.is_empty() => {
                (Condition::Down, "its name has no address".to_owned())
            }
            _ if is_well && self.drain => (Condition::Draining, DRAINED_BY_FILE.to_owned()),
            Condition::Draining if self.drain => {
                (Condition::Draining, format!("{DRAINED_BY_FILE}, and {why}"))
            }
            condition => (condition, why),
        };
        Description { condition, since, why }
    }
}
