//! The configuration: whatever the file, there is a sentence or a balancer.

use std::collections::HashMap;
use std::time::Instant;

use tinylb::config::{self, HostPattern};
use tinylb::proxy::snapshot::Snapshot;
use tinylb::upstream::Wanted;

/// Nothing panics, and of a file that is right every route is reached.
pub fn check(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let env = |name: &str| (name == "HOST").then(|| "app.example.com".to_owned());
    let config = match config::parse_with_doubts("tinylb.toml", text, &env) {
        Ok((config, doubts)) => {
            assert!(doubts.is_empty() || doubts.to_string().contains("warning"));
            config
        }
        Err(error) => return assert!(error.to_string().contains("error")),
    };
    let snapshot =
        Snapshot::build(&config, &HashMap::new(), &HashMap::new(), &Snapshot::default(), 1);
    for route in &config.routes {
        let host = match &route.host {
            None => String::new(),
            Some(HostPattern::Exact(host)) => host.clone(),
            // Of no other pattern's.
            Some(HostPattern::Suffix(suffix)) => format!("~{suffix}"),
        };
        let reached = snapshot.route(host.as_bytes(), route.path.as_bytes()).map(|r| &r.label);
        assert_eq!(reached, Some(&route.to_string()), "{text}");
        let upstream = &snapshot.upstreams[route.upstream];
        let wanted = Wanted::anything(Instant::now());
        assert!(upstream.pick(&wanted).map_or(true, |picked| picked.endpoint.weight > 0), "{text}");
    }
}
