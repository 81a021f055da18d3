//! Who may use tunnels, to reach what, and how many at once.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use crate::harness::netns::{Host, Lan};
use crate::harness::program::Program;
use crate::harness::{pmd, wait_until};
use crate::support::cluster::{api, cluster, configure, firewall, islands, join, node, start};
use crate::support::mapper::listens;
use crate::support::wire::names_at;

const MANY: usize = 200;

/// An echo server on loopback that closes each connection when the other side does.
fn echo(host: &Host, name: &str) {
    let listener = host.netns.enter(|| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port"));
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            std::thread::spawn(move || {
                let mut copy = stream.try_clone().expect("a second descriptor");
                let _ = std::io::copy(&mut stream, &mut copy);
                let _ = copy.shutdown(Shutdown::Write);
            });
        }
    });
    let body = format!("{{\"name\":\"{name}\",\"port\":{port}}}");
    assert_eq!(api(host, "POST", "/v1/services", &body)["port"], port);
}

/// The address at which programs on a host connect to a service elsewhere.
fn entry(host: &Host, name: &str) -> SocketAddr {
    let mut entry = None;
    wait_until(&format!("{name} in sight of {}", host.name), || {
        let found = api(host, "GET", &format!("/v1/lookup?name={name}"), "");
        entry = found["matches"][0]["entry"].as_str().and_then(|entry| entry.parse().ok());
        entry.is_some()
    });
    entry.expect("it was found")
}

fn connect(host: &Host, address: SocketAddr) -> TcpStream {
    let stream = host.netns.enter(|| TcpStream::connect(address)).expect("an entry accepts");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
    stream
}

#[test]
fn many_concurrent_tunnels_half_close_independently() {
    let lan = Lan::new();
    let hosts = islands(&lan, ["alpha", "beta"]);
    let _daemons = cluster(&hosts);
    echo(&hosts[1], "echo");
    let address = entry(&hosts[0], "echo");
    let mut streams: Vec<TcpStream> = (0..MANY).map(|_| connect(&hosts[0], address)).collect();
    for (number, stream) in streams.iter_mut().enumerate() {
        write!(stream, "this is {number}").expect("writing");
    }
    let count = |host: &Host| api(host, "GET", "/v1/status", "")["tunnels"]["open"].as_u64();
    wait_until("all tunnels", || hosts.iter().all(|host| count(host) == u64::try_from(MANY).ok()));
    for (number, stream) in streams.iter_mut().enumerate() {
        // The server closes only after it has seen this side close.
        stream.shutdown(Shutdown::Write).expect("shutting down");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("a response");
        assert_eq!(answer, format!("this is {number}"));
    }
    wait_until("the end of all tunnels", || hosts.iter().all(|host| count(host) == Some(0)));

    // Tunnels and entry disappear with the registration.
    let mut stream = connect(&hosts[0], address);
    stream.write_all(b"x").expect("writing");
    stream.read_exact(&mut [0]).expect("it is open");
    api(&hosts[1], "DELETE", "/v1/services/echo", "");
    assert_eq!(stream.read(&mut [0]).unwrap_or_default(), 0);
    wait_until("the end of the entry", || hosts[0].netns.enter(|| TcpStream::connect(address)).is_err());
}

/// With more dials than descriptors, those that fit work, the others are closed at once, and lookups keep working.
#[test]
fn dials_beyond_the_descriptors_are_refused_without_affecting_others() {
    let lan = Lan::new();
    let hosts = islands(&lan, ["alpha", "beta"]);
    let mut few = hosts[0].command("prlimit");
    few.arg("--nofile=256").arg(pmd()).args(["start", "--foreground"]);
    let daemon = Program::spawn(few);
    wait_until("the daemon with few descriptors", || listens(&hosts[0]));
    let _other = start(&hosts[1]);
    join(&hosts[1], &hosts[0]);
    echo(&hosts[1], "echo");
    let address = entry(&hosts[0], "echo");
    let mut streams: Vec<TcpStream> = (0..300).map(|_| connect(&hosts[0], address)).collect();
    let works =
        |stream: &mut TcpStream| stream.write_all(b"x").and_then(|()| stream.read_exact(&mut [0])).is_ok();
    let names = names_at(&hosts[0], IpAddr::V4(Ipv4Addr::LOCALHOST));
    assert!(names.is_some(), "lookups are answered meanwhile");
    let tunnels = || api(&hosts[0], "GET", "/v1/status", "")["tunnels"].clone();
    let limit = tunnels()["limit"].as_u64();
    let working = streams.iter_mut().filter_map(|stream| works(stream).then_some(1_u64)).sum();
    assert_eq!(limit, Some(working), "those that fit, and no others");
    daemon.wait_for_text("no room for a tunnel to \"echo\"");
    assert!(daemon.stderr().lines().count() < 150, "the log is limited");
    drop(streams);
    wait_until("the end of all tunnels", || tunnels()["open"] == 0);
    let mut again: Vec<TcpStream> = (0..20).map(|_| connect(&hosts[0], address)).collect();
    assert!(again.iter_mut().all(works), "everything works again");
}

#[test]
fn a_forbidden_tunnel_is_reported_with_the_rule() {
    let lan = Lan::new();
    let [alpha, beta] = islands(&lan, ["alpha", "beta"]);
    configure(
        &beta,
        "[[allow]]\nhost = \"web*\"\nname = \"two\"\n\n[[allow]]\nhost = \"alpha\"\nname = \"open*\"\n",
    );
    let daemons = [start(&alpha), start(&beta)];
    join(&alpha, &beta);
    let mut one = node(&alpha, &["-sname", "one"]);
    let _two = node(&beta, &["-sname", "two"]);
    let _open = node(&beta, &["-sname", "open1"]);
    one.wait("net_adm:ping('open1@beta')", "pong");
    assert!(!one.reaches("two@beta"));
    let rule = "host = \"web*\" name = \"two\"";
    daemons[1].program.wait_for_text(rule);
    // The other daemon quotes the one that refused, with its quotation marks as apostrophes.
    let rule = &rule.replace('"', "'");
    daemons[0].program.wait_for_text(rule);
    let refused = api(&alpha, "POST", "/v1/ping", "{\"node\":\"two@beta\"}");
    assert_eq!(refused["error"]["code"], "refused", "{refused:#}");
    assert!(refused["error"]["message"].as_str().is_some_and(|text| text.contains(rule)), "{refused:#}");
}

#[test]
fn unregistered_ports_cannot_be_reached() {
    let lan = Lan::new();
    let hosts = islands(&lan, ["alpha", "beta"]);
    let _daemons = cluster(&hosts);
    echo(&hosts[1], "echo");
    let address = entry(&hosts[0], "echo");
    // A port of the far host that is not registered has no entry on the alias.
    let hidden = hosts[1].netns.enter(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a port"));
    let port = hidden.local_addr().expect("an address").port();
    let refused = hosts[0].netns.enter(|| TcpStream::connect((address.ip(), port)));
    assert!(refused.is_err());
    let absent = api(&hosts[0], "POST", "/v1/ping", "{\"node\":\"echo@beta\"}");
    assert_eq!(absent["error"]["code"], "not_found", "a service is not a node: {absent:#}");
}

#[test]
fn a_host_that_needs_no_tunnels_keeps_its_address() {
    let lan = Lan::new();
    let [alpha, beta] = islands(&lan, ["alpha", "beta"]);
    configure(
        &alpha,
        "alias_range = \"127.99.0.0/24\"\n\n[[tunnel_rule]]\nhost = \"bet?\"\nmode = \"never\"\n",
    );
    let _daemons = [start(&alpha), start(&beta)];
    join(&alpha, &beta);
    echo(&alpha, "here");
    echo(&beta, "there");
    assert_eq!(entry(&alpha, "there").ip(), beta.ip, "left to plain connections");
    assert!(entry(&beta, "here").ip().is_loopback());
    let own = api(&alpha, "GET", "/v1/tunnels", "");
    assert_eq!(own["aliases"].as_array().map(Vec::len), Some(0), "{own:#}");
}

/// `tunnel = "when-needed"`: what can be reached directly is, node by node, and without names that anybody else knows.
#[test]
fn tunnels_are_used_where_they_are_needed_and_only_while_they_are() {
    const OPEN: u16 = 45_001;
    let rules = |open: &str| {
        format!(
            "flush ruleset
             table inet filter {{
                 chain input {{
                     type filter hook input priority 0; policy drop;
                     iif lo accept
                     tcp dport {{ {open} }} accept
                     ct state established,related accept
                     tcp dport 45001 reject with tcp reset
                 }}
             }}"
        )
    };
    let lan = Lan::new();
    let [alpha, beta] = islands(&lan, ["alpha", "beta"]);
    configure(&alpha, "tunnel = \"when-needed\"\n");
    firewall(&beta, &rules("4369, 45001"));
    let _daemons = [start(&alpha), start(&beta)];
    join(&beta, &alpha);
    let port = OPEN.to_string();
    let fixed = ["-kernel", "inet_dist_listen_min", &port, "-kernel", "inet_dist_listen_max", &port];
    let _nodes = [node(&beta, &[&["-sname", "two"][..], &fixed].concat()), node(&beta, &["-sname", "three"])];
    let mut one = node(&alpha, &["-sname", "one"]);
    let dialled = |name: &str| format!("element(3, pmd_epmd:address_please({name}, \"beta\", inet))");
    let open_tunnels = || {
        let tunnels = api(&alpha, "GET", "/v1/tunnels", "");
        tunnels["tunnels"].as_array().map(Vec::len)
    };
    one.wait(&dialled("two"), &port);
    assert_eq!(one.ask(&dialled("three")), "4369", "its port is closed");
    assert!(one.reaches("two@beta"));
    assert_eq!(open_tunnels(), Some(0));
    assert!(one.reaches("three@beta"));
    assert_eq!(open_tunnels(), Some(1));

    firewall(&beta, &rules("4369"));
    assert_eq!(one.ask("erlang:disconnect_node('two@beta')"), "true");
    one.wait(&dialled("two"), "4369");
    assert!(one.reaches("two@beta"));
    assert_eq!(open_tunnels(), Some(2));

    firewall(&beta, &rules("4369, 45001"));
    assert_eq!(one.ask("erlang:disconnect_node('two@beta')"), "true");
    one.wait(&dialled("two"), &port);
    assert!(one.reaches("two@beta"));
    wait_until("the tunnel to be closed", || open_tunnels() == Some(1));
}
