//! The voter of this host, from what it has stored.

use std::path::Path;

use pmd_core::claims::engine::Index;
use pmd_core::claims::store::Record;
use pmd_core::claims::voter::{Setup, Voter};
use pmd_protocol::peer::NodeId;
use pmd_protocol::peer::claims::Epoch;

use super::store::{Store, StoreError};
use crate::base::clock::now_ms;

/// 2026-01-01, in days since the Unix epoch. The numbers of foundings are days since then, so that they rise even if all
/// stores are lost, and claim numbers fit into 53 bits for many years.
const FIRST_DAY: u64 = 20_454;
const DAY_MS: u64 = 24 * 3_600 * 1_000;

/// Opens the store and starts the voter with this index among `hosts`.
pub(super) fn open(
    file: &Path,
    hosts: Vec<String>,
    own: Index,
    own_id: NodeId,
    now: u64,
) -> Result<(Store, Voter), StoreError> {
    let mut store = Store::open(file, rand::random())?;
    let starts = store.stored().epoch.starts.saturating_add(1);
    store.append(vec![Record::Started(Epoch { starts, nonce: rand::random() })])?;
    let voter = Voter::new(Setup {
        hosts,
        own,
        own_id,
        stored: store.stored().clone(),
        seed: rand::random(),
        founding_number: (now_ms() / DAY_MS).saturating_sub(FIRST_DAY).max(1),
        now_ms: now,
    });
    Ok((store, voter))
}
