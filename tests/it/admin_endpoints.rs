//! What the admin address tells of endpoints, and whom it lets do things to them.

use serde_json::Value;

use crate::support::{Backend, Client, Held, Refusing, Response, Tinylb, config_of, eventually};

fn admin(tinylb: &Tinylb, method: &str, target: &str, fields: &str) -> Response {
    let mut client = Client::connect(tinylb.admin_address());
    client.send(format!("{method} {target} HTTP/1.1\r\nHost: admin\r\n{fields}\r\n"));
    client.response_to(method)
}

fn json(tinylb: &Tinylb) -> Value {
    let response = tinylb.admin("/endpoints");
    assert_eq!(response.status, 200);
    assert_eq!(response.head.get("content-type"), Some("application/json"));
    serde_json::from_str(&response.text()).unwrap()
}

#[test]
fn everything_is_told_of_every_endpoint() {
    let (held, gone) = (Held::new("held"), Refusing::new());
    let endpoints = format!(
        "[{{ url = {:?}, weight = 3, max_requests = 2, max_connections = 9 }}, \
         {{ url = {:?}, backup = true }}]",
        held.url(),
        gone.url()
    );
    let tinylb = Tinylb::run(&config_of(&endpoints, "", "queue = { timeout = \"1m\" }"));
    let before = json(&tinylb);
    assert_eq!(before["upstreams"].as_array().unwrap().len(), 1);
    let app = &before["upstreams"][0];
    assert_eq!((&app["name"], &app["policy"]), (&Value::from("app"), &Value::from("p2c")));
    assert_eq!((&app["panic"], &app["queue_length"]), (&Value::from(false), &Value::from(0)));
    assert_eq!((&app["p95_ms"], &app["retries_running"]), (&Value::Null, &Value::from(0)));
    let first = &app["endpoints"][0];
    assert_eq!(first["endpoint"], held.url());
    assert_eq!(first["addresses"][0], held.backend().address().to_string());
    assert_eq!((&first["state"], &first["weight"]), (&Value::from("up"), &Value::from(3)));
    assert_eq!((&first["priority"], &first["latency_ms"]), (&Value::from(0), &Value::Null));
    let limits = (&first["requests_limit"], &first["connections_limit"]);
    assert_eq!(limits, (&Value::from(2), &Value::from(9)));
    let second = &app["endpoints"][1];
    assert_eq!(second["priority"], 255);
    let limits = (&second["requests_limit"], &second["connections_limit"]);
    assert_eq!(limits, (&Value::Null, &Value::Null));
    let mut clients: Vec<_> = (0..4).map(|_| tinylb.connect()).collect();
    for (i, client) in clients.iter_mut().enumerate() {
        client.send(format!("GET /{i} HTTP/1.1\r\nHost: a\r\n\r\n"));
    }
    let told = eventually("two are in flight and two wait", || {
        let told = json(&tinylb);
        let app = &told["upstreams"][0];
        (app["endpoints"][0]["requests_in_flight"] == 2 && app["queue_length"] == 2).then_some(told)
    });
    let endpoints = &told["upstreams"][0]["endpoints"];
    assert_eq!(endpoints[0]["connections"], 2);
    assert_eq!(endpoints[1]["state"], "unreachable");
    assert_eq!(endpoints[1]["why"], "connection_refused");
    assert!(endpoints[1]["ejections"].as_u64() >= Some(1), "{endpoints}");
    held.open();
    for client in &mut clients {
        assert_eq!(client.response().status, 200);
    }
    eventually("nothing is in flight", || {
        let told = json(&tinylb);
        let first = &told["upstreams"][0]["endpoints"][0];
        assert_eq!(first["ejections"], 0);
        (first["requests_in_flight"] == 0).then_some(())
    });
}

/// How fast an endpoint answers of late is told once it has answered.
#[test]
fn the_latency_is_told() {
    let slow = Held::working("slow", std::time::Duration::from_millis(30));
    let tinylb = Tinylb::run(&config_of(&format!("[{:?}]", slow.url()), "", ""));
    let latency = eventually("it is known", || {
        assert_eq!(tinylb.get("/").status, 200);
        json(&tinylb)["upstreams"][0]["endpoints"][0]["latency_ms"].as_f64()
    });
    assert!(latency >= 29.0, "{latency}");
}

#[test]
fn draining_is_asked_for_by_post_of_nothing_but_tools() {
    let backends = ["a", "b"].map(Backend::named);
    let [a, b] = [backends[0].url(), backends[1].url()];
    let tinylb = Tinylb::run(&config_of(&format!("[{a:?}, {b:?}]"), "", ""));
    let (upstream, endpoint) = ("upstream=app", format!("endpoint={a}"));
    let encoded = a.replace(':', "%3A").replace('/', "%2f");
    for (method, target, fields, status) in [
        ("GET", format!("/drain?{upstream}&{endpoint}"), "", 405),
        ("PUT", format!("/drain?{upstream}&{endpoint}"), "", 405),
        ("HEAD", format!("/undrain?{upstream}&{endpoint}"), "", 405),
        ("POST", format!("/drain?{upstream}&{endpoint}"), "Origin: http://evil.example\r\n", 403),
        ("POST", format!("/drain?{upstream}&{endpoint}"), "Origin: null\r\n", 403),
        ("POST", format!("/drain?{upstream}&{endpoint}"), "Sec-Fetch-Site: cross-site\r\n", 403),
        ("POST", "/drain".into(), "", 400),
        ("POST", "/drain?".into(), "", 400),
        ("POST", format!("/drain?{upstream}"), "", 400),
        ("POST", format!("/drain?{endpoint}"), "", 400),
        ("POST", format!("/drain?upstream=nope&{endpoint}"), "", 404),
        ("POST", format!("/drain?{upstream}&endpoint=http://10.0.0.1:1"), "", 404),
        ("POST", format!("/drain?{upstream}&endpoint="), "", 404),
        ("POST", format!("/Drain?{upstream}&{endpoint}"), "", 405),
        ("POST", "/endpoints".into(), "", 405),
        ("POST", "/metrics".into(), "", 405),
    ] {
        let response = admin(&tinylb, method, &target, fields);
        assert_eq!(response.status, status, "{method} {target} {fields:?}: {}", response.text());
        let all = json(&tinylb);
        assert_eq!(all["upstreams"][0]["endpoints"][0]["state"], "up", "{method} {target}");
    }
    let response = admin(&tinylb, "GET", "/drain", "");
    assert_eq!(response.head.get("allow"), Some("POST"));
    let target = format!("/drain?endpoint={encoded}&{upstream}");
    assert_eq!(admin(&tinylb, "POST", &target, "Content-Length: 0\r\n").status, 200);
    assert_eq!(json(&tinylb)["upstreams"][0]["endpoints"][0]["state"], "draining");
}

#[test]
fn who_is_not_found_is_told_who_there_is() {
    let backends = ["a", "b"].map(Backend::named);
    let [a, b] = [backends[0].url(), backends[1].url()];
    let tinylb = Tinylb::run(&config_of(&format!("[{a:?}, {b:?}]"), "", ""));
    let upstream = admin(&tinylb, "POST", &format!("/drain?upstream=ap&endpoint={a}"), "");
    assert_eq!(upstream.status, 404);
    assert!(upstream.text().contains("app"), "{}", upstream.text());
    let endpoint = admin(&tinylb, "POST", "/drain?upstream=app&endpoint=10.0.0.1", "");
    assert_eq!(endpoint.status, 404);
    assert!(endpoint.text().contains(&a) && endpoint.text().contains(&b), "{}", endpoint.text());
    let index = tinylb.admin("/");
    assert!(index.text().contains("/drain") && index.text().contains("/endpoints"));
}
