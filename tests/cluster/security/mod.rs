//! Who is not let in, and what strangers can do to a daemon.
//!
//! The attacks are made by a client of the test's own, which speaks TLS and frames. That it speaks them right is the
//! first thing that is tested: with the cookie, it is let in.

mod authority;
mod floods;
mod frames;
mod intruder;
mod proofs;
