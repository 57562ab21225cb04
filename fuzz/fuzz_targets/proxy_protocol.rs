#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tinylb_fuzz::proxy_protocol::check(data));
