//! Holders of a name that no longer do anything, and others that only look like it.

use std::net::{Ipv4Addr, TcpListener};
use std::process::Command;

use crate::client::{Client, Verdict};
use crate::companion::Companion;
use crate::wire::{self, Alive2};
use crate::world::{Setting, World, play, starting, without_new_processes};

/// The distribution port of the holders.
const PORT: u16 = 45_000;
/// The distribution port of whoever wants their name.
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

/// A newcomer of that name is refused, and the holder stays.
fn keeps_its_name(world: &World) {
    for _ in 0..10 {
        let refused = world.try_register(Alive2::new("holder").port(OTHER));
        assert_eq!(refused.err(), Some(Verdict::Refused));
        world.look_up(&Alive2::new("holder").port(PORT));
    }
}

/// Waits until the name is free, as it is when its holder has ended.
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
        // Neither its awakening nor its end means anything any more.
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
        // The next node of the name may well listen on the port of the last one.
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

/// Makes the kernel of this host drop every packet from this address of its own.
fn swallow_all_from(address: Ipv4Addr) {
    let from = address.to_string();
    for rule in [
        // The rule for local addresses comes first, unless it is moved.
        vec!["add", "pref", "2", "lookup", "local"],
        vec!["del", "pref", "0"],
        vec!["add", "pref", "1", "blackhole", "from", &from],
    ] {
        // This thread is on the host of the test, and so is what it starts.
        let output =
            starting(|| Command::new("ip").arg("rule").args(&rule).output()).expect("`ip` of iproute2");
        assert!(output.status.success(), "ip rule {rule:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn of_many_that_want_the_name_of_a_stopped_holder_one_gets_it() {
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
fn a_registry_of_stopped_holders_gives_way_to_all_their_successors() {
    const MANY: usize = 100;
    play(&Setting::new(), |world| {
        let mut crowd = Companion::crowd(world.address(), 0..MANY);
        crowd.wait_until_registered();
        crowd.freeze();
        // More newcomers at once than there are places in the queue of questions may be refused, as if nothing
        // had been found out, but then come again, as Erlang does.
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
