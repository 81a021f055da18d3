//! The Erlang nodes registered on this host.

pub mod creation;
pub mod lookup;
pub mod old_names;
pub mod table;
