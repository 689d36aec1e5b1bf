//! An independent WebRTC client for tests against the running server: str0m for ICE, DTLS, SRTP and SDP,
//! tungstenite for the WebSocket. Nothing in here uses the server's own parsers or its own crypto.
#![allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    reason = "shared by several tests; each takes what it needs"
)]

pub mod certificate;
pub mod check;
pub mod client;
pub mod coturn;
pub mod debug;
pub mod folder;
pub mod frame;
pub mod halted;
pub mod nat;
pub mod pipe;
pub mod sdp;
pub mod seccomp;
pub mod server;
pub mod silence;
pub mod socket;
pub mod stun;
pub mod turn;

pub use check::{assert_clean, assert_lines_count_on, assert_silent};
pub use client::{Client, Glare, Heard, Options, Played, State};
pub use halted::Halted;
pub use nat::Nat;
pub use server::Server;

use std::time::{Duration, Instant};

/// How long anything that must happen may take: debug builds on two busy cores included.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The monotonic clock.
pub fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
