//! ICE-lite (RFC 8445 §2.5), STUN (RFC 8489) and consent (RFC 7675).
//!
//! Only an authenticated Binding request introduces a pair. On that ground alone an answer leaves for it, never longer
//! than the request, and checks of ours, of which a few a minute may begin. Media follows a pair only where DTLS
//! finished or where the peer answered a check of ours; to another port of such an address, where a NAT may have moved
//! the peer, it goes while that is being asked.
//!
//! - [`credentials`]: ufrags and passwords of both sides; a password follows from the ufrag.
//! - [`integrity`]: MESSAGE-INTEGRITY and FINGERPRINT.
//! - [`stun`]: Binding messages, read and written without allocation.
//! - `pair`: a candidate pair, and what is known of it.
//! - `checks`: how many checks of ours may begin, and under which ids.
//! - [`agent`]: one transport's pairs, and which of them is selected.

pub mod credentials;
pub mod integrity;
pub mod stun;
mod pair;
mod checks;
pub mod agent;
