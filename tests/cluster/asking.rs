//! A name that has been registered on another host and has not arrived yet: that host is asked. The other host is a member
//! that answers questions with names that it never publishes.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::Instant;

use crate::harness::{wait_until, wire};
use crate::machine::PORT;
use crate::security::liar::{Liar, node, own_key};
use crate::world::{PATIENCE, World};

/// The rate of questions that one member may ask: at once, and per second.
const BURST: u64 = 256;
const PER_SECOND: u64 = 128;
/// Far more than that.
const QUESTIONS: u64 = 5_000;

/// One host, and a member `far` that has registered `rabbit`.
fn with_liar() -> (World, Liar) {
    let mut world = World::new(2);
    world.start(0);
    let far = Liar::start(&world, 1, "far", "far", &own_key(&world.shared("")));
    world.wait_on(&[0], "the node of the member", |_| {
        world.names(0).contains(&("rabbit".into(), "far".into(), 25_672))
    });
    (world, far)
}

/// Sends a lookup to the first host's daemon at this address, from the host itself.
fn send(world: &World, at: IpAddr, name: &str) -> TcpStream {
    let request = wire::port2(name);
    world.site(0).cell.run(move || {
        let mut stream = TcpStream::connect((at, PORT)).expect("a daemon");
        stream.write_all(&request).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        stream
    })
}

fn read(mut stream: TcpStream) -> Vec<u8> {
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply).expect("a reply");
    reply
}

fn look_up(world: &World, at: impl Into<IpAddr>, name: &str) -> Vec<u8> {
    read(send(world, at.into(), name))
}

/// The port and the extra field of a reply that has found a node.
fn found(reply: &[u8]) -> (u16, &[u8]) {
    assert_eq!(reply.get(..2), Some(&b"w\0"[..]), "{reply:?}");
    let name = usize::from(u16::from_be_bytes([reply[10], reply[11]]));
    (u16::from_be_bytes([reply[2], reply[3]]), &reply[14 + name..])
}

const HERE: Ipv4Addr = Ipv4Addr::LOCALHOST;
const NOT_FOUND: &[u8] = b"w\x01";
const NO_SUCH_NODE: &[u8] = b"w\x02";

#[test]
fn a_name_that_has_not_arrived_is_found_on_its_host() {
    let (world, far) = with_liar();
    world.run(0, &["lookup", "late@far"]).ended_with(4);
    assert_eq!(look_up(&world, HERE, "late@far@inet"), NO_SUCH_NODE);
    let asked = far.questions();
    far.answer_with(Some(vec![node("late", 41_000)]));
    let mut json = None;
    // After a question without an answer, it takes a while until the next one.
    wait_until("the member to be asked again", || {
        let said = world.run(0, &["lookup", "late@far", "--json"]);
        json = (said.code == 0).then(|| said.json());
        json.is_some()
    });
    assert!(far.questions() > asked);
    let found_there = json.expect("a match")["matches"][0].clone();
    assert_eq!((&found_there["host"], &found_there["port"]), (&"far".into(), &41_000.into()));
    // The entry is on the alias of the host, which answers as well.
    let entry: SocketAddr = found_there["entry"].as_str().expect("an entry").parse().expect("an address");
    assert_eq!(found(&look_up(&world, entry.ip(), "late")).0, entry.port());
    assert!(found(&look_up(&world, HERE, "late@far")).0 > 0);

    // What a node dials leads there, although the registration never arrives.
    let reply = look_up(&world, HERE, "late@far@inet");
    let (port, extra) = found(&reply);
    let [b'p', b'm', b'd', address @ ..] = extra else { panic!("{extra:?}") };
    let address = Ipv4Addr::from(<[u8; 4]>::try_from(address).expect("four bytes"));
    let tunnels = far.asked();
    let mut stream = world.site(0).cell.run(move || TcpStream::connect((address, port))).expect("an entry");
    stream.write_all(b"hello").expect("a connection");
    wait_until("the tunnel", || far.asked() > tunnels);
    let said = world.run(0, &["ping", "late@far"]).ended_with(8);
    assert!(said.stderr.contains("does not respond as an Erlang node"), "{said:?}");

    // It was an answer, and no registration.
    assert_eq!(world.names(0), [("rabbit".into(), "far".into(), 25_672)]);
    world.run(0, &["lookup", "late"]).ended_with(4);
    // A member has no say about other names.
    assert_eq!(look_up(&world, HERE, "other@far@inet"), NO_SUCH_NODE);
    assert_eq!(look_up(&world, HERE, "late@h1"), NOT_FOUND);
}

#[test]
fn a_loop_of_lookups_asks_no_more_than_the_limits_allow() {
    let (world, far) = with_liar();
    far.answer_with(Some(Vec::new()));
    let begin = Instant::now();
    for _ in 0..200 {
        assert_eq!(look_up(&world, HERE, "absent@far@inet"), NO_SUCH_NODE);
    }
    let most = begin.elapsed().as_millis() / 100 + 1;
    let asked = u128::try_from(far.questions()).expect("a number");
    assert!((1..=most).contains(&asked), "{asked} questions, where {most} are allowed");

    // The other direction.
    let _own = world.register(0, "own", 41_000);
    let begin = Instant::now();
    far.ask("own", QUESTIONS);
    let counts = || world.block_on(world[0].api().status()).expect("a status").counters.others;
    let heard = || counts().questions_answered + counts().questions_refused;
    wait_until("all questions to be heard", || heard() == QUESTIONS);
    let most = BURST + PER_SECOND * (begin.elapsed().as_secs() + 1);
    let answered = counts().questions_answered;
    assert!((1..=most).contains(&answered), "{answered} answers, where {most} are allowed");
    assert!(far.answers() <= answered, "{} of {answered}", far.answers());
}

/// A lookup that waits for the other host leaves the port to others.
#[test]
fn a_member_that_does_not_answer_holds_up_nobody_else() {
    let (world, far) = with_liar();
    // The question is given up after a moment, so another client may be too late to see it wait.
    let saw_it_wait = (0..20).any(|number| {
        let asked = far.questions();
        let waiting = send(&world, HERE.into(), &format!("absent{number}@far@inet"));
        let other = look_up(&world, HERE, "rabbit@far@inet");
        assert!(!found(&other).1.is_empty());
        waiting.set_nonblocking(true).expect("a socket");
        let waits = matches!(waiting.peek(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock);
        waiting.set_nonblocking(false).expect("a socket");
        assert_eq!(read(waiting), NO_SUCH_NODE);
        waits && far.questions() > asked
    });
    assert!(saw_it_wait, "no lookup waited for the other host");
}

#[test]
fn a_host_answers_a_question_on_a_connection_of_its_own() {
    let (world, far) = with_liar();
    let own = world.register(0, "own", 41_000);
    assert_eq!(far.ask_once(&world, 1, 0, "own"), ["own"]);
    assert_eq!(far.ask_once(&world, 1, 0, "rabbit"), [""; 0], "it answers for itself alone");
    drop(own);
    wait_until("the end of the node", || far.ask_once(&world, 1, 0, "own").is_empty());
}
