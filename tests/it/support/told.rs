//! What the balancer tells of a request, and of an endpoint.

use serde_json::Value;

use super::process::Tinylb;

impl Tinylb {
    /// The access log's line of the request for `path`, which must be of JSON.
    #[track_caller]
    pub fn told(&self, path: &str) -> Value {
        let line = self.wait_for_access(&format!("\"{path}\""));
        serde_json::from_str(&line).expect("a line of JSON")
    }

    /// Asserts how often the request for `path` was sent, and why more than once.
    #[track_caller]
    pub fn assert_tries(&self, path: &str, attempts: u32, retries: Option<&str>) {
        let line = self.told(path);
        assert_eq!(
            (line["attempts"].as_u64(), line["retries"].as_str()),
            (Some(attempts.into()), retries),
            "{line}"
        );
    }

    /// What the admin address tells of the endpoint `url`.
    #[track_caller]
    pub fn standing(&self, url: &str) -> Value {
        let all: Value = serde_json::from_str(&self.admin("/endpoints").text()).expect("JSON");
        let mut upstreams = all["upstreams"].as_array().expect("upstreams").iter();
        let found = upstreams.find_map(|upstream| {
            let mut endpoints = upstream["endpoints"].as_array().expect("endpoints").iter();
            endpoints.find(|endpoint| endpoint["endpoint"] == url).cloned()
        });
        found.unwrap_or_else(|| panic!("there is the endpoint {url}: {all}"))
    }

    /// The state of the endpoint `url`.
    #[track_caller]
    pub fn state(&self, url: &str) -> String {
        self.standing(url)["state"].as_str().expect("a state").to_owned()
    }

    /// The state of the first endpoint.
    #[track_caller]
    pub fn first_state(&self) -> String {
        let told: Value = serde_json::from_str(&self.admin("/endpoints").text()).unwrap();
        told["upstreams"][0]["endpoints"][0]["state"].as_str().expect("a state").to_owned()
    }
}
