//! Claims under faults, in simulated worlds: never two holders, never a number that falls.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a violated property fails the test")]

#[path = "support/claims.rs"]
mod claims;

use claims::{run, violations};
use pmd_core::claims::store::{Record, Stored};
use pmd_core::claims::voter::{Setup, Violation, Voter};
use pmd_core::sim::{ClaimsWorld, Sabotage};
use pmd_protocol::peer::NodeId;
use pmd_protocol::peer::claims::{Ask, Ballot, Epoch, Frame, Position, Request, Role, Vote};

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
    now_ms: u64,
}

fn id(index: u8) -> NodeId {
    NodeId::new([index + 1; 32])
}

impl Voters {
    fn founded() -> Voters {
        let mut all = Voters { voters: Vec::new(), records: vec![Vec::new(); 3], now_ms: 1 };
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
            founding_number: 1,
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
            for index in 0..3u8 {
                self.voters[usize::from(index)].tick(self.now_ms);
                self.flush(index);
            }
        }
        panic!("{:?}", (0..3).map(|index| self.role(index)).collect::<Vec<_>>());
    }

    fn flush(&mut self, index: u8) {
        let output = self.voters[usize::from(index)].take_output();
        self.records[usize::from(index)].extend(output.records);
        if !output.own.is_empty() {
            self.voters[usize::from(index)].written(output.own, self.now_ms);
            self.flush(index);
        }
        for (to, frame) in output.sends {
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
