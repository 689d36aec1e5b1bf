//! The README dialect: messages, sessions, offer and answer.
//!
//! `service` is the front door; `state` holds everything and is entered from there alone. It speaks
//! in the types of `message`, whose JSON form is the only place that knows the dialect.

pub mod message;
pub mod negotiation;
mod connection;
mod ice_servers;
mod inspect;
mod join;
mod media;
mod moderation;
mod resume;
mod service;
mod session;
mod silent;
mod span;
mod state;
mod timers;
mod uninformed;

pub use connection::{
    CLOSE_DRAINING, CLOSE_FULL, CLOSE_INTERNAL, CLOSE_NORMAL, CLOSE_POLICY, CLOSE_TOO_BIG, CloseCode, Inlet,
    OUTBOUND_BYTES_MAX, OUTBOUND_LEN, Outbound, Outbox, TooSlow, Waiting,
};
pub use ice_servers::{CREDENTIAL_LIFETIME, CREDENTIAL_REFRESH, IceServers, UnixTime};
pub use inspect::{Member, RoomView};
pub use service::{Handshakes, Inbound, Settings, Signalling};
pub use state::{ConnectionId, Counts};
