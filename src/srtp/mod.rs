//! SRTP and SRTCP (RFC 3711, RFC 7714): keys, indices, replay windows and the transforms.
//!
//! Nothing changes before a tag verified. A (key, SSRC, index) triple seals at most one packet.
//!
//! `context` is one direction of one peer and the only door; `kdf` makes its session keys, `gcm` and
//! `cm_sha1` are the two transforms, each of which runs on one of two `path`s, `streams` remembers for each SSRC where it stands (`index`) and what
//! has been seen (`replay`).

#![forbid(unsafe_code)]

pub mod context;
pub mod index;
mod kdf;
pub mod path;
mod replay;
mod streams;
mod gcm;
mod cm_sha1;
#[cfg(debug_assertions)]
mod spent;
#[cfg(test)]
mod vectors;
