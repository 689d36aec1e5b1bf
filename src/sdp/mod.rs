//! Session descriptions (RFC 8866) as WebRTC uses them (RFC 8829), over the `sdp` crate.
//!
//! [`remote`] turns what a client wrote into types that cannot be wrong, [`local`] writes ours. Nothing
//! crosses from one to the other but numbers, [`Mid`](crate::ids::Mid)s and words of fixed tables: no
//! text of one client can reach another one's description, nor break a line of its own.

mod media;
pub mod local;
pub mod remote;

pub use media::{Direction, Extensions, Format, Kind, Opus};
