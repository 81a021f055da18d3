//! A queue of events by time. Events at the same time keep the order of insertion.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A heap that sorts small keys, so that the events themselves do not move.
#[derive(Debug)]
pub(super) struct Heap<T> {
    keys: BinaryHeap<Reverse<(u64, u64, usize)>>,
    slots: Vec<Option<T>>,
    free: Vec<usize>,
    next: u64,
}

impl<T> Heap<T> {
    pub(super) fn new() -> Self {
        Self { keys: BinaryHeap::new(), slots: Vec::new(), free: Vec::new(), next: 0 }
    }

    pub(super) fn push(&mut self, at_ms: u64, event: T) {
        let slot = self.free.pop().unwrap_or(self.slots.len());
        match self.slots.get_mut(slot) {
            Some(empty) => *empty = Some(event),
            None => self.slots.push(Some(event)),
        }
        self.keys.push(Reverse((at_ms, self.next, slot)));
        self.next += 1;
    }

    /// The time of the next event.
    pub(super) fn next_ms(&self) -> Option<u64> {
        self.keys.peek().map(|Reverse((at_ms, ..))| *at_ms)
    }

    pub(super) fn pop(&mut self) -> Option<(u64, T)> {
        let Reverse((at_ms, _, slot)) = self.keys.pop()?;
        self.free.push(slot);
        Some((at_ms, self.slots.get_mut(slot)?.take()?))
    }

    pub(super) fn clear(&mut self) {
        *self = Self::new();
    }
}
