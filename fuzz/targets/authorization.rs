#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| testshop_fuzz::attempt(testshop_fuzz::Place::Authorization, bytes));
