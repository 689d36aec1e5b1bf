//! gryt-sfu: a selective forwarding unit for voice rooms.
//!
//! The rooms of the house, in a packet's order. A packet walks
//! `net -> demux -> ice | dtls | srtp -> room -> srtp -> net`; an order takes the other stair,
//! `http -> signalling -> control -> worker::Command`, and news returns as `worker::Event`.

#![deny(unsafe_code)]

pub mod ids;
pub mod time;
pub mod packet;
pub mod throttle;
pub mod crowd;
pub mod config;
pub mod metrics;
#[allow(unsafe_code, reason = "the kernel's interface: rings, message headers, socket options")]
pub mod net;
pub mod demux;
pub mod ice;
pub mod dtls;
pub mod srtp;
#[allow(unsafe_code, reason = "instructions that not every processor has")]
pub mod vector;
pub mod rtp;
pub mod rtcp;
pub mod sdp;
pub mod transport;
pub mod room;
pub mod worker;
pub mod control;
pub mod auth;
pub mod signalling;
pub mod http;
pub mod server;
