//! What tokens are signed with: a shared secret, or the private half of a key whose public half is here.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ED25519, ParsedPublicKey};
use jsonwebtoken::DecodingKey;

use super::{Error, Hidden, Limits, Source, Variable, plain};

pub(super) const AUTH_SECRET: Variable = Variable {
    name: "AUTH_SECRET",
    default: "",
    accepted: "32 to 256 bytes without control characters; not together with AUTH_PUBLIC_KEY",
    meaning: "The secret that tokens are signed with (JWT, HS256); its bytes count as they stand, but for white \
              space around them. Whoever joins needs a token then. Unset, and without AUTH_PUBLIC_KEY, anyone may \
              join any room under any name.",
};
pub(super) const AUTH_PUBLIC_KEY: Variable = Variable {
    name: "AUTH_PUBLIC_KEY",
    default: "",
    accepted: "an Ed25519 or P-256 public key in PEM (BEGIN PUBLIC KEY), or the path of such a file; not together with \
               AUTH_SECRET",
    meaning: "Instead, the public key of whoever signs tokens (JWT; EdDSA or ES256, by the key's type), so that this \
              server can make none itself. A key given here may have \\n in place of line ends.",
};

/// How a PEM text begins, whatever is in it.
const PEM_START: &str = "-----BEGIN ";

/// Who vouches for those who join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Auth {
    /// Whoever knows this: HS256.
    Secret(Hidden),
    /// Whoever has its other half.
    PublicKey(PublicKey),
}

/// How signatures by a public key are made (RFC 7518 §3.1, RFC 8037 §3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// Ed25519: EdDSA.
    Ed25519,
    /// NIST P-256: ES256.
    P256,
}

/// A public key that has been looked at: a point of its curve.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    /// As it was given, line ends as `\n`.
    given: String,
    kind: KeyKind,
    bytes: Vec<u8>,
}

impl PublicKey {
    /// Its type, which settles the algorithm.
    pub const fn kind(&self) -> KeyKind {
        self.kind
    }

    /// 32 bytes of Ed25519, or the uncompressed point.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:?}", self.kind, self.given)
    }
}

/// What is wrong with a public key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyFault {
    /// The file is not to be had.
    #[error("the file cannot be read: {0}")]
    Unreadable(String),
    /// A secret in the place of what everybody may know.
    #[error("this is a private key; only its public half belongs here")]
    Private,
    /// No PEM, or of something else.
    #[error("this is no such key")]
    Other,
}

/// Both variables.
///
/// # Errors
/// Of a value that is none, and of both at once.
pub(super) fn parse(source: &Source<'_>) -> Result<Option<Auth>, Error> {
    let secret = (source.0)(AUTH_SECRET.name);
    match (secret, (source.0)(AUTH_PUBLIC_KEY.name)) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) => Err(Error::AuthTwice),
        (Some(secret), None) => {
            let secret = plain(secret.trim(), Limits::AUTH_SECRET_LEN_MIN).map(Hidden::new);
            let hidden = Error::Value { variable: &AUTH_SECRET, value: "…".to_owned() };
            secret.map(Auth::Secret).map(Some).ok_or(hidden)
        }
        (None, Some(key)) => {
            let key = key.trim();
            // What is not a path may be a secret by mistake.
            let place = if key.starts_with(PEM_START) { "…" } else { key };
            let place = place.chars().take(Limits::TURN_TEXT_LEN_MAX).collect();
            public_key(key)
                .map(|key| Some(Auth::PublicKey(key)))
                .map_err(|fault| Error::PublicKey { place, fault })
        }
    }
}

/// Each variable as [`parse`] takes it.
pub(super) fn values(auth: Option<&Auth>) -> [(&'static str, String); 2] {
    let (secret, key) = match auth {
        None => ("", ""),
        Some(Auth::Secret(secret)) => (secret.reveal(), ""),
        Some(Auth::PublicKey(key)) => ("", &*key.given),
    };
    [(AUTH_SECRET.name, secret.to_owned()), (AUTH_PUBLIC_KEY.name, key.to_owned())]
}

fn public_key(given: &str) -> Result<PublicKey, KeyFault> {
    let pem = if given.starts_with(PEM_START) {
        given.replace("\\n", "\n")
    } else {
        read_key_file(Path::new(given)).map_err(|error| KeyFault::Unreadable(error.to_string()))?
    };
    if pem.contains("PRIVATE KEY-----") {
        return Err(KeyFault::Private);
    }
    let bytes =
        |key: jsonwebtoken::errors::Result<DecodingKey>| Some(key.ok()?.try_get_as_bytes().ok()?.to_vec());
    let (kind, bytes) = match bytes(DecodingKey::from_ed_pem(pem.as_bytes())) {
        Some(bytes) => (KeyKind::Ed25519, bytes),
        None => (KeyKind::P256, bytes(DecodingKey::from_ec_pem(pem.as_bytes())).ok_or(KeyFault::Other)?),
    };
    let is_on_curve = match kind {
        KeyKind::Ed25519 => ParsedPublicKey::new(&ED25519, &bytes).is_ok(),
        KeyKind::P256 => ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &bytes).is_ok(),
    };
    let given = given.replace("\r\n", "\n").replace('\n', "\\n");
    if is_on_curve { Ok(PublicKey { given, kind, bytes }) } else { Err(KeyFault::Other) }
}

/// A key's file, whole: a plain file of at most [`Limits::KEY_FILE_LEN_MAX`] bytes of text.
///
/// # Errors
/// Where it is no such file.
pub fn read_key_file(path: &Path) -> io::Result<String> {
    // A pipe would keep the start waiting.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("not a file"));
    }
    let mut text = String::new();
    let len = File::open(path)?.take(Limits::KEY_FILE_LEN_MAX + 1).read_to_string(&mut text)?;
    if len as u64 > Limits::KEY_FILE_LEN_MAX { Err(io::Error::other("too long")) } else { Ok(text) }
}
