use std::sync::Arc;

use pmd_protocol::peer::{Entry, Name};

use super::*;

const FAR: NodeId = NodeId::new([2; 32]);
const NEAR: NodeId = NodeId::new([3; 32]);

fn node(name: &str) -> Answers {
    let entry = Entry::Name(Name {
        name: name.parse().expect("a name"),
        port: 5_000,
        node_type: 77,
        protocol: 0,
        highest_version: 6,
        lowest_version: 5,
        creation: 1,
        registered_ms: 9,
        extra: Box::default(),
    });
    [Arc::new(entry)].into()
}

fn nothing() -> Answers {
    Answers::default()
}

/// Begins a question that has to be asked.
fn new(inquiries: &mut Inquiries, now_ms: u64, member: NodeId, name: &str) -> (u64, Waiting) {
    match inquiries.begin(now_ms, member, name) {
        Begun::New(number, waiting) => (number, waiting),
        other => panic!("{other:?}"),
    }
}

#[test]
fn lookups_of_one_name_share_one_question() {
    let mut inquiries = Inquiries::default();
    let (number, waiting) = new(&mut inquiries, 0, FAR, "bar");
    let Begun::Joined(joined) = inquiries.begin(0, FAR, "bar") else { panic!("asked twice") };
    // Other names and other members are other questions.
    assert_ne!(new(&mut inquiries, 0, FAR, "baz").0, number);
    assert_ne!(new(&mut inquiries, 0, NEAR, "bar").0, number);
    assert!(inquiries.answered(1, &FAR, number, node("bar")));
    for waiting in [waiting, joined] {
        assert_eq!(waiting.borrow().as_ref().map(|answers| answers.len()), Some(1));
    }
    assert!(matches!(inquiries.begin(50, FAR, "bar"), Begun::Fresh(answers) if answers.len() == 1));
}

#[test]
fn an_answer_counts_only_from_the_member_that_was_asked_once_and_for_the_name() {
    let mut inquiries = Inquiries::default();
    let (number, waiting) = new(&mut inquiries, 0, FAR, "bar");
    assert!(!inquiries.answered(0, &NEAR, number, node("bar")));
    assert!(!inquiries.answered(0, &FAR, number + 1, node("bar")));
    assert!(waiting.borrow().is_none());
    assert!(inquiries.answered(0, &FAR, number, node("other")));
    assert_eq!(waiting.borrow().as_ref().map(|answers| answers.len()), Some(0), "of another name");
    assert!(!inquiries.answered(0, &FAR, number, node("bar")));
}

#[test]
fn a_loop_of_lookups_of_an_absent_name_asks_ten_times_a_second() {
    let mut inquiries = Inquiries::default();
    let mut asked = 0;
    for now_ms in 0..1_000 {
        if let Begun::New(number, _) = inquiries.begin(now_ms, FAR, "absent") {
            asked += 1;
            inquiries.answered(now_ms, &FAR, number, nothing());
        }
        assert!(!inquiries.may_ask(now_ms, &FAR, "absent"), "it waits for what is known");
    }
    assert_eq!(asked, 10);
}

#[test]
fn a_loop_of_lookups_of_ever_new_names_stays_below_what_the_other_side_accepts() {
    let (mut inquiries, mut askers) = (Inquiries::default(), Askers::default());
    let mut asked = 0;
    for number in 0..100_000_u64 {
        let now_ms = number / 10;
        if let Begun::New(question, _) = inquiries.begin(now_ms, FAR, &format!("absent{number}")) {
            asked += 1;
            assert!(askers.accept(now_ms, NEAR), "at {now_ms} ms");
            inquiries.answered(now_ms, &FAR, question, nothing());
        }
        assert!(inquiries.remembered.len() <= MAX_REMEMBERED && inquiries.order.len() <= MAX_REMEMBERED);
    }
    assert!((QUESTIONS.burst..=QUESTIONS.burst + 10 * QUESTIONS.per_second).contains(&asked), "{asked}");
}

#[test]
fn questions_under_way_are_limited_in_total_and_for_each_member() {
    let mut inquiries = Inquiries::default();
    let member = |number: usize| {
        let mut bytes = [9; 32];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        NodeId::new(bytes)
    };
    let mut begin = |to: usize, name: usize| {
        matches!(inquiries.begin(0, member(to), &format!("n{name}")), Begun::New(..))
    };
    let to_one = (0..100).filter(|name| begin(0, *name)).count();
    assert_eq!(to_one, MAX_TO_MEMBER);
    let to_all = (1..100).flat_map(|to| (0..10).map(move |name| (to, name)));
    assert_eq!(to_one + to_all.filter(|(to, name)| begin(*to, *name)).count(), MAX_UNDER_WAY);
    assert!(!inquiries.may_ask(0, &member(500), "n"));
    // There is room again once they are answered or given up.
    let numbers: Vec<u64> = inquiries.under_way.keys().copied().collect();
    numbers.iter().for_each(|number| inquiries.give_up(0, *number));
    assert!(inquiries.may_ask(0, &member(500), "n"));
    assert!(inquiries.under_way.is_empty() && inquiries.by_subject.is_empty());
    assert!(inquiries.members.values().all(|member| member.under_way == 0));
}

#[test]
fn a_member_that_does_not_answer_is_left_alone_for_a_while() {
    let mut inquiries = Inquiries::default();
    let (number, waiting) = new(&mut inquiries, 0, FAR, "bar");
    inquiries.give_up(250, number);
    assert_eq!(waiting.borrow().as_ref().map(|answers| answers.len()), Some(0));
    for now_ms in [250, 250 + SILENCE_MS - 1] {
        assert!(!inquiries.may_ask(now_ms, &FAR, "baz"));
        assert!(matches!(inquiries.begin(now_ms, FAR, "baz"), Begun::No));
        assert!(inquiries.may_ask(now_ms, &NEAR, "baz"));
    }
    assert!(inquiries.may_ask(250 + SILENCE_MS, &FAR, "baz"));
    // Giving up what was answered in time changes nothing.
    let (number, _) = new(&mut inquiries, 0, NEAR, "bar");
    assert!(inquiries.answered(0, &NEAR, number, nothing()));
    inquiries.give_up(0, number);
    assert!(inquiries.may_ask(0, &NEAR, "baz"));
}

#[test]
fn a_registration_is_awaited_until_it_arrives_or_for_half_a_minute() {
    let mut inquiries = Inquiries::default();
    let ask = |inquiries: &mut Inquiries, now_ms| {
        let (number, _) = new(inquiries, now_ms, FAR, "bar");
        assert!(inquiries.answered(now_ms, &FAR, number, node("bar")));
    };
    ask(&mut inquiries, 0);
    let awaited = |inquiries: &Inquiries, now_ms, kind| inquiries.awaited(now_ms, FAR, kind, "bar");
    let registered = Registered { port: 5_000, creation: 1, registered_ms: 9 };
    assert_eq!(awaited(&inquiries, AWAITED_MS - 1, Kind::NAME), Some(registered));
    assert_eq!(awaited(&inquiries, 0, Kind::SERVICE), None);
    assert_eq!(awaited(&inquiries, AWAITED_MS, Kind::NAME), None);
    inquiries.arrived(FAR, "bar");
    assert_eq!(awaited(&inquiries, 0, Kind::NAME), None);
    // That it is forgotten at its time does not forget a later answer.
    ask(&mut inquiries, 200);
    ask(&mut inquiries, 20_200);
    let (number, _) = new(&mut inquiries, 30_300, FAR, "other");
    assert!(inquiries.answered(30_300, &FAR, number, nothing()));
    assert_eq!(awaited(&inquiries, 30_300, Kind::NAME), Some(registered));
}

#[test]
fn a_member_is_answered_as_often_as_the_rate_allows_and_others_still_are() {
    let mut askers = Askers::default();
    let accepted = (0..10_000).filter(|question| askers.accept(question / 10, FAR)).count();
    let most = ACCEPTED.burst + ACCEPTED.per_second;
    assert!((ACCEPTED.burst..=most).contains(&u64::try_from(accepted).expect("a number")), "{accepted}");
    assert!(askers.accept(1_000, NEAR));
    for number in 0..2 * MEMBERS {
        let mut bytes = [9; 32];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        assert!(askers.accept(2_000, NodeId::new(bytes)));
    }
    assert_eq!(askers.0.len(), MEMBERS);
}
