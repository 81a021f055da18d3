//! What the fuzz targets check, as ordinary functions: `targets/` calls them with whatever libFuzzer thinks
//! of, and the `tests/fuzz_corpus.rs` of each crate with the committed corpora, on a stable compiler.

pub mod epmd;
pub mod node;
pub mod peer;
