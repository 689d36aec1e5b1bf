//! A voice frame that says who sent it, which of the sender's frames it is, and when it left.

use std::sync::LazyLock;
use std::time::Instant;

/// A 20 ms Opus frame of 48 kbit/s.
pub const FRAME_LEN: usize = 120;

/// Media time of a frame, in units of 1/48000 s.
pub const FRAME_TICKS: u32 = 960;

/// TOC byte of Opus (RFC 6716 §3.1): CELT, full band, 20 ms, mono, one frame.
const TOC: u8 = 0xF8;

static EPOCH: LazyLock<Instant> = LazyLock::new(super::now);

/// What the receiver learns from a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// [`super::Client::id`] of the sender.
    pub sender: u32,
    /// Counts the sender's frames.
    pub counter: u32,
    /// Nanoseconds on the clock of this process.
    pub sent_at: u64,
}

impl Frame {
    /// A frame that leaves now.
    pub fn new(sender: u32, counter: u32) -> Frame {
        Frame { sender, counter, sent_at: nanos() }
    }

    /// The payload: TOC, the three numbers, and a filler that follows from them.
    pub fn to_payload(self) -> [u8; FRAME_LEN] {
        let mut payload = [0; FRAME_LEN];
        payload[0] = TOC;
        payload[1..5].copy_from_slice(&self.sender.to_be_bytes());
        payload[5..9].copy_from_slice(&self.counter.to_be_bytes());
        payload[9..17].copy_from_slice(&self.sent_at.to_be_bytes());
        for (i, byte) in payload.iter_mut().enumerate().skip(17) {
            *byte = self.filler(i);
        }
        payload
    }

    /// `None` when a single byte is not as [`Frame::to_payload`] writes it.
    pub fn from_payload(payload: &[u8]) -> Option<Frame> {
        if payload.len() != FRAME_LEN || payload[0] != TOC {
            return None;
        }
        let frame = Frame {
            sender: u32::from_be_bytes(payload[1..5].try_into().ok()?),
            counter: u32::from_be_bytes(payload[5..9].try_into().ok()?),
            sent_at: u64::from_be_bytes(payload[9..17].try_into().ok()?),
        };
        let is_intact = payload.iter().enumerate().skip(17).all(|(i, &byte)| byte == frame.filler(i));
        is_intact.then_some(frame)
    }

    fn filler(self, i: usize) -> u8 {
        (self.sender.wrapping_mul(31) ^ self.counter.wrapping_mul(17)).wrapping_add(i as u32) as u8
    }
}

/// Nanoseconds on the clock of this process.
pub fn nanos() -> u64 {
    super::now().duration_since(*EPOCH).as_nanos() as u64
}
