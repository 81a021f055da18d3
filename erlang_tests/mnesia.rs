//! A Mnesia table in the memory of two hosts.

use crate::harness::netns::Lan;
use crate::support::hosts;
use crate::support::mapper::Daemon;
use crate::support::node::{Node, require_application};

#[test]
fn mnesia_replicates_between_hosts() {
    let lan = Lan::new();
    let [alpha, beta] = hosts(&lan, ["alpha", "beta"]);
    require_application(&alpha, "mnesia", "erlang-mnesia");
    let _daemons = [Daemon::start(&alpha), Daemon::start(&beta)];
    let mut one = Node::erl(&alpha, &["-sname", "one"]);
    let mut two = Node::erl(&beta, &["-sname", "two"]);
    assert!(one.reaches("two@beta"));
    // Without a directory the schema stays in memory, and nothing is written to disk.
    for node in [&mut one, &mut two] {
        assert_eq!(node.ask("application:ensure_all_started(mnesia)"), "{ok,[mnesia]}");
    }
    assert_eq!(one.ask("mnesia:change_config(extra_db_nodes, [two@beta])"), "{ok,[two@beta]}");
    let create = "mnesia:create_table(kv, [{ram_copies, [one@alpha, two@beta]}])";
    assert_eq!(one.ask(create), "{atomic,ok}");
    assert_eq!(two.ask("mnesia:wait_for_tables([kv], 20000)"), "ok");

    assert_eq!(one.ask("mnesia:transaction(fun() -> mnesia:write({kv, 1, one}) end)"), "{atomic,ok}");
    assert_eq!(two.ask("mnesia:transaction(fun() -> mnesia:read(kv, 1) end)"), "{atomic,[{kv,1,one}]}");
    assert_eq!(two.ask("mnesia:transaction(fun() -> mnesia:write({kv, 2, two}) end)"), "{atomic,ok}");
    assert_eq!(one.ask("mnesia:dirty_read(kv, 2)"), "[{kv,2,two}]");

    two.kill();
    one.wait("mnesia:system_info(running_db_nodes)", "[one@alpha]");
    assert_eq!(one.ask("mnesia:dirty_read(kv, 2)"), "[{kv,2,two}]");

    let mut again = Node::erl(&beta, &["-sname", "two"]);
    assert_eq!(again.ask("application:ensure_all_started(mnesia)"), "{ok,[mnesia]}");
    one.wait("net_adm:ping(two@beta)", "pong");
    assert_eq!(again.ask("mnesia:change_config(extra_db_nodes, [one@alpha])"), "{ok,[one@alpha]}");
    assert_eq!(again.ask("mnesia:wait_for_tables([kv], 20000)"), "ok");
    assert_eq!(again.ask("lists:sort(mnesia:dirty_all_keys(kv))"), "[1,2]");
}
