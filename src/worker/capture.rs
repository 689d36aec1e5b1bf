//! A copy of what one peer says and is sent, in plaintext, for as long as an operator asked for.

use std::time::Instant;

use crossbeam_channel::{Sender, TrySendError};

use super::Worker;
use crate::ids::TransportId;
use crate::packet::Path;
use crate::time::{Now, NtpTime};

/// Packets that wait to be written; what comes beyond is missing in the capture.
pub const CAPTURE_QUEUE_LEN: usize = 1024;

/// A packet of RTP or RTCP after it was opened, or before it was sealed.
pub struct Captured {
    /// When it passed.
    pub at: NtpTime,
    /// Between whom.
    pub path: Path,
    /// To the peer, not from it.
    pub is_out: bool,
    /// Plaintext.
    pub bytes: Vec<u8>,
}

/// Ends with the value: whoever writes sees the queue's end.
pub struct Capture {
    /// To whoever writes.
    pub queue: Sender<Captured>,
    /// When it ends by itself.
    pub until: Instant,
}

impl Capture {
    /// Copies a packet. Whether the capture goes on: its writer may have had enough.
    fn take(&self, now: Now, path: Path, is_out: bool, parts: [&[u8]; 2]) -> bool {
        if now.instant >= self.until {
            return false;
        }
        let captured = Captured { at: now.ntp, path, is_out, bytes: parts.concat() };
        !matches!(self.queue.try_send(captured), Err(TrySendError::Disconnected(_)))
    }
}

/// Copies a packet that is a header and its payload, or whole, if there is a capture. Without one it costs a look.
pub(super) fn copy(
    capture: &mut Option<Box<Capture>>,
    now: Now,
    path: Option<Path>,
    is_out: bool,
    parts: [&[u8]; 2],
) {
    if let Some(open) = capture
        && let Some(path) = path
        && !open.take(now, path, is_out, parts)
    {
        *capture = None;
    }
}

impl Worker {
    /// Begins, in place of one that is under way.
    pub(super) fn begin_capture(&mut self, transport: TransportId, capture: Box<Capture>) {
        if let Some(&key) = self.by_transport.get(&transport) {
            self.peers[key].capture = Some(capture);
            self.look_soon(key);
        }
    }

    /// Ends a capture whose time is over, packets or none.
    pub(super) fn end_capture(&mut self, now: Instant, key: super::PeerKey) {
        let capture = &mut self.peers[key].capture;
        if capture.as_ref().is_some_and(|capture| now >= capture.until) {
            *capture = None;
        }
    }
}
