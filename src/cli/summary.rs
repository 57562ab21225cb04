//! What a configuration means, in a few words for each part of it; what is as always is not said.

use std::fmt::Write;

use crate::config::{
    BACKUP, Check, Config, Endpoint, Health, Listener, Scheme, ServerTls, TlsVersion, Upstream,
};

/// One line for each listener, route and upstream.
/// One line for each listener, route and upstream.
pub(super) fn summary(config: &Config) -> String {
    let mut lines = String::new();
    // Writing to a string cannot fail.
    for listener in &config.listeners {
        let words = in_brackets(&listener_words(listener));
        let _ = writeln!(lines, "listener {}{words}", listener.address);
    }
    for route in &config.routes {
        if let Some(upstream) = config.upstreams.get(route.upstream) {
            let _ = writeln!(lines, "route {route} to {}", upstream.name);
        }
    }
    for upstream in &config.upstreams {
        let endpoints: Vec<_> = upstream.endpoints.iter().map(endpoint_words).collect();
        let protocols: String =
            protocol_words(upstream).iter().map(|words| format!("; {words}")).collect();
        let checks = upstream.health.as_ref().map_or_else(String::new, check_words);
        let _ = writeln!(
            lines,
            "upstream {}: {} over {}{protocols}{checks}",
            upstream.name,
            upstream.policy,
            endpoints.join(", ")
        );
    }
    match config.admin {
        Some(admin) => drop(writeln!(lines, "admin {admin}")),
        None => lines.push_str("admin off\n"),
    }
    lines
}

/// `https`, `HTTP/2`, `certificate cert.pem`.
fn listener_words(listener: &Listener) -> Vec<String> {
    let mut said =
        listener.tls.as_ref().map_or_else(Vec::new, |tls| tls_words(tls, listener.http2));
    if listener.tls.is_none() && !listener.http2 {
        said.push("no HTTP/2".to_owned());
    }
    if let Some(port) = listener.redirect_https {
        said.push(format!("redirects to https on port {port}"));
    }
    if !listener.proxy_protocol.is_empty() {
        let from: Vec<_> = listener.proxy_protocol.iter().map(ToString::to_string).collect();
        said.push(format!("PROXY protocol from {}", from.join(" and ")));
    }
    said
}

fn tls_words(tls: &ServerTls, http2: bool) -> Vec<String> {
    let mut said = vec!["https".to_owned()];
    said.push(if http2 { "HTTP/2" } else { "no HTTP/2" }.to_owned());
    if tls.min_version > TlsVersion::Tls12 {
        said.push(format!("TLS {}", tls.min_version));
    }
    if tls.self_signed {
        said.push("self-signed certificate".to_owned());
    }
    said.extend(tls.certificates.iter().map(|c| format!("certificate {}", c.cert.display())));
    if let Some(client) = &tls.client {
        let how = if client.required { "required" } else { "optional" };
        said.push(format!("client certificates {how}"));
    }
    if tls.hsts.is_some() {
        said.push("HSTS".to_owned());
    }
    said
}

/// `authorities ca.pem`, `certificate client.pem`, `PROXY protocol v2`.
fn protocol_words(upstream: &Upstream) -> Vec<String> {
    let mut said = Vec::new();
    if upstream.endpoints.iter().any(|endpoint| endpoint.url.scheme == Scheme::Https) {
        let tls = &upstream.tls;
        if !upstream.http2 {
            said.push("no HTTP/2".to_owned());
        }
        if tls.insecure_skip_verify {
            said.push("not verified".to_owned());
        }
        said.extend(tls.ca.iter().map(|ca| format!("authorities {}", ca.display())));
        said.extend(tls.server_name.iter().map(|name| format!("server name {name}")));
        said.extend(tls.identity.iter().map(|(cert, _)| format!("certificate {}", cert.display())));
    }
    said.extend(upstream.proxy_protocol.map(|version| format!("PROXY protocol {version}")));
    said
}

/// `http://a:1 (weight 3, backup)`; what is as always is not said.
fn endpoint_words(endpoint: &Endpoint) -> String {
    let mut said = Vec::new();
    if endpoint.weight != 1 {
        said.push(format!("weight {}", endpoint.weight));
    }
    match endpoint.priority {
        0 => {}
        BACKUP => said.push("backup".to_owned()),
        priority => said.push(format!("priority {priority}")),
    }
    if endpoint.drain {
        said.push("drain".to_owned());
    }
    format!("{}{}", endpoint.url, in_brackets(&said))
}

/// ` (one, two)`, or nothing.
fn in_brackets(words: &[String]) -> String {
    match words.is_empty() {
        true => String::new(),
        false => format!(" ({})", words.join(", ")),
    }
}

/// `; GET /healthz every 5s`, what each endpoint is asked.
fn check_words(health: &Health) -> String {
    let what = match &health.check {
        Check::Tcp => "a connection".to_owned(),
        Check::Grpc(service) if service.is_empty() => "gRPC health".to_owned(),
        Check::Grpc(service) => format!("gRPC health of {service}"),
        Check::Http(check) => format!("{} {}", check.method, check.path),
    };
    let port = health.port.map_or_else(String::new, |port| format!(" on port {port}"));
    format!("; {what}{port} every {}", humantime::format_duration(health.interval))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    #[test]
    fn protocols_are_told() {
        let text = r#"
[[listeners]]
address = ":443"
tls = { cert = "a.pem", key = "a.key", client_ca = "ca.pem", hsts = "365d", min_version = "1.3" }
[[listeners]]
address = ":8443"
http2 = false
tls = { self_signed = true }
[[listeners]]
address = ":80"
redirect_https = true
[[listeners]]
address = "127.0.0.1:8080"
http2 = false
proxy_protocol = ["10.0.0.0/8", "192.168.1.1"]
[[listeners]]
address = "unix:/run/tinylb.sock"
[[routes]]
path = "/a"
upstream = "a"
[[routes]]
upstream = "b"
[upstreams.a]
endpoints = ["https://a", "http://b:1"]
tls = { ca = "own.pem", server_name = "a.internal", cert = "c.pem", key = "c.key" }
health = { path = "/healthz" }
[upstreams.b]
endpoints = ["https://b", "unix:/run/b.sock"]
tls = { insecure_skip_verify = true }
proxy_protocol = "v2"
"#;
        let config = config::parse("t.toml", text, &|_| None).unwrap();
        assert_eq!(
            summary(&config),
            "\
listener :443 (https, HTTP/2, TLS 1.3, certificate a.pem, client certificates required, HSTS)
listener :8443 (https, no HTTP/2, self-signed certificate)
listener :80 (redirects to https on port 443)
listener 127.0.0.1:8080 (no HTTP/2, PROXY protocol from 10.0.0.0/8 and 192.168.1.1/32)
listener unix:/run/tinylb.sock
route /a to a
route / to b
upstream a: p2c over https://a:443, http://b:1; authorities own.pem; server name a.internal; \
             certificate c.pem; GET /healthz every 5s
upstream b: p2c over https://b:443, unix:/run/b.sock; no HTTP/2; not verified; PROXY protocol v2
admin 127.0.0.1:9900
"
        );
    }
}
