#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tinylb_fuzz::config::check(data));
