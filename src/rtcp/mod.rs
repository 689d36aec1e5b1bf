//! RTCP (RFC 3550 §6) and its feedback messages (RFC 4585, RFC 5104), plain: before SRTCP protects it and
//! after it authenticated it.
//!
//! A compound is checked whole before anything of it is read, so reading cannot fail and a lie in one
//! packet discredits the others. Nothing here allocates.
//!
//! - [`packet`]: a compound's packets.
//! - [`report`]: report blocks, and what they say of the round trip.
//! - [`feedback`]: what NACK, FIR and REMB carry.
//! - [`writer`]: composes a compound in a lent slot.
//! - [`reception`]: what a receiver counts of one stream.

pub mod packet;
pub mod report;
pub mod feedback;
pub mod writer;
pub mod reception;
