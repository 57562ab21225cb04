#![no_main]

use tinylb_fuzz::{Input, response};

libfuzzer_sys::fuzz_target!(|data: &[u8]| response::check(Input::of(data)));
