//! A voice that says nothing, in packets of any length: what other packets are padded to.

use std::time::Duration;

use super::frame::FRAME_TICKS;
use super::{Client, Played};

/// A silent Opus packet of `len` bytes (RFC 6716 §3.2.5: one frame of code 3, with padding), 5 to 256.
fn silence(len: usize) -> Vec<u8> {
    let mut payload = vec![0; len];
    payload[..5].copy_from_slice(&[0xFB, 0x41, (len - 5) as u8, 0xFF, 0xFE]);
    payload
}

/// Has the client send such packets, one each 20 ms, for as long as this is awaited.
pub async fn play_silence(client: &Client, len: usize) {
    let mut every = tokio::time::interval(Duration::from_millis(20));
    for counter in 0.. {
        every.tick().await;
        client.play(Played {
            seq_step: i16::from(counter > 0),
            ticks: FRAME_TICKS,
            marker: counter == 0,
            level: Some(60),
            payload: silence(len),
        });
    }
}
