//! Looking at a token.

use std::time::{Duration, Instant};

use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};

use super::claims::{Claims, Grants};
use crate::config::{Auth, KeyKind};
use crate::ids::{RoomName, UserId};

/// Longest token that is looked at, in bytes.
pub const TOKEN_LEN_MAX: usize = 4096;

/// How far the clocks of who signs and who checks may be apart.
pub const LEEWAY: Duration = Duration::from_secs(5);

/// Why a token lets nobody in; in words for people, as they do without the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.text())]
pub enum Refusal {
    /// There is none.
    Missing,
    /// It is longer than [`TOKEN_LEN_MAX`].
    TooLong,
    /// It is none, its signature is another's, or a claim is not there or not of its type.
    Invalid,
    /// Its `exp` is past.
    Expired,
    /// Its `nbf` is to come.
    NotYet,
    /// Its `room` is another.
    OtherRoom,
    /// Its `sub` is another.
    OtherUser,
}

impl Refusal {
    /// For the client.
    pub const fn text(self) -> &'static str {
        match self {
            Refusal::Missing => "a token is needed here",
            Refusal::TooLong => "the token is too long",
            Refusal::Invalid => "the token is not valid here",
            Refusal::Expired => "the token has expired",
            Refusal::NotYet => "the token is not valid yet",
            Refusal::OtherRoom => "the token is for another room",
            Refusal::OtherUser => "the token is for another user",
        }
    }
}

/// Checks tokens against one key.
pub struct Verifier {
    key: DecodingKey,
    validation: Validation,
    /// Seconds since 1970 at an instant that has just been read.
    unix_time: Box<dyn Fn(Instant) -> u64>,
}

impl Verifier {
    /// `unix_time` says the seconds since 1970 at an instant that has just been read.
    pub fn new(auth: &Auth, unix_time: impl Fn(Instant) -> u64 + 'static) -> Verifier {
        let (algorithm, key) = match auth {
            Auth::Secret(secret) => (Algorithm::HS256, DecodingKey::from_secret(secret.reveal().as_bytes())),
            Auth::PublicKey(key) => match key.kind() {
                KeyKind::Ed25519 => (Algorithm::EdDSA, DecodingKey::from_ed_der(key.bytes())),
                KeyKind::P256 => (Algorithm::ES256, DecodingKey::from_ec_der(key.bytes())),
            },
        };
        let mut validation = Validation::new(algorithm);
        // Claims are looked at below: the crate would read a clock of its own for them.
        validation.required_spec_claims.clear();
        (validation.validate_exp, validation.validate_nbf, validation.validate_aud) = (false, false, false);
        Verifier { key, validation, unix_time: Box::new(unix_time) }
    }

    /// What the token allows its user in its room.
    ///
    /// # Errors
    /// [`Refusal`]
    pub fn verify(
        &self,
        now: Instant,
        token: Option<&str>,
        room: &RoomName,
        user: &UserId,
    ) -> Result<Grants, Refusal> {
        let token = token.filter(|token| !token.is_empty()).ok_or(Refusal::Missing)?;
        if token.len() > TOKEN_LEN_MAX {
            return Err(Refusal::TooLong);
        }
        let data = decode::<Claims>(token, &self.key, &self.validation).map_err(|_| Refusal::Invalid)?;
        // RFC 7515 §4.1.11: what must be understood, and is not.
        if data.header.crit.is_some() {
            return Err(Refusal::Invalid);
        }
        let claims = data.claims;
        let (now, leeway) = ((self.unix_time)(now) as f64, LEEWAY.as_secs_f64());
        if claims.exp.as_f64().is_none_or(|exp| now >= exp + leeway) {
            return Err(Refusal::Expired);
        }
        if claims.nbf.is_some_and(|nbf| nbf.as_f64().is_none_or(|nbf| now + leeway < nbf)) {
            return Err(Refusal::NotYet);
        }
        if claims.room != room.as_str() {
            return Err(Refusal::OtherRoom);
        }
        if claims.sub != user.as_str() {
            return Err(Refusal::OtherUser);
        }
        Ok(claims.grants)
    }
}
