#![no_main]

use tinylb_fuzz::{Input, chunked};

libfuzzer_sys::fuzz_target!(|data: &[u8]| chunked::check(Input::of(data)));
