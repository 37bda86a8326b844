#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| testshop_fuzz::run_case(testshop_fuzz::Target::Head, bytes));
