//! The questions on one link: those that its peer asks, and those that this daemon asks. All links share one queue, of which
//! each gets only a part.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Questions of the peer that wait for this daemon, and questions to it whose answers are passed on. It is as many as a daemon
/// has under way to one member. Further questions are dropped, and so is the answer to the oldest one.
pub const UNDER_WAY: usize = 16;

/// The questions on a link.
#[derive(Debug)]
pub struct LinkQuestions {
    room: Arc<Semaphore>,
    /// The numbers of the questions that were sent, oldest first.
    asked: Mutex<VecDeque<u64>>,
}

impl Default for LinkQuestions {
    fn default() -> LinkQuestions {
        LinkQuestions { room: Arc::new(Semaphore::new(UNDER_WAY)), asked: Mutex::default() }
    }
}

impl LinkQuestions {
    /// Room for a question of the peer, until it is answered. `None` if too many of them wait.
    #[must_use]
    pub fn room(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.room).try_acquire_owned().ok()
    }

    /// This daemon asks the peer a question with this number.
    pub fn asked(&self, number: u64) {
        let mut asked = self.lock();
        if asked.len() >= UNDER_WAY {
            asked.pop_front();
        }
        asked.push_back(number);
    }

    /// Whether the peer was asked a question with this number that it has not answered yet.
    #[must_use]
    pub fn answered(&self, number: u64) -> bool {
        let mut asked = self.lock();
        let position = asked.iter().position(|asked| *asked == number);
        position.and_then(|position| asked.remove(position)).is_some()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<u64>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_asks_without_end_gets_its_part_of_the_queue() {
        let questions = LinkQuestions::default();
        let mut waiting: Vec<_> = (0..UNDER_WAY).filter_map(|_| questions.room()).collect();
        assert_eq!((waiting.len(), questions.room().is_some()), (UNDER_WAY, false));
        waiting.pop();
        assert!(questions.room().is_some(), "one was answered");
    }

    #[test]
    fn only_answers_to_questions_count_and_each_once() {
        let questions = LinkQuestions::default();
        assert!(!questions.answered(7), "nobody has asked");
        (0..=UNDER_WAY as u64).for_each(|number| questions.asked(number));
        assert!(!questions.answered(0), "the oldest was given up");
        assert!(questions.answered(7) && !questions.answered(7));
    }
}
