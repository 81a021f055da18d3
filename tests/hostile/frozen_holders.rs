//! Holders of a name that are frozen, and others that only look frozen.

use std::net::{Ipv4Addr, TcpListener};
use std::process::Command;

use crate::client::{Client, Verdict};
use crate::companion::Companion;
use crate::wire::{self, Alive2};
use crate::world::{Setting, World, play, starting, without_new_processes};

/// The distribution port of the holders.
const PORT: u16 = 45_000;
/// The distribution port of newcomers that want the name.
const OTHER: u16 = 45_001;

/// Another address of the same host.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(127, 5, 5, 5);

/// A process that holds the name `holder`.
fn holder(world: &World, listens: bool) -> Companion {
    let mut holder = Companion::holding(world.address(), "holder", PORT, listens);
    holder.wait_until_registered();
    world.look_up(&Alive2::new("holder").port(PORT));
    holder
}

/// Checks that a newcomer with that name is refused and the holder stays.
fn keeps_its_name(world: &World) {
    for _ in 0..10 {
        let refused = world.try_register(Alive2::new("holder").port(OTHER));
        assert_eq!(refused.err(), Some(Verdict::Refused));
        world.look_up(&Alive2::new("holder").port(PORT));
    }
}

/// Waits until the name is free, which shows that its holder has ended.
fn wait_until_free(world: &World) {
    world.wait_until_listed([]);
    assert_eq!(world.ask(&wire::port2("holder")), b"w\x01");
}

#[test]
fn a_stopped_holder_whose_port_refuses_gives_way() {
    play(&Setting::new(), |world| {
        let holder = holder(world, false);
        keeps_its_name(world);
        holder.freeze();
        let newcomer = world.register(Alive2::new("holder").port(OTHER));
        world.look_up(&newcomer.request);
        world.wait_until_listed([&newcomer]);
        // Resuming or killing it no longer has any effect.
        holder.thaw();
        holder.kill();
        for _ in 0..20 {
            world.look_up(&newcomer.request);
        }
        world.wait_until_listed([&newcomer]);
        assert!(newcomer.client.is_open());
    });
}

#[test]
fn a_stopped_holder_whose_port_listens_keeps_its_name() {
    play(&Setting::new(), |world| {
        let holder = holder(world, true);
        holder.freeze();
        keeps_its_name(world);
        holder.thaw();
        keeps_its_name(world);
        holder.kill();
        wait_until_free(world);
    });
}

#[test]
fn a_running_holder_whose_port_refuses_keeps_its_name() {
    play(&Setting::new(), |world| {
        let holder = holder(world, false);
        keeps_its_name(world);
        holder.kill();
        wait_until_free(world);
    });
}

#[test]
fn a_holder_whose_last_packets_are_lost_gives_way_although_its_port_listens() {
    play(&Setting::new(), |world| {
        // The next node with the name may listen on the same port as the last one.
        let _listener = TcpListener::bind((Ipv4Addr::LOCALHOST, PORT)).expect("a free port");
        let request = Alive2::new("holder").port(PORT);
        let holder = Client::connect_from(ELSEWHERE, world.address());
        assert!(holder.send(&request.bytes()));
        assert!(matches!(holder.verdict(), Verdict::Accepted(_)));
        assert_eq!(world.try_register(request.clone()).err(), Some(Verdict::Refused));
        swallow_all_from(ELSEWHERE);
        drop(holder);
        let newcomer = without_new_processes(|| world.register(request));
        world.wait_until_listed([&newcomer]);
    });
}

/// Makes this host's kernel drop every packet from one of its own addresses.
fn swallow_all_from(address: Ipv4Addr) {
    let from = address.to_string();
    for rule in [
        // The rule for local addresses has the highest priority, unless it is moved.
        vec!["add", "pref", "2", "lookup", "local"],
        vec!["del", "pref", "0"],
        vec!["add", "pref", "1", "blackhole", "from", &from],
    ] {
        // This thread is in the test host's namespace, and so are its child processes.
        let output =
            starting(|| Command::new("ip").arg("rule").args(&rule).output()).expect("`ip` of iproute2");
        assert!(output.status.success(), "ip rule {rule:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn exactly_one_of_many_newcomers_succeeds_a_stopped_holder() {
    play(&Setting::new(), |world| {
        let holder = holder(world, false);
        holder.freeze();
        let heirs: Vec<_> = world.while_stopped(|| {
            (0..50).map(|_| world.send(&Alive2::new("holder").port(OTHER).bytes())).collect()
        });
        let verdicts: Vec<Verdict> = heirs.iter().map(|heir| heir.verdict()).collect();
        let accepted = verdicts.iter().filter(|verdict| matches!(verdict, Verdict::Accepted(_))).count();
        assert_eq!(accepted, 1, "{verdicts:?}");
        assert!(!verdicts.contains(&Verdict::Closed), "{verdicts:?}");
        world.look_up(&Alive2::new("holder").port(OTHER));
        drop(holder);
    });
}

#[test]
fn all_stopped_holders_give_way_to_their_successors() {
    const MANY: usize = 100;
    play(&Setting::new(), |world| {
        let mut crowd = Companion::crowd(world.address(), 0..MANY);
        crowd.wait_until_registered();
        crowd.freeze();
        // Newcomers beyond the capacity of the holder check's queue may be refused without a check; they retry, as
        // Erlang does.
        let mut successors: Vec<_> = (0..MANY).map(|_| None).collect();
        crate::harness::wait_until("every successor to be registered", || {
            for (number, successor) in successors.iter_mut().enumerate() {
                if successor.is_none() {
                    let request = crate::companion::crowd_node(number).port(OTHER);
                    *successor = world.try_register(request).ok();
                }
            }
            successors.iter().all(Option::is_some)
        });
        successors.iter().flatten().for_each(|node| world.look_up(&node.request));
        crowd.kill();
        successors.iter().flatten().for_each(|node| world.look_up(&node.request));
    });
}
