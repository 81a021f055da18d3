//! Authentication between daemons, and attacks by unauthenticated peers.
//!
//! The attacks come from a client in the tests that speaks TLS and frames. A first test shows that it does so
//! correctly: with the cookie, it is admitted.

mod admission;
mod authority;
mod floods;
mod frames;
mod impostors;
mod intruder;
pub(crate) mod liar;
mod lies;
mod newcomer;
mod probes;
mod proofs;
mod revocation;
mod rotation;
