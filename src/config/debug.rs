//! Who may look inside.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::{Error, Hidden, Source, Variable};

/// Shortest token: a shorter one can be guessed.
const TOKEN_LEN_MIN: usize = 16;
const TOKEN_LEN_MAX: usize = 256;
const PATH_LEN_MAX: usize = 1024;

pub(super) const DEBUG_TOKEN: Variable = Variable {
    name: "DEBUG_TOKEN",
    default: "",
    accepted: "16 to 256 letters, digits and -._~+/, with = at the end only",
    meaning: "Opens /debug to whoever shows it (Authorization: Bearer …), from anywhere. Unset: /debug answers browsers \
              and tools on this machine alone, and nobody through a proxy.",
};

pub(super) const METRICS_TOKEN: Variable = Variable {
    name: "METRICS_TOKEN",
    default: "",
    accepted: DEBUG_TOKEN.accepted,
    meaning: "Has to be shown to read /metrics (Authorization: Bearer …). Unset: /metrics is open.",
};

pub(super) const METRICS_ADDR: Variable = Variable {
    name: "METRICS_ADDR",
    default: "",
    accepted: "an address of this machine with a port: 127.0.0.1:9464, 0.0.0.0:9464, [::1]:9464; port 0 lets the \
               kernel choose",
    meaning: "Where /metrics is served instead, alone and as plain http, also where PORT speaks https; PORT answers \
              404 to it then. METRICS_TOKEN holds here too. Unset: /metrics is on PORT.",
};

pub(super) const CAPTURE_DIR: Variable = Variable {
    name: "CAPTURE_DIR",
    default: "",
    accepted: "a folder that this process may write to, up to 1024 bytes; needs DEBUG_TOKEN",
    meaning: "Where POST /debug/peers/ID/capture writes a peer's decrypted packets: what people said, so keep it to \
              yourself. At most 32 files of 64 MiB. Unset: no captures.",
};

pub(super) const KEYLOG_DIR: Variable = Variable {
    name: "KEYLOG_DIR",
    default: "",
    accepted: CAPTURE_DIR.accepted,
    meaning: "Where the SRTP keys of every call are written, for sfu-replay --explain --keys: with them, whoever recorded \
              the network hears what people said. At most 32 files of 1 MiB. Unset: keys are written nowhere.",
};

/// The folder of this variable, if it is set; never without a token.
pub(super) fn folder(
    source: &Source<'_>,
    variable: &'static Variable,
    has_token: bool,
) -> Result<Option<PathBuf>, Error> {
    let is_path = |text: &str| text.len() <= PATH_LEN_MAX && !text.chars().any(char::is_control);
    let folder = source.given(variable, |text| is_path(text).then(|| PathBuf::from(text)))?;
    if folder.is_some() && !has_token {
        return Err(Error::Half(variable.name, DEBUG_TOKEN.name));
    }
    Ok(folder)
}

/// Where `/metrics` is served, if not at the front door.
pub(super) fn metrics_addr(source: &Source<'_>) -> Result<Option<SocketAddr>, Error> {
    let is_bindable = |address: &SocketAddr| {
        let is_broadcast = matches!(address, SocketAddr::V4(v4) if v4.ip().is_broadcast());
        !(address.ip().is_multicast() || is_broadcast)
    };
    source.given(&METRICS_ADDR, |text| text.parse().ok().filter(is_bindable))
}

/// The token of this variable, if there is one.
pub(super) fn token(source: &Source<'_>, variable: &'static Variable) -> Result<Option<Hidden>, Error> {
    let hidden = source.given(variable, |text| is_token(text).then(|| Hidden::new(text)));
    hidden.map_err(|_| Error::Value { variable, value: "…".to_owned() })
}

/// `b64token` of RFC 6750 §2.1.
fn is_token(text: &str) -> bool {
    let body = text.trim_end_matches('=');
    let is_char = |c: u8| c.is_ascii_alphanumeric() || b"-._~+/".contains(&c);
    (TOKEN_LEN_MIN..=TOKEN_LEN_MAX).contains(&text.len()) && !body.is_empty() && body.bytes().all(is_char)
}
