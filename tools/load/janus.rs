//! The words of Janus and of its video room (`janus.plugin.videoroom`): one handle a session, which either publishes a
//! voice or subscribes to all that its room has.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{Value, json};

use super::wire::{self, FromServer, shown};

pub(crate) const SUBPROTOCOL: &str = "janus-protocol";
const PLUGIN: &str = "janus.plugin.videoroom";
/// It ends sessions that say nothing for a minute.
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(25);
/// Until the room is asked once more who publishes.
const ASK_EVERY: Duration = Duration::from_millis(200);
/// Numbers that JavaScript holds, as Janus wants them.
const ID_BITS: u32 = 53;
/// The room is there already: another speaker's doing.
const ROOM_EXISTS: i64 = 427;
/// Its speakers are yet to make it.
const NO_SUCH_ROOM: i64 = 426;

/// One session's.
pub(crate) struct Janus {
    room: u64,
    /// Of who publishes.
    user: u64,
    speakers: usize,
    publishes: bool,
    session: u64,
    handle: u64,
    /// Not all publish yet.
    ask_at: Option<Instant>,
    keep_alive_at: Option<Instant>,
}

/// What is read of any message.
#[derive(Deserialize)]
struct Message {
    janus: String,
    #[serde(default)]
    transaction: String,
    data: Option<Created>,
    #[serde(default)]
    plugindata: Plugin,
    jsep: Option<Jsep>,
    error: Option<Refusal>,
    #[serde(default)]
    reason: String,
}

#[derive(Deserialize)]
struct Created {
    id: u64,
}

#[derive(Default, Deserialize)]
struct Plugin {
    data: Told,
}

#[derive(Default, Deserialize)]
struct Told {
    error_code: Option<i64>,
    #[serde(default)]
    error: String,
    #[serde(default)]
    participants: Vec<Participant>,
}

#[derive(Deserialize)]
struct Participant {
    id: u64,
    #[serde(default)]
    publisher: bool,
}

#[derive(Deserialize)]
struct Jsep {
    #[serde(rename = "type")]
    kind: String,
    sdp: String,
}

#[derive(Deserialize)]
struct Refusal {
    code: i64,
    reason: String,
}

/// Rooms and users have numbers, and ours have names.
fn id(name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    (hasher.finish() >> (u64::BITS - ID_BITS)).max(1)
}

impl Janus {
    pub(crate) fn new(room: &str, user: &str, speakers: usize, publishes: bool) -> Janus {
        let (room, user) = (id(room), id(user));
        Janus { room, user, speakers, publishes, session: 0, handle: 0, ask_at: None, keep_alive_at: None }
    }

    pub(crate) fn create(&self) -> Value {
        json!({"janus": "create", "transaction": "create"})
    }

    /// Answers to what was asked tell by their transaction what that was.
    ///
    /// # Errors
    /// It is none of Janus's messages, or the session is over.
    pub(crate) fn hear(&mut self, text: &str, time: Instant) -> Result<(FromServer, Option<Value>), String> {
        let message: Message =
            serde_json::from_str(text).map_err(|_| format!("not a message of Janus: {}", shown(text)))?;
        let Told { error_code, error, participants } = message.plugindata.data;
        let reply = match (&*message.janus, &*message.transaction) {
            ("error", _) => {
                let Refusal { code, reason } = message.error.ok_or("an error without one")?;
                return Ok((FromServer::Refused(shown(&format!("{code}: {reason}"))), None));
            }
            ("hangup", _) => return Err(format!("the server ended the media: {}", shown(&message.reason))),
            ("timeout", _) => return Err("the server ended the session: it had timed out".into()),
            ("success", "create") => {
                self.session = message.data.ok_or("a session without a number")?.id;
                self.keep_alive_at = Some(time + KEEP_ALIVE_EVERY);
                Some(self.attach())
            }
            ("success", "attach") => {
                self.handle = message.data.ok_or("a handle without a number")?.id;
                Some(if self.publishes { self.make_room() } else { self.ask() })
            }
            ("success", "room") if matches!(error_code, None | Some(ROOM_EXISTS)) => {
                return Ok((FromServer::Joined, None));
            }
            ("success", "ask") if matches!(error_code, None | Some(NO_SUCH_ROOM)) => {
                let feeds: Vec<u64> =
                    participants.iter().filter(|one| one.publisher).map(|one| one.id).collect();
                let is_complete = feeds.len() >= self.speakers;
                self.ask_at = (!is_complete).then_some(time + ASK_EVERY);
                is_complete.then(|| self.subscribe(&feeds))
            }
            // Our descriptions name our one candidate already.
            ("event", "publish" | "start") if error_code.is_none() => Some(self.completed()),
            _ if error_code.is_some() => return Ok((FromServer::Refused(shown(&error)), None)),
            _ => None,
        };
        let heard = match message.jsep {
            Some(Jsep { kind, sdp }) if kind == "offer" => FromServer::Offer(wire::sdp(sdp)?),
            Some(Jsep { sdp, .. }) => FromServer::Answer(wire::sdp(sdp)?),
            None => FromServer::Other,
        };
        Ok((heard, reply))
    }

    fn attach(&self) -> Value {
        json!({"janus": "attach", "transaction": "attach", "session_id": self.session, "plugin": PLUGIN})
    }

    fn to_plugin(&self, transaction: &str, body: &Value, jsep: Option<Value>) -> Value {
        let mut message = json!({"janus": "message", "transaction": transaction, "session_id": self.session,
            "handle_id": self.handle, "body": body});
        if let (Some(jsep), Some(fields)) = (jsep, message.as_object_mut()) {
            fields.insert("jsep".into(), jsep);
        }
        message
    }

    /// With nothing that costs it more than voices do here: no feedback on bandwidth, no events on who is loud.
    fn make_room(&self) -> Value {
        let body = json!({"request": "create", "room": self.room, "publishers": self.speakers.max(1),
            "is_private": true, "audiocodec": "opus", "transport_wide_cc_ext": false, "audiolevel_event": false});
        self.to_plugin("room", &body, None)
    }

    fn ask(&self) -> Value {
        self.to_plugin("ask", &json!({"request": "listparticipants", "room": self.room}), None)
    }

    fn subscribe(&self, feeds: &[u64]) -> Value {
        let streams: Vec<Value> = feeds.iter().map(|feed| json!({"feed": feed})).collect();
        let body = json!({"request": "join", "ptype": "subscriber", "room": self.room, "streams": streams});
        self.to_plugin("subscribe", &body, None)
    }

    pub(crate) fn offer(&self, sdp: &str) -> Value {
        let body =
            json!({"request": "joinandconfigure", "ptype": "publisher", "room": self.room, "id": self.user});
        self.to_plugin("publish", &body, Some(json!({"type": "offer", "sdp": sdp})))
    }

    pub(crate) fn answer(&self, sdp: &str) -> Value {
        let jsep = json!({"type": "answer", "sdp": sdp});
        self.to_plugin("start", &json!({"request": "start"}), Some(jsep))
    }

    /// There are no more candidates to come (RFC 8838 §13).
    fn completed(&self) -> Value {
        json!({"janus": "trickle", "transaction": "trickle", "session_id": self.session, "handle_id": self.handle,
            "candidate": {"completed": true}})
    }

    pub(crate) fn destroy(&self) -> Value {
        json!({"janus": "destroy", "transaction": "destroy", "session_id": self.session})
    }

    pub(crate) fn wake_at(&self) -> Option<Instant> {
        self.ask_at.into_iter().chain(self.keep_alive_at).min()
    }

    pub(crate) fn due(&mut self, time: Instant) -> Option<Value> {
        if self.ask_at.is_some_and(|at| at <= time) {
            self.ask_at = None;
            return Some(self.ask());
        }
        self.keep_alive_at = Some(self.keep_alive_at.filter(|&at| at <= time)? + KEEP_ALIVE_EVERY);
        Some(json!({"janus": "keepalive", "transaction": "keepalive", "session_id": self.session}))
    }

    pub(crate) fn waits_for(&self) -> Option<&'static str> {
        self.ask_at.map(|_| "not all speakers of its room publish")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::support::now;

    fn hear(janus: &mut Janus, text: &str) -> (FromServer, Value) {
        let (heard, reply) = janus.hear(text, now()).unwrap();
        (heard, reply.unwrap_or_default())
    }

    fn attached(publishes: bool) -> (Janus, Value) {
        let mut janus = Janus::new("room", "user", 2, publishes);
        let (_, attach) = hear(&mut janus, r#"{"janus":"success","transaction":"create","data":{"id":7}}"#);
        assert_eq!((&attach["janus"], &attach["session_id"]), (&json!("attach"), &json!(7)));
        let (_, asked) = hear(&mut janus, r#"{"janus":"success","transaction":"attach","data":{"id":8}}"#);
        assert_eq!((&asked["session_id"], &asked["handle_id"]), (&json!(7), &json!(8)));
        (janus, asked)
    }

    #[test]
    fn a_publisher_makes_the_room_unless_it_is_there_and_then_offers() {
        for made in [r#"{"videoroom":"created"}"#, r#"{"error_code":427,"error":"exists"}"#] {
            let (mut janus, asked) = attached(true);
            assert_eq!(asked["body"]["request"], "create");
            let told =
                format!(r#"{{"janus":"success","transaction":"room","plugindata":{{"data":{made}}}}}"#);
            assert_eq!(hear(&mut janus, &told).0, FromServer::Joined);
            let offer = janus.offer("v=0");
            assert_eq!(
                (&offer["body"]["request"], &offer["jsep"]["sdp"]),
                (&json!("joinandconfigure"), &json!("v=0"))
            );
            let answer = r#"{"janus":"event","transaction":"publish","plugindata":{"data":{"videoroom":"joined"}},
                "jsep":{"type":"answer","sdp":"v=1"}}"#;
            let (heard, completed) = hear(&mut janus, answer);
            assert_eq!((heard, &completed["janus"]), (FromServer::Answer("v=1".into()), &json!("trickle")));
        }
    }

    #[test]
    fn a_subscriber_waits_for_all_that_publish() {
        let (mut janus, asked) = attached(false);
        assert_eq!(asked["body"]["request"], "listparticipants");
        let told = |who: &str| {
            let data = format!(r#"{{"participants":[{who}]}}"#);
            format!(r#"{{"janus":"success","transaction":"ask","plugindata":{{"data":{data}}}}}"#)
        };
        let one = r#"{"id":1,"publisher":true},{"id":2,"publisher":false}"#;
        let none = r#"{"janus":"success","transaction":"ask","plugindata":{"data":{"error_code":426,"error":"none"}}}"#;
        for text in [none, &told(one)] {
            assert_eq!(hear(&mut janus, text), (FromServer::Other, Value::Null));
            assert!(janus.waits_for().is_some());
            let at = janus.wake_at().unwrap();
            assert_eq!(janus.due(at - ASK_EVERY), None);
            assert_eq!(janus.due(at).unwrap()["body"]["request"], "listparticipants");
        }
        let both = r#"{"id":1,"publisher":true},{"id":2,"publisher":true}"#;
        let (_, subscribe) = hear(&mut janus, &told(both));
        assert_eq!(subscribe["body"]["streams"], json!([{"feed": 1}, {"feed": 2}]));
        assert_eq!(janus.waits_for(), None);
        let offer = r#"{"janus":"event","transaction":"subscribe","jsep":{"type":"offer","sdp":"v=0"}}"#;
        assert_eq!(hear(&mut janus, offer).0, FromServer::Offer("v=0".into()));
    }

    #[test]
    fn a_session_is_kept_alive() {
        let (mut janus, _) = attached(true);
        let at = janus.wake_at().unwrap();
        assert_eq!(janus.due(at).unwrap()["janus"], "keepalive");
        assert_eq!(janus.wake_at(), Some(at + KEEP_ALIVE_EVERY));
    }

    #[test]
    fn refusals_are_told_and_nonsense_is_an_error() {
        let (mut janus, _) = attached(false);
        for (text, refusal) in [
            (r#"{"janus":"error","error":{"code":403,"reason":"no\u001b"}}"#, "403: no\u{FFFD}"),
            (
                r#"{"janus":"event","transaction":"subscribe","plugindata":{"data":{"error_code":428,"error":"no feed"}}}"#,
                "no feed",
            ),
        ] {
            assert_eq!(hear(&mut janus, text).0, FromServer::Refused(refusal.into()));
        }
        let long = "x".repeat(300 << 10);
        for text in [
            "",
            "[]",
            r#"{"janus":7}"#,
            r#"{"janus":"error"}"#,
            r#"{"janus":"success","transaction":"attach"}"#,
            r#"{"janus":"success","transaction":"ask","plugindata":{"data":{"participants":7}}}"#,
            r#"{"janus":"hangup","reason":"ICE failed"}"#,
            r#"{"janus":"timeout"}"#,
            &format!(r#"{{"janus":"event","jsep":{{"type":"offer","sdp":"{long}"}}}}"#),
        ] {
            let said = janus.hear(text, now()).map(|(heard, _)| heard).unwrap_err();
            assert!(said.chars().count() < 200, "{said}");
        }
    }
}
