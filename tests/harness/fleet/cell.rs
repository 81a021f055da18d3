//! A thread with its own namespaces: the cheapest form of a test host.
//!
//! The namespaces have no name and no file: they exist as long as the thread and the processes it started, which the
//! kernel kills (SIGKILL) when the thread ends. So nothing is left behind, even if the test is killed.

use std::any::Any;
use std::ffi::OsStr;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// Work for the thread.
type Job = Box<dyn FnOnce() + Send>;

/// A thread with its own network, host name and mounts.
#[derive(Debug)]
pub struct Cell {
    name: String,
    /// The kernel's thread id.
    tid: i32,
    /// `None` only while the cell is being dropped.
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Cell {
    /// A cell whose `hostname` is `name`, with its loopback interface up.
    pub fn new(name: &str) -> Cell {
        let (jobs, inbox) = channel::<Job>();
        let (born, tid) = channel();
        let host = name.to_owned();
        let thread = std::thread::Builder::new()
            .name(format!("cell {name}"))
            .stack_size(256 * 1024)
            .spawn(move || {
                isolate(&host);
                born.send(rustix::thread::gettid().as_raw_nonzero().get()).expect("the creator waits");
                inbox.into_iter().for_each(|job| job());
            })
            .expect("a thread");
        let tid = tid.recv().expect("namespaces need root");
        let cell = Cell { name: name.to_owned(), tid, jobs: Some(jobs), thread: Some(thread) };
        cell.ip("link set lo up\n");
        cell
    }

    /// What `hostname` prints there.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that represents its network namespace.
    pub fn network(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/task/{}/ns/net", std::process::id(), self.tid))
    }

    /// Starts `work` in the cell; the returned value can wait for its end.
    pub fn begin<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Working<T> {
        let (result, done) = channel();
        let job: Job = Box::new(move || {
            // A panic resumes in the thread that waits, if any.
            let _ = result.send(catch_unwind(AssertUnwindSafe(work)));
        });
        self.jobs.as_ref().expect("the cell lives").send(job).expect("the thread lives as long as the cell");
        Working(done)
    }

    /// Runs `work` in the cell: sockets that it opens belong there, and programs that it starts run there.
    pub fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        self.begin(work).end()
    }

    /// Runs these `ip` commands, one per line, in the cell.
    pub fn ip(&self, commands: &str) {
        self.begin_ip(commands.to_owned()).end();
    }

    /// Like [`ip`](Self::ip), without waiting.
    pub fn begin_ip(&self, commands: String) -> Working<()> {
        self.begin(move || feed("ip", &["-batch", "-"], &commands))
    }

    /// Applies an nftables ruleset in the cell, atomically.
    pub fn nft(&self, ruleset: &str) {
        let ruleset = ruleset.to_owned();
        self.run(move || feed("nft", &["-f", "-"], &ruleset));
    }

    /// Mounts one file over another, for all programs in the cell.
    pub fn cover(&self, place: &'static str, with: &Path) {
        let with = with.to_owned();
        self.run(move || {
            mount(Some(&with), place, None::<&str>, MsFlags::MS_BIND, None::<&str>)
                .unwrap_or_else(|error| panic!("mounting {} on {place}: {error}", with.display()));
        });
    }

    /// Sets a kernel parameter of the cell's network.
    pub fn sysctl(&self, name: &'static str, value: &'static str) {
        self.run(move || {
            let path = format!("/proc/sys/{}", name.replace('.', "/"));
            std::fs::write(&path, value).unwrap_or_else(|error| panic!("{path}: {error}"));
        });
    }
}

impl Drop for Cell {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Work that a cell has started.
#[derive(Debug)]
pub struct Working<T>(std::sync::mpsc::Receiver<Result<T, Box<dyn Any + Send>>>);

impl<T> Working<T> {
    /// Waits for its end, and panics if it panicked.
    pub fn end(self) -> T {
        match self.0.recv().expect("a cell finishes what it has begun") {
            Ok(value) => value,
            Err(panic) => resume_unwind(panic),
        }
    }
}

/// A command that the kernel kills when the thread that started it ends.
pub fn mortal(program: impl AsRef<OsStr>) -> Command {
    // The kernel keeps the death signal over `exec`; to set it between fork and exec in here would need `unsafe`.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// Moves the calling thread into new namespaces.
fn isolate(name: &str) {
    let own = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWNS;
    unshare(own).expect("namespaces need root");
    nix::unistd::sethostname(name).expect("a host name");
    // Later mounts stay private to this thread.
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).expect("private mounts");
}

/// Runs a command with `text` on standard input, and panics if it fails.
fn feed(program: &str, args: &[&str], text: &str) {
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("the tests need `{program}`: {error}"));
    // A command that fails early may not read everything; its status is checked below.
    let _ = child.stdin.take().expect("a pipe").write_all(text.as_bytes());
    let output = child.wait_with_output().expect("waiting for it to exit");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {}: {said}", args.join(" "));
}
