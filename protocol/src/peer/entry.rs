//! The contents of registry entries.
//!
//! A value is one byte for its layout, followed by the fields in postcard. A newer version may append fields, which
//! older versions ignore. The layout is only raised if existing fields change their meaning.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde::{Deserialize, Deserializer, Serialize};

use super::bounded;
use super::key::{Key, KeyError, Kind, Value, ValueError};
use crate::limits::{MAX_EXTRA, MAX_METADATA, MAX_METADATA_BYTES, MAX_VERSION_TEXT};
use crate::name::{HostName, NodeName, ServiceName};

/// The only layout so far.
const LAYOUT: u8 = 1;

/// Free text by key: at most [`MAX_METADATA`] pairs of [`MAX_METADATA_BYTES`] in total.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata(BTreeMap<String, String>);

/// The metadata exceeds its limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("metadata exceeds {MAX_METADATA} entries or {MAX_METADATA_BYTES} bytes")]
pub struct MetadataError;

impl Metadata {
    /// Metadata of these keys and values.
    ///
    /// # Errors
    ///
    /// If there are too many of them, or if they are too long.
    pub fn new(pairs: BTreeMap<String, String>) -> Result<Self, MetadataError> {
        let bytes: usize = pairs.iter().map(|(key, value)| key.len() + value.len()).sum();
        if pairs.len() > MAX_METADATA || bytes > MAX_METADATA_BYTES {
            return Err(MetadataError);
        }
        Ok(Self(pairs))
    }

    /// The keys and values.
    #[must_use]
    pub fn pairs(&self) -> &BTreeMap<String, String> {
        &self.0
    }
}

/// A daemon's description of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// The part of its Erlang nodes' names after the `@`.
    pub host: HostName,
    /// The version of its software, at most [`MAX_VERSION_TEXT`] bytes.
    pub version: String,
    /// The metadata from its configuration file.
    pub metadata: Metadata,
    /// Whether it is about to leave the cluster.
    pub leaving: bool,
    /// Whether it relays connections between members that cannot reach each other.
    pub relay: bool,
    /// The latest rotation of the cluster secret whose secret it has, see [`Rotation`](super::Rotation); 0 if none.
    pub secret_ms: u64,
    /// The alias that it has chosen; none if it is of an older version.
    pub alias: Option<Alias>,
}

/// A loopback address that stands for a host on all other hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alias {
    /// The address.
    pub address: Ipv4Addr,
    /// When the host took it, in milliseconds since the Unix epoch by its own clock.
    pub since_ms: u64,
}

/// A registered Erlang node: the fields of its ALIVE2_REQ, and those added by its daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// The part of the node name before the `@`.
    pub name: NodeName,
    /// The distribution port.
    pub port: u16,
    /// 77 for a normal Erlang node, 72 or 104 for hidden and C nodes, 110 for Java.
    pub node_type: u8,
    /// 0 for TCP.
    pub protocol: u8,
    /// The highest distribution version it speaks.
    pub highest_version: u16,
    /// The lowest distribution version it speaks.
    pub lowest_version: u16,
    /// Distinguishes this registration of the name from earlier ones.
    pub creation: u32,
    /// When it registered, in milliseconds since the Unix epoch by its host's clock.
    pub registered_ms: u64,
    /// The extra field of its registration, at most [`MAX_EXTRA`] bytes.
    pub extra: Box<[u8]>,
}

/// A service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// The name of the service.
    pub name: ServiceName,
    /// Distinguishes services with the same name on one host.
    pub instance: u64,
    /// The TCP port it listens on.
    pub port: u16,
    /// When it registered, in milliseconds since the Unix epoch by its host's clock.
    pub registered_ms: u64,
    /// The metadata that it was registered with.
    pub metadata: Metadata,
}

/// A registry entry that this version can read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// The daemon itself.
    Host(Host),
    /// An Erlang node.
    Name(Name),
    /// A service.
    Service(Service),
}

/// The reason why an entry cannot be read. It is replicated nevertheless.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// This version does not know its kind.
    #[error("unknown entry kind {}", .0.0)]
    Kind(Kind),
    /// This version does not know its layout.
    #[error("unknown entry layout")]
    Layout,
    /// Its kind does not allow its name or instance.
    #[error("the entry's kind does not allow its key")]
    Key,
    /// The value does not match its kind.
    #[error("malformed entry value")]
    Value,
}

/// The reason why an entry cannot be replicated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryTooLong {
    /// See [`KeyError`].
    #[error(transparent)]
    Key(#[from] KeyError),
    /// See [`ValueError`].
    #[error(transparent)]
    Value(#[from] ValueError),
    /// See [`MAX_EXTRA`] and [`MAX_VERSION_TEXT`].
    #[error("extra field or version text is too long")]
    Field,
}

impl Entry {
    /// The kind of the entry.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Host(_) => Kind::HOST,
            Self::Name(_) => Kind::NAME,
            Self::Service(_) => Kind::SERVICE,
        }
    }

    /// The name of the entry, which is empty for a daemon.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Host(_) => "",
            Self::Name(name) => name.name.as_str(),
            Self::Service(service) => service.name.as_str(),
        }
    }

    /// The port to connect to, if the entry has one.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        match self {
            Self::Host(_) => None,
            Self::Name(name) => Some(name.port),
            Self::Service(service) => Some(service.port),
        }
    }

    /// Reads an entry.
    ///
    /// # Errors
    ///
    /// If this version cannot read it.
    pub fn read(key: &Key, value: &Value) -> Result<Self, EntryError> {
        let read = match key.kind() {
            Kind::HOST => read_host,
            Kind::NAME => read_name,
            Kind::SERVICE => read_service,
            unknown => return Err(EntryError::Kind(unknown)),
        };
        match value.as_bytes().split_first() {
            Some((&LAYOUT, fields)) => read(key, fields),
            Some(_) => Err(EntryError::Layout),
            None => Err(EntryError::Value),
        }
    }

    /// The key of the entry.
    ///
    /// # Errors
    ///
    /// Never, because every checked name is a valid key, although the types do not express it.
    pub fn key(&self) -> Result<Key, KeyError> {
        let instance = match self {
            Self::Service(service) => service.instance,
            Self::Host(_) | Self::Name(_) => 0,
        };
        Key::new(self.kind(), self.name().as_bytes(), instance)
    }

    /// Writes the entry.
    ///
    /// # Errors
    ///
    /// If a field is longer than [`read`](Self::read) would accept.
    pub fn write(&self) -> Result<(Key, Value), EntryTooLong> {
        let mut bytes = vec![LAYOUT];
        let fields = match self {
            Self::Host(host) if host.version.len() > MAX_VERSION_TEXT => return Err(EntryTooLong::Field),
            Self::Host(host) => postcard::to_allocvec(&HostFields {
                host: host.host.as_str(),
                version: &host.version,
                metadata: pairs(&host.metadata),
                leaving: host.leaving,
                relay: host.relay,
                secret_ms: host.secret_ms,
                alias: host.alias.map_or(0, |alias| alias.address.to_bits()),
                alias_since_ms: host.alias.map_or(0, |alias| alias.since_ms),
            }),
            Self::Name(name) if name.extra.len() > MAX_EXTRA => return Err(EntryTooLong::Field),
            Self::Name(name) => postcard::to_allocvec(&NameFields {
                port: name.port,
                node_type: name.node_type,
                protocol: name.protocol,
                highest_version: name.highest_version,
                lowest_version: name.lowest_version,
                creation: name.creation,
                registered_ms: name.registered_ms,
                extra: &name.extra,
            }),
            Self::Service(service) => postcard::to_allocvec(&ServiceFields {
                port: service.port,
                registered_ms: service.registered_ms,
                metadata: pairs(&service.metadata),
            }),
        };
        // Writing to memory has no other errors: all lengths are known, and the fields contain no floats or maps.
        bytes.extend(fields.map_err(|_| EntryTooLong::Field)?);
        Ok((self.key()?, Value::new(&bytes)?))
    }
}

#[derive(Serialize, Deserialize)]
struct HostFields<'a> {
    host: &'a str,
    version: &'a str,
    #[serde(borrow, deserialize_with = "bounded::vec::<_, _, MAX_METADATA>")]
    metadata: Vec<(&'a str, &'a str)>,
    leaving: bool,
    #[serde(deserialize_with = "or_default")]
    relay: bool,
    #[serde(deserialize_with = "or_default")]
    secret_ms: u64,
    /// As a number; 0 if there is none.
    #[serde(deserialize_with = "or_default")]
    alias: u32,
    #[serde(deserialize_with = "or_default")]
    alias_since_ms: u64,
}

#[derive(Serialize, Deserialize)]
struct NameFields<'a> {
    port: u16,
    node_type: u8,
    protocol: u8,
    highest_version: u16,
    lowest_version: u16,
    creation: u32,
    registered_ms: u64,
    extra: &'a [u8],
}

#[derive(Serialize, Deserialize)]
struct ServiceFields<'a> {
    port: u16,
    registered_ms: u64,
    #[serde(borrow, deserialize_with = "bounded::vec::<_, _, MAX_METADATA>")]
    metadata: Vec<(&'a str, &'a str)>,
}

/// The fields at the start of `bytes`. Any bytes after them are from a newer version.
fn fields<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, EntryError> {
    postcard::take_from_bytes(bytes).map(|(fields, _)| fields).map_err(|_| EntryError::Value)
}

/// Reads a field that older versions do not send, and returns the default if it is missing.
fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(T::deserialize(deserializer).unwrap_or_default())
}

fn read_host(key: &Key, bytes: &[u8]) -> Result<Entry, EntryError> {
    if !key.name().is_empty() || key.instance() != 0 {
        return Err(EntryError::Key);
    }
    let fields: HostFields<'_> = fields(bytes)?;
    if fields.version.len() > MAX_VERSION_TEXT {
        return Err(EntryError::Value);
    }
    Ok(Entry::Host(Host {
        host: fields.host.parse().map_err(|_| EntryError::Value)?,
        version: fields.version.to_owned(),
        metadata: metadata(&fields.metadata)?,
        leaving: fields.leaving,
        relay: fields.relay,
        secret_ms: fields.secret_ms,
        alias: (fields.alias != 0)
            .then(|| Alias { address: Ipv4Addr::from_bits(fields.alias), since_ms: fields.alias_since_ms }),
    }))
}

fn read_name(key: &Key, bytes: &[u8]) -> Result<Entry, EntryError> {
    if key.instance() != 0 {
        return Err(EntryError::Key);
    }
    let fields: NameFields<'_> = fields(bytes)?;
    if fields.extra.len() > MAX_EXTRA {
        return Err(EntryError::Value);
    }
    Ok(Entry::Name(Name {
        name: NodeName::parse_registered(key.name()).map_err(|_| EntryError::Key)?,
        port: fields.port,
        node_type: fields.node_type,
        protocol: fields.protocol,
        highest_version: fields.highest_version,
        lowest_version: fields.lowest_version,
        creation: fields.creation,
        registered_ms: fields.registered_ms,
        extra: fields.extra.into(),
    }))
}

fn read_service(key: &Key, bytes: &[u8]) -> Result<Entry, EntryError> {
    let name = str::from_utf8(key.name()).map_err(|_| EntryError::Key)?;
    let fields: ServiceFields<'_> = fields(bytes)?;
    Ok(Entry::Service(Service {
        name: name.parse().map_err(|_| EntryError::Key)?,
        instance: key.instance(),
        port: fields.port,
        registered_ms: fields.registered_ms,
        metadata: metadata(&fields.metadata)?,
    }))
}

fn pairs(metadata: &Metadata) -> Vec<(&str, &str)> {
    metadata.0.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect()
}

fn metadata(pairs: &[(&str, &str)]) -> Result<Metadata, EntryError> {
    let pairs = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Metadata::new(pairs).map_err(|_| EntryError::Value)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a violated property fails the test")]

    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;

    use super::*;

    fn some_metadata() -> impl Strategy<Value = Metadata> {
        btree_map(".{0,8}", ".{0,16}", 0..6).prop_map(|pairs| Metadata::new(pairs).unwrap())
    }

    fn entry() -> impl Strategy<Value = Entry> {
        let host = ("[a-z.]{1,253}", "[0-9.]{0,64}", some_metadata(), any::<(bool, bool, u64, u32, u64)>())
            .prop_map(|(host, version, metadata, (leaving, relay, secret_ms, alias, since_ms))| {
                Entry::Host(Host {
                    host: host.parse().unwrap(),
                    version,
                    metadata,
                    leaving,
                    relay,
                    secret_ms,
                    alias: (alias != 0).then(|| Alias { address: Ipv4Addr::from_bits(alias), since_ms }),
                })
            });
        let name = (
            "[^\0]{0,20}",
            any::<(u16, u8, u8, u16, u16, u32, u64)>(),
            vec(any::<u8>(), 0..=MAX_EXTRA),
        )
            .prop_map(|(name, fields, extra)| {
                let (port, node_type, protocol, highest_version, lowest_version, creation, registered_ms) =
                    fields;
                Entry::Name(Name {
                    name: name.parse().unwrap(),
                    port,
                    node_type,
                    protocol,
                    highest_version,
                    lowest_version,
                    creation,
                    registered_ms,
                    extra: extra.into(),
                })
            });
        let service = ("[a-z]{1,20}", any::<(u64, u16, u64)>(), some_metadata()).prop_map(
            |(name, (instance, port, registered_ms), metadata)| {
                let name = name.parse().unwrap();
                Entry::Service(Service { name, instance, port, registered_ms, metadata })
            },
        );
        prop_oneof![host, name, service]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(entry in entry()) {
            let (key, value) = entry.write().unwrap();
            prop_assert_eq!(Entry::read(&key, &value), Ok(entry));
        }

        #[test]
        fn a_newer_version_may_append_fields(entry in entry(), more in vec(any::<u8>(), 0..20)) {
            let (key, value) = entry.write().unwrap();
            let longer = Value::new(&[value.as_bytes(), &more].concat()).unwrap();
            prop_assert_eq!(Entry::read(&key, &longer), Ok(entry));
        }

        #[test]
        fn any_bytes_are_harmless(kind in 0..4_u8, name: Vec<u8>, value: Vec<u8>) {
            let key = Key::new(Kind(kind), &name, 0).unwrap();
            let _ = Entry::read(&key, &Value::new(&value).unwrap());
            let _ = Entry::read(&key, &Value::new(&[&[LAYOUT], value.as_slice()].concat()).unwrap());
        }
    }

    #[test]
    fn fields_that_an_older_version_does_not_write_are_zero() {
        let host = Host {
            host: "db1".parse().unwrap(),
            version: "1".into(),
            metadata: Metadata::default(),
            leaving: false,
            relay: true,
            secret_ms: 1,
            alias: Some(Alias { address: Ipv4Addr::new(127, 77, 1, 2), since_ms: 1 }),
        };
        let (key, value) = Entry::Host(host.clone()).write().unwrap();
        // One byte for the time, and five for the address.
        let without_alias = value.as_bytes().get(..value.as_bytes().len() - 6).unwrap();
        let read = Entry::read(&key, &Value::new(without_alias).unwrap());
        assert_eq!(read, Ok(Entry::Host(Host { alias: None, ..host.clone() })));
        let (_, second) = without_alias.split_last().unwrap();
        let read = Entry::read(&key, &Value::new(second).unwrap());
        let host = Host { alias: None, ..host };
        assert_eq!(read, Ok(Entry::Host(Host { secret_ms: 0, ..host.clone() })));
        let (_, first) = second.split_last().unwrap();
        let read = Entry::read(&key, &Value::new(first).unwrap());
        assert_eq!(read, Ok(Entry::Host(Host { relay: false, secret_ms: 0, ..host })));
    }

    #[test]
    fn what_cannot_be_understood_says_why() {
        let (key, value) = (Key::new(Kind(9), b"x", 0).unwrap(), Value::new(&[LAYOUT]).unwrap());
        assert_eq!(Entry::read(&key, &value), Err(EntryError::Kind(Kind(9))));
        let key = Key::new(Kind::NAME, b"x", 0).unwrap();
        assert_eq!(Entry::read(&key, &value), Err(EntryError::Value));
        assert_eq!(Entry::read(&key, &Value::new(&[2]).unwrap()), Err(EntryError::Layout));
        assert_eq!(Entry::read(&key, &Value::new(&[]).unwrap()), Err(EntryError::Value));
    }

    #[test]
    fn metadata_is_bounded() {
        let pair = |n: usize| (n.to_string(), String::new());
        assert!(Metadata::new((0..MAX_METADATA).map(pair).collect()).is_ok());
        assert_eq!(Metadata::new((0..=MAX_METADATA).map(pair).collect()), Err(MetadataError));
        let long = "x".repeat(MAX_METADATA_BYTES);
        assert_eq!(Metadata::new([("k".to_owned(), long)].into()), Err(MetadataError));
    }
}
