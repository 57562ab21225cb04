#![no_main]

use tinylb_fuzz::{Input, request};

libfuzzer_sys::fuzz_target!(|data: &[u8]| request::check(Input::of(data)));
