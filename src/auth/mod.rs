//! Identity and authentication of daemons: keys and certificates, TLS, and the cluster secret.

pub mod authority;
pub mod cookie;
pub mod error;
mod identity;
mod key;
pub mod keys;
pub mod proof;
pub mod revocation;
pub mod tls;
mod verify;
