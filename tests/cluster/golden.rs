//! The output of every command in every format: transcripts are compared with `golden/COMMAND.snap`, and JSON is
//! validated against `docs/json-schema.json`.
//!
//! The list of commands comes from the command line itself, so a command without a transcript fails the test. After an
//! intended change, `INSTA_UPDATE=always cargo test --test cluster golden` rewrites the transcripts: review them before
//! committing.

#[path = "golden/masks.rs"]
mod masks;
#[path = "golden/schema.rs"]
mod schema;
#[path = "golden/script.rs"]
mod script;

use std::collections::BTreeSet;

use clap::CommandFactory;
use pmd::cli::args::Cli;
use rustix::process::Signal;

use crate::fleet::cell::mortal;
use crate::harness::program::Program;
use crate::harness::wait_until;
use crate::machine::Said;
use crate::world::World;
use masks::Masks;
use schema::Documents;
use script::{SCRIPT, Step};

/// The host that is not in the cluster and has no daemon at first.
const ALONE: usize = 2;

#[test]
fn every_command_matches_its_transcript() {
    let written: BTreeSet<String> = SCRIPT.iter().map(|(command, _)| (*command).to_owned()).collect();
    assert_eq!(leaves(&Cli::command()), written, "commands, and those in tests/cluster/golden/script.rs");

    let mut world = World::new(3);
    // One voter decides alone; the other host has none.
    world[0].configure("voters = [\"h1\"]\n[metadata]\nrack = \"a1\"\n");
    world[1].configure("join = [\"10.77.0.1\"]\n");
    world.start(0);
    world.start(1);
    world.wait_until_agreed(&[0, 1]);
    let nodes = [world.register(0, "rabbit", 25_672), world.register(1, "ejabberd", 5_280)];
    world.wait_for_names(&[0, 1], &nodes);
    // Background daemons outlive the thread that represents their host.
    let world = Background(world);

    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("golden");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    let mut documents = Documents::default();
    let mut differing: Vec<&str> = Vec::new();
    for (command, steps) in SCRIPT {
        let mut play =
            Play { world: &world.0, masks: Masks::new(&world.0), told: String::new(), beside: None };
        for step in *steps {
            play.step(command, step, &mut documents);
        }
        let told = play.told;
        // All are compared, so that one run reports every change.
        let same = settings.bind(|| {
            std::panic::catch_unwind(|| insta::assert_snapshot!(command.replace(' ', "-"), told)).is_ok()
        });
        differing.extend((!same).then_some(*command));
    }
    assert!(differing.is_empty(), "these differ from their transcripts: {differing:?}");
    documents.are_valid();
    drop(nodes);
}

/// The leaf commands, with their full names.
fn leaves(command: &clap::Command) -> BTreeSet<String> {
    let below = command.get_subcommands().flat_map(|sub| {
        let found = leaves(sub);
        let name = sub.get_name().to_owned();
        if found.is_empty() {
            BTreeSet::from([name])
        } else {
            found.into_iter().map(|rest| format!("{name} {rest}")).collect()
        }
    });
    below.collect()
}

/// A world whose background daemons are stopped when it is dropped, even if the test fails.
struct Background(World);

impl Drop for Background {
    fn drop(&mut self) {
        for words in [&["stop"][..], &["epmd", "-kill"]] {
            let own = self.0[ALONE].command(words);
            let _ = self.0.site(ALONE).cell.run(move || crate::harness::program::run(own));
        }
    }
}

/// A command's steps and the transcript so far.
struct Play<'a> {
    world: &'a World,
    masks: Masks,
    told: String,
    beside: Option<Program>,
}

impl Play<'_> {
    fn step(&mut self, command: &str, step: &Step, documents: &mut Documents) {
        match step {
            Step::Run(host, words) => {
                let words = self.homed(*host, words);
                let args: Vec<&str> = command.split(' ').chain(split(&words)).collect();
                let said = self.world.run(*host, &args);
                self.tell(*host, &args, &said, documents);
            }
            Step::Quietly(host, words) => {
                let args: Vec<&str> = split(words).collect();
                self.world.run(*host, &args).ended_with(0);
            }
            Step::Until(host, words, lines, signal) => {
                let words = self.homed(*host, words);
                let args: Vec<&str> = command.split(' ').chain(split(&words)).collect();
                let said = self.until(*host, &args, *lines, *signal);
                self.tell(*host, &args, &said, documents);
            }
            Step::Epmd(host) => {
                let mut epmd = mortal("epmd");
                epmd.env_remove("ERL_EPMD_PORT").env_remove("ERL_EPMD_ADDRESS");
                self.beside = Some(self.world.site(*host).cell.run(move || {
                    let epmd = Program::spawn(epmd);
                    wait_until("epmd", || std::net::TcpStream::connect(("127.0.0.1", 4369)).is_ok());
                    epmd
                }));
            }
            &Step::Erl(host, name) => {
                let home = self.world[host].file("");
                self.beside = Some(self.world.site(host).cell.run(move || {
                    let mut erl = mortal(crate::erlang::ERL);
                    erl.args(["-noinput", "-sname", name, "-setcookie", "whatever", "-kernel"]);
                    erl.args(["inet_dist_listen_min", "45000", "inet_dist_listen_max", "45000"])
                        .env("HOME", home);
                    Program::spawn(erl)
                }));
                let wanted = format!("{name}@{}", self.world[host].name);
                self.world.run(0, &["lookup", &wanted, "--wait", "30s"]).ended_with(0);
            }
            Step::Alone => drop(self.beside.take()),
        }
    }

    /// Words with the host's home in place of `HOME`.
    fn homed(&self, host: usize, words: &str) -> String {
        words.replace("HOME", self.world[host].file("").display().to_string().trim_end_matches('/'))
    }

    /// Runs a streaming command until it has printed this many lines, and then sends it the signal.
    fn until(&self, host: usize, args: &[&str], lines: usize, signal: Signal) -> Said {
        let command = self.world[host].command(args);
        let mut program = self.world.site(host).cell.run(move || Program::spawn(command));
        wait_until("its output", || program.stdout().lines().count() >= lines || !program.is_running());
        if program.is_running() {
            program.signal(signal);
        }
        let status = program.wait(crate::harness::PATIENCE);
        let stdout: String = program.stdout().lines().take(lines).map(|line| format!("{line}\n")).collect();
        Said { code: status.code().unwrap_or(-1), stdout, stderr: program.stderr() }
    }

    fn tell(&mut self, host: usize, args: &[&str], said: &Said, documents: &mut Documents) {
        let words = self.masks.homely(&args.join(" "));
        self.told += &format!("{}$ pmd {words}\n", self.world[host].name);
        documents.collect(args, said);
        self.told += &self.masks.output(args, &said.stdout);
        for line in self.masks.text(&said.stderr).lines() {
            self.told += &format!("2> {line}\n");
        }
        if said.code != 0 {
            self.told += &format!("exit {}\n", said.code);
        }
        self.told.push('\n');
    }
}

/// Splits a command line into words; single quotes group words.
fn split(words: &str) -> impl Iterator<Item = &str> {
    let pieces = words.split('\'').enumerate();
    pieces.flat_map(|(number, piece)| {
        let whole: Vec<&str> = if number % 2 == 1 { vec![piece] } else { piece.split_whitespace().collect() };
        whole
    })
}
