//! Making a token.

use std::path::{Path, PathBuf};

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use zeroize::Zeroizing;

use super::Verifier;
use super::claims::{Claims, Grants};
use crate::config::{Auth, TokenFlags, read_key_file};
use crate::ids::{RoomName, UserId};
use crate::time::Now;

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum MintError {
    /// Nothing to sign with.
    #[error("there is nothing to sign with: set AUTH_SECRET, or give --key FILE with a private key")]
    NoKey,
    /// What is there only checks.
    #[error("AUTH_PUBLIC_KEY only checks tokens: give --key FILE with the private key that belongs to it")]
    OnlyPublicKey,
    /// The file is not to be had.
    #[error("--key {}: the file cannot be read: {error}", .path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// It holds something else.
    #[error("--key {}: no private key that is accepted; accepted: Ed25519 or P-256, as PKCS#8 in PEM", .0.display())]
    NotPrivate(PathBuf),
    /// The server that is set up here would refuse the token.
    #[error("--key {}: not the key that the server set up here checks with (AUTH_SECRET or AUTH_PUBLIC_KEY)", .0.display())]
    OtherKey(PathBuf),
    /// Signing failed.
    #[error("the token cannot be signed")]
    Unsigned,
}

/// A token as asked for, from now on.
///
/// # Errors
/// [`MintError`]
pub fn mint(flags: &TokenFlags, auth: Option<&Auth>, now: Now) -> Result<String, MintError> {
    let (algorithm, key) = match (&flags.key, auth) {
        (Some(path), _) => private_key(path)?,
        (None, Some(Auth::Secret(secret))) => {
            (Algorithm::HS256, EncodingKey::from_secret(secret.reveal().as_bytes()))
        }
        (None, Some(Auth::PublicKey(_))) => return Err(MintError::OnlyPublicKey),
        (None, None) => return Err(MintError::NoKey),
    };
    let unix_time = u64::from(now.ntp.unix_seconds());
    let claims = Claims {
        sub: flags.user.clone(),
        room: flags.room.clone(),
        exp: unix_time.saturating_add(flags.ttl.as_secs()).into(),
        nbf: None,
        grants: Grants {
            publish: !flags.no_publish,
            subscribe: !flags.no_subscribe,
            moderate: flags.moderate,
        },
    };
    let token = encode(&Header::new(algorithm), &claims, &key).map_err(|_| MintError::Unsigned)?;
    if let (Some(path), Some(auth)) = (&flags.key, auth) {
        let verifier = Verifier::new(auth, move |_| unix_time);
        let names = RoomName::parse(&flags.room).zip(UserId::parse(&flags.user));
        let is_good = |(room, user): (RoomName, UserId)| {
            verifier.verify(now.instant, Some(&token), &room, &user).is_ok()
        };
        if !names.is_some_and(is_good) {
            return Err(MintError::OtherKey(path.clone()));
        }
    }
    Ok(token)
}

fn private_key(path: &Path) -> Result<(Algorithm, EncodingKey), MintError> {
    let pem = read_key_file(path).map_err(|error| MintError::Unreadable { path: path.to_owned(), error })?;
    let pem = Zeroizing::new(pem);
    let ed = EncodingKey::from_ed_pem(pem.as_bytes()).map(|key| (Algorithm::EdDSA, key));
    let key = ed.or_else(|_| EncodingKey::from_ec_pem(pem.as_bytes()).map(|key| (Algorithm::ES256, key)));
    key.map_err(|_| MintError::NotPrivate(path.to_owned()))
}
