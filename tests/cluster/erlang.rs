//! Real Erlang nodes, seen from another host.

use crate::harness::program::Program;
use crate::world::World;

/// The path of `erl` in Linux distributions.
pub(crate) const ERL: &str = "/usr/bin/erl";

#[test]
fn an_erlang_node_is_found_from_another_host_while_it_runs() {
    assert!(std::path::Path::new(ERL).exists(), "{ERL} is missing: install erlang-base (make deps)");
    let world = World::joined(2);
    let home = world[0].file("");
    let mut node = world.site(0).cell.run(move || {
        let mut command = crate::fleet::cell::mortal(ERL);
        command
            .args(["-noinput", "-sname", "real", "-setcookie", "whatever"])
            .env("HOME", home)
            .env_remove("ERL_EPMD_PORT");
        Program::spawn(command)
    });
    world.wait_on(&world.all(), "the Erlang node", |host| {
        world.names(host).iter().any(|(name, host, port)| name == "real" && host == "h1" && *port > 0)
    });
    let said = world.run(1, &["lookup", "real@h1"]).ended_with(0);
    assert!(said.stdout.starts_with("h1:"), "{said:#?}");
    assert!(node.is_running(), "{}", node.stderr());
    node.kill();
    world.wait_for_names(&world.all(), []);
}
