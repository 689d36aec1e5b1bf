//! Who may join what: JSON Web Tokens (RFC 7519) that somebody else has signed, or [`mint()`] has.
//!
//! The configuration alone says how they are signed; of a token's header only whether it agrees is of
//! interest. Nothing of a token is believed before its signature, and no token reaches a log.

#![forbid(unsafe_code)]

mod claims;
mod mint;
mod verifier;

pub use claims::Grants;
pub use mint::{MintError, mint};
pub use verifier::{LEEWAY, Refusal, TOKEN_LEN_MAX, Verifier};
