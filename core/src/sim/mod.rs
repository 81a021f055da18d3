//! A world of simulated daemons: production nodes, with simulated time, network and randomness.
//!
//! One queue of events drives everything. Latency, loss and the order of simultaneous events depend on one seed, so
//! equal seeds give equal histories, which [`World::log_hash`] verifies. After each event, the invariants of the daemon
//! that handled it are checked, see [`World::violations`].
//!
//! ```
//! use pmd_core::sim::World;
//!
//! let mut world = World::new(7);
//! for _ in 0..3 {
//!     world.start();
//! }
//! world.join(1, 0);
//! world.join(2, 0);
//! assert!(world.run_until(5_000, World::is_converged));
//! assert!(world.violations().is_empty());
//! ```

mod claims;
mod claims_history;
mod faults;
mod heap;
mod invariants;
pub mod keys;
mod network;
mod pool;
mod traffic;
mod transport;
mod world;

pub use claims::{ClaimsWorld, Sabotage};
pub use claims_history::History;
pub use faults::Faults;
pub use network::SimNode;
pub use pool::Pool;
pub use traffic::Traffic;
pub use world::World;
