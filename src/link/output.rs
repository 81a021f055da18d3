//! The core's end of a link's queue.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pmd_protocol::peer::Frame;
use tokio::sync::mpsc;

/// Queues the core's frames for a link and reports whether the queue has room.
#[derive(Debug)]
pub struct LinkOutput {
    frames: mpsc::Sender<Frame>,
    /// Set by the core when it has more frames than fit.
    waiting: Arc<AtomicBool>,
}

impl LinkOutput {
    /// Creates an output for this queue; `waiting` is set when the core has more frames than fit.
    pub(super) fn new(frames: mpsc::Sender<Frame>, waiting: Arc<AtomicBool>) -> LinkOutput {
        LinkOutput { frames, waiting }
    }

    /// Whether there is room for a frame. If not, the core is notified once there is.
    pub fn has_room(&self) -> bool {
        if self.frames.capacity() > 0 {
            return true;
        }
        self.waiting.store(true, Ordering::Release);
        // The writer may have emptied the queue just before the flag was set.
        self.frames.capacity() > 0
    }

    /// Queues a frame; it is dropped if there is no room or the link has ended.
    pub fn send(&self, frame: Frame) {
        let _ = self.frames.try_send(frame);
    }
}
