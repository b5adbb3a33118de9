#![no_main]
libfuzzer_sys::fuzz_target!(|input: &[u8]| wsevent::fuzzing::recording(input));
