//! The null server: accept, receive, send fixed bytes, close. Its cost is the kernel's share of a lookup.
//!
//! Several variants exist, because it depends on the kernel and the load which is the cheapest:
//!
//! - a loop of blocking calls, or epoll on the listener;
//! - with and without TCP_DEFER_ACCEPT, which keeps a connection in the kernel until its request has arrived, so that
//!   the server is woken once and not twice;
//! - with and without MSG_MORE, which holds the answer in the kernel until the close, so that answer and end of stream
//!   travel in one segment.
//!
//! Another variant is for registrations. All are single-threaded and do not handle slow clients: a silent one blocks
//! the server. It is a reference for measurements, not a real server.

use std::io;
use std::net::Ipv4Addr;

use anyhow::Result;
use clap::{Args, ValueEnum};
use nix::{getsockopt_impl, libc, setsockopt_impl, sockopt_impl};
use pmd_bench::options::name_of;
use rustix::event::{Timespec, epoll};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrV4, SocketFlags, SocketType, accept_with, bind, listen,
    recv, send, socket_with, sockopt,
};

use crate::wire::{FIXED_ANSWER, GRANTED};

sockopt_impl!(DeferAccept, Both, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, u32);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Args)]
pub(crate) struct NullArgs {
    #[arg(long)]
    pub(crate) port: u16,
    #[command(flatten)]
    pub(crate) variant: Variant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Args)]
pub(crate) struct Variant {
    #[arg(long, value_enum)]
    pub(crate) style: Style,
    /// Set TCP_DEFER_ACCEPT on the listener
    #[arg(long)]
    pub(crate) defer: bool,
    /// Hold the answer in the kernel until the close, which saves a segment
    #[arg(long)]
    pub(crate) more: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Style {
    /// accept, recv, send and close, all blocking
    Blocking,
    /// epoll_wait on the listener, then accept until nothing is queued
    Epoll,
    /// Blocking, waiting for the client to close, as for a registration
    Held,
}

impl Variant {
    /// The variants for lookups.
    pub(crate) const ALL: [Variant; 6] = [
        Variant { style: Style::Blocking, defer: false, more: false },
        Variant { style: Style::Blocking, defer: true, more: false },
        Variant { style: Style::Blocking, defer: true, more: true },
        Variant { style: Style::Epoll, defer: false, more: false },
        Variant { style: Style::Epoll, defer: true, more: false },
        Variant { style: Style::Epoll, defer: true, more: true },
    ];

    /// The variant for registrations.
    pub(crate) const HELD: Variant = Variant { style: Style::Held, defer: true, more: false };

    pub(crate) fn label(self) -> String {
        let defer = if self.defer { " + defer" } else { "" };
        let more = if self.more { " + more" } else { "" };
        format!("null {}{defer}{more}", name_of(&self.style))
    }

    /// The command line arguments that select this variant.
    pub(crate) fn arguments(self) -> Vec<String> {
        let mut arguments = vec!["--style".to_owned(), name_of(&self.style)];
        arguments.extend(self.defer.then(|| "--defer".to_owned()));
        arguments.extend(self.more.then(|| "--more".to_owned()));
        arguments
    }
}

/// Serves until the process is killed.
pub(crate) fn serve(args: &NullArgs) -> Result<()> {
    let blocking = args.variant.style != Style::Epoll;
    let flags = if blocking { SocketFlags::CLOEXEC } else { SocketFlags::CLOEXEC | SocketFlags::NONBLOCK };
    let listener = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&listener, true)?;
    if args.variant.defer {
        // The seconds that a silent connection may stay in the kernel; any value will do.
        nix::sys::socket::setsockopt(&listener, DeferAccept, &1)?;
    }
    bind(&listener, &SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, args.port))?;
    listen(&listener, 4096)?;
    let more = if args.variant.more { SendFlags::MORE } else { SendFlags::empty() };
    let answer: &dyn Fn(&OwnedFd) = match args.variant.style {
        Style::Held => &grant_and_hold,
        _ => &|connection| answer(connection, SendFlags::NOSIGNAL | more),
    };
    let outcome = if blocking { serve_blocking(&listener, answer) } else { serve_epoll(&listener, answer) };
    Ok(outcome?)
}

fn serve_blocking(listener: &OwnedFd, answer: &dyn Fn(&OwnedFd)) -> io::Result<()> {
    loop {
        match accept_with(listener, SocketFlags::CLOEXEC) {
            Ok(connection) => answer(&connection),
            Err(Errno::INTR | Errno::CONNABORTED) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn serve_epoll(listener: &OwnedFd, answer: &dyn Fn(&OwnedFd)) -> io::Result<()> {
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&poll, listener, epoll::EventData::new_u64(0), epoll::EventFlags::IN)?;
    let mut events = Vec::with_capacity(1);
    loop {
        events.clear();
        epoll::wait(&poll, rustix::buffer::spare_capacity(&mut events), None::<&Timespec>)?;
        loop {
            // The accepted socket is blocking, because without TCP_DEFER_ACCEPT its request may not have arrived yet.
            match accept_with(listener, SocketFlags::CLOEXEC) {
                Ok(connection) => answer(&connection),
                Err(Errno::WOULDBLOCK) => break,
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Answers one request without parsing it. A client that has already closed is not an error.
fn answer(connection: &OwnedFd, flags: SendFlags) {
    let mut request = [0; 512];
    if recv(connection, &mut request, RecvFlags::empty()).is_ok() {
        let _ = send(connection, &FIXED_ANSWER, flags);
    }
}

/// Grants a registration, and waits until the client closes.
fn grant_and_hold(connection: &OwnedFd) {
    let mut request = [0; 512];
    if recv(connection, &mut request, RecvFlags::empty()).is_ok()
        && send(connection, &GRANTED, SendFlags::NOSIGNAL).is_ok()
    {
        let _ = recv(connection, &mut request, RecvFlags::empty());
    }
}
