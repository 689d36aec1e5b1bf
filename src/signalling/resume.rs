//! Resume tokens: whoever shows one takes a session over.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::message::ResumeText;

/// 32 random bytes.
const TOKEN_LEN: usize = 32;

/// Proof that a client is the one that an earlier `joined` went to. Bound to room and user by where
/// it is kept. Never logged, hence no `Debug`.
pub(super) struct ResumeToken(Zeroizing<[u8; TOKEN_LEN]>);

impl ResumeToken {
    pub(super) fn random() -> ResumeToken {
        ResumeToken(Zeroizing::new(random_bytes()))
    }

    /// As the client is to show it: 43 characters of base64url.
    pub(super) fn text(&self) -> ResumeText {
        ResumeText(URL_SAFE_NO_PAD.encode(*self.0))
    }

    /// Compares in constant time; anything that is no token at all is `false` at once.
    pub(super) fn matches(&self, shown: &str) -> bool {
        let mut bytes = Zeroizing::new([0; TOKEN_LEN]);
        let len = URL_SAFE_NO_PAD.decode_slice(shown, &mut *bytes);
        len == Ok(TOKEN_LEN) && bool::from(bytes.ct_eq(&*self.0))
    }
}

/// From the operating system's generator.
pub(super) fn random_bytes<const LEN: usize>() -> [u8; LEN] {
    let mut bytes = [0; LEN];
    let filled = aws_lc_rs::rand::fill(&mut bytes);
    assert!(filled.is_ok(), "the system has no randomness");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_knows_itself_and_nothing_else() {
        let (token, other) = (ResumeToken::random(), ResumeToken::random());
        let text = token.text().0;
        assert_eq!(text.len(), 43);
        assert!(token.matches(&text) && !token.matches(&other.text().0));
        let (longer, shorter) = (format!("{text}A"), &text[..42]);
        let long = "A".repeat(10_000);
        for shown in ["", "=", &longer, shorter, &format!("{text}="), " ", "\u{0}", &long] {
            assert!(!token.matches(shown), "{shown:?}");
        }
    }
}
