//! What the others in a room see of a participant.

use std::fmt;
use std::rc::Rc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use crate::ids::{RoomId, TrackId, UserId, WorkerId, is_token_char};

/// Longest nickname, in characters (Unicode scalar values).
pub const NICKNAME_CHARS_MAX: usize = 64;

/// Longest `msid-id` (RFC 8830 §2), in bytes.
const STREAM_ID_LEN_MAX: usize = 64;

/// Characters of the digest in a derived stream id: 132 bits.
const STREAM_ID_DIGEST_LEN: usize = 22;

/// One participant of one room, from `join` to the end of the resume window. Rising numbers: sorted
/// by id is sorted by joining. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ParticipantId(pub u64);

impl fmt::Display for ParticipantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A name to show, at most [`NICKNAME_CHARS_MAX`] characters. It goes into JSON only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nickname(Rc<str>);

impl Nickname {
    /// Returns `None` when longer than [`NICKNAME_CHARS_MAX`] characters.
    pub fn parse(text: &str) -> Option<Nickname> {
        (text.chars().nth(NICKNAME_CHARS_MAX).is_none()).then(|| Nickname(text.into()))
    }

    /// Of somebody who gave none: the start of the user id.
    pub fn of(user: &UserId) -> Nickname {
        Nickname(user.as_str().chars().take(NICKNAME_CHARS_MAX).collect::<String>().into())
    }

    /// The name as the client wrote it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A participant's own description of itself, and what a moderator adds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserInfo {
    /// To show.
    pub nickname: Nickname,
    /// Its voice is dropped at the SFU.
    pub is_muted: bool,
    /// It is sent no voices.
    pub is_deafened: bool,
    /// A moderator has silenced it; no word of its own.
    pub is_server_muted: bool,
}

/// The parts of a [`UserInfo`] that a message sets; `None` leaves as is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserInfoChange {
    /// See [`UserInfo::nickname`].
    pub nickname: Option<Nickname>,
    /// See [`UserInfo::is_muted`].
    pub is_muted: Option<bool>,
    /// See [`UserInfo::is_deafened`].
    pub is_deafened: Option<bool>,
}

impl UserInfo {
    /// Whether its voice goes no further, for whatever reason.
    pub const fn is_silent(&self) -> bool {
        self.is_muted || self.is_server_muted
    }

    /// Of somebody who said nothing: named after the user id, neither muted nor deafened.
    pub fn of(user: &UserId) -> UserInfo {
        UserInfo { nickname: Nickname::of(user), is_muted: false, is_deafened: false, is_server_muted: false }
    }

    /// This, with `change` made.
    pub fn with(&self, change: &UserInfoChange) -> UserInfo {
        UserInfo {
            nickname: change.nickname.as_ref().unwrap_or(&self.nickname).clone(),
            is_muted: change.is_muted.unwrap_or(self.is_muted),
            is_deafened: change.is_deafened.unwrap_or(self.is_deafened),
            is_server_muted: self.is_server_muted,
        }
    }
}

/// One participant.
#[derive(Clone, Debug)]
pub struct Participant {
    /// The room it is in.
    pub room: RoomId,
    /// The worker that has its transports.
    pub worker: WorkerId,
    /// Its name there, unique in the room.
    pub user: UserId,
    /// What it says of itself.
    pub info: UserInfo,
    /// What it publishes. Outlives its transports: whoever joins again takes back the slots that
    /// carried this track.
    pub track: TrackId,
    /// What stands for it in `a=msid` of the others' SDP.
    pub stream_id: Rc<str>,
}

/// The `msid-id` (RFC 8830 §2) of a user's voice: the user id where it is 1–64 token characters, else `u-`
/// and 22 characters of the base64url of its SHA-256. Chromium refuses a whole offer for one bad msid.
///
/// What begins with `u-` is always derived, so nobody can take the stream id of another. So is `-`,
/// which would mean "no stream".
pub fn stream_id(user: &UserId) -> Rc<str> {
    let text = user.as_str();
    let is_token = text.len() <= STREAM_ID_LEN_MAX && text.bytes().all(is_token_char);
    if is_token && !text.starts_with("u-") && text != "-" {
        return text.into();
    }
    let digest = URL_SAFE_NO_PAD.encode(Sha256::digest(text.as_bytes()));
    format!("u-{}", &digest[..STREAM_ID_DIGEST_LEN]).into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn user(text: &str) -> UserId {
        UserId::parse(text).unwrap()
    }

    #[test]
    fn a_token_is_its_own_stream_id() {
        for text in ["alice", "a", "user_ab12", "0", "-a", "u", "U-1", &"x".repeat(64)] {
            assert_eq!(&*stream_id(&user(text)), text);
        }
    }

    #[test]
    fn anything_else_is_derived() {
        // printf '%s' 'Alice B' | sha256sum | xxd -r -p | base64 | tr '+/' '-_' | cut -c -22
        assert_eq!(&*stream_id(&user("Alice B")), "u-Mh_eRa51x1SNec4neCyj73");
        for text in ["-", "u-", "u-alice", "a b", "é", "a/b", "a\"b", "a:b", &"x".repeat(65)] {
            let id = stream_id(&user(text));
            assert!(id.starts_with("u-") && id.len() == 24, "{text:?}: {id}");
        }
    }

    proptest! {
        #[test]
        fn stream_ids_are_msid_ids_and_differ(a in "\\PC{1,40}", b in "(u-)?\\PC{1,30}") {
            let (a, b) = (UserId::parse(&a), UserId::parse(&b));
            prop_assume!(a.is_some() && b.is_some() && a != b);
            let (a, b) = (stream_id(&a.unwrap()), stream_id(&b.unwrap()));
            for id in [&a, &b] {
                prop_assert!((1..=64).contains(&id.len()) && id.bytes().all(is_token_char) && &**id != "-");
            }
            prop_assert_ne!(a, b);
        }

        #[test]
        fn nicknames_are_counted_in_characters(text in "\\PC{0,80}") {
            prop_assert_eq!(Nickname::parse(&text).is_some(), text.chars().count() <= NICKNAME_CHARS_MAX);
        }
    }

    #[test]
    fn a_long_user_id_makes_a_nickname_that_is_cut_between_characters() {
        assert_eq!(Nickname::of(&user(&"é".repeat(64))).as_str(), "é".repeat(64));
        assert_eq!(Nickname::of(&user(&"x".repeat(100))).as_str(), "x".repeat(64));
    }

    #[test]
    fn a_change_leaves_what_it_does_not_name() {
        let info = UserInfo::of(&user("alice"));
        assert_eq!(info.with(&UserInfoChange::default()), info);
        let muted = info.with(&UserInfoChange { is_muted: Some(true), ..UserInfoChange::default() });
        assert_eq!(muted, UserInfo { is_muted: true, ..info });
    }
}
