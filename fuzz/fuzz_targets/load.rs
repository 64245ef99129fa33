#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| plimsoll_backend_kit::fuzz::load(bytes));
