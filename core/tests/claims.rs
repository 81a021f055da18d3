//! Claims under faults, in simulated worlds: never two holders, never a number that falls.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a violated property fails the test")]

#[path = "support/claims.rs"]
mod claims;

use claims::{run, violations};
use pmd_core::claims::holder::{Event, Holder, Loss};
use pmd_core::claims::store::{Record, Stored};
use pmd_core::claims::voter::{Setup, Violation, Voter};
use pmd_core::sim::{ClaimsWorld, Sabotage};
use pmd_protocol::peer::NodeId;
use pmd_protocol::peer::claims::{Answer, Ask, Ballot, Epoch, Frame, Position, Reply, Request, Role, Vote};

/// Seeds in each of the worlds. `make sim SIM='claims 10000'` runs more.
const SEEDS: u64 = 250;

#[test]
fn three_voters_grant_to_one_at_a_time() {
    (0..SEEDS).for_each(|seed| run(seed, 3));
}

#[test]
fn five_voters_grant_to_one_at_a_time() {
    (0..SEEDS).for_each(|seed| run(seed, 5));
}

/// The check would find a broken rule: each of these breaks one.
#[test]
fn planted_faults_are_found() {
    for sabotage in [Sabotage::ForgetfulStores, Sabotage::SlowClocks, Sabotage::NoGuardians] {
        let found = (0..40).any(|seed| !violations(seed, 3, sabotage).is_empty());
        assert!(found, "{sabotage:?} is not found");
    }
}

#[test]
fn a_quiet_world_has_one_leader_and_grants() {
    for voters in [1, 2, 3, 5, 7] {
        let mut world = ClaimsWorld::new(7, voters, 2, Sabotage::None);
        world.run_for(120_000);
        assert_eq!(world.history().violations(), [] as [String; 0]);
        assert!(world.history().grants(0) > 5 && world.history().grants(1) > 5, "{voters} voters");
        assert_eq!(world.roles().filter(|role| *role == Role::Leader).count(), 1);
        assert_eq!(world.roles().filter(|role| *role == Role::Follower).count(), voters - 1);
    }
}

/// Three voters whose frames arrive at once, and everything that they have stored.
struct Voters {
    voters: Vec<Voter>,
    records: Vec<Vec<Record>>,
    /// Whether the stores of those that start are known to be the latest.
    is_latest: bool,
    /// Nothing arrives at this one.
    down: Option<u8>,
    now_ms: u64,
}

fn id(index: u8) -> NodeId {
    NodeId::new([index + 1; 32])
}

impl Voters {
    fn founded() -> Voters {
        let mut all = Voters {
            voters: Vec::new(),
            records: vec![Vec::new(); 3],
            is_latest: true,
            down: None,
            now_ms: 1,
        };
        for own in 0..3 {
            all.records[usize::from(own)].push(Record::Created { store: own.into() });
            let voter = all.start(own, 1);
            all.voters.push(voter);
        }
        all.run(|all| all.leader().is_some());
        all
    }

    fn start(&mut self, own: u8, nonce: u64) -> Voter {
        let records = &mut self.records[usize::from(own)];
        let stored = Stored::replay(records.clone()).unwrap().unwrap();
        let started = Record::Started(Epoch { starts: stored.epoch.starts + 1, nonce });
        records.push(started);
        Voter::new(Setup {
            hosts: (0..3).map(|voter| format!("host{voter}")).collect(),
            own,
            own_id: id(own),
            stored: Stored::replay(records.clone()).unwrap().unwrap(),
            seed: own.into(),
            is_latest: self.is_latest,
            founding_number: Some(1),
            now_ms: self.now_ms,
        })
    }

    fn role(&self, index: u8) -> Role {
        self.voters[usize::from(index)].status(self.now_ms).role
    }

    fn leader(&self) -> Option<u8> {
        (0..3).find(|index| self.role(*index) == Role::Leader)
    }

    /// Runs until the condition holds, for at most a minute.
    fn run(&mut self, until: impl Fn(&Voters) -> bool) {
        for _ in 0..6_000 {
            if until(self) {
                return;
            }
            self.now_ms += 10;
            let down = self.down;
            for index in (0..3u8).filter(|index| Some(*index) != down) {
                self.voters[usize::from(index)].tick(self.now_ms);
                self.flush(index);
            }
        }
        panic!("{:?}", (0..3).map(|index| self.role(index)).collect::<Vec<_>>());
    }

    fn flush(&mut self, index: u8) {
        let down = self.down;
        let output = self.voters[usize::from(index)].take_output();
        self.records[usize::from(index)].extend(output.records);
        if !output.own.is_empty() {
            self.voters[usize::from(index)].written(output.own, self.now_ms);
            self.flush(index);
        }
        for (to, frame) in output.sends.into_iter().filter(|(to, _)| Some(*to) != down) {
            self.voters[usize::from(to)].receive(index, id(index), frame, self.now_ms).unwrap();
            self.flush(to);
        }
    }

    fn claim(&mut self, attempt: u64) {
        let name = format!("name{attempt}").parse().unwrap();
        let ask = Ask::Acquire { name, start: 1, ttl_ms: 10_000, attempt };
        let leader = self.leader().unwrap();
        self.voters[usize::from(leader)].request(id(9), Request { id: attempt, ask }, self.now_ms);
        self.flush(leader);
    }
}

#[test]
fn a_daemon_that_is_not_the_recorded_voter_cannot_vote() {
    let mut all = Voters::founded();
    let tag = match all.records[1].iter().find(|record| matches!(record, Record::Founded(_))) {
        Some(Record::Founded(founding)) => founding.tag,
        _ => panic!("{:?}", all.records[1]),
    };
    let ballot = Ballot { round: 1_000, voter: 2 };
    let vote = Vote::Prepare { ballot, accepted: Position::default() };
    let frame = Frame::Vote { tag, epoch: Epoch { starts: 1, nonce: 1 }, vote };
    let refused = all.voters[1].receive(2, id(7), frame.clone(), all.now_ms);
    assert_eq!(refused, Err(Violation::NotAVoter));
    assert_eq!(all.voters[1].take_output(), Default::default());
    // The recorded one can.
    all.voters[1].receive(2, id(2), frame, all.now_ms).unwrap();
    assert!(all.voters[1].take_output().records.contains(&Record::Promised(ballot)));
}

#[test]
fn a_store_that_was_rolled_back_is_noticed() {
    let mut all = Voters::founded();
    let victim = (0..3).find(|index| Some(*index) != all.leader()).unwrap();
    let backup = all.records[usize::from(victim)].clone();
    all.claim(1);
    all.is_latest = false;
    // A restart with everything is harmless.
    let restarted = all.start(victim, 2);
    all.voters[usize::from(victim)] = restarted;
    all.run(|all| all.role(victim) == Role::Follower);
    // With the backup, it has the number of the start before, or, restarted twice, forgotten what it has accepted.
    for starts in [1, 2] {
        all.records[usize::from(victim)] = backup.clone();
        for start in 0..starts {
            let restarted = all.start(victim, 10 * starts + start);
            all.voters[usize::from(victim)] = restarted;
        }
        all.run(|all| all.role(victim) == Role::RolledBack);
        assert!(all.records[usize::from(victim)].contains(&Record::RolledBack));
        all.claim(10 + starts);
    }
}

/// The others of a majority may have forgotten what the voter has told them, so one of them is not enough.
#[test]
fn a_store_that_may_be_older_needs_more_than_one_that_was_restarted_as_well() {
    let mut all = Voters::founded();
    let leader = all.leader().unwrap();
    let others: Vec<u8> = (0..3).filter(|index| *index != leader).collect();
    let (victim, ignorant) = (others[0], others[1]);
    let backup = all.records[usize::from(victim)].clone();
    // The leader and the victim grant a claim that the third does not hear of.
    all.down = Some(ignorant);
    all.claim(1);
    let version = all.voters[usize::from(leader)].status(all.now_ms).accepted.version;
    all.down = Some(leader);
    all.records[usize::from(victim)] = backup;
    for (index, is_latest) in [(victim, false), (ignorant, true)] {
        all.is_latest = is_latest;
        all.voters[usize::from(index)] = all.start(index, 20);
    }
    let until_ms = all.now_ms + 30_000;
    all.run(|all| all.now_ms > until_ms);
    assert_eq!([victim, ignorant].map(|index| all.role(index)), [Role::Leaderless; 2]);
    // The leader is back, and nothing was forgotten.
    all.down = None;
    all.is_latest = true;
    all.voters[usize::from(leader)] = all.start(leader, 30);
    all.run(|all| all.leader().is_some());
    let leads = all.leader().unwrap();
    assert!(all.voters[usize::from(leads)].status(all.now_ms).accepted.version >= version);
}

fn granted(holder: &mut Holder, number: u64) -> (u64, u64) {
    let attempt = holder.claim("name".parse().unwrap(), 10_000, 1_000);
    let id = holder.take_requests()[0].1.id;
    holder.receive(Reply { id, answer: Answer::Granted(number) }, 1_000);
    assert!(matches!(holder.take_events()[..], [Event::Granted(_, granted, _)] if granted == number));
    (attempt, id)
}

#[test]
fn a_reply_to_an_earlier_start_of_the_daemon_grants_nothing() {
    let (_, id) = granted(&mut Holder::new(1 << 60, 3, 0), 7);
    let mut holder = Holder::new(2 << 60, 3, 0);
    holder.claim("name".parse().unwrap(), 10_000, 1_000);
    holder.receive(Reply { id, answer: Answer::Granted(7) }, 1_001);
    assert_eq!(holder.take_events(), []);
}

/// Whether the holder asks for the release of a claim.
fn releases(holder: &mut Holder, now_ms: u64) -> bool {
    holder.tick(now_ms);
    holder.take_requests().iter().any(|(_, request)| matches!(request.ask, Ask::Release { .. }))
}

#[test]
fn a_claim_that_is_lost_or_abandoned_is_released_when_the_lease_is_over() {
    // Lost after 6,667 ms, dead after 9,000, and free after 11,000.
    for is_lost in [true, false] {
        let mut holder = Holder::new(1, 3, 0);
        let (attempt, _) = granted(&mut holder, 7);
        if is_lost {
            holder.tick(8_000);
            assert_eq!(holder.take_events(), [Event::Lost(attempt, Loss::NotRenewed)]);
            holder.release(attempt, 8_000);
        } else {
            holder.abandon(attempt, 2_000);
        }
        assert!(!releases(&mut holder, 11_999));
        assert!(releases(&mut holder, 12_000));
    }
    // Whoever knows that nothing depends on it any more does not wait.
    let mut holder = Holder::new(1, 3, 0);
    let (attempt, _) = granted(&mut holder, 7);
    holder.abandon(attempt, 2_000);
    let name = "name".parse().unwrap();
    assert_eq!(holder.release_number(&name, 8, 2_000), None);
    assert_eq!(holder.release_number(&name, 7, 2_000), Some(attempt));
    assert!(releases(&mut holder, 2_000));
}

#[test]
fn a_claim_that_the_voters_do_not_know_is_revoked() {
    let mut holder = Holder::new(1, 3, 0);
    let (attempt, _) = granted(&mut holder, 7);
    holder.tick(4_000);
    let id = holder.take_requests()[0].1.id;
    holder.receive(Reply { id, answer: Answer::Differs(Vec::new()) }, 4_001);
    assert_eq!(holder.take_events(), [Event::Lost(attempt, Loss::Revoked)]);
}
