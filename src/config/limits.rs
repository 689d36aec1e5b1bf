//! The bounds of the house.

use std::time::Duration;

use crate::ids::WORKER_COUNT_MAX;

/// The bounds that several rooms share or that an operator can meet. A room's own stand in the room.
#[derive(Debug)]
pub enum Limits {}

impl Limits {
    /// Clients of one process.
    pub const CONNECTION_COUNT_MAX: usize = 100_000;
    /// Voices towards one client.
    pub const AUDIO_SLOT_COUNT_MAX: u16 = 256;
    /// Addresses advertised: each is a candidate in every SDP.
    pub const ADVERTISED_COUNT_MAX: usize = 8;
    /// Sites whose pages may come in.
    pub const ORIGIN_COUNT_MAX: usize = 32;
    /// Proxies and networks of them: each is compared with, request by request.
    pub const TRUSTED_PROXY_COUNT_MAX: usize = 64;
    /// Requests of one client in a window.
    pub const RATE_REQUESTS_MAX: u32 = 1_000_000;
    /// Longest window of a rate.
    pub const RATE_WINDOW_MAX: Duration = Duration::from_secs(24 * 60 * 60);
    /// Bytes of a file with certificates or a key.
    pub const PEM_LEN_MAX: u64 = 1024 * 1024;
    /// STUN servers, and TURN servers: browsers ask each of them at every start.
    pub const ICE_URL_COUNT_MAX: usize = 8;
    /// Bytes of a name, password or secret for TURN servers. RFC 8489 §14.3 allows a name less than 509, of
    /// which our own take some for the time.
    pub const TURN_TEXT_LEN_MAX: usize = 256;
    /// Bytes of a TURN secret: a shorter one can be guessed from a credential.
    pub const TURN_SECRET_LEN_MIN: usize = 16;
    /// Bytes of the secret that tokens are signed with: no shorter than what HS256 puts out (RFC 7518 §3.2).
    pub const AUTH_SECRET_LEN_MIN: usize = 32;
    /// Bytes of a file with a key.
    pub const KEY_FILE_LEN_MAX: u64 = 16 * 1024;
    /// Longest life of a token that we make: a year.
    pub const TOKEN_TTL_MAX: Duration = Duration::from_secs(8760 * 60 * 60);
    /// Longest time in which a client can resume.
    pub const RESUME_WINDOW_MAX: Duration = Duration::from_secs(600);
    /// Longest time in which calls may end by themselves.
    pub const DRAIN_TIMEOUT_MAX: Duration = Duration::from_secs(24 * 60 * 60);
    /// Longest wait of a room's packets for each other: one voice packet's time.
    pub const EGRESS_TICK_MAX: Duration = Duration::from_millis(20);
    /// Longest wait for a batch: half a voice packet's 20 ms.
    pub const BATCH_WAIT_MAX: Duration = Duration::from_millis(10);
    /// Longest look into a card's queue: more is a CPU that never rests.
    pub const BUSY_POLL_MAX: Duration = Duration::from_millis(1);
    /// Longest `offer` or `answer`, in bytes, fragments counted together.
    pub const SDP_MESSAGE_LEN_MAX: usize = 256 * 1024;
    /// Longest message of any other kind.
    pub const MESSAGE_LEN_MAX: usize = 16 * 1024;
    /// What one m-line of ours takes in an SDP, at most.
    pub const SDP_MEDIA_LEN_MAX: usize = 1000;
    /// From the upgrade to `join`.
    pub const JOIN_DEADLINE: Duration = Duration::from_secs(10);

    /// Length of a queue whose messages carry state and are never dropped: for every connection the
    /// last order and the one that takes it back.
    pub const fn state_queue_len(max_connections: usize) -> usize {
        max_connections * 2
    }
}

// A full set of slots, and as many m-lines of the client's own, fits the messages that carry it.
const _: () = assert!(
    Limits::AUDIO_SLOT_COUNT_MAX as usize * Limits::SDP_MEDIA_LEN_MAX
        <= Limits::SDP_MESSAGE_LEN_MAX - 6 * 1024
);
const _: () = assert!(Limits::MESSAGE_LEN_MAX <= Limits::SDP_MESSAGE_LEN_MAX);
const _: () = assert!(Limits::state_queue_len(Limits::CONNECTION_COUNT_MAX) <= u32::MAX as usize);
const _: () = assert!(WORKER_COUNT_MAX <= u8::MAX as usize);
