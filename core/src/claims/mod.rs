//! Claims: a name that one member holds at a time, decided by the voters.
//!
//! ```text
//!   member                         voters
//!   holder ── Acquire, Renew ──▶ voter ─▶ engine: the majority agrees on the next table
//!          ◀── Granted, Renewed ──  └──▶ leases, in the leader's memory
//! ```
//!
//! [`engine`] is the consensus: Paxos on the table itself. An acceptor stores the last table that it has accepted, not a
//! log, because a later table contains the changes of the earlier ones. [`voter`] is a voter: the engine, the
//! [`founding`], and the leases. [`holder`] is the side of a member that claims, and [`lease`] has the durations of both.
//! [`store`] is what a voter must find again after a restart.
//!
//! What the engine relies on, and what it does without: frames may be lost, duplicated, delayed and reordered; a record
//! that was emitted must be durable before any frame emitted after it leaves. A proposal is lost if its leader loses the
//! majority first; whoever asked for it asks again, and the attempt's number makes that harmless. The set of voters
//! does not change within a founding.
//!
//! An existing engine was looked at first: `omnipaxos` 0.2.4 has few dependencies, but it replicates a log, which would
//! have to be trimmed behind snapshots of a table of at most 200 KB; it needs ordered sessions between voters and a hint
//! for each one that broke; it panics where its storage fails (35 calls of `expect`), and on messages of peers that
//! cannot occur among correct ones; it has no round that confirms a leader without a log entry, which each renewal of a
//! lease needs; and its promise and its outgoing messages leave in one step, which fits storage that is written inside
//! the call. The engine here is smaller than the adapter would have been.

pub mod engine;
pub mod founding;
pub mod holder;
mod leading;
pub mod lease;
mod requests;
pub mod store;
pub mod voter;
