//! `pmd takeover` and `pmd handover` with the stock epmd of the Erlang installation, in a network namespace.

use std::io::Read;
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;

use crate::harness::daemon::register;
use crate::harness::netns::{Host, Lan};
use crate::harness::program::Program;
use crate::harness::{pmd, stock_epmd, wait_until};
use crate::support::{Said, said};

const PORT: u16 = 4369;

/// A host with its own network, where port 4369 is free.
struct Site {
    host: Host,
    _lan: Lan,
}

impl Site {
    fn new() -> Site {
        let lan = Lan::new();
        let [host] = lan.hosts(["alpha"]);
        Site { host, _lan: lan }
    }

    fn pmd(&self, args: &[&str]) -> Command {
        let mut command = self.host.command(pmd());
        command.args(args).env_remove("NO_COLOR");
        command
    }

    fn run(&self, args: &[&str]) -> Said {
        said(self.pmd(args))
    }

    /// A stock epmd that stays in the foreground.
    fn stock(&self, args: &[&str]) -> Program {
        let mut command = self.host.command(stock_epmd());
        command.args(args);
        let program = Program::spawn(command);
        wait_until("the stock epmd", || self.answers());
        program
    }

    fn answers(&self) -> bool {
        self.host.netns.enter(|| TcpStream::connect((Ipv4Addr::LOCALHOST, PORT)).is_ok())
    }

    /// The names registered with the port's owner.
    fn names(&self) -> Vec<String> {
        let listed = self.run(&["names", "127.0.0.1", "-o", "plain"]).ended_with(0).stdout;
        let mut names: Vec<String> =
            listed.lines().filter_map(|line| Some(line.split('\t').next()?.to_owned())).collect();
        names.sort();
        names
    }

    /// Whether the port is held by the stock epmd.
    fn is_stock(&self) -> bool {
        let stock = stock_epmd().canonicalize().expect("a program");
        self.host.netns.processes().iter().any(|pid| {
            std::fs::read_link(format!("/proc/{}/exe", pid.as_raw_nonzero())).is_ok_and(|exe| exe == stock)
        })
    }

    fn node(&self, name: &str, port: u16, returns: bool) -> Node {
        Node::start(&self.host, name, port, returns)
    }
}

/// A node's side of its registration: holds it and, unless the node is an old one, registers again when it is lost.
struct Node {
    ended: Arc<AtomicBool>,
    stream: Arc<Mutex<Option<TcpStream>>>,
    thread: Option<JoinHandle<()>>,
}

impl Node {
    fn start(host: &Host, name: &str, port: u16, returns: bool) -> Node {
        let ended = Arc::new(AtomicBool::new(false));
        let stream = Arc::new(Mutex::new(None));
        let (thread_ended, thread_stream) = (Arc::clone(&ended), Arc::clone(&stream));
        let (namespace, name) = (host.netns.name().to_owned(), name.to_owned());
        let thread = std::thread::spawn(move || {
            enter(&namespace);
            while !thread_ended.load(Ordering::Relaxed) {
                if let Some(mut held) = register((Ipv4Addr::LOCALHOST, PORT).into(), &name, port) {
                    *thread_stream.lock().expect("a lock") = Some(held.try_clone().expect("a second handle"));
                    // The only thing to read is the end of the connection.
                    let _ = held.read(&mut [0]);
                    if !returns {
                        return;
                    }
                }
                // Erlang's own pause is two seconds.
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let node = Node { ended, stream, thread: Some(thread) };
        wait_until("a registration", || node.stream.lock().expect("a lock").is_some());
        node
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(stream) = self.stream.lock().expect("a lock").as_ref() {
            let _ = stream.shutdown(Shutdown::Both);
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Moves this thread into a network namespace.
fn enter(namespace: &str) {
    use std::os::fd::AsFd;
    let file = std::fs::File::open(format!("/run/netns/{namespace}")).expect("the namespace");
    let kind = rustix::thread::LinkNameSpaceType::Network;
    rustix::thread::move_into_link_name_space(file.as_fd(), Some(kind))
        .expect("entering a network namespace needs root");
}

fn states(report: &Value) -> Vec<(&str, bool)> {
    let nodes = report["nodes"].as_array().expect("a list");
    nodes.iter().filter_map(|node| Some((node["name"].as_str()?, node["back"].as_bool()?))).collect()
}

#[test]
fn nodes_survive_takeover_and_handover() {
    let site = Site::new();
    let mut stock = site.stock(&[]);
    let _nodes = [site.node("one", 1001, true), site.node("two", 1002, true)];

    let said = site.run(&["takeover"]).ended_with(0);
    assert_eq!(said.stdout, "NAME  PORT  STATE\none   1001  back\ntwo   1002  back\n", "{said:?}");
    assert!(said.stderr.starts_with("stopped epmd (pid "), "{said:?}");
    assert!(!stock.is_running() && !site.is_stock());
    assert_eq!(site.names(), ["one", "two"]);
    let listed = site.run(&["names", "--json"]).ended_with(0).json();
    assert_eq!(listed["names"][0]["adopted"], false);

    let again = site.run(&["takeover"]).ended_with(0);
    assert!(again.stdout.starts_with("port 4369 is already held by pmd (pid "), "{again:?}");

    let report = site.run(&["handover", "--json"]).ended_with(0).json();
    assert_eq!((&report["held_by"], &report["changed"]), (&"epmd".into(), &true.into()));
    let mut states = states(&report);
    states.sort_unstable();
    assert_eq!(states, [("one", true), ("two", true)]);
    assert!(site.is_stock());
    assert_eq!(site.names(), ["one", "two"]);
    let again = site.run(&["handover", "--json"]).ended_with(0).json();
    assert_eq!((&again["held_by"], &again["changed"]), (&"epmd".into(), &false.into()));
}

#[test]
fn a_node_that_does_not_return_is_reported_and_still_looked_up() {
    let site = Site::new();
    let _stock = site.stock(&[]);
    let _new = site.node("new", 1001, true);
    let _old = site.node("old", 1002, false);
    let said = site.run(&["takeover", "--wait", "1s"]).ended_with(8);
    assert_eq!(said.stdout, "NAME  PORT  STATE\nnew   1001  back\nold   1002  missing\n", "{said:?}");
    assert!(
        said.stderr.contains("warning: 1 of 2 nodes have not come back\nhint: nodes older than OTP 23.3 "),
        "{said:?}"
    );
    assert_eq!(site.run(&["lookup", "old"]).ended_with(0).stdout, "alpha:1002\n");
    let names = site.run(&["names"]).ended_with(0).stdout;
    assert!(
        names.lines().any(|line| line.starts_with("old@alpha") && line.ends_with("not back yet")),
        "{names}"
    );
    let status = site.run(&["status", "--json"]).ended_with(0).json();
    assert_eq!(
        status["warnings"][0],
        "1 node taken over from another port mapper has not registered again yet"
    );
}

#[test]
fn a_dry_run_changes_nothing() {
    let site = Site::new();
    let mut stock = site.stock(&[]);
    let _node = site.node("one", 1001, true);
    let said = site.run(&["takeover", "--dry-run"]).ended_with(0);
    assert!(
        said.stdout.starts_with("Nothing has been changed. Without --dry-run:\n  1. stop epmd (pid "),
        "{said:?}"
    );
    assert!(said.stdout.contains("with 1 node registered"), "{said:?}");
    let plan = site.run(&["takeover", "--dry-run", "--json"]).ended_with(0).json();
    assert_eq!((&plan["dry_run"], &plan["nodes"][0]["name"]), (&true.into(), &"one".into()));
    assert!(stock.is_running());

    site.run(&["takeover"]).ended_with(0);
    let plan = site.run(&["handover", "--dry-run", "--json"]).ended_with(0).json();
    assert!(plan["steps"][1].as_str().is_some_and(|step| step.ends_with("/epmd -daemon")), "{plan}");
    assert!(!site.is_stock());
}

#[test]
fn takeover_depends_on_the_ports_owner() {
    let site = Site::new();
    assert_eq!(
        site.run(&["takeover"]).ended_with(4).stderr,
        "error: nothing to take over: nothing is listening on port 4369\nhint: start pmd instead: pmd start\n"
    );
    assert_eq!(site.run(&["handover"]).code, 3);

    // Programs that are not port mappers are left alone, even if they answer like one.
    let silent =
        site.host.netns.enter(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).expect("the port"));
    let closing = Closing::start(silent, b"");
    let said = site.run(&["takeover"]).ended_with(7);
    assert!(said.stderr.contains("is held by a program that is not a port mapper: "), "{said:?}");
    closing.answer(&[0, 0, 0x11, 0x11]);
    let said = site.run(&["takeover"]).ended_with(7);
    assert!(said.stderr.contains("which is not a stock epmd"), "{said:?}");
    drop(closing);

    let _stock = site.stock(&[]);
    let said = site.run(&["start"]).ended_with(7);
    assert!(said.stderr.starts_with("error: port 4369 is held by an epmd: epmd (pid "), "{said:?}");
    assert!(
        said.stderr.ends_with("\nhint: replace it without restarting a node: pmd takeover\n"),
        "{said:?}"
    );
    let said = site.run(&["status"]).ended_with(3);
    assert!(
        said.stderr.ends_with("\nhint: replace it without restarting a node: pmd takeover\n"),
        "{said:?}"
    );
}

/// A server that answers every connection with the same bytes and closes it.
struct Closing {
    answer: Arc<Mutex<Vec<u8>>>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Closing {
    fn start(listener: TcpListener, answer: &[u8]) -> Closing {
        use std::io::Write;
        listener.set_nonblocking(true).expect("a socket");
        let answer = Arc::new(Mutex::new(answer.to_vec()));
        let ended = Arc::new(AtomicBool::new(false));
        let (bytes, over) = (Arc::clone(&answer), Arc::clone(&ended));
        let thread = std::thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((mut stream, _)) => {
                        stream.set_nonblocking(false).expect("a socket");
                        let _ = stream.read(&mut [0; 16]);
                        let _ = stream.write_all(&bytes.lock().expect("a lock"));
                    }
                    Err(_) => std::thread::sleep(Duration::from_millis(5)),
                }
            }
        });
        Closing { answer, ended, thread: Some(thread) }
    }

    fn answer(&self, answer: &[u8]) {
        *self.answer.lock().expect("a lock") = answer.to_vec();
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[test]
fn epmd_is_restarted_if_pmd_cannot_start() {
    let site = Site::new();
    let stock = site.stock(&["-packet_timeout", "77"]);
    let _node = site.node("one", 1001, true);
    let pid = stock.pid();
    let said = site.run(&["takeover", "--socket", "/proc/nowhere/pmd.sock"]).ended_with(1);
    assert!(
        said.stderr.contains("; epmd was started again, and its nodes will register again\n"),
        "{said:?}"
    );
    assert!(site.is_stock());
    wait_until("the node", || site.names() == ["one"]);
    // It is a new process with the previous options.
    let command_lines: Vec<String> = site
        .host
        .netns
        .processes()
        .iter()
        .filter(|other| other.as_raw_nonzero().get().unsigned_abs() != pid)
        .filter_map(|pid| std::fs::read_to_string(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).ok())
        .collect();
    assert!(
        command_lines.iter().any(|line| line.contains("-packet_timeout\x0077\0-daemon")),
        "{command_lines:?}"
    );
}

#[test]
fn pmd_is_restarted_if_epmd_cannot_start() {
    let site = Site::new();
    let not_epmd = site.host.dir().join("not-epmd");
    std::fs::write(&not_epmd, "#!/bin/sh\nexit 1\n").expect("a script");
    std::fs::set_permissions(&not_epmd, std::fs::Permissions::from_mode(0o755)).expect("changing the mode");
    site.run(&["start"]).ended_with(0);
    let _node = site.node("one", 1001, true);
    let not_epmd = not_epmd.to_str().expect("a path");
    let said = site.run(&["handover", "--epmd", not_epmd]).ended_with(1);
    assert!(said.stderr.contains("; pmd was started again, and its nodes will register again\n"), "{said:?}");
    wait_until("the node", || site.names() == ["one"]);
    site.run(&["status"]).ended_with(0);
    assert_eq!(site.run(&["handover", "--epmd", "/nowhere/epmd"]).code, 4);
}

#[test]
fn pmd_listens_where_epmd_did_and_vice_versa() {
    let site = Site::new();
    let address = site.host.ip.to_string();
    let _stock = site.stock(&["-address", &address, "-relaxed_command_check"]);
    site.run(&["takeover"]).ended_with(0);
    let status = site.run(&["status", "--json"]).ended_with(0).json();
    let listening = serde_json::json!(["127.0.0.1:4369", "[::1]:4369", format!("{address}:4369")]);
    assert_eq!((&status["listening"], &status["relaxed_command_check"]), (&listening, &true.into()));
    let plan = site.run(&["handover", "--dry-run"]).ended_with(0).stdout;
    let environment = format!(
        "start epmd: ERL_EPMD_PORT=4369 ERL_EPMD_ADDRESS={address} ERL_EPMD_RELAXED_COMMAND_CHECK=1 "
    );
    assert!(plan.contains(&environment), "{plan}");
}

#[test]
fn takeover_stops_the_systemd_unit_not_just_its_process() {
    let site = Site::new();
    let stock = site.stock(&[]);
    let _node = site.node("one", 1001, true);
    // A fake systemctl with one unit, on a host that appears to be managed by systemd.
    let folder = site.host.dir().join("bin");
    std::fs::create_dir(&folder).expect("a folder");
    let log = folder.join("log");
    let script = format!(
        "#!/bin/sh\necho \"$*\" >> {}\ncase $1 in\n  is-active) test \"$3\" = epmd.socket ;;\n  \
         stop) kill -TERM {} ;;\nesac\n",
        log.display(),
        stock.pid()
    );
    std::fs::write(folder.join("systemctl"), script).expect("a script");
    let executable = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(folder.join("systemctl"), executable).expect("changing the mode");
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap_or_default());
    let cgroup = folder.join("cgroup");
    std::fs::write(&cgroup, "0::/system.slice/epmd.service\n").expect("a file");
    let mut command = site.host.command("sh");
    let script = "mount -t tmpfs none /run && mkdir -p /run/systemd/system && \
                  mount --bind \"$1\" \"/proc/$2/cgroup\" && shift 2 && exec \"$@\"";
    command.args(["-c", script, "sh"]).arg(&cgroup).arg(stock.pid().to_string());
    command.args([pmd(), "takeover"]).env("PATH", path);
    let said = said(command).ended_with(0);
    assert!(said.stderr.starts_with("stopped systemd's epmd.socket, with 1 node registered\n"), "{said:?}");
    assert!(said.stderr.contains("to keep pmd: systemctl disable epmd.socket"), "{said:?}");
    assert_eq!(said.stdout, "NAME  PORT  STATE\none   1001  back\n");
    let calls = std::fs::read_to_string(log).expect("it was called");
    assert!(calls.ends_with("\nstop --job-mode=ignore-dependencies epmd.socket\n"), "{calls}");
}

#[test]
fn handover_refuses_more_nodes_than_epmd_can_hold() {
    let site = Site::new();
    site.run(&["start"]).ended_with(0);
    let held: Vec<TcpStream> = site.host.netns.enter(|| {
        let node = |number| register((Ipv4Addr::LOCALHOST, PORT).into(), &format!("n{number}"), 1);
        (0..1100).map(|number| node(number).expect("a registration")).collect()
    });
    let said = site.run(&["handover"]).ended_with(5);
    assert!(
        said.stderr.starts_with("error: 1100 nodes are registered, but epmd can hold at most 1019\n"),
        "{said:?}"
    );
    assert_eq!(site.names().len(), held.len());
}

#[test]
fn thousands_of_nodes_are_taken_over() {
    const NODES: u16 = 5000;
    let site = Site::new();
    // Stock epmd cannot hold this many, so its place is taken by a pmd under its name, with its own home.
    let program = site.host.dir().join("epmd");
    std::fs::copy(pmd(), &program).expect("copying the program");
    let mut command = site.host.command(program);
    command.env("PMD_HOME", site.host.dir().join("another"));
    let _many = Program::spawn(command);
    wait_until("it to answer", || site.answers());
    let held: Vec<TcpStream> = site.host.netns.enter(|| {
        let node = |number| register((Ipv4Addr::LOCALHOST, PORT).into(), &format!("n{number}"), number);
        (1..=NODES).map(|number| node(number).expect("a registration")).collect()
    });
    let said = site.run(&["takeover", "--wait", "0s", "-o", "plain"]).ended_with(8);
    assert_eq!(said.stdout.lines().count(), held.len());
    assert!(said.stderr.contains("warning: 5000 of 5000 nodes have not come back"), "{}", said.stderr);
    assert_eq!(site.run(&["lookup", "n1"]).ended_with(0).stdout, "alpha:1\n");
    assert_eq!(site.names().len(), held.len());
}
