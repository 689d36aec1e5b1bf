//! ufrag and password of both sides (RFC 8445 §5.3, RFC 8839 §5.4).
//!
//! A password of ours follows from its ufrag and the process's secret, so every worker can verify every
//! request before it remembers or relays anything.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::{hmac, rand};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

use crate::ids::{WORKER_COUNT_MAX, WorkerId};

/// Characters of our ufrags: the owner's index, then 11 random ones.
pub const LOCAL_UFRAG_LEN: usize = 12;
/// Characters of our passwords: 144 bits, RFC 8445 §5.3 asks for 128.
pub const LOCAL_PASSWORD_LEN: usize = 24;

/// Lengths of a ufrag, in characters (RFC 8839 §5.4).
pub const UFRAG_LEN_RANGE: std::ops::RangeInclusive<usize> = 4..=256;
/// Lengths of a password, in characters (RFC 8839 §5.4).
pub const PASSWORD_LEN_RANGE: std::ops::RangeInclusive<usize> = 22..=256;

/// Random characters of a ufrag: 66 bits, RFC 8445 §5.3 asks for 24.
const RANDOM_LEN: usize = LOCAL_UFRAG_LEN - 1;

/// The 64 ice-chars (RFC 8839 §5.4), for the random part.
const ICE_CHARS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// base64url, for the owner. Its last two are no ice-chars, which matters from worker 62 on only; every
/// implementation known takes them.
const OWNER_CHARS: &[u8; WORKER_COUNT_MAX] =
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// The process's secret, from which every password follows. Clones are the same.
#[derive(Clone)]
pub struct Secret(Arc<hmac::Key>);

/// A ufrag of ours. Its first character names the worker that owns it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct LocalUfrag([u8; LOCAL_UFRAG_LEN]);

/// `base64(HMAC-SHA256(secret, ufrag))[..24]`
#[derive(Clone, Copy)]
pub struct LocalPassword([u8; LOCAL_PASSWORD_LEN]);

/// What we put into our SDP.
#[derive(Clone, Copy, Debug)]
pub struct LocalCredentials {
    /// Its owner's index and randomness.
    pub ufrag: LocalUfrag,
    /// Follows from the ufrag and the secret.
    pub password: LocalPassword,
}

/// What the peer's SDP said.
#[derive(Clone, PartialEq, Eq)]
pub struct RemoteCredentials {
    ufrag: Box<str>,
    password: Box<str>,
}

impl Secret {
    /// A secret for the life of the process, from the system's random source.
    ///
    /// # Panics
    /// When the system has no randomness to give: nothing here is safe without it.
    pub fn random() -> Secret {
        let mut bytes = Zeroizing::new([0; 32]);
        rand::fill(bytes.as_mut()).expect("the system's random source failed");
        Secret::from_bytes(&bytes)
    }

    /// A given secret: for tests and replays, whose passwords must come out the same each time.
    pub fn from_bytes(bytes: &[u8; 32]) -> Secret {
        Secret(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, bytes)))
    }

    /// The password that belongs to a ufrag of this process.
    pub fn password(&self, ufrag: &LocalUfrag) -> LocalPassword {
        let tag = hmac::sign(&self.0, &ufrag.0);
        // 18 bytes are 24 characters, without padding.
        let mut password = [0; LOCAL_PASSWORD_LEN];
        let encoded = STANDARD.encode_slice(&tag.as_ref()[..LOCAL_PASSWORD_LEN / 4 * 3], &mut password);
        debug_assert_eq!(encoded, Ok(LOCAL_PASSWORD_LEN));
        LocalPassword(password)
    }

    /// New credentials for a transport that `owner` has.
    ///
    /// # Panics
    /// When `owner` is no worker (64 or more), or the system has no randomness to give.
    pub fn credentials(&self, owner: WorkerId) -> LocalCredentials {
        let mut random = [0; RANDOM_LEN];
        rand::fill(&mut random).expect("the system's random source failed");
        let ufrag = LocalUfrag::new(owner, random);
        LocalCredentials { ufrag, password: self.password(&ufrag) }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl LocalUfrag {
    /// A ufrag that `owner` has; of each random byte 6 bits count.
    ///
    /// # Panics
    /// When `owner` is no worker (64 or more).
    pub fn new(owner: WorkerId, random: [u8; RANDOM_LEN]) -> LocalUfrag {
        let mut text = [OWNER_CHARS[usize::from(owner.0)]; LOCAL_UFRAG_LEN];
        for (char, byte) in text[1..].iter_mut().zip(random) {
            *char = ICE_CHARS[usize::from(byte & 0x3F)];
        }
        LocalUfrag(text)
    }

    /// `None` unless 12 characters: an owner, then ice-chars.
    pub fn parse(text: &[u8]) -> Option<LocalUfrag> {
        let text: [u8; LOCAL_UFRAG_LEN] = text.try_into().ok()?;
        owner_index(text[0])?;
        text[1..].iter().all(|&b| is_ice_char(b)).then_some(LocalUfrag(text))
    }

    /// The worker that has the transport.
    pub fn owner(&self) -> WorkerId {
        // Nothing but an owner's character ever gets there.
        WorkerId(owner_index(self.0[0]).unwrap_or_default())
    }

    /// The ufrag as SDP and USERNAME have it.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Debug for LocalUfrag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LocalUfrag({})", self.as_str())
    }
}

impl LocalPassword {
    /// The password as SDP has it.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl PartialEq for LocalPassword {
    fn eq(&self, other: &LocalPassword) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for LocalPassword {}

impl fmt::Debug for LocalPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LocalPassword(..)")
    }
}

impl RemoteCredentials {
    /// `None` unless the ufrag has 4–256 and the password 22–256 ice-chars (RFC 8839 §5.4).
    pub fn parse(ufrag: &str, password: &str) -> Option<RemoteCredentials> {
        let is_valid = |text: &str, len: std::ops::RangeInclusive<usize>| {
            len.contains(&text.len()) && text.bytes().all(is_ice_char)
        };
        (is_valid(ufrag, UFRAG_LEN_RANGE) && is_valid(password, PASSWORD_LEN_RANGE))
            .then(|| RemoteCredentials { ufrag: ufrag.into(), password: password.into() })
    }

    /// 4–256 ice-chars.
    pub fn ufrag(&self) -> &str {
        &self.ufrag
    }

    /// 22–256 ice-chars.
    pub fn password(&self) -> &str {
        &self.password
    }
}

impl fmt::Debug for RemoteCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RemoteCredentials({}, ..)", self.ufrag)
    }
}

impl Drop for RemoteCredentials {
    fn drop(&mut self) {
        self.password.zeroize();
    }
}

/// An `ice-char` of RFC 8839 §5.4.
const fn is_ice_char(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/')
}

/// The place of a character in base64url.
const fn owner_index(char: u8) -> Option<u8> {
    match char {
        b'A'..=b'Z' => Some(char - b'A'),
        b'a'..=b'z' => Some(char - b'a' + 26),
        b'0'..=b'9' => Some(char - b'0' + 52),
        b'-' => Some(62),
        b'_' => Some(63),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_worker_owns_ufrags_that_name_it() {
        let secret = Secret::random();
        for owner in (0..WORKER_COUNT_MAX as u8).map(WorkerId) {
            let local = secret.credentials(owner);
            assert_eq!(local.ufrag.owner(), owner);
            assert_eq!(LocalUfrag::parse(local.ufrag.as_str().as_bytes()), Some(local.ufrag));
            assert_eq!(local.ufrag.as_str().len(), LOCAL_UFRAG_LEN);
            assert_eq!(local.password.as_str().len(), LOCAL_PASSWORD_LEN);
            assert!(local.password.as_str().bytes().all(is_ice_char));
            assert_ne!(local.ufrag, secret.credentials(owner).ufrag);
        }
    }

    #[test]
    fn a_password_follows_from_ufrag_and_secret_alone() {
        let ufrag = LocalUfrag::new(WorkerId(5), [7; RANDOM_LEN]);
        let secret = Secret::from_bytes(&[1; 32]);
        assert_eq!(secret.password(&ufrag), Secret::from_bytes(&[1; 32]).password(&ufrag));
        assert_ne!(secret.password(&ufrag), Secret::from_bytes(&[2; 32]).password(&ufrag));
        assert_ne!(secret.password(&ufrag), secret.password(&LocalUfrag::new(WorkerId(5), [8; RANDOM_LEN])));

        use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign};
        let slow = STANDARD.encode(sign(&Key::new(HMAC_SHA256, &[1; 32]), b"FHHHHHHHHHHH"));
        assert_eq!(ufrag.as_str(), "FHHHHHHHHHHH");
        assert_eq!(secret.password(&ufrag).as_str(), &slow[..24]);
    }

    #[test]
    fn a_ufrag_is_12_characters_with_an_owner_in_front() {
        assert!(LocalUfrag::parse(b"_abcdefghij/").is_some());
        for bad in
            [&b""[..], b"Aabcdefghij", b"Aabcdefghijkl", b"+abcdefghijk", b"Aabcdefghij-", b"Aabcdefghij:"]
        {
            assert_eq!(LocalUfrag::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn remote_credentials_keep_to_the_lengths_of_rfc_8839() {
        let (ufrag, password) = ("a".repeat(256), "p".repeat(256));
        assert!(RemoteCredentials::parse("abcd", &password[..22]).is_some());
        assert!(RemoteCredentials::parse(&ufrag, &password).is_some());
        assert!(RemoteCredentials::parse("abc", &password).is_none());
        assert!(RemoteCredentials::parse("abcd", &password[..21]).is_none());
        assert!(RemoteCredentials::parse(&format!("{ufrag}a"), &password).is_none());
        assert!(RemoteCredentials::parse(&ufrag, &format!("{password}p")).is_none());
        for bad in ["ab:d", "ab d", "ab\r\nd", "abé", "ab-d", "ab\0d"] {
            assert!(RemoteCredentials::parse(bad, &password).is_none(), "{bad:?}");
            assert!(RemoteCredentials::parse("abcd", &bad.repeat(8)).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn nothing_secret_is_printed() {
        let secret = Secret::random();
        let local = secret.credentials(WorkerId(0));
        let remote = RemoteCredentials::parse("abcd", "0123456789abcdefghijkl").unwrap();
        let printed = format!("{secret:?} {local:?} {remote:?}");
        assert!(!printed.contains(local.password.as_str()) && !printed.contains(remote.password()));
        assert!(printed.contains(local.ufrag.as_str()) && printed.contains("abcd"));
    }
}
