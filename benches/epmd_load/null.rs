//! The null server: accept, receive, send fixed bytes, close. What it costs is the kernel's price of a look-up.
//!
//! Several of them, because which is the cheapest depends on the kernel and on the load:
//!
//! - a loop of blocking calls, or epoll on the listener;
//! - with and without TCP_DEFER_ACCEPT, which leaves a connection in the kernel until the request is there, so that
//!   the server is woken once and not twice;
//! - with and without MSG_MORE, which leaves the answer in the kernel until the close, so that answer and end of
//!   stream travel in one segment.
//!
//! One more does for registrations what these do for look-ups. One thread, and no thought for slow clients: a silent
//! one stops it. It is a measuring weight, not a server.

use std::io;
use std::net::Ipv4Addr;

use anyhow::Result;
use clap::{Args, ValueEnum};
use nix::{getsockopt_impl, libc, setsockopt_impl, sockopt_impl};
use rustix::event::{Timespec, epoll};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrV4, SocketFlags, SocketType, accept_with, bind, listen,
    recv, send, socket_with, sockopt,
};

use crate::server::end_with_parent;
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
    /// Leave the answer in the kernel until the close, and so save a segment
    #[arg(long)]
    pub(crate) more: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Style {
    /// accept, recv, send, close, each waiting
    Blocking,
    /// epoll_wait on the listener, then accept until there is none
    Epoll,
    /// Blocking, and waits for the client to close, as a registration does
    Held,
}

impl Variant {
    /// For look-ups.
    pub(crate) const ALL: [Variant; 6] = [
        Variant { style: Style::Blocking, defer: false, more: false },
        Variant { style: Style::Blocking, defer: true, more: false },
        Variant { style: Style::Blocking, defer: true, more: true },
        Variant { style: Style::Epoll, defer: false, more: false },
        Variant { style: Style::Epoll, defer: true, more: false },
        Variant { style: Style::Epoll, defer: true, more: true },
    ];

    /// For registrations.
    pub(crate) const HELD: Variant = Variant { style: Style::Held, defer: true, more: false };

    pub(crate) fn label(self) -> String {
        let defer = if self.defer { " + defer" } else { "" };
        let more = if self.more { " + more" } else { "" };
        format!("null {}{defer}{more}", self.style.name())
    }

    /// The arguments that ask for it.
    pub(crate) fn arguments(self) -> Vec<&'static str> {
        let mut arguments = vec!["--style", self.style.name()];
        arguments.extend(self.defer.then_some("--defer"));
        arguments.extend(self.more.then_some("--more"));
        arguments
    }
}

impl Style {
    /// Its name on the command line.
    fn name(self) -> &'static str {
        match self {
            Style::Blocking => "blocking",
            Style::Epoll => "epoll",
            Style::Held => "held",
        }
    }
}

/// Serves until the process is ended.
pub(crate) fn serve(args: &NullArgs) -> Result<()> {
    end_with_parent()?;
    let blocking = args.variant.style != Style::Epoll;
    let flags = if blocking { SocketFlags::CLOEXEC } else { SocketFlags::CLOEXEC | SocketFlags::NONBLOCK };
    let listener = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&listener, true)?;
    if args.variant.defer {
        // Seconds a silent connection may stay in the kernel; the number does not matter here.
        nix::sys::socket::setsockopt(&listener, DeferAccept, &1)?;
    }
    bind(&listener, &SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, args.port))?;
    listen(&listener, 4096)?;
    let more = if args.variant.more { SendFlags::MORE } else { SendFlags::empty() };
    let answer: &dyn Fn(&OwnedFd) = match args.variant.style {
        Style::Held => &grant_and_hold,
        _ => &|connection| answer(connection, SendFlags::NOSIGNAL | more),
    };
    let ended = if blocking { serve_blocking(&listener, answer) } else { serve_epoll(&listener, answer) };
    Ok(ended?)
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
            // The accepted socket blocks: without TCP_DEFER_ACCEPT its request may be a moment away.
            match accept_with(listener, SocketFlags::CLOEXEC) {
                Ok(connection) => answer(&connection),
                Err(Errno::WOULDBLOCK) => break,
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// One request, unread, and the fixed answer. A client that has gone is no reason to end.
fn answer(connection: &OwnedFd, flags: SendFlags) {
    let mut request = [0; 512];
    if recv(connection, &mut request, RecvFlags::empty()).is_ok() {
        let _ = send(connection, &FIXED_ANSWER, flags);
    }
}

/// The same, with an answer that grants a registration, and the wait for its end.
fn grant_and_hold(connection: &OwnedFd) {
    let mut request = [0; 512];
    if recv(connection, &mut request, RecvFlags::empty()).is_ok()
        && send(connection, &GRANTED, SendFlags::NOSIGNAL).is_ok()
    {
        let _ = recv(connection, &mut request, RecvFlags::empty());
    }
}
