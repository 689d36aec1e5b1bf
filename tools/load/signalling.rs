//! What is said to a server over its WebSocket, in its own words.

use std::time::Instant;

use serde_json::{Value, json};

use super::janus::{self, Janus};
use super::member::Plan;
use super::wire::FromServer;

/// Whose words they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// This project's, as its README has them.
    Own,
    /// Those of Janus and its video room.
    Janus,
}

/// One session's.
pub(crate) enum Signalling {
    Own { room: String, user: String, is_deafened: bool },
    Janus(Janus),
}

impl Signalling {
    pub(crate) fn new(plan: &Plan) -> Signalling {
        match plan.dialect {
            Dialect::Own => {
                let (room, user) = (plan.room.clone(), plan.user.clone());
                Signalling::Own { room, user, is_deafened: !plan.is_sent_voices }
            }
            Dialect::Janus => {
                Signalling::Janus(Janus::new(&plan.room, &plan.user, plan.speakers, plan.voice.is_some()))
            }
        }
    }

    /// Of the WebSocket.
    pub(crate) fn subprotocol(&self) -> Option<&'static str> {
        matches!(self, Signalling::Janus(_)).then_some(janus::SUBPROTOCOL)
    }

    /// The first message.
    pub(crate) fn opening(&self) -> Value {
        match self {
            Signalling::Own { room, user, is_deafened } => {
                let info = json!({"nickname": user, "isMuted": false, "isDeafened": is_deafened});
                message("join", &json!({"roomId": room, "userId": user, "userInfo": info}))
            }
            Signalling::Janus(janus) => janus.create(),
        }
    }

    /// What a message means, and what is to be said at once.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn hear(&mut self, text: &str, time: Instant) -> Result<(FromServer, Option<Value>), String> {
        match self {
            Signalling::Own { .. } => Ok((FromServer::parse(text)?, None)),
            Signalling::Janus(janus) => janus.hear(text, time),
        }
    }

    pub(crate) fn offer(&self, sdp: &str) -> Value {
        match self {
            Signalling::Own { .. } => message("offer", &json!({"type": "offer", "sdp": sdp})),
            Signalling::Janus(janus) => janus.offer(sdp),
        }
    }

    pub(crate) fn answer(&self, sdp: &str) -> Value {
        match self {
            Signalling::Own { .. } => message("answer", &json!({"type": "answer", "sdp": sdp})),
            Signalling::Janus(janus) => janus.answer(sdp),
        }
    }

    /// Of our microphone; `None` where nobody wants to know.
    pub(crate) fn muted(&self, muted: bool) -> Option<Value> {
        matches!(self, Signalling::Own { .. }).then(|| message("user-info", &json!({"isMuted": muted})))
    }

    pub(crate) fn leave(&self) -> Value {
        match self {
            Signalling::Own { .. } => message("leave", &json!({})),
            Signalling::Janus(janus) => janus.destroy(),
        }
    }

    /// Whether the server closes when it has heard `leave`.
    pub(crate) fn is_closed_after_leave(&self) -> bool {
        matches!(self, Signalling::Own { .. })
    }

    /// When there is something to say without having been asked.
    pub(crate) fn wake_at(&self) -> Option<Instant> {
        match self {
            Signalling::Own { .. } => None,
            Signalling::Janus(janus) => janus.wake_at(),
        }
    }

    /// What that is.
    pub(crate) fn due(&mut self, time: Instant) -> Option<Value> {
        match self {
            Signalling::Own { .. } => None,
            Signalling::Janus(janus) => janus.due(time),
        }
    }

    /// Others, whose fault it is that there is no offer yet.
    pub(crate) fn waits_for(&self) -> Option<&'static str> {
        match self {
            Signalling::Own { .. } => None,
            Signalling::Janus(janus) => janus.waits_for(),
        }
    }
}

fn message(event: &str, data: &Value) -> Value {
    json!({"event": event, "data": data})
}
