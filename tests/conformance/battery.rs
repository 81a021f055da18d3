//! Test cases, and the runner that plays them against stock epmd and pmd and compares the results.
//!
//! A case drives one server and takes notes, line by line. The notes for stock epmd must equal what the case expects,
//! which validates the case. The notes for pmd must equal them too, unless the case names the [`Divergence`] by which
//! pmd deliberately does better, and states what pmd does instead. Where newer releases of stock epmd have lost a defect,
//! the case has the notes for those, too; `CONFORMANCE_REPORT=FILE` adds to a file which of them the stock epmd of this
//! run is.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use crate::harness::netns::NetNs;
use crate::implementation::Implementation;
use crate::stage::Stage;

/// The non-loopback addresses of every host of the battery.
const ADDRESSES: [&str; 4] = ["10.9.9.1/32", "10.9.9.2/32", "fd00:9::1/128", "fd00:9::2/128"];

/// Lines of a server's log shown with a difference.
const LOG_LINES: usize = 12;

/// A defect of stock epmd that pmd does not copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Divergence {
    /// Stock exits, losing all registrations, when it runs out of descriptors.
    DescriptorsUsedUp,
    /// Stock lets one byte per second hold a connection forever.
    SlowDrip,
    /// Stock cannot hold more than 1019 connections.
    DescriptorCeiling,
    /// In stock, a refusal that cannot be delivered unregisters the legitimate holder.
    UndeliveredRefusal,
    /// Stock listens on ephemeral ports when the configured port is not a number.
    GarbagePort,
    /// Stock mistakes a wildcard or a repeated address in the list for another running epmd.
    RepeatedAddress,
    /// Stock refuses a restarted node whose old connection has ended but has not been checked yet.
    Reregistration,
    /// Stock keeps the name of a holder that is frozen permanently.
    StoppedHolder,
    /// One client that stops reading stalls stock.
    BlockingWrite,
    /// Stock does not say why it did not start when the address is in use.
    InUseReason,
}

impl Divergence {
    pub(crate) const ALL: [Divergence; 10] = [
        Divergence::DescriptorsUsedUp,
        Divergence::SlowDrip,
        Divergence::DescriptorCeiling,
        Divergence::UndeliveredRefusal,
        Divergence::GarbagePort,
        Divergence::RepeatedAddress,
        Divergence::Reregistration,
        Divergence::StoppedHolder,
        Divergence::BlockingWrite,
        Divergence::InUseReason,
    ];
}

/// How the server of a case is started.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    pub(crate) port: u16,
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    /// A command that sets limits and execs the server.
    pub(crate) wrapper: Vec<String>,
    /// Whether the server runs before the case begins.
    pub(crate) started: bool,
    pub(crate) ipv6: bool,
}

type Play = Box<dyn Fn(&mut Stage<'_>) + Send + Sync>;

/// One scenario and its expected notes.
pub(crate) struct Case {
    name: &'static str,
    setting: Setting,
    alone: bool,
    systemd: bool,
    play: Play,
    expected: Vec<String>,
    repaired: Option<Vec<String>>,
    divergence: Option<(Divergence, Vec<String>, &'static str)>,
}

/// A case against a server with default settings.
pub(crate) fn case(name: &'static str) -> Case {
    let setting = Setting {
        port: 4369,
        args: Vec::new(),
        env: Vec::new(),
        wrapper: Vec::new(),
        started: true,
        ipv6: true,
    };
    Case {
        name,
        setting,
        alone: false,
        systemd: false,
        play: Box::new(|_| panic!("a case without a play")),
        expected: Vec::new(),
        repaired: None,
        divergence: None,
    }
}

/// A case that sends one request per row, each on a new connection: (what, request, response).
pub(crate) fn table(name: &'static str, rows: Vec<(&'static str, Vec<u8>, String)>) -> Case {
    let expected: Vec<String> = rows.iter().map(|(what, _, answer)| format!("{what}: {answer}")).collect();
    let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    case(name).expect(&expected).play(move |t| {
        for (what, request, _) in &rows {
            t.ask(what, request);
        }
    })
}

impl Case {
    /// Starts the server with these arguments.
    pub(crate) fn args(mut self, args: &[&str]) -> Case {
        self.setting.args = args.iter().map(|arg| (*arg).to_owned()).collect();
        self
    }

    /// Gives the server an environment variable.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Case {
        self.setting.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts the server through a command that execs it.
    pub(crate) fn wrapped(mut self, wrapper: &[&str]) -> Case {
        self.setting.wrapper = wrapper.iter().map(|arg| (*arg).to_owned()).collect();
        self
    }

    /// The port on which the server is expected to listen; the server itself is not told.
    pub(crate) fn port(mut self, port: u16) -> Case {
        self.setting.port = port;
        self
    }

    /// Leaves it to the play to start the server.
    pub(crate) fn nothing_started(mut self) -> Case {
        self.setting.started = false;
        self
    }

    /// Runs on its own host, in parallel with the other cases: for cases that have to wait.
    pub(crate) fn alone(mut self) -> Case {
        self.alone = true;
        self
    }

    /// Runs on its own host with IPv6 disabled.
    pub(crate) fn without_ipv6(mut self) -> Case {
        self.setting.ipv6 = false;
        self.alone()
    }

    /// Needs an epmd that was built for systemd, which stock epmd need not be.
    pub(crate) fn needs_systemd(mut self) -> Case {
        self.systemd = true;
        self
    }

    /// The steps of the case.
    pub(crate) fn play(mut self, play: impl Fn(&mut Stage<'_>) + Send + Sync + 'static) -> Case {
        self.play = Box::new(play);
        self
    }

    /// The expected notes.
    pub(crate) fn expect(mut self, lines: &[&str]) -> Case {
        self.expected = lines.iter().map(|line| (*line).to_owned()).collect();
        self
    }

    /// The expected notes for newer releases of stock epmd, which no longer have the defect of this case.
    pub(crate) fn repaired(mut self, lines: &[&str]) -> Case {
        self.repaired = Some(lines.iter().map(|line| (*line).to_owned()).collect());
        self
    }

    /// The expected notes for pmd where it differs, and the reason.
    pub(crate) fn diverges(mut self, from: Divergence, lines: &[&str], why: &'static str) -> Case {
        self.divergence = Some((from, lines.iter().map(|line| (*line).to_owned()).collect(), why));
        self
    }

    /// The defect that this case demonstrates.
    pub(crate) fn divergence(&self) -> Option<Divergence> {
        self.divergence.as_ref().map(|(divergence, ..)| *divergence)
    }

    fn expected_of_pmd(&self) -> &[String] {
        self.divergence.as_ref().map_or(&self.expected, |(_, lines, _)| lines)
    }

    /// The expected notes for a stock epmd that took these.
    fn expected_of_stock(&self, notes: &[String]) -> &[String] {
        self.repaired.as_deref().filter(|lines| *lines == notes).unwrap_or(&self.expected)
    }
}

/// The result of one program in one case.
#[derive(Default)]
struct Seen {
    notes: Vec<String>,
    /// The server's log, to explain a failure.
    log: String,
}

/// Plays all cases against both programs and reports every difference. `CONFORMANCE_CASE=TEXT` selects the cases with
/// TEXT in their name.
pub(crate) fn run(mut cases: Vec<Case>) {
    if let Ok(wanted) = std::env::var("CONFORMANCE_CASE") {
        cases.retain(|case| case.name.contains(&wanted));
    }
    let cases = cases.as_slice();
    let (stock, pmd) = (Implementation::stock(), Implementation::pmd());
    let (by_stock, by_pmd) = std::thread::scope(|scope| {
        let by_pmd = scope.spawn(|| play_all(&pmd, cases));
        (play_all(&stock, cases), by_pmd.join().expect("panics are caught case by case"))
    });
    if let Some(file) = std::env::var_os("CONFORMANCE_REPORT") {
        report_stock(Path::new(&file), &stock, cases, &by_stock);
    }
    let mut report = String::new();
    let mut failed = 0;
    for ((case, by_stock), by_pmd) in cases.iter().zip(&by_stock).zip(&by_pmd) {
        let mut differences = String::new();
        if stock.can_play(case.systemd) {
            differences += &difference("stock", case.expected_of_stock(&by_stock.notes), by_stock);
        }
        differences += &difference("pmd", case.expected_of_pmd(), by_pmd);
        if !differences.is_empty() {
            failed += 1;
            let why =
                case.divergence.as_ref().map_or(String::new(), |(id, _, why)| format!(" [{id:?}: {why}]"));
            let _ = write!(report, "\n== {}{why}\n{differences}", case.name);
        }
    }
    assert!(report.is_empty(), "{failed} of {} cases failed\n{report}", cases.len());
}

/// Adds a line for each case that shows a divergence (its name, whether stock has the defect, the case), and one for each
/// case that this stock epmd cannot play.
fn report_stock(file: &Path, stock: &Implementation, cases: &[Case], seen: &[Seen]) {
    let mut lines = String::new();
    for (case, seen) in cases.iter().zip(seen) {
        if !stock.can_play(case.systemd) {
            let _ = writeln!(lines, "systemd\tnot-played\t{}", case.name);
        } else if let Some(divergence) = case.divergence() {
            let state = if case.repaired.as_ref() == Some(&seen.notes) { "repaired" } else { "holds" };
            let _ = writeln!(lines, "{divergence:?}\t{state}\t{}", case.name);
        }
    }
    let mut file = OpenOptions::new().append(true).create(true).open(file).expect("a report");
    // One write, because the tests of a run share the file.
    file.write_all(lines.as_bytes()).expect("writing the report");
}

fn difference(who: &str, expected: &[String], seen: &Seen) -> String {
    if expected == seen.notes {
        return String::new();
    }
    let mut text = format!("-- {who} (- expected, + seen)\n");
    for at in 0..expected.len().max(seen.notes.len()) {
        let (expected, seen) = (expected.get(at), seen.notes.get(at));
        if expected == seen {
            let _ = writeln!(text, "    {}", seen.map_or("", String::as_str));
        } else {
            if let Some(line) = expected {
                let _ = writeln!(text, "  - {line}");
            }
            if let Some(line) = seen {
                let _ = writeln!(text, "  + {line}");
            }
        }
    }
    if !seen.log.is_empty() {
        let end: Vec<&str> = seen.log.lines().rev().take(LOG_LINES).collect();
        end.iter().rev().for_each(|line| text.extend(["  log: ", line, "\n"]));
    }
    text
}

/// Ordinary cases run on one host in sequence; the others run on their own hosts, in parallel.
fn play_all(epmd: &Implementation, cases: &[Case]) -> Vec<Seen> {
    std::thread::scope(|scope| {
        let alone: Vec<_> = cases
            .iter()
            .map(|case| {
                (case.alone && epmd.can_play(case.systemd))
                    .then(|| scope.spawn(|| play(epmd, &host(case.setting.ipv6), case)))
            })
            .collect();
        let shared = host(true);
        let together: Vec<_> = cases
            .iter()
            .map(|case| {
                let is_here = !case.alone && epmd.can_play(case.systemd);
                if is_here { play(epmd, &shared, case) } else { Seen::default() }
            })
            .collect();
        alone
            .into_iter()
            .zip(together)
            .map(|(alone, seen)| {
                alone.map_or(seen, |thread| thread.join().expect("panics are caught case by case"))
            })
            .collect()
    })
}

fn host(ipv6: bool) -> NetNs {
    let host = NetNs::new();
    for address in ADDRESSES.iter().filter(|address| ipv6 || !address.contains(':')) {
        let mut command = vec!["addr", "add", address, "dev", "lo"];
        if address.contains(':') {
            command.push("nodad");
        }
        host.ip(&command);
    }
    if !ipv6 {
        host.enter(|| std::fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1"))
            .expect("switching IPv6 off");
    }
    host
}

fn play(epmd: &Implementation, host: &NetNs, case: &Case) -> Seen {
    host.enter(|| {
        let mut stage = Stage::new(epmd, host, &case.setting);
        let played = catch_unwind(AssertUnwindSafe(|| {
            if case.setting.started {
                stage.start();
            }
            (case.play)(&mut stage);
        }));
        let log = stage.server_log();
        let mut notes = stage.finish();
        if let Err(panic) = played {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            notes.push(format!("panicked: {}", text.unwrap_or("?")));
        }
        Seen { notes, log }
    })
}
