//! RTP headers (RFC 3550 §5.1) and their extensions (RFC 8285), read and written in place.

pub mod extension;
pub mod header;
