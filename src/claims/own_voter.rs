//! The voter of this host, from what it has stored.

use std::path::Path;

use pmd_core::claims::engine::Index;
use pmd_core::claims::store::Record;
use pmd_core::claims::voter::{Setup, Voter};
use pmd_protocol::peer::NodeId;
use pmd_protocol::peer::claims::Epoch;

use super::store::{Store, StoreError};
use crate::base::clock::now_ms;

const MINUTE_MS: u64 = 60 * 1_000;
/// 2026-01-01, in minutes since the Unix epoch.
const FIRST_MINUTE: u64 = 20_454 * 24 * 60;

/// The number of a founding that is drawn up now: minutes since 2026, so that claim numbers rise even if all stores are
/// lost, and fit into 53 bits for many years. None if the clock is before that: it was not set.
pub(super) fn founding_number() -> Option<u64> {
    number_at(now_ms())
}

fn number_at(now_ms: u64) -> Option<u64> {
    (now_ms / MINUTE_MS).checked_sub(FIRST_MINUTE).filter(|number| *number > 0)
}

/// Opens the store and starts the voter with this index among `hosts`.
pub(super) fn open(
    file: &Path,
    hosts: Vec<String>,
    own: Index,
    own_id: NodeId,
    now: u64,
) -> Result<(Store, Voter), StoreError> {
    let boot = boot_id();
    let mut store = Store::open(file, rand::random(), boot)?;
    // Written before this boot of the host, or without one being known, it may be from a disk that was reset.
    let is_latest = boot != 0 && store.boot() == boot;
    let starts = store.stored().epoch.starts.saturating_add(1);
    store.start(Record::Started(Epoch { starts, nonce: rand::random() }), boot)?;
    let voter = Voter::new(Setup {
        hosts,
        own,
        own_id,
        stored: store.stored().clone(),
        seed: rand::random(),
        is_latest,
        founding_number: founding_number(),
        now_ms: now,
    });
    Ok((store, voter))
}

/// Part of the random id of this boot of the host; 0 if it is not known.
fn boot_id() -> u64 {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = id.chars().filter(char::is_ascii_hexdigit).take(16).collect();
    u64::from_str_radix(&digits, 16).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_not_set_founds_nothing_and_each_minute_has_a_number() {
        assert_eq!(number_at(0), None);
        let new_year = FIRST_MINUTE * MINUTE_MS;
        assert_eq!(number_at(new_year), None);
        assert_eq!(number_at(new_year + 2 * MINUTE_MS), Some(2));
        assert!(founding_number().is_some() && boot_id() != 0 && boot_id() == boot_id());
    }
}
