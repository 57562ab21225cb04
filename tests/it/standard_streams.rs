//! Standard streams that nobody reads, or that nobody holds any more: never the traffic's problem.

use std::time::{Duration, Instant};

use crate::support::{Backend, Signal, Tinylb};

#[test]
fn a_standard_error_that_is_gone_ends_nothing() {
    let backend = Backend::named("fine");
    let mut tinylb = Tinylb::start_unheard(&[backend.url()], &["--workers", "1"]);
    for signal in [Signal::USR1, Signal::HUP, Signal::USR1, Signal::HUP] {
        tinylb.signal(signal);
        for _ in 0..20 {
            assert_eq!(tinylb.get("/").text(), "fine", "{signal:?}");
        }
        assert_eq!(tinylb.admin("/healthz").status, 200, "{signal:?}");
    }
    assert!(tinylb.is_running());
    tinylb.signal(Signal::TERM);
    assert_eq!(tinylb.wait_exit().code(), Some(0), "it drains");
}

#[test]
fn a_standard_output_that_is_not_read_does_not_hold_up_the_end() {
    let backend = Backend::named("fine");
    let mut tinylb = Tinylb::start_unread(&[backend.url()], &["--access-log", "text"]);
    let mut client = tinylb.connect();
    let path = format!("/{}", "x".repeat(500));
    for _ in 0..2000 {
        assert_eq!(client.get(&path).status, 200);
    }
    drop(client);
    let began = Instant::now();
    tinylb.signal(Signal::TERM);
    tinylb.wait_exit();
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}
