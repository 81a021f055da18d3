//! Requests as bytes, built independently of the code under test.

/// A request with its two-byte length.
pub(crate) fn packet(body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let length = u16::try_from(body.len()).expect("a request is shorter than 64 KiB");
    [&length.to_be_bytes(), body].concat()
}

/// The length prefix of a request of `length` bytes.
pub(crate) fn header(length: u16) -> Vec<u8> {
    length.to_be_bytes().to_vec()
}

/// PORT_PLEASE2_REQ for these bytes; the caller includes a terminator if wanted.
pub(crate) fn port2(name: impl AsRef<[u8]>) -> Vec<u8> {
    packet([b"z", name.as_ref()].concat())
}

/// NAMES_REQ.
pub(crate) fn names() -> Vec<u8> {
    packet("n")
}

/// DUMP_REQ.
pub(crate) fn dump() -> Vec<u8> {
    packet("d")
}

/// KILL_REQ.
pub(crate) fn kill() -> Vec<u8> {
    packet("k")
}

/// STOP_REQ.
pub(crate) fn stop(name: impl AsRef<[u8]>) -> Vec<u8> {
    packet([b"s", name.as_ref()].concat())
}

/// ALIVE2_REQ as current Erlang sends it.
pub(crate) fn alive2(name: impl AsRef<[u8]>) -> Vec<u8> {
    Alive2::new(name).bytes()
}

/// An ALIVE2_REQ whose fields can all be falsified.
#[derive(Clone, Debug)]
pub(crate) struct Alive2 {
    pub(crate) port: u16,
    pub(crate) kind: u8,
    pub(crate) protocol: u8,
    pub(crate) highest: u16,
    pub(crate) lowest: u16,
    pub(crate) name: Vec<u8>,
    pub(crate) extra: Vec<u8>,
    /// Bytes after the last field, inside the packet.
    pub(crate) trailing: Vec<u8>,
    /// Announced instead of the name's real length.
    pub(crate) name_length: Option<u16>,
    /// Announced instead of the extra field's real length.
    pub(crate) extra_length: Option<u16>,
}

impl Alive2 {
    /// A visible Erlang node of version 6 that listens on port 4000.
    pub(crate) fn new(name: impl AsRef<[u8]>) -> Alive2 {
        Alive2 {
            port: 4000,
            kind: 77,
            protocol: 0,
            highest: 6,
            lowest: 5,
            name: name.as_ref().to_vec(),
            extra: Vec::new(),
            trailing: Vec::new(),
            name_length: None,
            extra_length: None,
        }
    }

    pub(crate) fn port(mut self, port: u16) -> Alive2 {
        self.port = port;
        self
    }

    pub(crate) fn highest(mut self, version: u16) -> Alive2 {
        self.highest = version;
        self
    }

    pub(crate) fn extra(mut self, extra: impl AsRef<[u8]>) -> Alive2 {
        self.extra = extra.as_ref().to_vec();
        self
    }

    pub(crate) fn trailing(mut self, trailing: impl AsRef<[u8]>) -> Alive2 {
        self.trailing = trailing.as_ref().to_vec();
        self
    }

    pub(crate) fn name_length(mut self, length: u16) -> Alive2 {
        self.name_length = Some(length);
        self
    }

    pub(crate) fn extra_length(mut self, length: u16) -> Alive2 {
        self.extra_length = Some(length);
        self
    }

    /// The body, without the length in front.
    pub(crate) fn body(&self) -> Vec<u8> {
        let length = |of: &[u8]| u16::try_from(of.len()).expect("a field is shorter than 64 KiB");
        let mut body = vec![b'x'];
        body.extend(self.port.to_be_bytes());
        body.extend([self.kind, self.protocol]);
        body.extend(self.highest.to_be_bytes());
        body.extend(self.lowest.to_be_bytes());
        body.extend(self.name_length.unwrap_or(length(&self.name)).to_be_bytes());
        body.extend(&self.name);
        body.extend(self.extra_length.unwrap_or(length(&self.extra)).to_be_bytes());
        body.extend(&self.extra);
        body.extend(&self.trailing);
        body
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        packet(self.body())
    }
}
