//! DTLS 1.2 server side (RFC 6347) and the keys that it gives SRTP (RFC 5764 §4.2).
//!
//! The handshake itself is the `dtls` crate's. What a peer sends is hostile until proven otherwise, and
//! the crate was not written for that, so nothing reaches it but what one well-formed handshake needs:
//! `guard` puts the peer's messages together, in order, each once, and bounds the rest. The crate's
//! side of the wall is `pipe`; one attempt from ClientHello to keys is `handshake`.
//!
//! Invariant: keys come out only for a peer that proved the key of the certificate in its SDP.

pub mod endpoint;
mod guard;
mod handshake;
mod hello;
pub mod identity;
mod inbox;
pub mod key_log;
pub mod keying;
mod pipe;
mod reassembly;
mod record;
