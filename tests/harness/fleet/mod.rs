//! Many hosts on one network, started within seconds, between which traffic can be cut in either direction.
//!
//! The switch is a [`Cell`] that holds a bridge; every [`Site`] is a cell connected to it. Addresses are 10.77.0.0/16
//! and fd77::/64. Nothing is changed in the test's own namespaces.

pub mod cell;

use std::fmt::Write;
use std::io::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;

use cell::Cell;
use tempfile::NamedTempFile;

/// Sites per value of the third address byte.
const BLOCK: usize = 250;
/// The switch drops traffic from one port to another if the pair is in the set `cut`.
const SWITCH_RULES: &str = "table bridge pmd {
    set cut { type ifname . ifname; }
    chain forward {
        type filter hook forward priority 0; policy accept;
        iifname . oifname @cut drop
    }
}
";

/// A switch and the hosts on it.
#[derive(Debug)]
pub struct Fleet {
    // Dropped in this order: the sites' programs first.
    sites: Vec<Site>,
    switch: Cell,
    _table: NamedTempFile,
}

/// A host.
#[derive(Debug)]
pub struct Site {
    /// What `hostname` prints there.
    pub name: String,
    /// Its IPv4 address.
    pub ip: Ipv4Addr,
    /// Its IPv6 address.
    pub ip6: Ipv6Addr,
    /// The cell in which its programs run.
    pub cell: Cell,
    /// Its port on the switch.
    port: String,
}

/// Traffic of a host as counted by its port on the switch, in whole Ethernet frames.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes sent.
    pub sent_bytes: u64,
    /// Packets sent.
    pub sent_packets: u64,
    /// Bytes received.
    pub received_bytes: u64,
    /// Packets received.
    pub received_packets: u64,
}

impl Fleet {
    /// Creates `count` hosts, `h1` and so on, each of which resolves all names.
    pub fn new(count: usize) -> Fleet {
        let switch = Cell::new("switch");
        // Switch ports send no packets of their own.
        switch.sysctl("net.ipv6.conf.default.disable_ipv6", "1");
        switch.ip("link add br0 type bridge mcast_snooping 0\nlink set br0 up\n");
        switch.nft(SWITCH_RULES);
        let sites: Vec<Site> = std::thread::scope(|scope| {
            let places: Vec<_> = (0..count).map(|place| scope.spawn(move || Site::new(place))).collect();
            places.into_iter().map(|site| site.join().expect("a host")).collect()
        });
        let mut cables = String::new();
        for (place, site) in sites.iter().enumerate() {
            let (port, mac, there) = (&site.port, mac(place), site.cell.network());
            let there = there.display();
            // Writing to a string cannot fail.
            let _ = writeln!(cables, "link add {port} type veth peer name eth0 address {mac} netns {there}");
            let _ = writeln!(cables, "link set {port} master br0 up");
        }
        switch.ip(&cables);
        let table = host_table(&sites);
        let begun: Vec<_> =
            sites.iter().map(|site| site.cell.begin_ip(configuration(site, &sites))).collect();
        begun.into_iter().for_each(cell::Working::end);
        sites.iter().for_each(|site| site.cell.cover("/etc/hosts", table.path()));
        Fleet { sites, switch, _table: table }
    }

    /// The hosts.
    pub fn sites(&self) -> &[Site] {
        &self.sites
    }

    /// Silently drops traffic from any of `from` to any of `to`; the other direction is not affected.
    pub fn cut_one_way(&self, from: &[usize], to: &[usize]) {
        let ports = |places: &[usize]| -> Vec<&str> {
            places.iter().map(|place| self.sites[*place].port.as_str()).collect()
        };
        let (from, to) = (ports(from), ports(to));
        let pairs: Vec<String> = from
            .iter()
            .flat_map(|from| to.iter().map(move |to| (from, to)))
            .filter(|(from, to)| from != to)
            .map(|(from, to)| format!("\"{from}\" . \"{to}\""))
            .collect();
        self.switch.nft(&format!("add element bridge pmd cut {{ {} }}\n", pairs.join(", ")));
    }

    /// Drops all traffic between the two groups.
    pub fn cut(&self, some: &[usize], others: &[usize]) {
        self.cut_one_way(some, others);
        self.cut_one_way(others, some);
    }

    /// Removes all cuts.
    pub fn heal(&self) {
        self.switch.nft("flush set bridge pmd cut\n");
    }

    /// Takes a host's link down or up, like unplugging its cable.
    pub fn plug(&self, place: usize, plugged: bool) {
        let state = if plugged { "up" } else { "down" };
        self.switch.ip(&format!("link set {} {state}\n", self.sites[place].port));
    }

    /// Limits traffic to a host to this many kilobits per second.
    pub fn slow_down(&self, place: usize, kbit: u32) {
        let port = self.sites[place].port.clone();
        self.switch.run(move || {
            let limit = format!("{kbit}kbit");
            let args = ["qdisc", "replace", "dev", &port, "root", "tbf", "rate", &limit];
            let mut tc = std::process::Command::new("tc");
            let status = tc.args(args).args(["burst", "4k", "latency", "2s"]).status();
            assert!(status.expect("the tests need `tc`").success(), "tc {args:?}");
        });
    }

    /// The traffic of every host so far.
    pub fn traffic(&self) -> Vec<Traffic> {
        let text =
            self.switch.run(|| std::fs::read_to_string("/proc/thread-self/net/dev").expect("counters"));
        let line = |site: &Site| {
            let own = |line: &&str| line.trim_start().starts_with(&format!("{}:", site.port));
            Traffic::parse(text.lines().find(own).expect("a port on the switch"))
        };
        self.sites.iter().map(line).collect()
    }
}

impl Site {
    fn new(place: usize) -> Site {
        let name = format!("h{}", place + 1);
        let number = u16::try_from(place + 1).expect("a few hundred hosts");
        let block = |n: usize| u8::try_from(n).expect("a few hundred hosts");
        let ip = Ipv4Addr::new(10, 77, block(place / BLOCK), block(place % BLOCK + 1));
        let ip6 = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, number);
        let cell = Cell::new(&name);
        Site { port: format!("v{number}"), name, ip, ip6, cell }
    }
}

impl Traffic {
    /// Parses a line of `/proc/net/dev`; what the switch has received, the host has sent.
    fn parse(line: &str) -> Traffic {
        let (_, numbers) = line.split_once(':').expect("NAME: NUMBERS");
        let numbers: Vec<u64> = numbers.split_whitespace().filter_map(|number| number.parse().ok()).collect();
        Traffic {
            sent_bytes: numbers[0],
            sent_packets: numbers[1],
            received_bytes: numbers[8],
            received_packets: numbers[9],
        }
    }

    /// The traffic since `earlier`.
    pub fn since(&self, earlier: &Traffic) -> Traffic {
        Traffic {
            sent_bytes: self.sent_bytes - earlier.sent_bytes,
            sent_packets: self.sent_packets - earlier.sent_packets,
            received_bytes: self.received_bytes - earlier.received_bytes,
            received_packets: self.received_packets - earlier.received_packets,
        }
    }
}

fn mac(place: usize) -> String {
    format!("02:77:00:00:{:02x}:{:02x}", place / 256, place % 256)
}

/// The `ip` commands that connect a site to the network.
///
/// Neighbour entries are permanent: the kernel's table has room for 1,024 learned entries in all namespaces together,
/// and a hundred hosts that talk to each other need ten thousand.
fn configuration(site: &Site, all: &[Site]) -> String {
    let mut commands = format!(
        "addr add {}/16 dev eth0\naddr add {}/64 dev eth0 nodad\nlink set eth0 up\n",
        site.ip, site.ip6
    );
    for (place, other) in all.iter().enumerate().filter(|(_, other)| other.name != site.name) {
        let mac = mac(place);
        for ip in [other.ip.to_string(), other.ip6.to_string()] {
            let _ = writeln!(commands, "neigh add {ip} lladdr {mac} nud permanent dev eth0");
        }
    }
    commands
}

/// The `/etc/hosts` of all sites.
fn host_table(sites: &[Site]) -> NamedTempFile {
    let mut file = NamedTempFile::new().expect("a file");
    writeln!(file, "127.0.0.1 localhost\n::1 localhost ip6-localhost").expect("writing");
    for Site { name, ip, ip6, .. } in sites {
        writeln!(file, "{ip} {name}\n{ip6} {name}").expect("writing");
    }
    // The real file is readable by all users.
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o644)).expect("permissions");
    file
}

/// Whether a program is installed: in one of the folders of `PATH`.
pub fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| Path::new(&folder).join(program).is_file())
}
