//! The few EPMD packets that a load client needs, encoded by hand so that the benchmark shares no code with the
//! measured server.

/// The port registered for name 0; a lookup of name `i` must answer `FIRST_PORT + i`.
pub(crate) const FIRST_PORT: u16 = 10_000;

/// The null server's answer to a lookup, with the size and shape of a successful answer for a nine-letter name.
pub(crate) const FIXED_ANSWER: [u8; 23] = *b"w\x00\x27\x10M\x00\x00\x06\x00\x05\x00\x09node00000\x00\x00";

/// The null server's answer to a registration: granted, creation 1.
pub(crate) const GRANTED: [u8; 6] = *b"v\x00\x00\x00\x00\x01";

/// The NAMES request.
pub(crate) const NAMES: [u8; 3] = *b"\x00\x01n";

/// Name number `i`. All names have the same length and differ only in their last characters, like generated names.
pub(crate) fn name(i: u32) -> String {
    format!("node{i:05}")
}

/// The port with which name number `i` is registered.
pub(crate) fn port(i: u32) -> u16 {
    u16::try_from(i).map_or(u16::MAX, |i| FIRST_PORT.saturating_add(i))
}

/// The length of the NAMES answer for names `0..count`: a header, and a line `name nodeNNNNN at port NNNNN` for each.
pub(crate) fn names_answer_len(count: u32) -> usize {
    4 + 29 * count as usize
}

/// Writes PORT_PLEASE2 for `name` to `packet`.
pub(crate) fn lookup(packet: &mut Vec<u8>, name: &str) {
    frame(packet, |body| {
        body.push(b'z');
        body.extend_from_slice(name.as_bytes());
    });
}

/// Writes ALIVE2 for `name` at `port` to `packet`, with the fields of an OTP 25 node.
pub(crate) fn register(packet: &mut Vec<u8>, name: &str, port: u16) {
    frame(packet, |body| {
        body.push(b'x');
        body.extend_from_slice(&port.to_be_bytes());
        body.extend_from_slice(b"M\x00\x00\x06\x00\x06");
        body.extend_from_slice(&length(name.len()));
        body.extend_from_slice(name.as_bytes());
        body.extend_from_slice(&[0, 0]);
    });
}

fn frame(packet: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    packet.clear();
    packet.extend_from_slice(&[0, 0]);
    body(packet);
    let length = length(packet.len() - 2);
    packet[..2].copy_from_slice(&length);
}

fn length(bytes: usize) -> [u8; 2] {
    u16::try_from(bytes).unwrap_or(u16::MAX).to_be_bytes()
}
