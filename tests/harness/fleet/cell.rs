//! A thread in namespaces of its own: the cheapest thing that a host can be made of.
//!
//! The namespaces have no name and no file: they live as long as the thread and the processes it started, and those
//! get SIGKILL from the kernel when the thread ends. So nothing stays behind, not even after a test that was killed.

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

/// What the thread is told to do.
type Job = Box<dyn FnOnce() + Send>;

/// A thread with network, host name and mounts of its own.
#[derive(Debug)]
pub struct Cell {
    name: String,
    /// The number that the kernel knows the thread by.
    tid: i32,
    /// None only while the cell is being dropped.
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
                born.send(rustix::thread::gettid().as_raw_nonzero().get()).expect("its maker waits");
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

    /// The file that stands for its network.
    pub fn network(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/task/{}/ns/net", std::process::id(), self.tid))
    }

    /// Begins `work` in the cell; the value that is returned waits for its end.
    pub fn begin<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Working<T> {
        let (result, done) = channel();
        let job: Job = Box::new(move || {
            // Whoever waits goes on with the panic. Nobody has to wait.
            let _ = result.send(catch_unwind(AssertUnwindSafe(work)));
        });
        self.jobs.as_ref().expect("the cell lives").send(job).expect("the thread lives as long as the cell");
        Working(done)
    }

    /// Runs `work` in the cell: sockets that it opens belong there, and programs that it starts run there.
    pub fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        self.begin(work).end()
    }

    /// Runs all these `ip` commands, one to a line, in the cell.
    pub fn ip(&self, commands: &str) {
        self.begin_ip(commands.to_owned()).end();
    }

    /// [`ip`](Self::ip) that is not waited for.
    pub fn begin_ip(&self, commands: String) -> Working<()> {
        self.begin(move || feed("ip", &["-batch", "-"], &commands))
    }

    /// Has nftables take this in, in the cell: all of it or nothing.
    pub fn nft(&self, ruleset: &str) {
        let ruleset = ruleset.to_owned();
        self.run(move || feed("nft", &["-f", "-"], &ruleset));
    }

    /// Puts one file in the place of another, for all that runs in the cell.
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

/// Work that a cell has begun.
#[derive(Debug)]
pub struct Working<T>(std::sync::mpsc::Receiver<Result<T, Box<dyn Any + Send>>>);

impl<T> Working<T> {
    /// Waits for its end, and panics if it did.
    pub fn end(self) -> T {
        match self.0.recv().expect("a cell finishes what it has begun") {
            Ok(value) => value,
            Err(panic) => resume_unwind(panic),
        }
    }
}

/// A command that ends, whatever happens, with the thread that starts it.
pub fn mortal(program: impl AsRef<OsStr>) -> Command {
    // The kernel keeps the death signal over `exec`; to set it between fork and exec in here would need `unsafe`.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// Gives the calling thread namespaces of its own.
fn isolate(name: &str) {
    let own = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWNS;
    unshare(own).expect("namespaces need root");
    nix::unistd::sethostname(name).expect("a host name");
    // What is mounted from now on is nobody else's business.
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).expect("mounts of its own");
}

/// Runs a command that reads `text`, and panics if it fails.
fn feed(program: &str, args: &[&str], text: &str) {
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("the tests need `{program}`: {error}"));
    // One that fails early does not read all; its status tells.
    let _ = child.stdin.take().expect("a pipe").write_all(text.as_bytes());
    let output = child.wait_with_output().expect("its end");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {}: {said}", args.join(" "));
}
