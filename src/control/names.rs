//! Keeps the names of endpoints resolved: a task for each, whose answers come here.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::AbortHandle;

use crate::config::{Config, EndpointHost};
use crate::health::resolve::{Names, look_up};

/// How long a start, or a reload, waits for names. One that takes longer is an endpoint that is down until it
/// has an address.
pub(super) const FIRST_ANSWERS: Duration = Duration::from_secs(1);

/// The answer to one lookup.
type Answer = (String, Result<Vec<IpAddr>, String>);

/// The names in use, and their last good answers.
#[derive(Debug)]
pub(super) struct Resolver {
    names: Names,
    tasks: HashMap<String, Task>,
    answers: UnboundedReceiver<Answer>,
    sender: UnboundedSender<Answer>,
}

/// One name that is being looked up again and again.
#[derive(Debug)]
struct Task {
    every: Duration,
    handle: AbortHandle,
    /// Whether the last answer was good; `None` before the first one.
    succeeded: Option<bool>,
}

impl Drop for Task {
    fn drop(&mut self) {
        self.handle.abort();
    }
}

impl Resolver {
    /// Begins to look up the names in `config`.
    pub(super) fn new(config: &Config) -> Self {
        let (sender, answers) = unbounded_channel();
        let mut resolver = Self { names: Names::new(), tasks: HashMap::new(), answers, sender };
        resolver.follow(config);
        resolver
    }

    /// The last good answers.
    pub(super) const fn names(&self) -> &Names {
        &self.names
    }

    /// Looks up the names in `config` from now on, and no others. Answers so far are kept.
    pub(super) fn follow(&mut self, config: &Config) {
        let mut wanted: HashMap<&str, Duration> = HashMap::new();
        for upstream in &config.upstreams {
            for endpoint in &upstream.endpoints {
                if let EndpointHost::Name(name) = &endpoint.url.host {
                    let every = wanted.entry(name).or_insert(upstream.resolve);
                    *every = upstream.resolve.min(*every);
                }
            }
        }
        self.tasks.retain(|name, task| wanted.get(name.as_str()) == Some(&task.every));
        self.names.retain(|name, _| wanted.contains_key(name.as_str()));
        for (name, every) in wanted {
            if !self.tasks.contains_key(name) {
                let task = look_up_again_and_again(name.to_owned(), every, self.sender.clone());
                let handle = tokio::task::spawn_local(task).abort_handle();
                self.tasks.insert(name.to_owned(), Task { every, handle, succeeded: None });
            }
        }
    }

    /// Waits until every name has been looked up once, or for as long as a start may wait.
    pub(super) async fn wait_for_first_answers(&mut self) {
        let answered = async {
            while !self.are_answered() {
                self.changed().await;
            }
        };
        let _ = tokio::time::timeout(FIRST_ANSWERS, answered).await;
    }

    /// Whether every name has been looked up once.
    pub(super) fn are_answered(&self) -> bool {
        self.tasks.values().all(|task| task.succeeded.is_some())
    }

    /// Says which names have not been looked up yet.
    pub(super) fn warn_of_unanswered(&self) {
        for (name, _) in self.tasks.iter().filter(|(_, task)| task.succeeded.is_none()) {
            tracing::warn!(%name, "not resolved yet; its endpoints are down until it is");
        }
    }

    /// Waits for the next answer, and says whether it changes anything.
    pub(super) async fn changed(&mut self) -> bool {
        // There is always a sender, `self.sender`, so there is always another answer to wait for.
        let Some((name, answer)) = self.answers.recv().await else {
            return std::future::pending().await;
        };
        let Some(task) = self.tasks.get_mut(&name) else { return false };
        let before = task.succeeded.replace(answer.is_ok());
        match answer {
            Ok(mut addresses) => {
                let known = self.names.get(&name);
                keep_family(&mut addresses, known.map(Vec::as_slice).unwrap_or_default());
                let mut sorted = known.cloned().unwrap_or_default();
                sorted.sort_unstable();
                let order_in_use = addresses.clone();
                addresses.sort_unstable();
                if before == Some(false) || (known.is_some() && sorted != addresses) {
                    tracing::info!(%name, addresses = ?order_in_use, "resolved");
                }
                // A resolver that only shuffles its answers changes nothing.
                let changed = known.is_none() || sorted != addresses;
                if changed {
                    self.names.insert(name, order_in_use);
                }
                changed
            }
            Err(error) => {
                // Once for each outage, not once for each try.
                if before != Some(false) {
                    match self.names.contains_key(&name) {
                        true => {
                            tracing::warn!(%name, %error, "not resolved; its last addresses stay")
                        }
                        false => {
                            tracing::warn!(%name, %error, "not resolved; its endpoints are down")
                        }
                    }
                }
                false
            }
        }
    }
}

/// Puts the addresses of the family in use, that of the first of `known`, before the others, as long as
/// there are any: which family the resolver has first may change with each answer, and every endpoint of
/// the name would be another one then.
fn keep_family(addresses: &mut [IpAddr], known: &[IpAddr]) {
    if let Some(in_use) = known.first() {
        addresses.sort_by_key(|address| address.is_ipv4() != in_use.is_ipv4());
    }
}

async fn look_up_again_and_again(name: String, every: Duration, answers: UnboundedSender<Answer>) {
    loop {
        let answer = look_up(&name).await;
        if answers.send((name.clone(), answer)).is_err() {
            return;
        }
        tokio::time::sleep(every).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_family_in_use_stays_first_as_long_as_it_has_addresses() {
        for (known, answer, expected) in [
            ("", "::1 127.0.0.1", "::1 127.0.0.1"),
            ("127.0.0.1", "::1 127.0.0.1", "127.0.0.1 ::1"),
            ("::1 127.0.0.1", "127.0.0.2 127.0.0.1 ::2 ::1", "::2 ::1 127.0.0.2 127.0.0.1"),
            ("::1", "127.0.0.2 127.0.0.1", "127.0.0.2 127.0.0.1"),
        ] {
            let read = |text: &str| text.split_whitespace().map(|a| a.parse().unwrap()).collect();
            let (known, mut answer): (Vec<IpAddr>, Vec<IpAddr>) = (read(known), read(answer));
            keep_family(&mut answer, &known);
            assert_eq!(answer, read(expected));
        }
    }
}
