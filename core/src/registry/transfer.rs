//! Contents in parts: how what does not fit into a frame crosses a link and still arrives as a whole.
//!
//! The sender cuts from an unchanging copy of the content (shared until the content changes), so a transfer always
//! leads to one version. The receiver stages the parts and applies all or none.

use std::sync::Arc;

use pmd_protocol::limits::MAX_OPS;
use pmd_protocol::peer::{Base, NodeId, Op, Stamp, Update, Version};

use super::origin::Content;

/// A transfer that is being sent.
#[derive(Clone, Debug)]
pub struct Transfer {
    origin: NodeId,
    content: Arc<Content>,
    base: Base,
    /// What is sent so far: operations up to this version.
    sent: Version,
    part: u32,
    done: bool,
}

impl Transfer {
    /// From `base` to `content`.
    pub(super) fn new(origin: NodeId, content: Arc<Content>, base: Base) -> Self {
        let sent = match base {
            Base::Nothing => Version::ZERO,
            Base::After(version) => version,
        };
        Self { origin, content, base, sent, part: 0, done: false }
    }

    /// Whose content it is.
    #[must_use]
    pub fn origin(&self) -> NodeId {
        self.origin
    }

    /// What the receiver has at the end.
    #[must_use]
    pub fn stamp(&self) -> Stamp {
        self.content.stamp()
    }

    /// Whether everything has been cut.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.done
    }

    /// The next part, of at most `budget` bytes unless a single operation is longer. `None` when all are cut.
    pub fn next_part(&mut self, budget: usize) -> Option<Update> {
        if self.done {
            return None;
        }
        let mut left = budget.saturating_sub(Update::FIXED);
        let mut ops: Vec<(Version, Op)> = Vec::new();
        let mut take = |(version, op): (Version, Op)| {
            let fits = ops.is_empty() || (op.size() <= left && ops.len() < MAX_OPS);
            if fits {
                left = left.saturating_sub(op.size());
                ops.push((version, op));
            }
            fits
        };
        let last = match self.base {
            Base::Nothing => self.content.entries_after(self.sent).all(&mut take),
            Base::After(_) => self.content.ops_after(self.sent).all(&mut take),
        };
        self.sent = ops.last().map_or(self.sent, |(version, _)| *version);
        let part = self.part;
        self.part = self.part.saturating_add(1);
        self.done = last;
        Some(Update { origin: self.origin, stamp: self.content.stamp(), base: self.base, part, last, ops })
    }
}

/// A transfer that is being received, from one sender.
#[derive(Debug)]
pub(super) struct Stage {
    stamp: Stamp,
    base: Base,
    next: u32,
    bytes: usize,
    ops: Vec<(Version, Op)>,
}

/// Why a part cannot be staged.
pub(super) enum StageError {
    /// It does not continue what is there.
    Gap,
    /// The transfer has grown beyond the limit.
    TooLong,
}

impl Stage {
    /// Begins with part 0.
    pub(super) fn begin(update: Update, limit: usize) -> Result<Self, StageError> {
        let mut stage = Self { stamp: update.stamp, base: update.base, next: 0, bytes: 0, ops: Vec::new() };
        stage.add(update, limit)?;
        Ok(stage)
    }

    /// Adds the next part.
    pub(super) fn add(&mut self, update: Update, limit: usize) -> Result<(), StageError> {
        if (update.stamp, update.base, update.part) != (self.stamp, self.base, self.next) {
            return Err(StageError::Gap);
        }
        self.next = self.next.saturating_add(1);
        self.bytes = update.ops.iter().fold(self.bytes, |bytes, (_, op)| bytes.saturating_add(op.size()));
        if self.bytes > limit {
            return Err(StageError::TooLong);
        }
        self.ops.extend(update.ops);
        Ok(())
    }

    /// The operations of all parts.
    pub(super) fn into_ops(self) -> Vec<(Version, Op)> {
        self.ops
    }

    /// What the transfer leads to.
    pub(super) fn stamp(&self) -> Stamp {
        self.stamp
    }
}
