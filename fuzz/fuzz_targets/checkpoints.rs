#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| destination_kinesis_fuzz::checkpoints::check(input));
