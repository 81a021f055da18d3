//! Certificates.

pub mod ca;
