//! A member that says what it likes: it knows the cluster secret, has a key and, with an authority, a valid certificate
//! for its own name.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::StreamExt;
use pmd::auth::cookie::Cookies;
use pmd::auth::tls::ALPN_LINK;
use pmd::link::handshake::Frames;
use pmd_core::attest::{Keys, Signed, hash_content};
use pmd_core::membership::Identity;
use pmd_core::membership::record::{Record, decode, encode};
use pmd_core::replica::content::Content;
use pmd_core::replica::store::Store;
use pmd_core::tuning::ReplicaTuning;
use pmd_protocol::peer::codec::encode as encode_frame;
use pmd_protocol::peer::frame::{Heartbeat, Membership, Pull};
use pmd_protocol::peer::{Decoded, Entry, Frame, Host, Key, Metadata, NodeId, Update, Value};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_util::codec::FramedRead;

use super::stage::{HONEST, LIAR, LIAR_NAME, Stage};
use crate::security::newcomer::Newcomer;
use crate::world::{COOKIE, World};

/// Bytes of a part of a transfer.
const PART: usize = 16 * 1024;

/// The liar, with a link to each honest daemon.
pub(super) struct Attacker {
    newcomer: Newcomer,
    /// What it says about its own entries.
    content: Content,
    links: BTreeMap<usize, Link>,
    heard: Arc<Heard>,
}

/// A link to one honest daemon.
struct Link {
    frames: mpsc::Sender<Frame>,
    /// Whether the daemon has closed it.
    over: Arc<AtomicBool>,
}

/// What honest daemons have said.
#[derive(Default)]
struct Heard {
    records: Mutex<BTreeMap<NodeId, Record>>,
    updates: Mutex<BTreeMap<NodeId, Update>>,
}

impl Attacker {
    /// Joins the cluster as an honest member would.
    pub(super) fn join(stage: &Stage) -> Attacker {
        let newcomer = Newcomer::with(LIAR_NAME, &stage.source, &Arc::new(Cookies::of_text(COOKIE)));
        let content = Content::new(newcomer.identity().generation);
        let mut attacker = Attacker { newcomer, content, links: BTreeMap::new(), heard: Arc::default() };
        attacker.put(&host(LIAR_NAME));
        HONEST.iter().for_each(|to| attacker.dial(&stage.world, *to));
        stage.world.wait_on(&HONEST, "the liar to be a member", |host| {
            stage.world.members(host).contains(&LIAR_NAME.to_owned())
        });
        attacker
    }

    pub(super) fn id(&self) -> NodeId {
        self.newcomer.identity().id
    }

    pub(super) fn identity(&self) -> Identity {
        self.newcomer.identity()
    }

    pub(super) fn keys(&self) -> Arc<dyn Keys> {
        self.newcomer.tls.keys()
    }

    pub(super) fn newcomer(&self) -> &Newcomer {
        &self.newcomer
    }

    /// Links to the honest daemon of a host, and introduces itself truthfully.
    pub(super) fn dial(&mut self, world: &World, to: usize) {
        let proven = self.newcomer.dial_to(world, (LIAR, to), ALPN_LINK).expect("a handshake");
        let (over, heard) = (Arc::new(AtomicBool::new(false)), Arc::clone(&self.heard));
        let (frames, output) = mpsc::channel(64);
        let link = Link { frames: frames.clone(), over: Arc::clone(&over) };
        world.spawn(async move {
            converse(proven.frames, output, frames, heard).await;
            over.store(true, Ordering::Relaxed);
        });
        self.links.insert(to, link);
        let (record, updates) = self.own();
        self.say(to, membership(&[record]));
        for update in updates {
            self.say(to, Frame::Update(update));
        }
    }

    /// Links again to those who have closed their link.
    pub(super) fn redial(&mut self, world: &World) {
        for to in HONEST {
            if self.is_closed(to) {
                self.dial(world, to);
            }
        }
    }

    /// Whether the daemon of a host has closed the link.
    pub(super) fn is_closed(&self, to: usize) -> bool {
        self.links[&to].over.load(Ordering::Relaxed)
    }

    /// Says something to the daemon of a host. Returns whether the link was still open.
    pub(super) fn say(&self, to: usize, frame: Frame) -> bool {
        !self.is_closed(to) && self.links[&to].frames.blocking_send(frame).is_ok()
    }

    /// Says the same to all.
    pub(super) fn say_to_all(&self, frame: &Frame) {
        for to in HONEST {
            self.say(to, frame.clone());
        }
    }

    /// What it says about itself.
    pub(super) fn own(&self) -> (Record, Vec<Update>) {
        statements(&*self.keys(), self.identity(), &self.content)
    }

    /// Registers an entry of its own.
    pub(super) fn put(&mut self, entry: &Entry) {
        let (key, value) = entry.write().expect("an entry");
        self.content.put(key, value);
    }

    /// What it says about itself if it has these entries, and nothing but these.
    pub(super) fn updates_with(&self, entries: Vec<(Key, Value)>) -> Vec<Update> {
        let mut content = self.content.clone();
        for (key, value) in entries {
            content.put(key, value);
        }
        statements(&*self.keys(), self.identity(), &content).1
    }

    /// The record of an honest daemon, as another one knows it.
    pub(super) fn record_of(&self, world: &World, of: usize) -> Record {
        let (id, from) = (id_of(world, of), other_than(of));
        world.wait_on(&[from], "a record", |_| self.heard.records().contains_key(&id));
        self.heard.records()[&id].clone()
    }

    /// The latest entries of an honest daemon, as another one knows them.
    pub(super) fn update_of(&self, world: &World, of: usize) -> Update {
        let (id, from) = (id_of(world, of), other_than(of));
        self.say(from, Frame::Pull(Pull { wants: vec![(id, None)], graft: false }));
        world.wait_on(&[from], "entries", |_| self.heard.updates().contains_key(&id));
        self.heard.updates()[&id].clone()
    }
}

impl Heard {
    fn records(&self) -> std::sync::MutexGuard<'_, BTreeMap<NodeId, Record>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn updates(&self) -> std::sync::MutexGuard<'_, BTreeMap<NodeId, Update>> {
        self.updates.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hear(&self, frame: Frame) {
        match frame {
            Frame::Membership(membership) => {
                let records = decode(&membership.records).expect("an honest daemon");
                self.records().extend(records.into_iter().map(|record| (record.identity.id, record)));
            }
            Frame::Update(update) => drop(self.updates().insert(update.origin, update)),
            Frame::Updates(all) => {
                self.updates().extend(all.updates.into_iter().map(|update| (update.origin, update)));
            }
            _ => {}
        }
    }
}

/// The id of an honest daemon.
pub(super) fn id_of(world: &World, host: usize) -> NodeId {
    world.status(host).expect("a daemon").id.parse().expect("an id")
}

/// A host with an honest daemon other than this one.
pub(super) fn other_than(host: usize) -> usize {
    (host + 1) % HONEST.len()
}

/// The entry in which a daemon describes its host.
pub(super) fn host(name: &str) -> Entry {
    Entry::Host(Host {
        host: name.parse().expect("a host name"),
        version: "1".into(),
        metadata: Metadata::default(),
        leaving: false,
        relay: false,
        secret_ms: 0,
        alias: None,
    })
}

/// The frame with these records.
pub(super) fn membership(records: &[Record]) -> Frame {
    let (bytes, count) = encode(records, usize::MAX);
    assert_eq!(count, records.len(), "they fit into a frame");
    Frame::Membership(Membership { records: bytes })
}

/// What the holder of these keys says about itself, signed: its record, and its entries.
pub(super) fn statements(keys: &dyn Keys, identity: Identity, content: &Content) -> (Record, Vec<Update>) {
    let id = identity.id;
    let mut record = Record::alive(identity, keys.public_key());
    let signed = Signed::sign(keys, record.statement(), hash_content(&id, &content.stamp()));
    record.attestation = signed.member_attestation();
    let mut content = content.clone();
    content.attest(signed.content_attestation());
    let store = Store::with_own(id, Arc::new(content), ReplicaTuning::DEFAULT);
    let mut transfer = store.transfer(&id, None).expect("a snapshot");
    (record, std::iter::from_fn(|| transfer.next_part(PART)).collect())
}

/// Carries a link until it ends, and answers heartbeats so that it lives.
async fn converse(
    frames: Frames,
    mut output: mpsc::Receiver<Frame>,
    answers: mpsc::Sender<Frame>,
    heard: Arc<Heard>,
) {
    let parts = frames.into_parts();
    let (reading, mut sink) = tokio::io::split(parts.io);
    let early = Cursor::new(parts.read_buf.freeze());
    let mut stream = FramedRead::new(early.chain(reading), parts.codec);
    let reading = async {
        while let Some(Ok(decoded)) = stream.next().await {
            match decoded {
                Decoded::Frame(Frame::Close(_)) => return,
                Decoded::Frame(Frame::Heartbeat(Heartbeat { sequence, .. })) => {
                    let beat = Heartbeat { sequence, next_ds: 50, summary: None, echo: None };
                    let _ = answers.try_send(Frame::Heartbeat(beat));
                }
                Decoded::Frame(frame) => heard.hear(frame),
                Decoded::Skipped { .. } => {}
            }
        }
    };
    let writing = async {
        while let Some(frame) = output.recv().await {
            let mut bytes = Vec::new();
            encode_frame(&frame, &mut bytes).expect("a frame that fits");
            if sink.write_all(&bytes).await.is_err() || sink.flush().await.is_err() {
                return;
            }
        }
    };
    // A daemon that closes the link may have sent more before; whoever cannot write any more reads that.
    tokio::pin!(reading);
    tokio::select! {
        () = &mut reading => {}
        () = writing => reading.await,
    }
}
