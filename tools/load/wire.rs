//! What the server says and takes, with care: it may be anybody.

use std::borrow::Cow;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use super::support::socket::Socket;

/// A message is no longer; a room of ten thousand is told within it.
const MESSAGE_LEN_MAX: usize = 4 << 20;
/// A description is no longer.
const SDP_LEN_MAX: usize = 256 << 10;
/// A description has no more m-lines.
const MEDIA_COUNT_MAX: usize = 300;
/// What is shown of a server's words.
const SHOWN_LEN_MAX: usize = 100;
/// A server that takes a message for longer reads no more.
const SAYING_MAX: Duration = Duration::from_secs(5);

/// Limits of the WebSocket.
pub(crate) fn socket_limits() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(4 << 10)
        .write_buffer_size(0)
        .max_write_buffer_size(1 << 20)
        .max_message_size(Some(MESSAGE_LEN_MAX))
        .max_frame_size(Some(MESSAGE_LEN_MAX))
}

/// The messages that matter here.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum FromServer {
    Joined,
    /// `joined` without success, or `error`: what it says.
    Refused(String),
    Offer(String),
    Answer(String),
    Candidate(String),
    /// Lines changed hands.
    Slots,
    /// Everything else, known or not.
    Other,
}

impl FromServer {
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<FromServer, String> {
        // In two steps: most of what a large room says is news of members, of which only the name is read.
        let event = match serde_json::from_str(text) {
            Ok(Envelope { event: Some(event) }) => event,
            Ok(_) => return Err(format!("a message without an event: {}", shown(text))),
            Err(_) => return Err(format!("not a message of this protocol: {}", shown(text))),
        };
        let said = || serde_json::from_str(text).map_or_else(|_| Data::default(), |said: Said| said.data);
        Ok(match &*event {
            "joined" => match said() {
                Data { success: true, .. } => FromServer::Joined,
                Data { message, .. } => FromServer::Refused(shown(&message)),
            },
            "error" => match said() {
                // Nothing of ours is lost: the one offer that we make cannot collide.
                Data { code, .. } if code == "glare" => FromServer::Other,
                Data { code, message, .. } => FromServer::Refused(shown(&format!("{code}: {message}"))),
            },
            "offer" => FromServer::Offer(sdp(said().sdp)?),
            "answer" => FromServer::Answer(sdp(said().sdp)?),
            "ice-candidate" => FromServer::Candidate(said().candidate),
            "slots" => FromServer::Slots,
            _ => FromServer::Other,
        })
    }
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    event: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Said {
    data: Data,
}

/// What is read of any message; the rest of it is skipped.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Data {
    #[serde(deserialize_with = "lenient")]
    success: bool,
    #[serde(deserialize_with = "lenient")]
    code: String,
    #[serde(deserialize_with = "lenient")]
    message: String,
    #[serde(deserialize_with = "lenient")]
    sdp: String,
    #[serde(deserialize_with = "lenient")]
    candidate: String,
}

/// A field of another type counts as absent, and the others as they are.
fn lenient<'de, D: Deserializer<'de>, T: DeserializeOwned + Default>(from: D) -> Result<T, D::Error> {
    Ok(serde_json::from_value(Value::deserialize(from)?).unwrap_or_default())
}

/// A description of no more than anybody needs.
pub(crate) fn sdp(text: String) -> Result<String, String> {
    if text.len() > SDP_LEN_MAX {
        return Err(format!("a description of {} bytes", text.len()));
    }
    let media = text.lines().filter(|line| line.starts_with("m=")).count();
    if media > MEDIA_COUNT_MAX {
        return Err(format!("a description of {media} m-lines"));
    }
    Ok(text)
}

/// Somebody else's words, fit for a terminal and a report.
pub(crate) fn shown(text: &str) -> String {
    let clean = |c: char| if c.is_control() || is_bidi(c) { '\u{FFFD}' } else { c };
    let mut short: String = text.chars().take(SHOWN_LEN_MAX).map(clean).collect();
    if text.chars().nth(SHOWN_LEN_MAX).is_some() {
        short.push('…');
    }
    short
}

/// Characters that turn the text around them.
fn is_bidi(c: char) -> bool {
    matches!(c, '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

/// What the close codes of this protocol mean.
pub(crate) fn close_meaning(code: u16) -> &'static str {
    match code {
        1000 => " (left)",
        1001 => " (it is going down)",
        1008 => " (refused, or another took our place)",
        1009 => " (too big)",
        1011 => " (its fault)",
        1013 => " (it is full)",
        _ => "",
    }
}

/// An end of the connection shows when we read; who does not read us for so long is at its end, too.
pub(crate) async fn say(socket: &mut Socket, message: &Value) -> Result<(), String> {
    let sent = socket.send(Message::text(message.to_string()));
    tokio::time::timeout(SAYING_MAX, sent).await.map(drop).map_err(|_| "the server does not read".to_owned())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn messages_are_what_they_say() {
        let parse = |text: &str| FromServer::parse(text).unwrap();
        assert_eq!(parse(r#"{"event":"joined","data":{"success":true}}"#), FromServer::Joined);
        let full = r#"{"event":"joined","data":{"success":false,"message":"full\u001b[2J"}}"#;
        assert_eq!(parse(full), FromServer::Refused("full\u{FFFD}[2J".into()));
        let error = r#"{"event":"error","data":{"code":"server-full","message":"no"}}"#;
        assert_eq!(parse(error), FromServer::Refused("server-full: no".into()));
        assert_eq!(parse(r#"{"event":"error","data":{"code":"glare"}}"#), FromServer::Other);
        assert_eq!(parse(r#"{"event":"offer","data":{"sdp":"v=0"}}"#), FromServer::Offer("v=0".into()));
        assert_eq!(parse(r#"{"event":"offer","data":7}"#), FromServer::Offer(String::new()));
        let without_words = r#"{"event":"error","data":{"message":null,"code":"busy"}}"#;
        assert_eq!(parse(without_words), FromServer::Refused("busy: ".into()));
        assert_eq!(parse(r#"{"event":"news","data":[]}"#), FromServer::Other);
        assert_eq!(
            parse(r#"{"data":{"users":[{"userId":"a"}]},"event":"user\u002djoined"}"#),
            FromServer::Other
        );
    }

    #[test]
    fn what_is_too_much_or_no_message_is_an_error() {
        let lines = "m=audio\\n".repeat(MEDIA_COUNT_MAX + 1);
        let long = "x".repeat(SDP_LEN_MAX + 1);
        for text in [
            "",
            "[]",
            "{}",
            r#"{"event":7}"#,
            &format!(r#"{{"event":"offer","data":{{"sdp":"{lines}"}}}}"#),
            &format!(r#"{{"event":"answer","data":{{"sdp":"{long}"}}}}"#),
            &"[".repeat(100_000),
        ] {
            let said = FromServer::parse(text).unwrap_err();
            assert!(said.chars().count() < 200, "{said}");
        }
    }

    /// A server that asks and asks, and reads nothing, holds nobody for ever.
    #[tokio::test]
    async fn who_does_not_read_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            tell.send(tokio_tungstenite::tungstenite::accept(stream).unwrap()).unwrap();
        });
        let limits = Some(socket_limits());
        let url = format!("ws://{address}/");
        let mut socket = Socket::open_url(address, &url, None, limits, None).await.unwrap();
        let _open = told.recv().unwrap();
        let message = Value::String("x".repeat(256 << 10));
        for _ in 0..1_000 {
            if let Err(why) = say(&mut socket, &message).await {
                assert_eq!(why, "the server does not read");
                return;
            }
        }
        panic!("more than any buffer takes");
    }
}
