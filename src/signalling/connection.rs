//! One WebSocket as signalling sees it: a queue to the client, bounded in frames and in bytes.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::sync::mpsc::error::TryRecvError;

use super::message::ServerMessage;
use crate::control::participant::ParticipantId;

/// Most frames that wait for a client to read them. One that is further behind is let go: it comes
/// back and is told everything anew. Many more than may come about before those who read get to it: a house that comes
/// back after a restart, and all that who is quick may say at once.
pub const OUTBOUND_LEN: usize = 1_024;

/// Most bytes of text among them, besides `joined`: twice what so many notices come to, with the longest names that there
/// can be, and several times our longest answer.
pub const OUTBOUND_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Most bytes of text that may wait for all clients together without anybody being let go,
const ALL_BYTES_MAX: usize = 256 * 1024 * 1024;
/// and what nobody is let go for even then: who reads has less.
const FAIR_BYTES_MAX: usize = 256 * 1024;

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
    /// Where its client is.
    pub(super) remote: IpAddr,
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
    /// `all`: the text that waits for every client.
    pub(super) fn new(remote: IpAddr, all: &Waiting) -> (Connection, Outbox) {
        let (inlet, outbox) = Inlet::new(OUTBOUND_LEN, OUTBOUND_BYTES_MAX, all.clone());
        (Connection { remote, stage: Stage::Waiting, inlet }, outbox)
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

    /// Takes back what waits: who does not read is to keep none of our memory until it is gone.
    pub(super) fn take_back(&self) {
        self.inlet.queue.clear();
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

/// Bytes of text that wait for all clients together, those of notices not counted, which many share.
#[derive(Clone, Default)]
pub struct Waiting(Rc<Cell<usize>>);

/// Where frames to a client go in.
pub struct Inlet {
    frame_count_max: usize,
    /// Most bytes of text that may wait.
    bytes_max: usize,
    is_closed: bool,
    queue: Rc<Queue>,
}

/// What both ends know of the frames between them.
#[derive(Default)]
struct Queue {
    frames: RefCell<VecDeque<Outbound>>,
    /// Bytes of text among them.
    len: Cell<usize>,
    /// Of which these are nobody else's.
    own_len: Cell<usize>,
    all: Waiting,
    /// Nothing more goes in.
    is_over: Cell<bool>,
    /// Nobody takes anything more.
    is_deserted: Cell<bool>,
    /// Something went in.
    filled: Notify,
    /// The Close frame is among them.
    close: Notify,
}

impl Queue {
    fn push(&self, frame: Outbound) {
        self.count(&frame, usize::wrapping_add);
        self.frames.borrow_mut().push_back(frame);
        self.filled.notify_one();
    }

    fn pop(&self) -> Option<Outbound> {
        let mut frames = self.frames.borrow_mut();
        let frame = frames.pop_front()?;
        if frames.is_empty() {
            *frames = VecDeque::new(); // Most of its life there are none.
        }
        self.count(&frame, usize::wrapping_sub);
        Some(frame)
    }

    fn clear(&self) {
        while self.pop().is_some() {}
    }

    fn count(&self, frame: &Outbound, change: fn(usize, usize) -> usize) {
        let len = frame.text_len();
        self.len.set(change(self.len.get(), len));
        if let Outbound::Text(_) = frame {
            self.own_len.set(change(self.own_len.get(), len));
            self.all.0.set(change(self.all.0.get(), len));
        }
    }
}

impl Inlet {
    /// The two ends of a queue for so many frames, a Close frame besides, and so many bytes of text among them. `all` is
    /// every such queue's.
    pub fn new(frame_count_max: usize, bytes_max: usize, all: Waiting) -> (Inlet, Outbox) {
        let queue = Rc::new(Queue { all, ..Queue::default() });
        let outbox = Outbox { queue: Rc::clone(&queue) };
        (Inlet { frame_count_max, bytes_max, is_closed: false, queue }, outbox)
    }

    /// Queues a frame. One whose receiver is gone is sent nothing, which is no error: its end is on the way.
    ///
    /// # Errors
    /// [`TooSlow`]: there is no room for it.
    pub fn send(&self, frame: Outbound) -> Result<(), TooSlow> {
        let queue = &self.queue;
        if queue.is_deserted.get() {
            return Ok(());
        }
        let len = frame.text_len();
        let is_full = queue.frames.borrow().len() >= self.frame_count_max
            || queue.len.get() + len > self.bytes_max
            || queue.all.0.get() + len > ALL_BYTES_MAX && queue.own_len.get() + len > FAIR_BYTES_MAX;
        if is_full {
            return Err(TooSlow);
        }
        queue.push(frame);
        Ok(())
    }

    /// Queues the Close frame, for which there is always room.
    pub fn close(&mut self, code: CloseCode, reason: &'static str) {
        if !std::mem::replace(&mut self.is_closed, true) {
            self.queue.push(Outbound::Close { code, reason });
            self.queue.close.notify_one();
        }
    }

    /// So many bytes more may wait from now on.
    fn widen(&mut self, len: usize) {
        self.bytes_max = self.bytes_max.saturating_add(len);
    }
}

impl Drop for Inlet {
    fn drop(&mut self) {
        self.queue.is_over.set(true);
        self.queue.filled.notify_one();
    }
}

/// What waits for a client, to be written to it.
pub struct Outbox {
    queue: Rc<Queue>,
}

impl Outbox {
    /// Takes the next frame, once there is one; `None` when none can come. Nothing is lost with a wait that is given up.
    pub async fn recv(&mut self) -> Option<Outbound> {
        loop {
            match self.try_recv() {
                Ok(frame) => return Some(frame),
                Err(TryRecvError::Disconnected) => return None,
                Err(TryRecvError::Empty) => self.queue.filled.notified().await,
            }
        }
    }

    /// Takes the next frame.
    ///
    /// # Errors
    /// There is none now, or none can come.
    pub fn try_recv(&mut self) -> Result<Outbound, TryRecvError> {
        let is_over = self.queue.is_over.get();
        self.queue.pop().ok_or(if is_over { TryRecvError::Disconnected } else { TryRecvError::Empty })
    }

    /// Resolves as soon as a Close frame waits, however many others are before it. For one to ask.
    pub fn closing(&self) -> impl Future<Output = ()> + use<> {
        let queue = Rc::clone(&self.queue);
        async move { queue.close.notified().await }
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.queue.is_deserted.set(true);
        self.queue.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REMOTE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn notify(connection: &Connection, len: usize) -> Result<(), TooSlow> {
        connection.notify(&"x".repeat(len).into(), Duration::ZERO)
    }

    #[test]
    fn bytes_that_wait_are_bounded_and_what_is_taken_makes_room() {
        let (mut connection, mut outbox) = Connection::new(REMOTE, &Waiting::default());
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
        let (mut connection, _outbox) = Connection::new(REMOTE, &Waiting::default());
        let text = serde_json::json!({"event": "joined", "data": {"roomId": "r", "userId": "a", "peers": [],
            "success": true, "message": "x".repeat(3 * OUTBOUND_BYTES_MAX), "peerInfo": {}, "iceServers": [],
            "resumed": false}});
        let joined = ServerMessage::parse(&text.to_string()).unwrap();
        assert!(connection.send(&joined).is_ok());
        assert!(notify(&connection, OUTBOUND_BYTES_MAX).is_ok() && notify(&connection, 1).is_err());
    }

    #[test]
    fn who_is_gone_is_not_too_slow() {
        let (connection, outbox) = Connection::new(REMOTE, &Waiting::default());
        assert!(notify(&connection, OUTBOUND_BYTES_MAX).is_ok());
        drop(outbox);
        assert!(notify(&connection, 1).is_ok());
    }

    #[test]
    fn what_waits_for_all_is_bounded_and_costs_those_who_have_most_of_it() {
        let all = Waiting::default();
        let text = || Outbound::Text("x".repeat(FAIR_BYTES_MAX / 2));
        let queue = || Inlet::new(OUTBOUND_LEN, OUTBOUND_BYTES_MAX, all.clone());
        let (fair, mut fair_outbox) = queue();
        assert!(fair.send(text()).is_ok());
        let mut others = Vec::new();
        while all.0.get() + FAIR_BYTES_MAX / 2 <= ALL_BYTES_MAX {
            let (inlet, outbox) = queue();
            while all.0.get() + FAIR_BYTES_MAX / 2 <= ALL_BYTES_MAX && inlet.send(text()).is_ok() {}
            others.push((inlet, outbox));
        }
        let (greedy, greedy_outbox) = others.pop().unwrap();
        assert!(greedy.send(text()).is_err());
        assert!(fair.send(text()).is_ok(), "who has little is not let go");
        assert!(fair.send(text()).is_err());
        let notice = Outbound::Notice { text: "x".into(), patience: Duration::ZERO };
        fair_outbox.try_recv().unwrap();
        assert!(fair.send(notice).is_ok());
        drop(greedy_outbox);
        assert!(fair.send(text()).is_ok(), "what is gone waits no more");
        others.clear();
        drop(fair_outbox);
        assert_eq!(all.0.get(), 0);
    }

    #[test]
    fn of_one_that_is_let_go_nothing_waits_but_the_close() {
        let all = Waiting::default();
        let (mut connection, mut outbox) = Connection::new(REMOTE, &all);
        assert!(connection.send(&ServerMessage::Draining { deadline: 1 }).is_ok() && all.0.get() > 0);
        connection.take_back();
        assert_eq!(all.0.get(), 0);
        connection.close(CLOSE_POLICY, "too slow");
        assert_eq!(outbox.try_recv(), Ok(Outbound::Close { code: CLOSE_POLICY, reason: "too slow" }));
        assert_eq!(outbox.try_recv(), Err(TryRecvError::Empty));
        drop(connection);
        assert_eq!(outbox.try_recv(), Err(TryRecvError::Disconnected));
    }
}
