//! Who may look inside.

use super::{Error, Hidden, Source, Variable};

/// Shortest token: a shorter one can be guessed.
const TOKEN_LEN_MIN: usize = 16;
const TOKEN_LEN_MAX: usize = 256;

pub(super) const DEBUG_TOKEN: Variable = Variable {
    name: "DEBUG_TOKEN",
    default: "",
    accepted: "16 to 256 letters, digits and -._~+/, with = at the end only",
    meaning: "Opens /debug to whoever shows it (Authorization: Bearer …), from anywhere. Unset: /debug answers browsers \
              and tools on this machine alone, and nobody through a proxy.",
};

/// The token, if there is one.
pub(super) fn token(source: &Source<'_>) -> Result<Option<Hidden>, Error> {
    let hidden = source.given(&DEBUG_TOKEN, |text| is_token(text).then(|| Hidden::new(text)));
    hidden.map_err(|_| Error::Value { variable: &DEBUG_TOKEN, value: "…".to_owned() })
}

/// `b64token` of RFC 6750 §2.1.
fn is_token(text: &str) -> bool {
    let body = text.trim_end_matches('=');
    let is_char = |c: u8| c.is_ascii_alphanumeric() || b"-._~+/".contains(&c);
    (TOKEN_LEN_MIN..=TOKEN_LEN_MAX).contains(&text.len()) && !body.is_empty() && body.bytes().all(is_char)
}
