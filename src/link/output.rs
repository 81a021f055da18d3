//! The core's end of a link's queue.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pmd_protocol::peer::Frame;
use tokio::sync::mpsc;

/// Takes the core's frames for a link, and tells it whether there is room.
#[derive(Debug)]
pub struct LinkOutput {
    frames: mpsc::Sender<Frame>,
    /// Set by the core when it has more than there is room for.
    waiting: Arc<AtomicBool>,
}

impl LinkOutput {
    /// An output into this queue; `waiting` is set when the core has more than there is room for.
    pub(super) fn new(frames: mpsc::Sender<Frame>, waiting: Arc<AtomicBool>) -> LinkOutput {
        LinkOutput { frames, waiting }
    }

    /// Whether there is room for a frame. If not, the core is told once there is.
    pub fn has_room(&self) -> bool {
        if self.frames.capacity() > 0 {
            return true;
        }
        self.waiting.store(true, Ordering::Release);
        // The writer may have emptied the queue just before it could see the mark.
        self.frames.capacity() > 0
    }

    /// Queues a frame; it is dropped if there is no room or the link has ended.
    pub fn send(&self, frame: Frame) {
        let _ = self.frames.try_send(frame);
    }
}
