//! What is allowed each for itself and probably not meant together.

use tinylb::config;

use super::resilience::with;
use super::{LEAST, env};

/// What is doubtful about a file that is right.
#[track_caller]
pub(super) fn doubts(text: &str) -> String {
    match config::parse_with_doubts("t.toml", text, &env) {
        Ok((_, doubts)) if doubts.is_empty() => String::new(),
        Ok((_, doubts)) => doubts.to_string(),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn what_is_probably_not_meant_is_a_doubt() {
    let drained = with("").replace("\"a:1\", \"b:1\"", "{ url = \"a:1\", drain = true }");
    let alone = with("").replace(", \"b:1\"", "");
    let hedged = "[[routes]]\nupstream = \"app\"\nhedge = \"p95\"\n";
    let large = "{ url = \"b:1\", max_requests = 11 }";
    for (text, doubt) in [
        (with("hash = \"path\""), "`hash` says nothing to the policy `p2c`"),
        (with("queue.size = 10"), "nothing ever waits in this queue: there is no limit"),
        (with("retry = { attempts = 1, on = [503] }"), "no answer is retried with one attempt"),
        (with("retry.timeout = \"60s\""), "the timeout of one try is never reached"),
        (
            with("health = { interval = \"1s\", timeout = \"2s\" }"),
            "a check may take longer than until the next one",
        ),
        (
            with("ejection = { failures = 0, rate = 0 }"),
            "nothing is ever ejected, with `failures` and `rate` both 0",
        ),
        (
            with("limits = { requests = 10, endpoint_requests = 11 }"),
            "no endpoint ever gets 11 requests",
        ),
        (
            with("limits = { connections = 10, endpoint_connections = 11 }"),
            "no endpoint ever gets 11 connections",
        ),
        (
            with("limits.requests = 10").replace("\"b:1\"", large),
            "no endpoint ever gets 11 requests",
        ),
        (drained, "nothing new is sent to the upstream `app`"),
        (format!("{alone}{hedged}"), "there is no second endpoint in `app` to ask"),
    ] {
        let doubts = doubts(&text);
        assert!(doubts.starts_with(&format!("warning: {doubt}\n --> t.toml:")), "{text}\n{doubts}");
        assert!(doubts.ends_with("t.toml: 1 warning"), "{text}\n{doubts}");
    }
}

#[test]
fn what_makes_sense_raises_no_doubt() {
    let limited = with("queue.size = 10").replace("\"b:1\"", "{ url = \"b:1\", max_requests = 1 }");
    for text in [
        with("hash = \"path\"\npolicy = \"consistent-hash\""),
        with("hash = { on = \"client\", bound = 1.5 }\nqueue = { size = 1024 }"),
        with("queue.size = 10\nlimits.adaptive = true"),
        with("queue.size = 0"),
        limited,
        with("ejection = false\nretry = false\npanic = false"),
        with("") + "[[routes]]\nupstream = \"app\"\nhedge = \"p95\"\n",
    ] {
        assert_eq!(doubts(&text), "", "{text}");
    }
}

#[test]
fn one_cookie_for_two_upstreams_of_a_host_is_a_doubt() {
    let file = |host: &str, cookie: &str| {
        format!(
            "[[listeners]]\naddress = \":8080\"\n\
             [[routes]]\npath = \"/a\"\nupstream = \"a\"\n\
             [[routes]]\npath = \"/a/c\"\nupstream = \"a\"\n\
             [[routes]]\n{host}upstream = \"b\"\n\
             [upstreams.a]\nsticky = \"tinylb\"\nendpoints = [\"a:1\"]\n\
             [upstreams.b]\nsticky = \"{cookie}\"\nendpoints = [\"b:1\"]\n"
        )
    };
    let found = doubts(&file("", "tinylb"));
    assert!(found.contains("two upstreams on one host have the cookie `tinylb`"), "{found}");
    assert!(found.ends_with("t.toml: 1 warning"), "{found}");
    assert_eq!(doubts(&file("", "other")), "");
    assert_eq!(doubts(&file("host = \"b.example.com\"\n", "tinylb")), "");
}

#[test]
fn an_unused_upstream_is_a_doubt_and_not_a_fault() {
    let text = format!(
        "{LEAST}[[routes]]\nupstream = \"app\"\n[upstreams.old]\nendpoints = [\"http://b:1\"]\n"
    );
    let (config, doubts) = config::parse_with_doubts("t.toml", &text, &env).unwrap();
    assert_eq!(config.upstreams.len(), 2);
    let doubts = doubts.to_string();
    assert!(doubts.contains("warning: no route leads to the upstream `old`"), "{doubts}");
    assert!(doubts.ends_with("t.toml: 1 warning"), "{doubts}");
}
