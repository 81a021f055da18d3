//! A member that lies: a daemon built on `pmd-core` that knows the cluster secret, signs what it says with its own key,
//! and writes another host name in its entry of the registry than the one that it proves in handshakes.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use pmd::auth::cookie::Cookies;
use pmd::auth::proof::Role;
use pmd::auth::tls::{ALPN_LINK, ALPN_TUNNEL, Tls};
use pmd::base::clock::now_ms;
use pmd::config::types::IdentitySource;
use pmd::link::connection::Connection;
use pmd::link::dial::Dialer;
use pmd::link::handshake::{self, Frames};
use pmd::link::local_identity::LocalIdentity;
use pmd_core::membership::expulsions::Administrators;
use pmd_core::node::{Command, LinkEvent, LinkId, Node, Now, Output, Purpose, Settings};
use pmd_core::tuning::Tuning;
use pmd_epmd::descriptors::Descriptors;
use pmd_protocol::peer::frame::{Answer, Ask, Observation, Open, Opened};
use pmd_protocol::peer::{Decoded, Entry, Frame, Host, Kind, Metadata, Name};
use tokio::runtime::Runtime;
use tokio::sync::{Notify, watch};
use tokio_rustls::{TlsAcceptor, TlsStream};

use crate::machine::PORT;
use crate::world::{COOKIE, PATIENCE, World};

/// The only link of a liar.
const LINK: LinkId = LinkId(1);

/// A lying member; it is one until this value is dropped.
#[derive(Debug)]
pub(crate) struct Liar {
    local: Arc<LocalIdentity>,
    told: Arc<Told>,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

/// What others have requested, and what the liar says.
#[derive(Debug, Default)]
struct Told {
    /// Tunnels that others have requested.
    tunnels: AtomicUsize,
    /// Questions of others.
    questions: AtomicUsize,
    /// Answers of the first host.
    answers: AtomicU64,
    /// What it has registered, as it answers questions; it does not answer any if there is nothing here.
    registered: Mutex<Option<Vec<Entry>>>,
    /// Frames to send over the link.
    frames: Mutex<Vec<Frame>>,
    send: Notify,
}

impl Told {
    fn answer(&self, ask: &Ask) -> Option<Frame> {
        self.questions.fetch_add(1, Ordering::Relaxed);
        let registered = self.registered.lock().expect("no panic");
        let entries =
            registered.as_ref()?.iter().map(|entry| entry.write().expect("a short entry")).collect();
        Some(Frame::Answer(Answer { number: ask.number, entries }))
    }
}

/// An open tunnel.
#[derive(Debug)]
pub(crate) struct Tunnel(#[allow(dead_code, reason = "the tunnel ends when it is dropped")] Frames);

/// The identity of a daemon with its own key in this folder.
pub(crate) fn own_key(folder: &Path) -> IdentitySource {
    IdentitySource::Auto { key: folder.join("liar.key") }
}

/// The identity of a daemon with a certificate of the authority in this folder.
pub(crate) fn certified(folder: &Path, host: &str) -> IdentitySource {
    IdentitySource::Authority {
        ca: folder.join("ca.pem"),
        certificate: folder.join(format!("{host}.pem")),
        key: folder.join(format!("{host}.key")),
    }
}

impl Liar {
    /// A member on the host `at` that joins the first host. It proves the name `proven`, and its entry says `claimed`.
    /// It registers a node `rabbit`.
    pub(crate) fn start(
        world: &World,
        at: usize,
        proven: &str,
        claimed: &str,
        source: &IdentitySource,
    ) -> Liar {
        let tls = Arc::new(Tls::load(source, proven).expect("an identity"));
        let host = Host {
            host: claimed.parse().expect("a host name"),
            version: "1".into(),
            metadata: Metadata::default(),
            leaving: false,
            relay: false,
            secret_ms: 0,
            alias: None,
        };
        let settings = Settings {
            keys: tls.keys(),
            seed: [7; 32],
            addresses: vec![(world[at].ip, PORT).into()],
            host,
            tuning: Tuning::default(),
            administrators: Administrators::All,
            decisions: Vec::new(),
        };
        let mut core = Node::new(settings, Now { mono_ms: 0, wall_ms: now_ms() }).expect("a node");
        let now = Now { mono_ms: 0, wall_ms: now_ms() };
        core.handle_command(now, Command::Put(node("rabbit", 25_672))).expect("a registration");
        let identity = watch::channel(core.identity().clone()).1;
        let cookies = Arc::new(Cookies::of_text(COOKIE));
        let proven = proven.parse().expect("a host name");
        let local = Arc::new(LocalIdentity::new("pmd".into(), proven, identity, tls, cookies));
        let told = Arc::new(Told::default());
        let (stop, stopped) = watch::channel(false);

        let first: SocketAddr = (world[0].ip, PORT).into();
        let (link, listener) = world.site(at).cell.run(move || {
            (
                TcpStream::connect(first).expect("a daemon"),
                TcpListener::bind(("0.0.0.0", PORT)).expect("a port"),
            )
        });
        let (own, hears) = (Arc::clone(&local), Arc::clone(&told));
        let thread = std::thread::spawn(move || {
            runtime().block_on(async {
                tokio::spawn(accept(listener, Arc::clone(&own), Arc::clone(&hears)));
                be_member(link, first, &own, core, &hears, stopped).await;
            });
        });
        Liar { local, told, stop, thread: Some(thread) }
    }

    /// How many tunnels others have requested from it.
    pub(crate) fn asked(&self) -> usize {
        self.told.tunnels.load(Ordering::Relaxed)
    }

    /// How many questions others have asked it.
    pub(crate) fn questions(&self) -> usize {
        self.told.questions.load(Ordering::Relaxed)
    }

    /// Answers all questions with these entries from now on, or none.
    pub(crate) fn answer_with(&self, entries: Option<Vec<Entry>>) {
        *self.told.registered.lock().expect("no panic") = entries;
    }

    /// Asks the first host `count` times over the link.
    pub(crate) fn ask(&self, name: &str, count: u64) {
        let ask = |number| Frame::Ask(Ask { number, name: name.to_owned() });
        self.told.frames.lock().expect("no panic").extend((0..count).map(ask));
        self.told.send.notify_one();
    }

    /// How many answers the first host has given.
    pub(crate) fn answers(&self) -> u64 {
        self.told.answers.load(Ordering::Relaxed)
    }

    /// Asks the host `to` on a connection of its own. Returns the names of the entries in the answer.
    pub(crate) fn ask_once(&self, world: &World, at: usize, to: usize, name: &str) -> Vec<String> {
        let address: SocketAddr = (world[to].ip, PORT).into();
        let socket = world.site(at).cell.run(move || TcpStream::connect(address)).expect("a daemon");
        let ask = Ask { number: 7, name: name.to_owned() };
        world.block_on(async {
            let mut frames = dial(&self.local, socket, address, ALPN_TUNNEL).await.1;
            frames.send(&Frame::Ask(ask)).await.expect("a connection");
            let frame = tokio::time::timeout(PATIENCE, frames.next()).await.expect("an answer");
            let Some(Ok(Decoded::Frame(Frame::Answer(answer)))) = frame else { panic!("{frame:?}") };
            assert_eq!(answer.number, 7);
            let name = |(key, value)| Entry::read(key, value).expect("an entry").name().to_owned();
            answer.entries.iter().map(|(key, value)| name((key, value))).collect()
        })
    }

    /// Opens a tunnel from the host `at` to the node `name` on the host `to`, or returns why it was refused.
    pub(crate) fn open(&self, world: &World, at: usize, to: usize, name: &str) -> Result<Tunnel, String> {
        let address: SocketAddr = (world[to].ip, PORT).into();
        let socket = world.site(at).cell.run(move || TcpStream::connect(address)).expect("a daemon");
        let open = Open { kind: Kind::NAME, name: name.to_owned(), creation: 0 };
        world.block_on(async {
            let mut frames = dial(&self.local, socket, address, ALPN_TUNNEL).await.1;
            frames.send(&Frame::Open(open)).await.map_err(|error| error.to_string())?;
            loop {
                match tokio::time::timeout(PATIENCE, frames.next()).await.expect("an answer") {
                    Some(Ok(Decoded::Frame(Frame::Opened(_)))) => return Ok(Tunnel(frames)),
                    Some(Ok(Decoded::Frame(Frame::Close(close)))) => return Err(close.text),
                    Some(Ok(_)) => {}
                    other => return Err(format!("{other:?}")),
                }
            }
        })
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A node that is registered with this port.
pub(crate) fn node(name: &str, port: u16) -> Entry {
    Entry::Name(Name {
        name: name.parse().expect("a name"),
        port,
        node_type: 77,
        protocol: 0,
        highest_version: 6,
        lowest_version: 5,
        creation: 1,
        registered_ms: 0,
        extra: Box::default(),
    })
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

async fn dial(
    local: &Arc<LocalIdentity>,
    socket: TcpStream,
    address: SocketAddr,
    alpn: &[u8],
) -> (pmd_core::membership::Identity, Frames) {
    socket.set_nonblocking(true).expect("a socket");
    let socket = tokio::net::TcpStream::from_std(socket).expect("a socket");
    let descriptors = Arc::new(Descriptors::new(1_024));
    let runtime = tokio::runtime::Handle::current();
    let dialer = Dialer::new(Arc::clone(local), descriptors, Arc::default(), runtime);
    let proven = dialer.reach_over(Connection::new(socket, address, Vec::new()), None, alpn).await;
    let proven = proven.expect("a handshake");
    (proven.identity(), proven.frames)
}

/// Keeps the link to the first host, with everything that the node says on it.
async fn be_member(
    link: TcpStream,
    address: SocketAddr,
    local: &Arc<LocalIdentity>,
    mut node: Node,
    told: &Told,
    mut stopped: watch::Receiver<bool>,
) {
    let begin = Instant::now();
    let now = || Now {
        mono_ms: u64::try_from(begin.elapsed().as_millis()).expect("a short test"),
        wall_ms: now_ms(),
    };
    let (peer, mut frames) = dial(local, link, address, ALPN_LINK).await;
    // The liar does not compare its peer's name.
    let host = "h1".parse().expect("a name");
    node.handle_link(now(), LinkEvent::Up { link: LINK, peer, initiated: true, host });
    loop {
        while let Some(output) = node.poll_output() {
            match output {
                Output::Dial { peer, purpose: Purpose::Link } => {
                    node.handle_link(now(), LinkEvent::Failed { peer: peer.id });
                }
                Output::Dial { purpose: Purpose::Probe { token, .. }, .. } => {
                    node.handle_link(now(), LinkEvent::Probed { token, observation: Observation::Silent });
                }
                Output::Close { .. } => return,
                _ => {}
            }
        }
        while let Some(frame) = node.poll_transmit(LINK, 32 * 1024) {
            if frames.send(&frame).await.is_err() {
                return;
            }
        }
        let due = Duration::from_millis(node.poll_timeout().saturating_sub(now().mono_ms));
        tokio::select! {
            frame = frames.next() => match frame {
                Some(Ok(Decoded::Frame(Frame::Ask(ask)))) => {
                    if let Some(answer) = told.answer(&ask) && frames.send(&answer).await.is_err() {
                        return;
                    }
                }
                Some(Ok(Decoded::Frame(Frame::Answer(_)))) => {
                    told.answers.fetch_add(1, Ordering::Relaxed);
                }
                Some(Ok(Decoded::Frame(frame))) => node.handle_frame(now(), LINK, frame),
                Some(Ok(_)) => {}
                _ => return,
            },
            () = tokio::time::sleep(due) => node.handle_timeout(now()),
            () = told.send.notified() => {
                let all = std::mem::take(&mut *told.frames.lock().expect("no panic"));
                for frame in all {
                    if frames.send(&frame).await.is_err() {
                        return;
                    }
                }
            }
            _ = stopped.changed() => return,
        }
    }
}

/// Accepts connections as an honest daemon would, and counts the tunnels that are requested.
async fn accept(listener: TcpListener, local: Arc<LocalIdentity>, told: Arc<Told>) {
    listener.set_nonblocking(true).expect("a socket");
    let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
    while let Ok((socket, address)) = listener.accept().await {
        let (local, told) = (Arc::clone(&local), Arc::clone(&told));
        tokio::spawn(async move {
            let tls = local.tls();
            let accepted =
                TlsAcceptor::from(tls.server()).accept(Connection::new(socket, address, Vec::new()));
            let Ok(stream) = accepted.await else { return };
            let proven = handshake::run(TlsStream::from(stream), &local, &tls, Role::Acceptor).await;
            let Ok(mut proven) = proven else { return };
            while let Some(Ok(frame)) = proven.frames.next().await {
                if matches!(frame, Decoded::Frame(Frame::Open(_))) {
                    told.tunnels.fetch_add(1, Ordering::Relaxed);
                    let _ = proven.frames.send(&Frame::Opened(Opened { port: 1, took_us: 0 })).await;
                }
            }
        });
    }
}
