//! Links between daemons: mutual TLS on the EPMD port, and the proof of the cookie.

pub mod cookie;
