//! The local control API: HTTP and JSON over a Unix socket, both server and client.
//!
//! | module | job |
//! |---|---|
//! | [`endpoints`] | every path, declared once |
//! | [`api`] | the types on the wire |
//! | [`json`] | times and bytes in JSON |
//! | [`limits`] | how large and how slow a request may be |
//! | [`socket`] | creates, protects and removes the socket file |
//! | [`server`] | accepts connections and limits their number |
//! | [`routes`] | the handler of each path |
//! | [`handles`] | the parts of the daemon that the handlers read and change |
//! | [`events`] | the event stream |
//! | [`hold`] | services that live as long as a connection |
//! | [`reload`] | rereads the configuration |
//! | [`client`] | the command line's side |

pub mod api;
pub mod claim_stream;
pub mod client;
pub mod endpoints;
pub mod events;
pub mod handles;
pub mod hold;
pub mod json;
pub mod limits;
pub mod reload;
pub mod routes;
pub mod server;
pub mod socket;

#[cfg(test)]
mod tests;
