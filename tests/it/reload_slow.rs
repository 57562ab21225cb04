//! Reloads whose files cannot be read in time: they fail whole, and nobody waits for them.

use std::time::{Duration, Instant};

use crate::support::certificates::{Authority, Folder};
use crate::support::slow_file::{Leased, silent_pipe};
use crate::support::tls_front::{Terms, TlsFront};
use crate::support::{Backend, Held, Signal, Tinylb, config, config_of, eventually};

/// Has `tinylb` reload `text`, which names the file at `path`, while that cannot be read; and says what
/// was said then. `None` where no file can be made slow.
#[track_caller]
fn fails(tinylb: &Tinylb, text: &str, path: &str) -> Option<String> {
    let leased = Leased::new(path)?;
    tinylb.rewrite(text);
    tinylb.signal(Signal::HUP);
    leased.wait_for_reader();
    let line = tinylb.wait_for_log("not reloaded, nothing has changed");
    assert_eq!(tinylb.metric("tinylb_config_last_reload_success", &[]), 0.0);
    assert!(tinylb.log.all().iter().all(|line| !line.contains(" reloaded ")), "{line}");
    Some(line)
}

/// Reloads `text` now that everything can be read.
#[track_caller]
fn succeeds(tinylb: &Tinylb, text: &str) {
    tinylb.rewrite(text);
    tinylb.signal(Signal::HUP);
    tinylb.wait_for_log(" reloaded ");
    assert_eq!(tinylb.metric("tinylb_config_last_reload_success", &[]), 1.0);
}

/// Verification must not stay off although the file has it on.
#[test]
fn authorities_that_replace_no_verification() {
    let (ours, others) = (Authority::new("ours"), Authority::new("others"));
    let backend = Backend::named("secret");
    let front = TlsFront::new(&Terms::new(&ours.server("s", &["127.0.0.1"])), backend.address());
    let unverified = "tls = { insecure_skip_verify = true }";
    let verified = format!("tls = {{ ca = {:?} }}", others.ca());
    let file = |upstream: &str| config(&[front.url()], "", upstream);
    let tinylb = Tinylb::run(&file(unverified));
    assert_eq!(tinylb.get("/").text(), "secret");
    if fails(&tinylb, &file(&verified), &others.ca()).is_none() {
        return;
    }
    assert_eq!(tinylb.get("/").text(), "secret", "as before");
    succeeds(&tinylb, &file(&verified));
    eventually("the endpoint is not believed", || (tinylb.get("/").status == 502).then_some(()));
}

/// An upstream that is new must not be empty for ever.
#[test]
fn the_authorities_of_a_new_upstream() {
    let ours = Authority::new("ours");
    let (old, new) = (Backend::named("old"), Backend::named("new"));
    let front = TlsFront::new(&Terms::new(&ours.server("s", &["127.0.0.1"])), new.address());
    let before = config(&[old.url()], "", "");
    let after = format!(
        "{}[upstreams.new]\nendpoints = [{:?}]\ntls = {{ ca = {:?} }}\n",
        before.replace("upstream = \"app\"", "upstream = \"new\""),
        front.url(),
        ours.ca()
    );
    let tinylb = Tinylb::run(&before);
    let Some(line) = fails(&tinylb, &after, &ours.ca()) else { return };
    tinylb.wait_for_log("the certificates of upstream new could not be read within 5s");
    assert!(line.contains("ERROR"), "{line}");
    assert_eq!(tinylb.get("/").text(), "old");
    succeeds(&tinylb, &after);
    eventually("requests go to the new one", || (tinylb.get("/").text() == "new").then_some(()));
}

/// What is in force already is read again, and is part of the whole.
#[test]
fn a_certificate_of_a_listener_that_stays() {
    let ours = Authority::new("ours");
    let pair = ours.server("front", &["a"]);
    let (old, new) = (Backend::named("old"), Backend::named("new"));
    let listener =
        format!("[[listeners]]\naddress = \"127.0.0.1:0\"\ntls = {{ {} }}\n", pair.keys());
    let tinylb = Tinylb::run(&config(&[old.url()], &listener, ""));
    let after = config(&[new.url()], &listener, "");
    if fails(&tinylb, &after, &pair.cert).is_none() {
        return;
    }
    tinylb.wait_for_log("the certificates of listener 127.0.0.1:0 could not be read within 5s");
    assert_eq!(tinylb.get("/").text(), "old");
    succeeds(&tinylb, &after);
    eventually("requests go to the new one", || (tinylb.get("/").text() == "new").then_some(()));
}

/// A certificate that is in force and cannot be used any more makes the reload fail, with what is wrong.
#[test]
fn a_certificate_that_is_broken() {
    let ours = Authority::new("ours");
    let pair = ours.server("front", &["a"]);
    let (old, new) = (Backend::named("old"), Backend::named("new"));
    let listener =
        format!("[[listeners]]\naddress = \"127.0.0.1:0\"\ntls = {{ {} }}\n", pair.keys());
    let tinylb = Tinylb::run(&config(&[old.url()], &listener, ""));
    std::fs::write(&pair.key, "").unwrap();
    tinylb.rewrite(&config(&[new.url()], &listener, ""));
    tinylb.signal(Signal::HUP);
    tinylb.wait_for_log("not reloaded, nothing has changed");
    tinylb.wait_for_log("there is no private key in it");
    assert_eq!(tinylb.metric("tinylb_config_last_reload_success", &[]), 0.0);
    assert_eq!(tinylb.get("/").text(), "old");
}

#[test]
fn a_configuration_file_that_hangs_holds_up_nobody() {
    let (old, new) = (Backend::named("old"), Backend::named("new"));
    let mut tinylb = Tinylb::run(&config(&[old.url()], "", ""));
    let hangs = silent_pipe(tinylb.file(), || tinylb.signal(Signal::HUP));
    let Some(_pipe) = hangs else { return };
    assert_eq!(tinylb.admin("/healthz").status, 200);
    assert_eq!(tinylb.admin("/readyz").status, 200);
    assert_eq!(tinylb.get("/").text(), "old");
    tinylb.wait_for_log("not reloaded, nothing has changed");
    tinylb.wait_for_log("the configuration file could not be read within 5s");
    // Another file in its place can be read, though the first one hangs for ever.
    let whole = tinylb.file().with_extension("whole");
    std::fs::write(&whole, config(&[new.url()], "", "")).unwrap();
    std::fs::rename(&whole, tinylb.file()).unwrap();
    tinylb.signal(Signal::HUP);
    eventually("the new file is in force", || (tinylb.get("/").text() == "new").then_some(()));
    let Some(_another) = silent_pipe(tinylb.file(), || tinylb.signal(Signal::HUP)) else { return };
    tinylb.signal(Signal::TERM);
    assert!(tinylb.wait_exit().success());
}

/// Whoever ends the process does not wait for a reload, and two signals are two.
#[test]
fn a_reload_that_waits_for_files_does_not_delay_the_end() {
    let folder = Folder::new();
    let held = Held::new("held");
    let ca = folder.write("ca.pem", "none");
    let mut tinylb = Tinylb::run(&config(&[held.url()], "", ""));
    let mut client = tinylb.connect();
    client.send("GET /held HTTP/1.1\r\nHost: a\r\n\r\n");
    held.wait_for(1);
    let Some(leased) = Leased::new(&ca) else { return };
    let endpoints = [held.url(), "https://127.0.0.1:1".to_owned()];
    tinylb.rewrite(&config(&endpoints, "", &format!("tls = {{ ca = {ca:?} }}")));
    tinylb.signal(Signal::HUP);
    leased.wait_for_reader();
    tinylb.signal(Signal::TERM);
    eventually("it is draining", || (tinylb.admin("/readyz").status == 503).then_some(()));
    tinylb.signal(Signal::TERM);
    assert_eq!(tinylb.wait_exit().code(), Some(1), "the second signal cuts");
    let log = tinylb.log.all();
    assert!(log.iter().all(|line| !line.contains("reloaded")), "neither way: {log:?}");
}

/// The same while the first checks of new endpoints are waited for, which takes a second at most. A round in which
/// the signals were further apart than half of that proves nothing.
#[test]
fn a_reload_that_waits_for_checks_does_not_delay_the_end() {
    eventually("two signals follow each other closely", || {
        let (old, silent) = (Backend::named("old"), Backend::silent());
        let mut tinylb = Tinylb::run(&config(&[old.url()], "", ""));
        let health = "health = { path = \"/\", interval = \"1m\", timeout = \"1m\" }";
        tinylb.rewrite(&config_of(&format!("[{:?}]", silent.url()), "", health));
        let began = Instant::now();
        tinylb.signal(Signal::HUP);
        silent.wait_for_requests(1);
        tinylb.signal(Signal::TERM);
        let is_close = began.elapsed() < Duration::from_millis(500);
        assert!(tinylb.wait_exit().success());
        let log = tinylb.log.all();
        let has_reloaded = log.iter().any(|line| line.contains("reloaded"));
        is_close.then(|| assert!(!has_reloaded, "{log:?}"))
    });
}
