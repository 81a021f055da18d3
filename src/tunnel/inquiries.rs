//! Questions to other daemons about what is registered on their hosts: which are under way, and what was answered lately. A
//! state machine without I/O whose caller passes the time.
//!
//! A name that a lookup does not find may have been registered on its host a moment ago. A member is asked at most once at a
//! time for each name, not more often than its own limit allows, and not for a while after it has failed to answer. What it
//! says is true for a moment, whether or not it has such a name, so a program that looks for an absent name in a loop causes
//! a few questions per second.
//!
//! A node that was found by asking is reached before its registration has arrived, so its tunnel must know it: it is
//! remembered until the registration arrives.

use std::collections::{BTreeMap, HashMap, VecDeque};

use pmd_protocol::peer::{Kind, NodeId};
use tokio::sync::watch;

use crate::base::rate::{Rate, TokenBucket};
use crate::directory::Answers;
use crate::directory::cluster::Registered;

/// Maximum number of questions under way, in total and to one member. Each has an answer within a round trip or is given up
/// soon, so more are a flood of lookups of absent names, which are then not found.
const MAX_UNDER_WAY: usize = 256;
const MAX_TO_MEMBER: usize = 16;
/// How long an answer counts for other lookups.
const FRESH_MS: u64 = 100;
/// How long a registration that a member has named counts for tunnels if it does not arrive.
const AWAITED_MS: u64 = 30_000;
/// Maximum number of remembered answers; the oldest is forgotten first.
const MAX_REMEMBERED: usize = 4_096;
/// How long a member is not asked that has not answered: it may be of a version that does not know the question.
const SILENCE_MS: u64 = 2_000;
/// Number of members whose questions and silence are counted: more than have links at a time.
const MEMBERS: usize = 1_024;
/// The rate of questions to one member: half of what it accepts.
const QUESTIONS: Rate = Rate { burst: 128, per_second: 64 };
/// The rate of questions that one member may ask this daemon.
const ACCEPTED: Rate = Rate { burst: 256, per_second: 128 };

/// The member and the name.
type Subject = (NodeId, Box<str>);

/// Waits for an answer, which is there at the latest when the question is given up.
pub type Waiting = watch::Receiver<Option<Answers>>;

/// What a lookup does to get an answer.
#[derive(Debug)]
pub enum Begun {
    /// Nothing: this one is fresh.
    Fresh(Answers),
    /// Wait: the question is under way.
    Joined(Waiting),
    /// Ask this question, and wait.
    New(u64, Waiting),
    /// Nothing: the member must not be asked.
    No,
}

#[derive(Debug)]
struct UnderWay {
    subject: Subject,
    answer: watch::Sender<Option<Answers>>,
}

#[derive(Debug)]
struct Remembered {
    at_ms: u64,
    answers: Answers,
}

#[derive(Debug, Clone, Copy)]
struct Member {
    under_way: usize,
    questions: TokenBucket,
    silent_until_ms: u64,
}

/// The questions of this daemon.
#[derive(Debug, Default)]
pub struct Inquiries {
    under_way: BTreeMap<u64, UnderWay>,
    by_subject: HashMap<Subject, u64>,
    members: HashMap<NodeId, Member>,
    remembered: HashMap<Subject, Remembered>,
    /// The remembered answers in the order of their times. Replaced ones are still in it, with their own time.
    order: VecDeque<(u64, Subject)>,
    next: u64,
}

impl Inquiries {
    /// Whether there is an answer to the question, or may be one soon.
    #[must_use]
    pub fn may_ask(&self, now_ms: u64, member: &NodeId, name: &str) -> bool {
        let subject = (*member, name.into());
        match self.fresh(now_ms, &subject) {
            // Nothing was registered a moment ago.
            Some(answers) => !answers.is_empty(),
            None => self.by_subject.contains_key(&subject) || self.has_room_for(now_ms, member),
        }
    }

    /// Begins a question for a lookup, or joins another one.
    pub fn begin(&mut self, now_ms: u64, member: NodeId, name: &str) -> Begun {
        let subject: Subject = (member, name.into());
        if let Some(answers) = self.fresh(now_ms, &subject) {
            return Begun::Fresh(answers.clone());
        }
        if let Some(asked) = self.by_subject.get(&subject).and_then(|number| self.under_way.get(number)) {
            return Begun::Joined(asked.answer.subscribe());
        }
        if !self.has_room_for(now_ms, &member) {
            return Begun::No;
        }
        let asked = self.member(now_ms, member);
        if !asked.questions.take(QUESTIONS, now_ms) {
            return Begun::No;
        }
        asked.under_way += 1;
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        let (answer, waiting) = watch::channel(None);
        self.by_subject.insert(subject.clone(), number);
        self.under_way.insert(number, UnderWay { subject, answer });
        Begun::New(number, waiting)
    }

    /// Whether this member is asked a question with this number.
    #[must_use]
    pub fn is_asked(&self, member: &NodeId, number: u64) -> bool {
        self.under_way.get(&number).is_some_and(|asked| asked.subject.0 == *member)
    }

    /// The member has answered. Returns whether it was asked: nobody else can answer for it, and each question is answered
    /// once. Entries of other names are ignored.
    pub fn answered(&mut self, now_ms: u64, member: &NodeId, number: u64, answers: Answers) -> bool {
        if !self.is_asked(member, number) {
            return false;
        }
        let Some(UnderWay { subject, answer }) = self.take(number) else { return false };
        let name = &*subject.1;
        let answers = if answers.iter().all(|entry| is_of(name, entry)) {
            answers
        } else {
            answers.iter().filter(|entry| is_of(name, entry)).cloned().collect()
        };
        answer.send_replace(Some(Answers::clone(&answers)));
        self.remember(now_ms, subject, answers);
        true
    }

    /// Gives up a question, if it was not answered. Then the member is not asked for a while.
    pub fn give_up(&mut self, now_ms: u64, number: u64) {
        let Some(UnderWay { subject: (member, _), answer }) = self.take(number) else { return };
        answer.send_replace(Some(Answers::default()));
        self.member(now_ms, member).silent_until_ms = now_ms + SILENCE_MS;
    }

    /// The registration that a member has named lately and that has not arrived so far.
    #[must_use]
    pub fn awaited(&self, now_ms: u64, member: NodeId, kind: Kind, name: &str) -> Option<Registered> {
        let known = self.remembered.get(&(member, name.into()))?;
        let entry = known.answers.iter().find(|entry| entry.kind() == kind)?;
        (now_ms.saturating_sub(known.at_ms) < AWAITED_MS).then(|| Registered::of(entry)).flatten()
    }

    /// The registration has arrived. From now on, what has arrived is what counts.
    pub fn arrived(&mut self, member: NodeId, name: &str) {
        if !self.remembered.is_empty() {
            self.remembered.remove(&(member, name.into()));
        }
    }

    fn fresh(&self, now_ms: u64, subject: &Subject) -> Option<&Answers> {
        let known = self.remembered.get(subject)?;
        (now_ms.saturating_sub(known.at_ms) < FRESH_MS).then_some(&known.answers)
    }

    fn has_room_for(&self, now_ms: u64, member: &NodeId) -> bool {
        self.under_way.len() < MAX_UNDER_WAY
            && self
                .members
                .get(member)
                .is_none_or(|member| member.under_way < MAX_TO_MEMBER && member.silent_until_ms <= now_ms)
    }

    fn take(&mut self, number: u64) -> Option<UnderWay> {
        let asked = self.under_way.remove(&number)?;
        self.by_subject.remove(&asked.subject);
        if let Some(member) = self.members.get_mut(&asked.subject.0) {
            member.under_way = member.under_way.saturating_sub(1);
        }
        Some(asked)
    }

    fn member(&mut self, now_ms: u64, id: NodeId) -> &mut Member {
        if self.members.len() >= MEMBERS && !self.members.contains_key(&id) {
            let idle = self.members.iter().filter(|(_, member)| member.under_way == 0);
            let oldest = idle.min_by_key(|(_, member)| member.questions.updated_ms()).map(|(id, _)| *id);
            if let Some(oldest) = oldest {
                self.members.remove(&oldest);
            }
        }
        self.members.entry(id).or_insert_with(|| Member {
            under_way: 0,
            questions: TokenBucket::full(QUESTIONS, now_ms),
            silent_until_ms: 0,
        })
    }

    fn remember(&mut self, now_ms: u64, subject: Subject, answers: Answers) {
        self.remembered.insert(subject.clone(), Remembered { at_ms: now_ms, answers });
        self.order.push_back((now_ms, subject));
        while let Some((at_ms, _)) = self.order.front()
            && (self.order.len() > MAX_REMEMBERED || now_ms.saturating_sub(*at_ms) >= AWAITED_MS)
            && let Some((at_ms, oldest)) = self.order.pop_front()
        {
            if self.remembered.get(&oldest).is_some_and(|known| known.at_ms == at_ms) {
                self.remembered.remove(&oldest);
            }
        }
    }
}

fn is_of(name: &str, entry: &pmd_protocol::peer::Entry) -> bool {
    entry.name() == name && matches!(entry.kind(), Kind::NAME | Kind::SERVICE)
}

/// Limits the questions of other daemons.
#[derive(Debug, Default)]
pub struct Askers(BTreeMap<NodeId, TokenBucket>);

impl Askers {
    /// Whether a question of this member is answered.
    pub fn accept(&mut self, now_ms: u64, member: NodeId) -> bool {
        if self.0.len() >= MEMBERS && !self.0.contains_key(&member) {
            // The bucket of the member that was silent longest is full again, or closest to it.
            let oldest = self.0.iter().min_by_key(|(_, bucket)| bucket.updated_ms()).map(|(id, _)| *id);
            if let Some(oldest) = oldest {
                self.0.remove(&oldest);
            }
        }
        let bucket = self.0.entry(member).or_insert_with(|| TokenBucket::full(ACCEPTED, now_ms));
        bucket.take(ACCEPTED, now_ms)
    }
}

#[cfg(test)]
#[path = "inquiries_tests.rs"]
mod tests;
