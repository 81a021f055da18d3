#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    pmd_fuzz::signed::statements(data);
});
