//! Every limit of the wire format, each with its reason.
//!
//! The server-side numbers are those of stock epmd, found by trying the values on both sides of each; they
//! are interface, not taste, and must not be rounded. The client-side numbers are ours: they only bound what
//! a hostile or broken server can make a client hold.

/// The port of every epmd unless configured otherwise (EPMD Protocol: "the default port is 4369").
pub const DEFAULT_PORT: u16 = 4369;

/// Bytes of the length that precedes each request. Replies have none.
pub const LENGTH_PREFIX: usize = 2;

/// Longest request that is accepted, without its length. One more is closed as soon as the length is known.
pub const MAX_REQUEST: usize = 3057;

/// Most bytes that are read while the length is still unknown: one request of maximal size and its length.
/// Reading more could only find input that is rejected anyway.
pub const MAX_FIRST_READ: usize = LENGTH_PREFIX + MAX_REQUEST;

/// Bytes of an ALIVE2_REQ besides name and extra: opcode to lowest version (9), and the two lengths (4).
pub const ALIVE2_FIXED: usize = 13;

/// Longest registered name in bytes: 255 characters of four bytes each. Checked apart from the characters,
/// and before UTF-8.
pub const MAX_NAME_BYTES: usize = 4 * MAX_NAME_CHARS;

/// Longest registered name in characters: the length of an Erlang atom.
pub const MAX_NAME_CHARS: usize = 255;

/// Longest name that can be looked up, in characters. Stock counts the terminator that it appends itself, so
/// a name of 255 characters can be registered but never found.
pub const MAX_LOOKUP_CHARS: usize = MAX_NAME_CHARS - 1;

/// Longest "extra" of a registration in bytes. Stock sizes this buffer like the one of the name.
pub const MAX_EXTRA: usize = 1020;

/// Longest name of a service that pmd itself announces, in bytes: the largest that a length of one byte can
/// say.
pub const MAX_SERVICE_NAME_BYTES: usize = 255;

/// The creation in a reply that refuses a registration. Clients look at the result, never at this number, but
/// it is what they are sent.
pub const REFUSED_CREATION: u32 = 99;

/// Lowest *highest version* of an ALIVE2_REQ that is answered with ALIVE2_X_RESP and a 32-bit creation (OTP
/// 23). Below it the answer is ALIVE2_RESP with a creation from 1 to 3.
pub const CREATION_VERSION: u16 = 6;

/// Bytes of a successful PORT2_RESP besides name and extra.
pub const PORT2_FIXED: usize = 14;

/// Longest PORT2_RESP: name and extra of maximal size.
pub const MAX_PORT2_REPLY: usize = PORT2_FIXED + MAX_NAME_BYTES + MAX_EXTRA;

/// Bytes of the port number that opens NAMES_RESP and DUMP_RESP.
pub const LISTING_HEADER: usize = 4;

/// Most text of a NAMES_RESP or DUMP_RESP that a client accepts. The format has no limit of its own: it ends
/// with the connection. 16 MiB is about 16,000 lines of the longest possible name, or some 400,000 of usual
/// length; more nodes than one host has ports. A client that meets more is talking to something that is not
/// epmd.
pub const MAX_LISTING: usize = 16 * 1024 * 1024;

/// Longest name of a host, in bytes (RFC 1035, section 2.3.4, as text without the final dot).
pub const MAX_HOST_NAME: usize = 253;

/// Longest name of a registry entry, in bytes: the longest Erlang node name.
pub const MAX_KEY_NAME: usize = MAX_NAME_BYTES;

/// Longest value of a registry entry, in bytes. Holds the largest registration (name and extra of maximal size) and
/// a service with all the metadata it may have, and leaves room for seven of them in a frame.
pub const MAX_VALUE: usize = 8 * 1024;

/// Metadata entries of one service or daemon.
pub const MAX_METADATA: usize = 64;

/// Bytes of all keys and values of one metadata.
pub const MAX_METADATA_BYTES: usize = 4096;

/// Bytes of a daemon's version text.
pub const MAX_VERSION_TEXT: usize = 64;

/// Operations in one update: no more than that fit into a frame of maximal size, each being at least 6 bytes.
pub const MAX_OPS: usize = 64 * 1024 / 6;

/// Updates in one frame: no more than that fit into a frame of maximal size, each being at least 80 bytes.
pub const MAX_UPDATES: usize = 64 * 1024 / 80;

/// Longest frame that a peer may send before it has proven that it belongs to the cluster: type, layout and body. A
/// greeting is at most 700 bytes, and strangers must not make the daemon hold more than they need.
pub const MAX_GREETING_FRAME: usize = 1024;

/// Longest frame after that. Large enough for the registrations of a usual host in one, small enough that a heartbeat
/// behind it is not late: 64 KiB take 5 ms at 100 Mbit/s.
pub const MAX_FRAME: usize = 64 * 1024;

/// Bytes before the type of a frame: its length.
pub const FRAME_LENGTH: usize = 4;

/// Bytes of a frame besides its body: type and layout.
pub const FRAME_FIXED: usize = 2;

/// Addresses that a daemon advertises. More than one host has networks, and few enough for a greeting.
pub const MAX_ADDRESSES: usize = 8;

/// Longest name of a cluster, in bytes.
pub const MAX_CLUSTER_NAME: usize = 64;

/// Longest explanation in a farewell, in bytes.
pub const MAX_REASON: usize = 256;

/// Origins in one summary or request. With stamps of maximal size they fit into [`MAX_FRAME`].
pub const MAX_STAMPS: usize = 600;

/// Ranges in one reconciliation frame. With ids and digests of 32 bytes they fit into [`MAX_FRAME`].
pub const MAX_RANGES: usize = 600;

/// Members in one list of the lost. Their ids fit into [`MAX_FRAME`]; what is beyond comes with the next link.
pub const MAX_LOST: usize = 2000;

/// Longest packet of the membership protocol.
pub const MAX_MEMBERSHIP: usize = 32 * 1024;
