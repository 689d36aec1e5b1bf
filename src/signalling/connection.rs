//! One WebSocket as signalling sees it: a bounded queue of frames to the client.

use std::rc::Rc;
use std::time::Duration;

use tokio::sync::mpsc::{self, OwnedPermit, Receiver, Sender, error::TrySendError};

use super::message::ServerMessage;
use crate::control::participant::ParticipantId;

/// Most frames that wait for a client to read them. One that is further behind is let go: it comes
/// back and is told everything anew. Many more than may come about before those who read get to it: a house that comes
/// back after a restart, and all that who is quick may say at once.
pub const OUTBOUND_LEN: usize = 1_024;

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
    outbound: Sender<Outbound>,
    /// Room for the Close frame, kept from the beginning. `None` once it is used.
    close: Option<OwnedPermit<Outbound>>,
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

/// The client does not read.
#[derive(Debug)]
pub(super) struct TooSlow;

impl Connection {
    pub(super) fn new() -> (Connection, Receiver<Outbound>) {
        let (outbound, receiver) = mpsc::channel(OUTBOUND_LEN + 1);
        let close = outbound.clone().try_reserve_owned().ok();
        (Connection { stage: Stage::Waiting, outbound, close }, receiver)
    }

    /// Queues a message. One whose receiver is gone is sent nothing, which is no error: its end is on
    /// the way.
    pub(super) fn send(&self, message: &ServerMessage) -> Result<(), TooSlow> {
        self.queue(Outbound::Text(message.write()))
    }

    /// As [`Connection::send`], for what many get.
    pub(super) fn notify(&self, text: &Rc<str>, patience: Duration) -> Result<(), TooSlow> {
        self.queue(Outbound::Notice { text: Rc::clone(text), patience })
    }

    fn queue(&self, outbound: Outbound) -> Result<(), TooSlow> {
        if self.stage == Stage::Closing {
            return Ok(());
        }
        match self.outbound.try_send(outbound) {
            Err(TrySendError::Full(_)) => Err(TooSlow),
            Ok(()) | Err(TrySendError::Closed(_)) => Ok(()),
        }
    }

    /// Queues the Close frame, for which there is always room. Nothing follows it.
    pub(super) fn close(&mut self, code: CloseCode, reason: &'static str) {
        self.stage = Stage::Closing;
        if let Some(permit) = self.close.take() {
            permit.send(Outbound::Close { code, reason });
        }
    }
}
