//! What an exit connects to: the address where the registered program listens, and nothing else.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;

use crate::fleet::cell::mortal;
use crate::harness::daemon::alive2;
use crate::harness::program::Program;
use crate::machine::{PORT, Said};
use crate::world::{PATIENCE, World};

/// A user that is not root.
const NOBODY: u32 = 65_534;

/// Listens on the second host, at a free port or the one given, and greets everybody with `greeting`.
fn listen(world: &World, address: &str, greeting: &'static [u8]) -> u16 {
    let address: SocketAddr = address.parse().expect("an address");
    let listener = world.site(1).cell.run(move || TcpListener::bind(address)).expect("a port");
    let port = listener.local_addr().expect("bound").port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = stream.and_then(|mut stream| stream.write_all(greeting));
        }
    });
    port
}

/// What a program on the first host reads from `name` on the second, through a tunnel.
fn read(world: &World, name: &str) -> Vec<u8> {
    let full = format!("{name}@h2");
    let entry = || world.block_on(world[0].api().lookup(&full)).ok()?.matches.first()?.entry;
    world.wait_on(&[0], "an entry", |_| entry().is_some());
    let entry = entry().expect("an entry");
    let mut stream = world.site(0).cell.run(move || TcpStream::connect(entry)).expect("an entry");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let mut read = Vec::new();
    let _ = stream.read_to_end(&mut read);
    read
}

/// Registers a node on the second host as another user, until the program ends.
fn register_as(world: &World, user: u32, name: &str, port: u16) -> Program {
    let request: String = alive2(name, port).iter().map(|byte| format!("\\x{byte:02x}")).collect();
    let script = format!("exec 3<>/dev/tcp/127.0.0.1/{PORT}; printf '{request}' >&3; exec sleep 600");
    world.site(1).cell.run(move || {
        let mut command: Command = mortal("setpriv");
        command.args([&format!("--reuid={user}"), "--clear-groups", "--", "bash", "-c", &script]);
        Program::spawn(command)
    })
}

fn refusal(world: &World, name: &str, reason: &str) {
    assert_eq!(read(world, name), b"", "{name}");
    let refused = format!("to \"{name}\"");
    world.wait_on(&[1], reason, |host| {
        world[host].log().lines().any(|line| line.contains(&refused) && line.contains(reason))
    });
}

#[test]
fn a_registered_program_is_reached_wherever_it_listens() {
    let world = World::joined(2);
    let (ip, ip6) = (world.site(1).ip, world.site(1).ip6);
    let mut nodes = Vec::new();
    for (name, address) in [
        ("every4", "0.0.0.0:0".to_owned()),
        ("every", "[::]:0".to_owned()),
        ("loop4", "127.0.0.1:0".to_owned()),
        ("loop6", "[::1]:0".to_owned()),
        ("one4", format!("{ip}:0")),
        ("one6", format!("[{ip6}]:0")),
    ] {
        let port = listen(&world, &address, b"node");
        nodes.push(world.register(1, name, port));
        world.wait_for_names(&[0], &nodes);
        assert_eq!(read(&world, name), b"node", "{name} at {address}: {}", world[1].log());
    }
    // A service of root, registered over the control socket.
    let port = listen(&world, "127.0.0.1:0", b"service");
    world.run(1, &["register", "web", "-P", &port.to_string()]).ended_with(0);
    world.wait_on(&[0], "the service", |_| world.block_on(world[0].api().lookup("web@h2")).is_ok());
    assert_eq!(read(&world, "web"), b"service");
}

#[test]
fn nothing_is_reached_that_its_owner_did_not_register() {
    let world = World::joined(2);
    let listed = |name: &str| {
        world.wait_on(&[0], "the registration", |host| world.names(host).iter().any(|node| node.0 == name));
    };
    // A console of root on loopback, to which another user points.
    let console = listen(&world, "127.0.0.1:0", b"console");
    let _thief = register_as(&world, NOBODY, "thief", console);
    listed("thief");
    refusal(&world, "thief", "belongs to user 0, and user 65534 registered the name");
    let console6 = listen(&world, "[::1]:0", b"console");
    let _thief6 = register_as(&world, NOBODY, "thief6", console6);
    listed("thief6");
    refusal(&world, "thief6", "belongs to user 0, and user 65534 registered the name");

    // The daemon's own port, whoever registers it, and a port where nobody listens.
    let _own = world.register(1, "own", PORT);
    listed("own");
    refusal(&world, "own", "belongs to pmd itself");
    let _nobody = world.register(1, "nobody", 41_999);
    listed("nobody");
    refusal(&world, "nobody", "nothing listens on port 41999");

    // The port of a tunnel's entry, which the daemon opened itself.
    let port = listen(&world, "127.0.0.1:0", b"node");
    let _target = world.register(1, "target", port);
    listed("target");
    assert_eq!(read(&world, "target"), b"node");
    let far = world.register(0, "far", 41_998);
    world.wait_on(&[1], "a node of the first host", |host| world.names(host).contains(&far.entry()));
    let entry = world.block_on(world[1].api().lookup("far@h1")).expect("a node").matches[0].entry;
    let _loop = world.register(1, "loop", entry.expect("an entry").port());
    listed("loop");
    refusal(&world, "loop", "belongs to pmd itself");
}

/// What addresses a daemon has, it says itself. So if it is reached at another one, as by dialling back, it may not be the
/// one that is meant.
#[test]
fn a_host_given_by_its_address_is_reached_only_at_that_address() {
    let world = World::joined(2);
    let port = listen(&world, "127.0.0.1:0", b"node");
    let node = world.register(1, "target", port);
    world.wait_for_names(&[0], [&node]);
    let six = world.site(1).ip6;
    let ping = |host: &str| world.run(0, &["ping", &format!("target@{host}")]);
    // It is no Erlang node, but it is reached.
    let is_reached = |said: Said| assert!(said.ended_with(8).stderr.contains("accepts connections"));
    is_reached(ping(&six.to_string()));
    world.site(1).cell.nft(&format!(
        "table ip6 closed {{
             chain input {{
                 type filter hook input priority 0;
                 ip6 daddr {six} tcp dport 4369 ct state new reject with tcp reset
             }}
         }}"
    ));
    let said = ping(&six.to_string()).ended_with(3);
    assert!(said.stderr.contains(&format!("its daemon is not at {six}")), "{said:?}");
    assert!(said.stderr.contains("by its name"), "{said:?}");
    is_reached(ping("h2"));
    is_reached(ping(&world[1].ip.to_string()));
}

#[test]
fn one_member_cannot_hold_all_tunnels() {
    use crate::security::liar::{Liar, own_key};

    let mut world = World::new(3);
    world.start(0);
    world.start(2);
    world.run(2, &["join", "h1"]).ended_with(0);
    world.wait_until_agreed(&[0, 2]);
    let status = || world.block_on(world[0].api().status()).expect("a daemon");
    let limit = status().tunnels.expect("a cluster").limit;
    let share = limit / 4;
    let listener = world.site(0).cell.run(|| TcpListener::bind("127.0.0.1:0")).expect("a port");
    let port = listener.local_addr().expect("bound").port();
    std::thread::spawn(move || {
        let mut held = Vec::new();
        for mut stream in listener.incoming().flatten() {
            let _ = stream.write_all(b"node");
            held.push(stream);
        }
    });
    let node = world.register(0, "busy", port);
    world.wait_for_names(&[0, 2], [&node]);
    let folder = world.shared("");
    let greedy = Liar::start(&world, 1, "greedy", "greedy", &own_key(&folder));
    world.wait_on(&[0], "the greedy member", |host| world.members(host).contains(&"greedy".to_owned()));
    let mut tunnels = Vec::new();
    let refused = loop {
        match greedy.open(&world, 1, 0, "busy") {
            Ok(tunnel) => tunnels.push(tunnel),
            Err(refused) => break refused,
        }
        assert!(tunnels.len() <= share, "more than a share");
    };
    assert_eq!(tunnels.len(), share);
    assert_eq!(refused, format!("this member has {share} tunnels open here, which is its share: close some"));
    assert_eq!(status().counters.others.tunnels_over_share, 1);

    // Others are not affected.
    let entry = || world.block_on(world[2].api().lookup("busy@h1")).ok()?.matches.first()?.entry;
    world.wait_on(&[2], "an entry", |_| entry().is_some());
    let entry = entry().expect("an entry");
    let mut stream = world.site(2).cell.run(move || TcpStream::connect(entry)).expect("an entry");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.read_exact(&mut [0; 4]).expect("a tunnel of another member");
    drop(tunnels);
    world.wait_on(&[0], "the end of the others", |_| status().tunnels.is_some_and(|all| all.open == 1));
}
