//! Transfers: content that does not fit into a frame is sent in parts and applied as a whole.
//!
//! The sender cuts the parts from an immutable copy of the content (shared until the content changes), so a transfer
//! always leads to a single version. The receiver stages the parts and applies all of them or none.

use std::sync::Arc;

use pmd_protocol::limits::MAX_OPS;
use pmd_protocol::peer::{Base, NodeId, Op, Stamp, Update, Version};

use super::content::{Content, cost_of};

/// A transfer that is being sent.
#[derive(Clone, Debug)]
pub struct Transfer {
    origin: NodeId,
    content: Arc<Content>,
    base: Base,
    /// Operations up to this version have been sent.
    sent: Version,
    done: bool,
}

impl Transfer {
    /// The transfer from `base` to `content`.
    pub(super) fn new(origin: NodeId, content: Arc<Content>, base: Base) -> Self {
        Self { origin, content, base, sent: base.start(), done: false }
    }

    /// The origin of the content.
    #[must_use]
    pub fn origin(&self) -> NodeId {
        self.origin
    }

    /// The version that the receiver has after the last part.
    #[must_use]
    pub fn stamp(&self) -> Stamp {
        self.content.stamp()
    }

    /// Whether all parts have been cut.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.done
    }

    /// The next part, of at most `budget` bytes unless a single operation is longer. `None` after the last part.
    pub fn next_part(&mut self, budget: usize) -> Option<Update> {
        if self.done {
            return None;
        }
        let fixed = Update::FIXED + self.content.attestation().signature.as_bytes().len();
        let mut left = budget.saturating_sub(fixed);
        let mut ops: Vec<(Version, Op)> = Vec::new();
        let mut add = |(version, op): (Version, Op)| {
            let fits = ops.is_empty() || (op.size() <= left && ops.len() < MAX_OPS);
            if fits {
                left = left.saturating_sub(op.size());
                ops.push((version, op));
            }
            fits
        };
        let after = self.sent;
        let last = match self.base {
            Base::Nothing => self.content.entries_after(after).all(&mut add),
            Base::After(_) => self.content.ops_after(after).all(&mut add),
        };
        self.sent = ops.last().map_or(after, |(version, _)| *version);
        self.done = last;
        Some(Update {
            origin: self.origin,
            stamp: self.content.stamp(),
            attestation: self.content.attestation().clone(),
            base: self.base,
            after,
            last,
            ops,
        })
    }
}

/// A transfer that is being received, from one sender.
///
/// Stamp and base determine the operations of a transfer, however it is cut. A part therefore fits if it leaves no gap,
/// and operations that it repeats are skipped.
#[derive(Debug)]
pub(super) struct Stage {
    stamp: Stamp,
    base: Base,
    /// Operations up to this version have arrived.
    reached: Version,
    bytes: usize,
    ops: Vec<(Version, Op)>,
}

/// Why a part cannot be staged.
pub(super) enum StageError {
    /// It does not continue the previous part.
    Gap,
    /// The transfer exceeds the limit.
    TooLong,
}

impl Stage {
    /// The stage for a transfer that starts with this part.
    pub(super) fn new(update: &Update) -> Self {
        let reached = update.base.start();
        Self { stamp: update.stamp, base: update.base, reached, bytes: 0, ops: Vec::new() }
    }

    /// Whether the part belongs to this transfer.
    pub(super) fn is_of(&self, update: &Update) -> bool {
        (self.stamp, self.base) == (update.stamp, update.base)
    }

    /// Adds a part.
    pub(super) fn add(&mut self, update: Update, limit: usize) -> Result<(), StageError> {
        if update.after > self.reached {
            return Err(StageError::Gap);
        }
        for (version, op) in update.ops.into_iter().filter(|(version, _)| *version > self.reached) {
            self.bytes = self.bytes.saturating_add(cost_of(&op));
            self.ops.push((version, op));
        }
        if self.bytes > limit {
            return Err(StageError::TooLong);
        }
        self.reached = self.ops.last().map_or(self.reached, |(version, _)| *version);
        Ok(())
    }

    /// The bytes of the operations so far.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The operations of all parts.
    pub(super) fn into_ops(self) -> Vec<(Version, Op)> {
        self.ops
    }

    /// The version that the transfer leads to.
    pub(super) fn stamp(&self) -> Stamp {
        self.stamp
    }
}
