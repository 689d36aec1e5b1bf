//! Bearer tokens that an operator set (RFC 6750 §2.1).

use hyper::header::{AUTHORIZATION, HeaderMap};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::config::Hidden;

/// A token, as its SHA-256: equal in length, so that comparing takes the same time whatever was shown.
pub(super) struct Token([u8; 32]);

/// Why a request may not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotShown {
    /// No `Authorization: Bearer`.
    Missing,
    /// Another token, or several.
    Wrong,
}

impl Token {
    pub(super) fn new(token: &Hidden) -> Token {
        Token(Sha256::digest(token.reveal()).into())
    }

    /// Whether the request shows it.
    pub(super) fn check(&self, headers: &HeaderMap) -> Result<(), NotShown> {
        let mut all = headers.get_all(AUTHORIZATION).iter();
        let shown = all.next().ok_or(NotShown::Missing)?;
        let shown = shown.to_str().ok().filter(|_| all.next().is_none()).ok_or(NotShown::Wrong)?;
        let (scheme, shown) = shown.split_once(' ').ok_or(NotShown::Missing)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(NotShown::Missing);
        }
        let shown: [u8; 32] = Sha256::digest(shown.trim()).into();
        if bool::from(shown.ct_eq(&self.0)) { Ok(()) } else { Err(NotShown::Wrong) }
    }
}
