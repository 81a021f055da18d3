//! Changing places with a running stock epmd.

pub mod ask;
