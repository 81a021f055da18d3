//! Three honest daemons under attack by a member, and what has to hold all along.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pmd::config::types::IdentitySource;

use super::attacker::Attacker;
use crate::fleet::cell::Working;
use crate::machine::{PORT, Registered};
use crate::security::authority::{authority, identity};
use crate::security::intruder::Card;
use crate::security::liar::{certified, own_key};
use crate::world::World;

/// The hosts with an honest daemon each.
pub(super) const HONEST: [usize; 3] = [0, 1, 2];
/// The host of the liar, which has no daemon.
pub(super) const LIAR: usize = 3;
/// The name that it proves.
pub(super) const LIAR_NAME: &str = "liar";
/// The host of an honest daemon that joins during the attack.
const LATE: usize = 4;
/// A host from which lookups are made.
const PROBER: usize = 5;
/// How much resident memory an attack may cost, in KiB.
const MAX_GROWTH: usize = 16 * 1024;
/// The pause between rounds of lookups.
const PAUSE: Duration = Duration::from_millis(10);

/// The cluster.
pub(super) struct Stage {
    pub(super) world: World,
    /// The liar's key, or its certificate.
    pub(super) source: IdentitySource,
    nodes: Vec<Registered>,
}

/// Whether daemons need a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admits {
    /// The cluster secret is enough.
    Keys,
    /// A certificate of the authority is needed as well.
    Certificates,
}

/// How an attack has to end.
#[derive(Clone, Copy, Debug)]
pub(super) enum Outcome {
    /// The links are closed, and operators are told that the liar has broken this rule.
    Violation(&'static str),
    /// Operators are told this about it.
    Warned(&'static str),
    /// It is refused, and operators are told this about it.
    Refused(&'static str),
    /// It has no effect.
    Bounded,
}

impl Stage {
    /// Starts the cluster; all honest daemons have these lines in their configuration.
    pub(super) fn set(admits: Admits, lines: &str) -> Stage {
        let mut world = World::new(6);
        let folder = world.shared("ca");
        let source = match admits {
            Admits::Keys => {
                std::fs::create_dir_all(&folder).expect("a folder");
                own_key(&folder)
            }
            Admits::Certificates => {
                let folder = authority(&world, "ca", &["h1", "h2", "h3", "h5", LIAR_NAME]);
                certified(&folder, LIAR_NAME)
            }
        };
        for host in HONEST.into_iter().chain([LATE]) {
            let name = world[host].name.clone();
            let own = if admits == Admits::Certificates { identity(&folder, &name) } else { String::new() };
            world[host].configure(&(own + lines));
            world.start(host);
        }
        world.join_first(1..HONEST.len());
        world.wait_until_agreed(&HONEST);
        let node = |host: usize| world.register(host, &format!("node{}", host + 1), 41_000);
        let nodes: Vec<_> = HONEST.into_iter().map(node).collect();
        world.wait_for_names(&HONEST, &nodes);
        Stage { world, source, nodes }
    }

    /// The liar's certificate, for connections without a core.
    pub(super) fn card(&self) -> Card {
        match &self.source {
            IdentitySource::Authority { certificate, .. } => {
                Card::issued(certificate.parent().expect("a folder"), LIAR_NAME)
            }
            IdentitySource::Auto { .. } => Card::fresh(),
        }
    }

    /// Lets the liar attack, round after round until `round` says that it has done everything, and checks what has to hold.
    pub(super) fn endure(
        &self,
        attacker: &mut Attacker,
        outcome: Outcome,
        mut round: impl FnMut(&World, &mut Attacker) -> bool + Send,
    ) {
        let world = &self.world;
        let over = AtomicBool::new(false);
        let watched = Watched::begin(self);
        let [first, ..] = HONEST;
        std::thread::scope(|scope| {
            let attack = scope.spawn(|| {
                loop {
                    let is_done = round(world, attacker);
                    if is_done && over.load(Ordering::Relaxed) {
                        return;
                    }
                }
            });
            let joined = world.run(LATE, &["join", &world[first].ip.to_string()]);
            let late = world[LATE].name.clone();
            // Whatever happens here, the attack must end.
            let seen = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                joined.ended_with(0);
                world.wait_on(&HONEST, "the honest newcomer to be a member", |host| {
                    world.members(host).contains(&late)
                });
            }));
            over.store(true, Ordering::Relaxed);
            let attacked = attack.join();
            seen.and(attacked).unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        });
        self.check_shown(attacker, outcome);
        // The honest keep each other and their names.
        let names = ["h1", "h2", "h3", "h5"];
        world.wait_on(&[0, 1, 2, LATE], "the honest members", |host| {
            let members = world.members(host);
            names.iter().all(|name| members.iter().any(|member| member == name))
        });
        watched.end();
        assert!(self.nodes.iter().all(Registered::is_open));
    }

    fn check_shown(&self, attacker: &Attacker, outcome: Outcome) {
        let world = &self.world;
        let (logged, shown) = match outcome {
            Outcome::Bounded => return,
            Outcome::Violation(rule) => ("protocol violation", format!("breaks the protocol: {rule}")),
            Outcome::Warned(text) | Outcome::Refused(text) => ("", text.to_owned()),
        };
        let id = attacker.id();
        world.wait_on(&HONEST, "a line of the log that names the liar", |host| {
            world[host].log().lines().any(|line| {
                line.contains(logged) && line.contains(&format!("{id:.8}")) && line.contains(LIAR_NAME)
            })
        });
        let about = format!("member {LIAR_NAME} ({id:.8})");
        if matches!(outcome, Outcome::Refused(_)) {
            return world.wait_on(&HONEST, "a refusal that names the liar", |host| {
                let told = world.block_on(world[host].api().refusals()).expect("a daemon").refusals;
                told.iter().any(|refusal| refusal.what.contains(&about) && refusal.what.contains(&shown))
            });
        }
        world.wait_on(&HONEST, "a warning that names the liar", |host| {
            let status = world.block_on(world[host].api().status()).expect("a daemon");
            let remedy = format!("pmd expel {id}");
            status.warnings.iter().any(|warning| {
                warning.contains(&about) && warning.contains(&shown) && warning.contains(&remedy)
            })
        });
    }
}

/// What is watched during an attack: lookups of honest names on all honest hosts, and their memory.
struct Watched {
    over: Arc<AtomicBool>,
    working: Option<Working<Report>>,
}

#[derive(Debug, Default)]
struct Report {
    rounds: usize,
    failures: Vec<String>,
    /// Resident memory before the attack and at its peak, in KiB.
    before: Vec<usize>,
    peak: Vec<usize>,
}

impl Watched {
    fn begin(stage: &Stage) -> Watched {
        let world = &stage.world;
        let over = Arc::new(AtomicBool::new(false));
        let hosts: Vec<_> =
            HONEST.iter().map(|host| (world[*host].pid(), world[*host].ip, world[*host].api())).collect();
        let names: Vec<_> =
            stage.nodes.iter().map(|node| (node.name.clone(), node.host.clone(), node.port)).collect();
        let end = Arc::clone(&over);
        let working = world.site(PROBER).cell.begin(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            let memory = || hosts.iter().map(|(pid, ..)| resident(*pid)).collect::<Vec<_>>();
            let mut report = Report { before: memory(), peak: memory(), ..Report::default() };
            while !end.load(Ordering::Relaxed) {
                report.rounds += 1;
                for ((_, ip, api), (own, ..)) in hosts.iter().zip(&names) {
                    if !found(*ip, own) {
                        report.failures.push(format!("{own} at {ip}"));
                    }
                    for (name, host, port) in &names {
                        let full = format!("{name}@{host}");
                        let matches = runtime.block_on(api.lookup(&full)).map(|found| found.matches);
                        let is_found = matches
                            .as_ref()
                            .is_ok_and(|all| all.iter().any(|one| one.host == *host && one.port == *port));
                        if !is_found {
                            report.failures.push(format!("{full} on {ip}: {matches:?}"));
                        }
                    }
                }
                for (peak, now) in report.peak.iter_mut().zip(memory()) {
                    *peak = now.max(*peak);
                }
                std::thread::sleep(PAUSE);
            }
            report
        });
        Watched { over, working: Some(working) }
    }

    fn end(mut self) {
        self.over.store(true, Ordering::Relaxed);
        let Some(working) = self.working.take() else { return };
        let report = working.end();
        let growth: Vec<_> = report
            .peak
            .iter()
            .zip(&report.before)
            .map(|(peak, before)| peak.saturating_sub(*before))
            .collect();
        println!("{} rounds of lookups; resident memory grew by {growth:?} KiB", report.rounds);
        assert_eq!(report.failures, [] as [String; 0], "lookups of honest names");
        assert!(report.rounds > 0, "{report:?}");
        assert!(growth.iter().all(|growth| *growth < MAX_GROWTH), "{report:?}");
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

/// The resident memory of a process, in KiB.
fn resident(pid: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a running process");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Whether a lookup over EPMD finds a node.
fn found(ip: Ipv4Addr, name: &str) -> bool {
    let mut request = u16::try_from(name.len() + 1).expect("a short name").to_be_bytes().to_vec();
    request.push(122);
    request.extend(name.as_bytes());
    let mut answer = Vec::new();
    let asked = TcpStream::connect((ip, PORT)).and_then(|mut stream| {
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(&request)?;
        stream.read_to_end(&mut answer)
    });
    asked.is_ok() && answer.starts_with(&[119, 0])
}
