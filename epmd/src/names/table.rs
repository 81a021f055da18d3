//! The Erlang nodes registered on this host: their names, their order and their creations.
//!
//! A state machine without sockets or a clock: callers pass the time, and the holder of a registration is a type
//! parameter that only needs to know its descriptor number.

use std::borrow::Borrow;
use std::collections::{BTreeMap, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use pmd_protocol::epmd::{Alive2, encode};

use super::creation;
use super::old_names::{OldName, OldNames};

/// The number of old names that stock epmd remembers at least.
pub const OLD_NAMES: usize = 1000;
/// The number of old names that stock epmd remembers with any `-d`.
pub const OLD_NAMES_DEBUG: usize = 5;

/// Keeps a registration alive.
pub trait Holder {
    /// Its descriptor number, which DUMP prints.
    fn descriptor(&self) -> i32;
}

/// The reason why a name counts as registered.
#[derive(Debug)]
pub enum Claim<H> {
    /// A connection holds it.
    Held(H),
    /// It was taken over from another port mapper, and its node is expected to register again.
    Adopted,
}

/// One registered Erlang node. Immutable: a new registration is a new value with a new [`id`](Self::id).
#[derive(Debug)]
pub struct Registration<H> {
    /// Unique and increasing while this daemon runs: a later registration has a larger id.
    pub id: u64,
    /// The part of the node name before the `@`.
    pub name: Arc<str>,
    /// The distribution port.
    pub port: u16,
    /// 77 for a normal Erlang node, 72 or 104 for hidden and C nodes, 110 for Java.
    pub node_type: u8,
    /// The protocol: 0 for TCP over IPv4.
    pub protocol: u8,
    /// The highest distribution version it speaks.
    pub highest_version: u16,
    /// The lowest distribution version it speaks.
    pub lowest_version: u16,
    /// Distinguishes this registration of the name from earlier ones.
    pub creation: u32,
    /// When it registered, in milliseconds since the Unix epoch.
    pub registered_ms: u64,
    /// The node's extra field.
    pub extra: Box<[u8]>,
    /// The reason why it counts as registered.
    pub claim: Claim<H>,
}

impl<H> Registration<H> {
    /// The node's own description, with which lookups are answered.
    pub fn alive2(&self) -> Alive2<'_> {
        Alive2 {
            port: self.port,
            node_type: self.node_type,
            protocol: self.protocol,
            highest_version: self.highest_version,
            lowest_version: self.lowest_version,
            name: &self.name,
            extra: &self.extra,
        }
    }
}

/// A registration found by its name.
#[derive(Debug)]
pub struct ByName<H>(pub Arc<Registration<H>>);

impl<H> Borrow<str> for ByName<H> {
    fn borrow(&self) -> &str {
        &self.0.name
    }
}

impl<H> Hash for ByName<H> {
    fn hash<S: Hasher>(&self, state: &mut S) {
        (*self.0.name).hash(state);
    }
}

impl<H> PartialEq for ByName<H> {
    fn eq(&self, other: &Self) -> bool {
        self.0.name == other.0.name
    }
}

impl<H> Eq for ByName<H> {}

/// The error for a name that is taken: its registration, and the rejected holder.
#[derive(Debug)]
pub struct Duplicate<H> {
    /// The registration that holds the name.
    pub current: Arc<Registration<H>>,
    /// The rejected holder, returned to the caller.
    pub newcomer: H,
}

/// All registered names of this host.
#[derive(Debug)]
pub struct Names<H> {
    next_id: u64,
    by_name: HashSet<ByName<H>>,
    by_id: BTreeMap<u64, Arc<Registration<H>>>,
    old: OldNames,
    /// The NAMES answer; rendered on demand and dropped by every change.
    rendered: Option<Arc<[u8]>>,
}

impl<H: Holder> Names<H> {
    /// An empty table that remembers at least `old_names` unregistered names.
    pub fn new(old_names: usize) -> Names<H> {
        Names {
            next_id: 1,
            by_name: HashSet::new(),
            by_id: BTreeMap::new(),
            old: OldNames::new(old_names),
            rendered: None,
        }
    }

    /// Registers a node, unless its name is held; `now_ms` is in milliseconds since the Unix epoch.
    ///
    /// An adopted name is replaced by its node's own registration. A refused registration changes nothing.
    pub fn register(
        &mut self,
        alive2: &Alive2<'_>,
        holder: H,
        now_ms: u64,
    ) -> Result<Arc<Registration<H>>, Duplicate<H>> {
        let creation = match self.get(alive2.name) {
            Some(current) if matches!(current.claim, Claim::Held(_)) => {
                return Err(Duplicate { current: Arc::clone(current), newcomer: holder });
            }
            Some(adopted) => {
                let (name, id) = (Arc::clone(&adopted.name), adopted.id);
                self.take(&name, id).map(|adopted| creation::next(adopted.creation))
            }
            None => None,
        };
        let creation = creation.unwrap_or_else(|| self.creation_of(alive2.name, now_ms / 1000));
        Ok(self.insert(alive2, Claim::Held(holder), creation, now_ms))
    }

    /// Takes over a name from another port mapper. A name that is already registered is not changed.
    pub fn adopt(&mut self, alive2: &Alive2<'_>, now_ms: u64) -> Option<Arc<Registration<H>>> {
        if self.get(alive2.name).is_some() {
            return None;
        }
        let creation = self.creation_of(alive2.name, now_ms / 1000);
        Some(self.insert(alive2, Claim::Adopted, creation, now_ms))
    }

    /// Ends the registration `id` of `name`; a later registration of the same name is not touched.
    pub fn unregister(&mut self, name: &str, id: u64) -> Option<Arc<Registration<H>>> {
        let ended = self.take(name, id)?;
        self.old.remember(OldName {
            name: Arc::clone(&ended.name),
            creation: ended.creation,
            port: ended.port,
            descriptor: match &ended.claim {
                Claim::Held(holder) => holder.descriptor(),
                Claim::Adopted => -1,
            },
        });
        Some(ended)
    }

    /// The registration that has this name.
    pub fn get(&self, name: &str) -> Option<&Arc<Registration<H>>> {
        self.by_name.get(name).map(|entry| &entry.0)
    }

    /// All registrations, newest first: the order of NAMES and DUMP.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Registration<H>>> {
        self.by_id.values().rev()
    }

    /// The number of registered names.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether no name is registered.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// The number of remembered old names.
    pub fn old_names(&self) -> usize {
        self.old.len()
    }

    /// The complete answer to NAMES_REQ; the same allocation until something changes.
    pub fn render_names(&mut self, configured_port: i32) -> Arc<[u8]> {
        if let Some(rendered) = &self.rendered {
            return Arc::clone(rendered);
        }
        let mut out = encode::names_header(configured_port).to_vec();
        for entry in self.iter() {
            encode::names_line(&entry.name, entry.port, &mut out);
        }
        let rendered: Arc<[u8]> = out.into();
        self.rendered = Some(Arc::clone(&rendered));
        rendered
    }

    /// The complete answer to DUMP_REQ: the registered names, then the remembered ones.
    pub fn render_dump(&self, configured_port: i32) -> Arc<[u8]> {
        let mut out = encode::names_header(configured_port).to_vec();
        for entry in self.iter() {
            let descriptor = match &entry.claim {
                Claim::Held(holder) => holder.descriptor(),
                Claim::Adopted => -1,
            };
            encode::dump_active_line(&entry.name, entry.port, descriptor, &mut out);
        }
        for old in self.old.iter() {
            encode::dump_old_line(&old.name, old.port, old.descriptor, &mut out);
        }
        out.into()
    }

    fn creation_of(&mut self, name: &str, now: u64) -> u32 {
        if let Some(old) = self.old.recall(name) {
            creation::next(old.creation)
        } else if let Some(recycled) = self.old.recycle() {
            recycled.creation
        } else {
            creation::first(now)
        }
    }

    fn insert(
        &mut self,
        alive2: &Alive2<'_>,
        claim: Claim<H>,
        creation: u32,
        now_ms: u64,
    ) -> Arc<Registration<H>> {
        let entry = Arc::new(Registration {
            id: self.next_id,
            name: alive2.name.into(),
            port: alive2.port,
            node_type: alive2.node_type,
            protocol: alive2.protocol,
            highest_version: alive2.highest_version,
            lowest_version: alive2.lowest_version,
            creation,
            registered_ms: now_ms,
            extra: alive2.extra.into(),
            claim,
        });
        self.next_id += 1;
        self.by_id.insert(entry.id, Arc::clone(&entry));
        self.by_name.insert(ByName(Arc::clone(&entry)));
        self.rendered = None;
        entry
    }

    fn take(&mut self, name: &str, id: u64) -> Option<Arc<Registration<H>>> {
        if self.get(name)?.id != id {
            return None;
        }
        self.rendered = None;
        self.by_name.remove(name);
        self.by_id.remove(&id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Socket(i32);

    impl Holder for Socket {
        fn descriptor(&self) -> i32 {
            self.0
        }
    }

    const NOW: u64 = 1_700_000_000_000;

    fn alive2(name: &str) -> Alive2<'_> {
        Alive2 {
            port: 5000,
            node_type: 77,
            protocol: 0,
            highest_version: 6,
            lowest_version: 5,
            name,
            extra: b"",
        }
    }

    fn names() -> Names<Socket> {
        Names::new(1000)
    }

    fn register(names: &mut Names<Socket>, name: &str) -> Arc<Registration<Socket>> {
        names.register(&alive2(name), Socket(9), NOW).expect("the name is free")
    }

    #[test]
    fn a_second_registration_is_refused_and_changes_nothing() {
        let mut names = names();
        let first = register(&mut names, "a");
        let refused = names.register(&alive2("a"), Socket(10), NOW).expect_err("the name is taken");
        assert_eq!((refused.current.id, refused.newcomer.0), (first.id, 10));
        names.unregister("a", first.id).expect("it was registered");
        assert_eq!(register(&mut names, "a").creation, first.creation + 1);
    }

    #[test]
    fn a_late_close_does_not_undo_a_later_registration() {
        let mut names = names();
        let first = register(&mut names, "a");
        names.unregister("a", first.id);
        let second = register(&mut names, "a");
        assert!(names.unregister("a", first.id).is_none());
        assert_eq!(names.get("a").map(|entry| entry.id), Some(second.id));
    }

    #[test]
    fn the_newest_comes_first() {
        let mut names = names();
        for name in ["a", "b", "c"] {
            register(&mut names, name);
        }
        assert_eq!(
            &*names.render_names(4369),
            b"\0\0\x11\x11name c at port 5000\nname b at port 5000\nname a at port 5000\n"
        );
    }

    #[test]
    fn a_rendering_is_shared_until_something_changes() {
        let mut names = names();
        let a = register(&mut names, "a");
        let before = names.render_names(4369);
        assert!(Arc::ptr_eq(&before, &names.render_names(4369)));
        names.unregister("a", a.id);
        assert_eq!(&*names.render_names(4369), b"\0\0\x11\x11");
    }

    #[test]
    fn dump_ends_lines_with_lf_and_nul_and_lists_old_names_last() {
        let mut names = names();
        let a = register(&mut names, "a");
        register(&mut names, "b");
        names.unregister("a", a.id);
        assert_eq!(
            &*names.render_dump(4369),
            b"\0\0\x11\x11active name     <b> at port 5000, fd = 9\n\0\
              old/unused name <a>, port = 5000, fd = 9 \n\0"
        );
    }

    #[test]
    fn a_new_name_inherits_the_counter_of_the_oldest_beyond_the_threshold() {
        let mut names: Names<Socket> = Names::new(2);
        for name in ["a", "b", "c"] {
            let entry = register(&mut names, name);
            names.unregister(name, entry.id);
        }
        let restarted = register(&mut names, "a");
        names.unregister("a", restarted.id);
        // Now "b" is the oldest of three, one more than the threshold.
        let later = NOW + 3_600_000;
        let fresh = names.register(&alive2("fresh"), Socket(1), later).expect("free");
        assert_eq!(fresh.creation, creation::first(NOW / 1000));
        let another = names.register(&alive2("another"), Socket(1), later).expect("free");
        assert_eq!(another.creation, creation::first(later / 1000));
    }

    #[test]
    fn an_adopted_name_gives_way_to_its_node_and_to_no_other_adoption() {
        let mut names = names();
        let adopted = names.adopt(&alive2("a"), NOW).expect("the name is free");
        assert!(names.adopt(&alive2("a"), NOW).is_none());
        let held = register(&mut names, "a");
        assert_eq!(held.creation, adopted.creation + 1);
        assert!(names.unregister("a", adopted.id).is_none());
        assert_eq!(names.len(), 1);
    }

    /// A client's operation on one of a few names.
    #[derive(Debug, Clone, Copy)]
    enum Act {
        Register(usize),
        Unregister(usize),
        Adopt(usize),
    }

    /// A reference model of the same rules: a list of active names, oldest first, and a list of old ones.
    #[derive(Debug, Default)]
    struct Model {
        active: Vec<(usize, u32, bool)>,
        old: Vec<(usize, u32)>,
    }

    impl Model {
        fn creation(&mut self, name: usize, threshold: usize) -> u32 {
            if let Some(at) = self.old.iter().position(|(old, _)| *old == name) {
                self.old.remove(at).1 + 1
            } else if self.old.len() > threshold {
                self.old.remove(0).1
            } else {
                creation::first(NOW / 1000)
            }
        }

        fn act(&mut self, act: Act, threshold: usize) {
            let at = |model: &Model, name| model.active.iter().position(|(active, ..)| *active == name);
            match act {
                Act::Register(name) => match at(self, name) {
                    Some(taken) if self.active[taken].2 => {}
                    Some(adopted) => {
                        let creation = self.active.remove(adopted).1 + 1;
                        self.active.push((name, creation, true));
                    }
                    None => {
                        let creation = self.creation(name, threshold);
                        self.active.push((name, creation, true));
                    }
                },
                Act::Adopt(name) if at(self, name).is_none() => {
                    let creation = self.creation(name, threshold);
                    self.active.push((name, creation, false));
                }
                Act::Adopt(_) => {}
                Act::Unregister(name) => {
                    if let Some(at) = at(self, name) {
                        let (name, creation, _) = self.active.remove(at);
                        self.old.push((name, creation));
                    }
                }
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn any_history_gives_what_the_plain_rules_give(
            threshold in 0_usize..3,
            history in proptest::collection::vec((0_usize..5, 0_usize..3), 0..60),
        ) {
            let (mut names, mut model) = (Names::new(threshold), Model::default());
            for (name, kind) in history {
                let act = [Act::Register, Act::Unregister, Act::Adopt][kind](name);
                let text = format!("n{name}");
                model.act(act, threshold);
                match act {
                    Act::Register(_) => drop(names.register(&alive2(&text), Socket(7), NOW)),
                    Act::Adopt(_) => drop(names.adopt(&alive2(&text), NOW)),
                    Act::Unregister(_) => {
                        let id = names.get(&text).map_or(0, |entry| entry.id);
                        drop(names.unregister(&text, id));
                    }
                }
                let active: Vec<_> =
                    names.iter().map(|entry| (entry.name.to_string(), entry.creation)).collect();
                let expected: Vec<_> =
                    model.active.iter().rev().map(|(name, creation, _)| (format!("n{name}"), *creation)).collect();
                proptest::prop_assert_eq!(active, expected);
                proptest::prop_assert_eq!(names.old_names(), model.old.len());
            }
        }
    }
}
