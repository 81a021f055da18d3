//! The checks of the fuzz targets as ordinary functions. `targets/` calls them with inputs from libFuzzer, and
//! `tests/fuzz_corpus.rs` in each crate calls them with the committed corpora on a stable compiler.

pub mod epmd;
pub mod node;
pub mod peer;
pub mod signed;
