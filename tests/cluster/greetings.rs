//! What `pmd ping` says of programs that are registered as nodes and do not answer as one without TLS.

use std::io::{Read, Write};
use std::net::TcpListener;

use crate::world::World;

/// Listens on the second host. To a connection that begins as TLS it says `answer`; it closes any other one.
fn listen(world: &World, answer: &'static [u8]) -> u16 {
    let listener = world.site(1).cell.run(|| TcpListener::bind("127.0.0.1:0")).expect("a port");
    let port = listener.local_addr().expect("bound").port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut first = [0; 1];
            if stream.read_exact(&mut first).is_ok() && first == [0x16] {
                let _ = stream.write_all(answer);
            }
        }
    });
    port
}

#[test]
fn a_node_that_closes_what_does_not_begin_as_tls_is_asked_again_in_tls() {
    let world = World::joined(2);
    let secure = world.register(1, "secure", listen(&world, b"\x15\x03\x03\x00\x02\x02\x28"));
    let closing = world.register(1, "closing", listen(&world, b""));
    world.wait_for_names(&[0, 1], [&closing, &secure]);
    for (host, node) in [(0, "secure@h2"), (1, "secure")] {
        let pinged = world.run(host, &["ping", node, "--json"]).ended_with(0).json();
        assert_eq!((&pinged["tls"], &pinged["cookie"]), (&true.into(), &"not_tried".into()), "{pinged}");
        assert_eq!(pinged["node"], "secure@h2");
    }
    for (host, node) in [(0, "closing@h2"), (1, "closing")] {
        let said = world.run(host, &["ping", node]).ended_with(8);
        assert!(
            said.stderr.contains("does not respond as an Erlang node: it closes the connection"),
            "{said:?}"
        );
    }
}
