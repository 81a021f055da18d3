//! What the fuzz targets check, as ordinary functions: `targets/` calls them with whatever libFuzzer thinks
//! of, and `protocol/tests/fuzz_corpus.rs` with the committed corpora, on a stable compiler.

pub mod epmd;
pub mod peer;
