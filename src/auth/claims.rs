//! What a token says.

use serde::{Deserialize, Serialize};
use serde_json::Number;

/// A token's claims (RFC 7519 §4). What else it says is ignored.
#[derive(Serialize, Deserialize)]
pub(super) struct Claims {
    /// The `userId`.
    pub(super) sub: String,
    /// The `roomId`.
    pub(super) room: String,
    /// Seconds since 1970, perhaps with a fraction.
    pub(super) exp: Number,
    /// As `exp`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) nbf: Option<Number>,
    #[serde(default)]
    pub(super) grants: Grants,
}

/// What somebody in a room may do. What a token does not say is as in an open house.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Grants {
    /// Be heard.
    pub publish: bool,
    /// Hear.
    pub subscribe: bool,
    /// Mute and kick others.
    pub moderate: bool,
}

impl Default for Grants {
    fn default() -> Grants {
        Grants { publish: true, subscribe: true, moderate: false }
    }
}

impl Grants {
    /// Whether media is to be negotiated alike.
    pub fn are_same_media(self, other: Grants) -> bool {
        (self.publish, self.subscribe) == (other.publish, other.subscribe)
    }
}
