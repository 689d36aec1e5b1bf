//! What clients and SFU say to each other, as types, and the README dialect's way of writing it:
//! `{"event":…,"data":{…}}` in camelCase JSON.
//!
//! Reading is liberal: unknown keys and unknown events are ignored, optional members may be absent or
//! null. Writing is strict. The session knows only [`ClientMessage`] and [`ServerMessage`].

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{self, DeserializeOwned, Deserializer, Visitor};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::negotiation::ErrorCode;
use crate::auth::Grants;
use crate::control::participant::{NICKNAME_CHARS_MAX, Nickname, UserInfo, UserInfoChange};
use crate::ids::{Mid, NAME_LEN_MAX, RoomName, UserId};

/// Longest `offer` or `answer`, in bytes of JSON, its fragments counted together.
pub const DESCRIPTION_LEN_MAX: usize = 256 * 1024;

/// Longest message of any other kind, in bytes of JSON.
pub const MESSAGE_LEN_MAX: usize = 16 * 1024;

/// Longest reason given to a client for a message that could not be read, in bytes.
const REASON_LEN_MAX: usize = 200;

/// What a client says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientMessage {
    /// `join`: must be the first.
    Join(Box<Join>),
    /// `leave`
    Leave,
    /// `offer`, its SDP.
    Offer(String),
    /// `answer`, its SDP.
    Answer(String),
    /// `ice-candidate`, its candidate line; empty at the end of candidates.
    Candidate(String),
    /// `user-info`
    UserInfo(UserInfoChange),
    /// `kick`, whom: for moderators.
    Kick(UserId),
    /// `mute`: for moderators.
    Mute {
        /// Whom.
        user: UserId,
        /// Or not any more.
        muted: bool,
    },
    /// `keep_alive`: never answered.
    KeepAlive,
}

/// Who wants to go where.
#[derive(Clone, PartialEq, Eq)]
pub struct Join {
    /// The room.
    pub room: RoomName,
    /// The user.
    pub user: UserId,
    /// What it says of itself.
    pub info: UserInfoChange,
    /// What an earlier `joined` gave it; anything at all.
    pub resume: Option<String>,
    /// What lets it in; anything at all.
    pub token: Option<String>,
}

impl fmt::Debug for Join {
    /// Without the tokens, which must not reach a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Join { room, user, info, resume, token } = self;
        let [resume, token] = [resume, token].map(|secret| secret.as_ref().map(|_| "…"));
        f.debug_struct("Join")
            .field("room", room)
            .field("user", user)
            .field("info", info)
            .field("resume", &resume)
            .field("token", &token)
            .finish()
    }
}

/// Why a message was not understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// Longer than [`DESCRIPTION_LEN_MAX`] or [`MESSAGE_LEN_MAX`].
    TooBig,
    /// Of a kind that we do not know: to be ignored.
    UnknownEvent,
    /// Not what the protocol says; a reason for the client.
    Malformed(String),
}

impl ClientMessage {
    /// Reads one text frame.
    ///
    /// # Errors
    /// [`Unreadable`]
    pub fn parse(text: &str) -> Result<ClientMessage, Unreadable> {
        if text.len() > DESCRIPTION_LEN_MAX {
            return Err(Unreadable::TooBig);
        }
        let envelope: Envelope<'_> = serde_json::from_str(text).map_err(malformed)?;
        let event = &*envelope.event;
        if text.len() > MESSAGE_LEN_MAX && !matches!(event, "offer" | "answer") {
            return Err(Unreadable::TooBig);
        }
        Ok(match event {
            "join" => ClientMessage::Join(Box::new(data::<JoinData>(envelope.data)?.into())),
            "leave" => ClientMessage::Leave,
            "offer" | "answer" => {
                let description: Description = data(envelope.data)?;
                match (description.kind, event) {
                    (DescriptionKind::Offer, "offer") => ClientMessage::Offer(description.sdp),
                    (DescriptionKind::Answer, "answer") => ClientMessage::Answer(description.sdp),
                    _ => return Err(Unreadable::Malformed(format!("{event}: the type is another"))),
                }
            }
            "ice-candidate" if envelope.data.is_null() => ClientMessage::Candidate(String::new()),
            "ice-candidate" => ClientMessage::Candidate(data::<Candidate>(envelope.data)?.candidate),
            "user-info" => ClientMessage::UserInfo(data::<UserInfoData>(envelope.data)?.into()),
            "kick" => ClientMessage::Kick(data::<KickData>(envelope.data)?.user_id),
            "mute" => {
                let MuteData { user_id, muted } = data(envelope.data)?;
                ClientMessage::Mute { user: user_id, muted }
            }
            "keep_alive" => ClientMessage::KeepAlive,
            _ => return Err(Unreadable::UnknownEvent),
        })
    }

    /// Writes one text frame, as a client does.
    pub fn write(&self) -> String {
        let description = |kind, sdp: &str| Description { kind, sdp: sdp.into() };
        match self {
            ClientMessage::Join(join) => write("join", &JoinData::from((**join).clone())),
            ClientMessage::Leave => write("leave", &BTreeMap::<(), ()>::new()),
            ClientMessage::Offer(sdp) => write("offer", &description(DescriptionKind::Offer, sdp)),
            ClientMessage::Answer(sdp) => write("answer", &description(DescriptionKind::Answer, sdp)),
            ClientMessage::Candidate(candidate) => {
                write("ice-candidate", &Candidate { candidate: candidate.clone(), ..Candidate::default() })
            }
            ClientMessage::UserInfo(change) => write("user-info", &UserInfoData::from(change.clone())),
            ClientMessage::Kick(user) => write("kick", &KickData { user_id: user.clone() }),
            ClientMessage::Mute { user, muted } => {
                write("mute", &MuteData { user_id: user.clone(), muted: *muted })
            }
            ClientMessage::KeepAlive => write("keep_alive", &BTreeMap::<(), ()>::new()),
        }
    }
}

/// What the SFU says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", content = "data", rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub enum ServerMessage {
    /// Always the first.
    Joined(Box<Joined>),
    /// Somebody came in.
    UserJoined {
        /// Where.
        room_id: RoomName,
        /// Who.
        user_id: UserId,
        /// What it says of itself.
        #[serde(with = "user_info")]
        user_info: UserInfo,
        /// What stands for it in our SDP.
        stream_id: String,
    },
    /// Somebody went away.
    UserLeft {
        /// Where.
        room_id: RoomName,
        /// Who.
        user_id: UserId,
        /// Why.
        reason: LeaveReason,
    },
    /// Somebody says something else of itself.
    UserInfo {
        /// Where.
        room_id: RoomName,
        /// Who.
        user_id: UserId,
        /// All of it.
        #[serde(with = "user_info")]
        user_info: UserInfo,
    },
    /// Our offer.
    Offer(Description),
    /// Our answer.
    Answer(Description),
    /// One of our candidates, after the SDP that it belongs to.
    IceCandidate(Candidate),
    /// Who speaks now, the loudest first.
    ActiveSpeakers {
        /// Where.
        room_id: RoomName,
        /// Who, and how loud.
        speakers: Vec<Speaker>,
    },
    /// Whose voice these m-lines carry from now on; null: nobody's.
    Slots(BTreeMap<Mid, Option<UserId>>),
    /// What `joined` said of STUN and TURN is about to end; this is to be used from now on.
    IceServers {
        /// All of it.
        ice_servers: Vec<IceServer>,
    },
    /// The server is about to go down.
    Draining {
        /// Milliseconds until connections are closed.
        deadline: u64,
    },
    /// Something was wrong.
    Error {
        /// For programs.
        code: ErrorCode,
        /// For people.
        message: String,
    },
}

impl ServerMessage {
    /// Writes one text frame.
    pub fn write(&self) -> String {
        serde_json::to_string(self)
            .unwrap_or_else(|_| unreachable!("maps have string keys, and no type of ours fails"))
    }

    /// Reads one text frame, as a client does.
    ///
    /// # Errors
    /// [`Unreadable::Malformed`]
    pub fn parse(text: &str) -> Result<ServerMessage, Unreadable> {
        serde_json::from_str(text).map_err(malformed)
    }
}

/// The answer to `join`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Joined {
    /// As asked for.
    pub room_id: RoomName,
    /// As asked for.
    pub user_id: UserId,
    /// The others, in the order of their joining.
    pub peers: Vec<UserId>,
    /// Whether it is in.
    pub success: bool,
    /// Why it is not.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub message: Option<String>,
    /// What the others say of themselves.
    pub peer_info: BTreeMap<UserId, PeerInfo>,
    /// STUN and TURN for the client.
    pub ice_servers: Vec<IceServer>,
    /// For the next `join`, after a lost connection. A secret.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub resume: Option<ResumeText>,
    /// Transport and voices of an earlier connection go on.
    pub resumed: bool,
    /// What it may do; of one who is in.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub grants: Option<Grants>,
}

/// A resume token on its way to the client. Its `Debug` keeps the secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ResumeText(pub String);

impl fmt::Debug for ResumeText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// One of the others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerInfo {
    /// What it says of itself.
    #[serde(flatten, with = "user_info")]
    pub user_info: UserInfo,
    /// What stands for it in our SDP.
    pub stream_id: String,
}

/// `RTCIceServer` of the W3C.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct IceServer {
    /// `stun:` and `turn:` addresses.
    pub urls: Vec<String>,
    /// For TURN.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub username: Option<String>,
    /// For TURN: its password. A secret.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub credential: Option<CredentialText>,
}

/// A TURN password on its way to the client. Its `Debug` keeps the secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CredentialText(pub String);

impl fmt::Debug for CredentialText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// `RTCSessionDescriptionInit` of the W3C.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// Offer or answer.
    #[serde(rename = "type")]
    pub kind: DescriptionKind,
    /// RFC 8866.
    pub sdp: String,
}

/// `RTCSdpType` of the W3C, without the two that never travel here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DescriptionKind {
    /// `offer`
    Offer,
    /// `answer`
    Answer,
}

/// `RTCIceCandidateInit` of the W3C.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Candidate {
    /// `candidate:…` (RFC 8839 §5.1), or empty.
    #[serde(default)]
    pub candidate: String,
    /// Tag of its m-line.
    #[serde(default)]
    pub sdp_mid: Option<String>,
    /// Index of its m-line.
    #[serde(rename = "sdpMLineIndex", default)]
    pub sdp_m_line_index: Option<u16>,
    /// ufrag that it belongs to.
    #[serde(default)]
    pub username_fragment: Option<String>,
}

/// Somebody who speaks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Speaker {
    /// Who.
    pub user_id: UserId,
    /// 0 (loudest) to 127 (RFC 6464).
    pub level: u8,
}

/// Why somebody went away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LeaveReason {
    /// It said so.
    Left,
    /// Its connection was lost and it did not come back in time.
    Disconnected,
    /// Its media path failed and its connection was lost.
    Failed,
    /// A moderator said so.
    Kicked,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    event: Cow<'a, str>,
    #[serde(default)]
    data: Value,
}

#[derive(Serialize)]
struct EnvelopeOut<'a, T> {
    event: &'a str,
    data: &'a T,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct JoinData {
    room_id: RoomName,
    user_id: UserId,
    #[serde(default)]
    user_info: Option<UserInfoData>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    resume: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct KickData {
    user_id: UserId,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct MuteData {
    user_id: UserId,
    muted: bool,
}

impl From<JoinData> for Join {
    fn from(data: JoinData) -> Join {
        let info = data.user_info.unwrap_or_default().into();
        Join { room: data.room_id, user: data.user_id, info, resume: data.resume, token: data.token }
    }
}

impl From<Join> for JoinData {
    fn from(join: Join) -> JoinData {
        JoinData {
            room_id: join.room,
            user_id: join.user,
            user_info: Some(join.info.into()),
            resume: join.resume,
            token: join.token,
        }
    }
}

#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct UserInfoData {
    #[serde(skip_serializing_if = "Option::is_none")]
    nickname: Option<Nickname>,
    #[serde(skip_serializing_if = "Option::is_none")]
    is_muted: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    is_deafened: Option<bool>,
}

impl From<UserInfoData> for UserInfoChange {
    fn from(data: UserInfoData) -> UserInfoChange {
        let UserInfoData { nickname, is_muted, is_deafened } = data;
        UserInfoChange { nickname, is_muted, is_deafened }
    }
}

impl From<UserInfoChange> for UserInfoData {
    fn from(change: UserInfoChange) -> UserInfoData {
        let UserInfoChange { nickname, is_muted, is_deafened } = change;
        UserInfoData { nickname, is_muted, is_deafened }
    }
}

/// A whole [`UserInfo`], as we send it.
mod user_info {
    use super::*;

    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Whole {
        nickname: Nickname,
        is_muted: bool,
        is_deafened: bool,
        is_server_muted: bool,
    }

    pub(super) fn serialize<S: Serializer>(info: &UserInfo, serializer: S) -> Result<S::Ok, S::Error> {
        let UserInfo { nickname, is_muted, is_deafened, is_server_muted } = info.clone();
        Whole { nickname, is_muted, is_deafened, is_server_muted }.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<UserInfo, D::Error> {
        let Whole { nickname, is_muted, is_deafened, is_server_muted } = Whole::deserialize(deserializer)?;
        Ok(UserInfo { nickname, is_muted, is_deafened, is_server_muted })
    }
}

fn data<T: DeserializeOwned>(value: Value) -> Result<T, Unreadable> {
    serde_json::from_value(value).map_err(malformed)
}

fn write<T: Serialize>(event: &str, data: &T) -> String {
    serde_json::to_string(&EnvelopeOut { event, data })
        .unwrap_or_else(|_| unreachable!("plain structs do not fail"))
}

/// Serde's words may repeat a value of any length: they are cut.
fn malformed(error: serde_json::Error) -> Unreadable {
    let mut reason = error.to_string();
    reason.truncate(reason.floor_char_boundary(REASON_LEN_MAX));
    Unreadable::Malformed(reason)
}

/// A type whose JSON form is a string that has to pass its `parse`.
macro_rules! parsed_string {
    ($type:ident, $expecting:expr) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<$type, D::Error> {
                struct Text;

                impl Visitor<'_> for Text {
                    type Value = $type;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        $expecting(f)
                    }

                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$type, E> {
                        $type::parse(text)
                            .ok_or_else(|| E::invalid_value(de::Unexpected::Other("that text"), &self))
                    }
                }

                deserializer.deserialize_str(Text)
            }
        }
    };
}

fn expect_name(f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "a name of 1 to {NAME_LEN_MAX} bytes without control characters")
}

fn expect_nickname(f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "a nickname of at most {NICKNAME_CHARS_MAX} characters")
}

fn expect_mid(f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str("a media identification tag")
}

parsed_string!(RoomName, expect_name);
parsed_string!(UserId, expect_name);
parsed_string!(Nickname, expect_nickname);
parsed_string!(Mid, expect_mid);

/// The codes as they are written.
const CODES: [(ErrorCode, &str); 12] = [
    (ErrorCode::BadMessage, "bad-message"),
    (ErrorCode::NotJoined, "not-joined"),
    (ErrorCode::AlreadyJoined, "already-joined"),
    (ErrorCode::Unauthorized, "unauthorized"),
    (ErrorCode::Kicked, "kicked"),
    (ErrorCode::RoomFull, "room-full"),
    (ErrorCode::ServerFull, "server-full"),
    (ErrorCode::RateLimited, "rate-limited"),
    (ErrorCode::BadSdp, "bad-sdp"),
    (ErrorCode::Glare, "glare"),
    (ErrorCode::Draining, "draining"),
    (ErrorCode::Internal, "internal"),
];

impl Serialize for ErrorCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = CODES.iter().find_map(|(code, text)| (code == self).then_some(*text));
        serializer.serialize_str(text.unwrap_or("internal"))
    }
}

impl<'de> Deserialize<'de> for ErrorCode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ErrorCode, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        let code = CODES.iter().find_map(|(code, known)| (*known == text).then_some(*code));
        code.ok_or_else(|| de::Error::custom("an unknown code"))
    }
}

#[cfg(test)]
mod tests;
