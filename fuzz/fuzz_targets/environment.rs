#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| metrics_exporter_opentsdb::fuzzing::environment(data));
