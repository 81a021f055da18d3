use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::*;

const COOKIE: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const OTHER_COOKIE: &str = "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210";

/// How long a test waits before it fails.
const DEADLINE: Duration = Duration::from_secs(60);

fn id(number: u8) -> NodeId {
    NodeId::new([number; 32])
}

/// The daemon `number` listens on TCP port 4000 + `number`.
fn settings(cluster: &str, number: u8, cookie: &str, beacon_port: u16) -> BeaconSettings {
    let cookies = watch::Sender::new(Arc::new(Cookies::of_text(cookie))).subscribe();
    BeaconSettings {
        cluster: cluster.into(),
        id: id(number),
        port: 4000 + u16::from(number),
        bind: Vec::new(),
        beacon_port,
        cookies,
    }
}

fn ours(address: &str, number: u8) -> Find {
    Find { cluster: Some("prod".into()), id: Some(id(number)), ..Find::at(address) }
}

/// Returns an unused UDP port.
fn free_port() -> u16 {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").expect("a socket");
    socket.local_addr().expect("its address").port()
}

/// The loopback network, the only one that exists on every host.
fn loopback(_: &[IpAddr]) -> io::Result<Vec<Network>> {
    Ok(vec![Network::V4 { from: Ipv4Addr::LOCALHOST, to: Ipv4Addr::new(127, 255, 255, 255) }])
}

/// Waits for the next find.
async fn next(receiver: &mut mpsc::Receiver<(&'static str, Find)>) -> Find {
    let found = tokio::time::timeout(DEADLINE, receiver.recv()).await;
    let (source, find) = found.expect("something is heard").expect("the plugin runs");
    assert_eq!(source, NAME);
    find
}

/// Runs a daemon's plugin and returns the receiver of its finds.
fn run(tasks: &mut JoinSet<()>, broadcast: Broadcast) -> mpsc::Receiver<(&'static str, Find)> {
    let (sender, receiver) = mpsc::channel(super::super::FINDS);
    tasks.spawn(async move {
        let error = broadcast.run(&Finds::new(NAME, sender)).await;
        panic!("the plugin failed: {error:?}");
    });
    receiver
}

#[tokio::test]
async fn daemons_of_one_host_hear_each_other_and_recognize_their_cluster() {
    let port = free_port();
    let mut tasks = JoinSet::new();
    let daemons = [
        settings("prod", 1, COOKIE, port),
        settings("prod", 2, COOKIE, port),
        settings("prod", 3, OTHER_COOKIE, port),
        settings("test", 4, COOKIE, port),
    ];
    let mut receivers = daemons.map(|settings| run(&mut tasks, Broadcast { settings, networks: loopback }));
    let of_prod = |number| ours(&format!("127.0.0.1:400{number}"), number);
    let foreign = |number| Find { id: None, ..of_prod(number) };
    let other_cookie = |number| Find { other_cookie: true, ..foreign(number) };
    let other_cluster = |number| Find { cluster: Some("test".into()), ..foreign(number) };
    for (receiver, mut expected) in receivers.iter_mut().zip([
        vec![of_prod(2), other_cookie(3), other_cluster(4)],
        vec![of_prod(1), other_cookie(3), other_cluster(4)],
        vec![other_cookie(1), other_cookie(2), other_cluster(4)],
        vec![foreign(1), foreign(2), foreign(3)],
    ]) {
        let all = expected.clone();
        while !expected.is_empty() {
            let find = next(receiver).await;
            assert!(all.contains(&find), "{find:?}");
            expected.retain(|other| *other != find);
        }
    }
}

#[tokio::test]
async fn invalid_datagrams_are_ignored() {
    let port = free_port();
    let mut tasks = JoinSet::new();
    let silent = Broadcast { settings: settings("prod", 1, COOKIE, port), networks: |_| Ok(Vec::new()) };
    let mut receiver = run(&mut tasks, silent);
    let sender = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
    let good = settings("prod", 2, COOKIE, port).datagram().expect("a beacon");
    let long = [good.as_slice(), &[0; 2000]].concat();
    // Datagrams sent before the plugin listens are lost, so everything is sent repeatedly.
    let mut again = tokio::time::interval(Duration::from_millis(5));
    let find = loop {
        tokio::select! {
            find = next(&mut receiver) => break find,
            _ = again.tick() => {
                for datagram in [b"".as_slice(), b"pmdb", &good[..60], &long, &[0xff; 512], &good] {
                    // The port may not be open yet.
                    let _ = sender.send_to(datagram, ("127.0.0.1", port)).await;
                }
            }
        }
    };
    assert_eq!(find, ours("127.0.0.1:4002", 2));
}

#[tokio::test]
async fn a_port_in_use_is_an_error_with_a_remedy() {
    let other = std::net::UdpSocket::bind("0.0.0.0:0").expect("a socket");
    let port = other.local_addr().expect("its address").port();
    let broadcast = Broadcast::new(settings("prod", 1, COOKIE, port));
    let (sender, _receiver) = mpsc::channel(1);
    let error = broadcast.run(&Finds::new(NAME, sender)).await.expect_err("the port is in use").to_string();
    assert!(error.starts_with(&format!("cannot listen for beacons on UDP port {port}: ")), "{error}");
    assert!(error.ends_with("; choose another port with broadcast:PORT"), "{error}");
}

#[test]
fn a_beacon_is_verified_with_the_current_cookies() {
    let from = "10.0.0.9:50000".parse().expect("an address");
    let (sender, cookies) = watch::channel(Arc::new(Cookies::of_text(COOKIE)));
    let own = BeaconSettings { cookies, ..settings("prod", 1, COOKIE, 1) };
    let datagram = settings("prod", 2, COOKIE, 1).datagram().expect("a beacon");
    assert_eq!(own.classify(&datagram, from), BeaconKind::Ours(id(2), ours("10.0.0.9:4002", 2)));

    sender.send_replace(Arc::new(Cookies::of_text(OTHER_COOKIE)));
    let foreign = Find { other_cookie: true, id: None, ..ours("10.0.0.9:4002", 2) };
    assert_eq!(own.classify(&datagram, from), BeaconKind::Foreign(foreign));
    assert_ne!(own.datagram().expect("a beacon"), own.datagram().expect("another"));
}

#[test]
fn both_cookies_are_accepted_during_a_rotation() {
    const NEW: &str = OTHER_COOKIE;
    let from = "10.0.0.9:50000".parse().expect("an address");
    let both = settings("prod", 1, &format!("{NEW}\n{COOKIE}\n"), 1);
    for cookie in [COOKIE, NEW] {
        let datagram = settings("prod", 2, cookie, 1).datagram().expect("a beacon");
        assert_eq!(
            both.classify(&datagram, from),
            BeaconKind::Ours(id(2), ours("10.0.0.9:4002", 2)),
            "{cookie}"
        );
    }
    // Its own beacons use the first secret, which daemons that have finished the rotation know.
    let datagram = both.datagram().expect("a beacon");
    let theirs = |cookie| settings("prod", 2, cookie, 1).classify(&datagram, from);
    assert!(matches!(theirs(NEW), BeaconKind::Ours(..)));
    assert!(matches!(theirs(COOKIE), BeaconKind::Foreign(Find { other_cookie: true, .. })));
}

#[test]
fn own_beacons_are_ignored_and_link_local_addresses_keep_their_scope() {
    let own = settings("prod", 1, COOKIE, 1);
    let from = "[fe80::1%7]:50000".parse().expect("an address");
    assert_eq!(own.classify(&own.datagram().expect("a beacon"), from), BeaconKind::Ignored);
    // A beacon with its id is ignored even if another daemon sent it.
    let forged = settings("test", 1, OTHER_COOKIE, 1).datagram().expect("a beacon");
    assert_eq!(own.classify(&forged, from), BeaconKind::Ignored);
    let other = settings("prod", 2, COOKIE, 1).datagram().expect("a beacon");
    assert_eq!(own.classify(&other, from), BeaconKind::Ours(id(2), ours("[fe80::1%7]:4002", 2)));
}

#[tokio::test]
async fn a_failing_network_does_not_affect_the_others() {
    fn one_of_two(bind: &[IpAddr]) -> io::Result<Vec<Network>> {
        let nowhere = Network::V4 { from: Ipv4Addr::new(192, 0, 2, 77), to: Ipv4Addr::BROADCAST };
        Ok([vec![nowhere, Network::V6 { from: Ipv6Addr::UNSPECIFIED, interface: 99_999 }], loopback(bind)?]
            .concat())
    }
    let port = free_port();
    let mut tasks = JoinSet::new();
    let mut daemons = [1, 2].map(|number| {
        let settings = settings("prod", number, COOKIE, port);
        run(&mut tasks, Broadcast { settings, networks: one_of_two })
    });
    assert_eq!(next(&mut daemons[0]).await, ours("127.0.0.1:4002", 2));
    assert_eq!(next(&mut daemons[1]).await, ours("127.0.0.1:4001", 1));
}

/// A network namespace, removed when this is dropped.
struct Host(String);

impl Host {
    fn new() -> Host {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("pmdb-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        ip(&format!("netns add {name}"));
        Host(name)
    }

    /// Sets up one end of a veth pair as the interface `lan`, with addresses that end in `number`.
    fn plug_in(&self, number: u8, broadcast: &str) {
        let name = &self.0;
        // A link-local address generated by the kernel would not be usable immediately.
        ip(&format!("-n {name} link set lan addrgenmode none"));
        ip(&format!("-n {name} link set lan up"));
        ip(&format!("-n {name} addr add 10.77.0.{number}/24{broadcast} dev lan"));
        ip(&format!("-n {name} addr add fe80::{number}/64 dev lan nodad"));
    }

    /// Runs `work` inside the namespace.
    fn enter<T: Send>(&self, work: impl Future<Output = T> + Send) -> T {
        let namespace = File::open(Path::new("/run/netns").join(&self.0)).expect("it is there");
        let inside = || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).expect("root");
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(work)
        };
        std::thread::scope(|scope| scope.spawn(inside).join().expect("it ends"))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status();
    assert!(status.expect("there is a program ip").success(), "ip {arguments} (which needs root)");
}

/// Two connected hosts find each other by IPv4 and by IPv6, at addresses that can be dialled.
fn find_each_other(broadcast: &str) {
    let (one, two) = (Host::new(), Host::new());
    ip(&format!("-n {} link add lan type veth peer name lan netns {}", one.0, two.0));
    one.plug_in(1, broadcast);
    two.plug_in(2, broadcast);
    let serve = |number: u8| async move {
        let mut tasks = JoinSet::new();
        let port = 4000 + u16::from(number);
        let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await.expect("a listener");
        tasks.spawn(async move {
            loop {
                drop(listener.accept().await);
            }
        });
        let mut receiver = run(&mut tasks, Broadcast::new(settings("prod", number, COOKIE, 4369)));
        let other = 3 - number;
        let mut expected = vec![format!("10.77.0.{other}:400{other}"), format!("[fe80::{other}%")];
        let find_all = async {
            while !expected.is_empty() {
                let find = next(&mut receiver).await;
                assert_eq!(find, ours(&find.address, other));
                TcpStream::connect(&find.address).await.expect("it can be dialled");
                expected.retain(|start| !find.address.starts_with(start.as_str()));
            }
        };
        tokio::time::timeout(DEADLINE, find_all).await.expect("it is found over IPv4 and IPv6");
        // Kept running, because the other daemon may still need its beacons.
        (tasks, receiver)
    };
    let ((one_done, mut one_is), (two_done, mut two_is)) = (mpsc::channel(1), mpsc::channel(1));
    let run_one = |host: &Host, number, done: mpsc::Sender<()>| {
        host.enter(async move {
            let _running = serve(number).await;
            done.send(()).await.expect("the receiver waits");
            done.closed().await;
        });
    };
    std::thread::scope(|scope| {
        let (one, two) = (&one, &two);
        scope.spawn(move || run_one(one, 1, one_done));
        scope.spawn(move || run_one(two, 2, two_done));
        let found = (one_is.blocking_recv(), two_is.blocking_recv());
        // Lets both end, even if one of them has failed.
        drop((one_is, two_is));
        assert_eq!(found, (Some(()), Some(())));
    });
}

#[test]
fn hosts_find_each_other_by_broadcast_to_their_network_and_by_multicast() {
    find_each_other(" brd +");
}

#[test]
fn hosts_find_each_other_by_limited_broadcast_and_by_multicast() {
    find_each_other("");
}

/// A host with two networks listens on the address of one and ignores beacons from the other.
#[test]
fn beacons_are_accepted_only_on_networks_with_a_listening_address() {
    const PORT: u16 = 4369;
    let (one, two) = (Host::new(), Host::new());
    for (cable, network) in [("lan", 77), ("wan", 88)] {
        ip(&format!("-n {} link add {cable} type veth peer name {cable} netns {}", one.0, two.0));
        for (number, host) in [(1, &one), (2, &two)] {
            let name = &host.0;
            ip(&format!("-n {name} link set {cable} up"));
            ip(&format!("-n {name} addr add 10.{network}.0.{number}/24 brd + dev {cable}"));
        }
    }
    let beacon = |number| settings("prod", number, COOKIE, PORT).datagram().expect("a beacon");
    let socket = |host: &Host, address: &str| {
        let address: Ipv4Addr = address.parse().expect("an address");
        host.enter(async move {
            let socket = std::net::UdpSocket::bind((address, 0)).expect("a socket");
            socket.set_broadcast(true).expect("an option");
            socket
        })
    };
    // The beacon on the other network is sent first.
    let senders = [
        (socket(&two, "10.88.0.2"), "10.88.0.255", beacon(2)),
        (socket(&two, "10.77.0.2"), "10.77.0.255", beacon(3)),
        // From another daemon on the same host.
        (socket(&one, "10.77.0.1"), "10.77.0.255", beacon(4)),
    ];
    let of_cable =
        |network: u8, host: u8, number| ours(&format!("10.{network}.0.{host}:400{number}"), number);
    let all = [of_cable(88, 2, 2), of_cable(77, 2, 3), of_cable(77, 1, 4)];
    let hear = |bind: &[&str], expected: &[Find]| {
        let bind = bind.iter().map(|text| text.parse().expect("an address")).collect();
        let settings = BeaconSettings { bind, ..settings("prod", 1, COOKIE, PORT) };
        let senders = &senders;
        let mut counts = vec![0; expected.len()];
        one.enter(async move {
            let mut tasks = JoinSet::new();
            let mut receiver = run(&mut tasks, Broadcast { settings, networks: |_| Ok(Vec::new()) });
            let mut again = tokio::time::interval(Duration::from_millis(5));
            while counts.iter().any(|count| *count < 5) {
                tokio::select! {
                    find = next(&mut receiver) => {
                        let index = expected.iter().position(|expected| *expected == find);
                        counts[index.unwrap_or_else(|| panic!("heard {find:?}"))] += 1;
                    }
                    _ = again.tick() => {
                        for (socket, to, datagram) in senders {
                            socket.send_to(datagram, (*to, PORT)).expect("sent");
                        }
                    }
                }
            }
        });
    };
    hear(&["127.0.0.1", "10.77.0.1"], &all[1..]);
    hear(&["127.0.0.1", "10.88.0.1"], &all[..1]);
    hear(&[], &all);
}
