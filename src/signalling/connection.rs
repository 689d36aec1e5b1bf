//! One WebSocket as signalling sees it: a queue to the client, bounded in frames and in bytes.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::sync::mpsc::error::{TryRecvError, TrySendError};
use tokio::sync::mpsc::{self, OwnedPermit, Receiver, Sender};

use super::message::ServerMessage;
use crate::control::participant::ParticipantId;

/// Most frames that wait for a client to read them. One that is further behind is let go: it comes
/// back and is told everything anew. Many more than may come about before those who read get to it: a house that comes
/// back after a restart, and all that who is quick may say at once.
pub const OUTBOUND_LEN: usize = 1_024;

/// Most bytes of text among them, besides `joined`: twice what so many notices come to, with the longest names that there
/// can be, and several times our longest answer.
pub const OUTBOUND_BYTES_MAX: usize = 2 * 1024 * 1024;

/// A frame to the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outbound {
    /// A text frame.
    Text(String),
    /// A text frame that many get: it may wait so long, counted from what left last, for others to leave with. What
    /// comes behind it never overtakes it.
    Notice {
        /// Its text.
        text: Rc<str>,
        /// So long.
        patience: Duration,
    },
    /// A Close frame; the last.
    Close {
        /// RFC 6455 §7.4.
        code: CloseCode,
        /// At most 123 bytes.
        reason: &'static str,
    },
}

impl Outbound {
    /// Bytes of text.
    fn text_len(&self) -> usize {
        match self {
            Outbound::Text(text) => text.len(),
            Outbound::Notice { text, .. } => text.len(),
            Outbound::Close { .. } => 0,
        }
    }
}

/// Status code of a Close frame (RFC 6455 §7.4, and 1013 of its registry).
pub type CloseCode = u16;

/// Normal: the client left.
pub const CLOSE_NORMAL: CloseCode = 1000;
/// The server goes down.
pub const CLOSE_DRAINING: CloseCode = 1001;
/// Policy: authorization, rates, broken protocol.
pub const CLOSE_POLICY: CloseCode = 1008;
/// A message was too big.
pub const CLOSE_TOO_BIG: CloseCode = 1009;
/// Our fault.
pub const CLOSE_INTERNAL: CloseCode = 1011;
/// Full: try later.
pub const CLOSE_FULL: CloseCode = 1013;

/// One WebSocket.
pub(super) struct Connection {
    pub(super) stage: Stage,
    inlet: Inlet,
}

/// How far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Has to join.
    Waiting,
    /// Speaks for a participant.
    Joined(ParticipantId),
    /// Told to close: what still comes is not heard.
    Closing,
}

impl Connection {
    pub(super) fn new() -> (Connection, Outbox) {
        let (inlet, outbox) = Inlet::new(OUTBOUND_LEN, OUTBOUND_BYTES_MAX);
        (Connection { stage: Stage::Waiting, inlet }, outbox)
    }

    /// Queues a message.
    pub(super) fn send(&mut self, message: &ServerMessage) -> Result<(), TooSlow> {
        let text = message.write();
        if matches!(message, ServerMessage::Joined(_)) {
            // There is one, and it is as long as its room is large: it takes no room from what follows.
            self.inlet.widen(text.len());
        }
        self.queue(Outbound::Text(text))
    }

    /// As [`Connection::send`], for what many get.
    pub(super) fn notify(&self, text: &Rc<str>, patience: Duration) -> Result<(), TooSlow> {
        self.queue(Outbound::Notice { text: Rc::clone(text), patience })
    }

    fn queue(&self, outbound: Outbound) -> Result<(), TooSlow> {
        if self.stage == Stage::Closing { Ok(()) } else { self.inlet.send(outbound) }
    }

    /// Queues the Close frame. Nothing follows it.
    pub(super) fn close(&mut self, code: CloseCode, reason: &'static str) {
        self.stage = Stage::Closing;
        self.inlet.close(code, reason);
    }
}

/// The client does not read.
#[derive(Debug)]
pub struct TooSlow;

/// Where frames to a client go in.
pub struct Inlet {
    frames: Sender<Outbound>,
    /// Room for the Close frame, kept from the beginning. `None` once it is used.
    close: Option<OwnedPermit<Outbound>>,
    /// Most bytes of text that may wait.
    bytes_max: usize,
    waiting: Rc<Waiting>,
}

/// What both ends know of the frames between them.
#[derive(Default)]
struct Waiting {
    /// Bytes of text.
    len: Cell<usize>,
    /// The Close frame is among them.
    close: Notify,
}

impl Inlet {
    /// The two ends of a queue for so many frames, a Close frame besides, and so many bytes of text among them.
    pub fn new(frame_count_max: usize, bytes_max: usize) -> (Inlet, Outbox) {
        let (sender, receiver) = mpsc::channel(frame_count_max + 1);
        let close = sender.clone().try_reserve_owned().ok();
        let waiting = Rc::<Waiting>::default();
        let outbox = Outbox { frames: receiver, waiting: Rc::clone(&waiting) };
        (Inlet { frames: sender, close, bytes_max, waiting }, outbox)
    }

    /// Queues a frame. One whose receiver is gone is sent nothing, which is no error: its end is on the way.
    ///
    /// # Errors
    /// [`TooSlow`]: there is no room for it.
    pub fn send(&self, frame: Outbound) -> Result<(), TooSlow> {
        let len = self.waiting.len.get() + frame.text_len();
        match self.frames.try_reserve() {
            Err(TrySendError::Closed(())) => Ok(()),
            Err(TrySendError::Full(())) => Err(TooSlow),
            Ok(_) if len > self.bytes_max => Err(TooSlow),
            Ok(permit) => {
                self.waiting.len.set(len);
                permit.send(frame);
                Ok(())
            }
        }
    }

    /// Queues the Close frame, for which there is always room.
    pub fn close(&mut self, code: CloseCode, reason: &'static str) {
        if let Some(permit) = self.close.take() {
            permit.send(Outbound::Close { code, reason });
            self.waiting.close.notify_one();
        }
    }

    /// So many bytes more may wait from now on.
    fn widen(&mut self, len: usize) {
        self.bytes_max = self.bytes_max.saturating_add(len);
    }
}

/// What waits for a client, to be written to it.
pub struct Outbox {
    frames: Receiver<Outbound>,
    waiting: Rc<Waiting>,
}

impl Outbox {
    /// Takes the next frame, once there is one; `None` when none can come. Nothing is lost with a wait that is given up.
    pub async fn recv(&mut self) -> Option<Outbound> {
        let frame = self.frames.recv().await?;
        Some(self.taken(frame))
    }

    /// Takes the next frame.
    ///
    /// # Errors
    /// There is none now, or none can come.
    pub fn try_recv(&mut self) -> Result<Outbound, TryRecvError> {
        let frame = self.frames.try_recv()?;
        Ok(self.taken(frame))
    }

    /// Resolves as soon as a Close frame waits, however many others are before it. For one to ask.
    pub fn closing(&self) -> impl Future<Output = ()> + use<> {
        let waiting = Rc::clone(&self.waiting);
        async move { waiting.close.notified().await }
    }

    fn taken(&self, frame: Outbound) -> Outbound {
        self.waiting.len.set(self.waiting.len.get() - frame.text_len());
        frame
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notify(connection: &Connection, len: usize) -> Result<(), TooSlow> {
        connection.notify(&"x".repeat(len).into(), Duration::ZERO)
    }

    #[test]
    fn bytes_that_wait_are_bounded_and_what_is_taken_makes_room() {
        let (mut connection, mut outbox) = Connection::new();
        let (half, rest) = (OUTBOUND_BYTES_MAX / 2, OUTBOUND_BYTES_MAX - OUTBOUND_BYTES_MAX / 2);
        assert!(notify(&connection, half).is_ok() && notify(&connection, rest).is_ok());
        assert!(notify(&connection, 1).is_err(), "shared or not, it waits");
        assert!(connection.send(&ServerMessage::Draining { deadline: 1 }).is_err());
        outbox.try_recv().unwrap();
        assert!(notify(&connection, half).is_ok() && notify(&connection, 1).is_err());
        connection.close(CLOSE_POLICY, "too slow");
        assert_eq!(std::iter::from_fn(|| outbox.try_recv().ok()).count(), 3, "there is room for the Close");
    }

    /// A room of any size can be joined, and what comes behind that has as much room as in a small one.
    #[test]
    fn joined_takes_no_room_from_what_follows() {
        let (mut connection, _outbox) = Connection::new();
        let text = serde_json::json!({"event": "joined", "data": {"roomId": "r", "userId": "a", "peers": [],
            "success": true, "message": "x".repeat(3 * OUTBOUND_BYTES_MAX), "peerInfo": {}, "iceServers": [],
            "resumed": false}});
        let joined = ServerMessage::parse(&text.to_string()).unwrap();
        assert!(connection.send(&joined).is_ok());
        assert!(notify(&connection, OUTBOUND_BYTES_MAX).is_ok() && notify(&connection, 1).is_err());
    }

    #[test]
    fn who_is_gone_is_not_too_slow() {
        let (connection, outbox) = Connection::new();
        assert!(notify(&connection, OUTBOUND_BYTES_MAX).is_ok());
        drop(outbox);
        assert!(notify(&connection, 1).is_ok());
    }
}
