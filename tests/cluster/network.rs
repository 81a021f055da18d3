//! Tests of the test network: hosts reach each other unless they are cut off.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use crate::fleet::Fleet;
use crate::harness::wait_until;

/// The last of a hundred hosts, to exercise all tables.
const LAST: usize = 99;

/// Whether a connection to the last host succeeds.
fn reaches(fleet: &Fleet, from: usize) -> bool {
    let site = &fleet.sites()[LAST];
    let addresses: [SocketAddr; 2] = [(site.ip, 4369).into(), (site.ip6, 4369).into()];
    fleet.sites()[from].cell.run(move || {
        let dial = |address| TcpStream::connect_timeout(&address, Duration::from_millis(300));
        addresses.map(|address| dial(address).is_ok()) == [true, true]
    })
}

#[test]
fn cables_can_be_cut_and_mended() {
    let fleet = Fleet::new(LAST + 1);
    let names = fleet.sites()[LAST].cell.run(|| {
        let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
        (name, std::fs::read_to_string("/etc/hosts").expect("the hosts"))
    });
    assert_eq!(names.0, "h100");
    assert!(names.1.contains("10.77.0.1 h1\n") && names.1.contains("fd77::64 h100\n"), "{}", names.1);
    let _listener = fleet.sites()[LAST].cell.run(|| TcpListener::bind("[::]:4369").expect("a free port"));
    assert!(reaches(&fleet, 0) && reaches(&fleet, 1));

    fleet.cut(&[0], &[LAST]);
    assert!(!reaches(&fleet, 0) && reaches(&fleet, 1));
    fleet.heal();
    assert!(reaches(&fleet, 0));
    // A connection also needs the opposite direction.
    fleet.cut_one_way(&[LAST], &[0]);
    assert!(!reaches(&fleet, 0) && reaches(&fleet, 1));
    fleet.heal();

    fleet.plug(LAST, false);
    assert!(!reaches(&fleet, 0) && !reaches(&fleet, 1));
    fleet.plug(LAST, true);
    wait_until("the carrier", || reaches(&fleet, 0) && reaches(&fleet, 1));

    let before = fleet.traffic()[LAST];
    fleet.slow_down(LAST, 256);
    assert!(reaches(&fleet, 0));
    // The last packets may still be queued on the slow link.
    wait_until("it is counted", || {
        let moved = fleet.traffic()[LAST].since(&before);
        moved.sent_packets >= 4 && moved.received_bytes > 200
    });
}
