//! What a call must look like from a member's ear.

use super::client::{Client, Heard, State};
use super::frame::FRAME_TICKS;

/// The packets of `speaker` came to `listener` in order, none twice, nearly all of those between the first and
/// the last, on lines that say whose voice they carry; within a line sequence number and timestamp advance as they
/// did at the speaker.
pub fn assert_clean(listener: &Client, speaker: &Client) {
    let state = listener.state();
    let heard: Vec<&Heard> = state.from(speaker.id).collect();
    let whom = format!("{} hears {}", listener.user, speaker.user);
    assert!(!heard.is_empty(), "{whom}: nothing");
    assert_eq!(state.broken, 0, "{whom}: broken packets");
    let stream = state.stream_of(&speaker.user);
    for packet in &heard {
        assert!(is_named(packet, &speaker.user, stream.as_deref()), "{whom}: as {:?}", packet.carries);
    }
    for (a, b) in heard.iter().zip(heard.iter().skip(1)) {
        assert!(b.frame.counter > a.frame.counter, "{whom}: {} after {}", b.frame.counter, a.frame.counter);
        if a.ssrc == b.ssrc {
            let steps = b.frame.counter - a.frame.counter;
            assert_eq!(b.seq - a.seq, u64::from(steps), "{whom}: sequence numbers {a:?} {b:?}");
            let ticks = b.timestamp.wrapping_sub(a.timestamp);
            assert_eq!(ticks, steps * FRAME_TICKS, "{whom}: timestamps {a:?} {b:?}");
        }
    }
    let span = heard[heard.len() - 1].frame.counter - heard[0].frame.counter + 1;
    let lost = span as usize - heard.len();
    // The kernel drops when a busy machine lets a socket's buffer fill, even on loopback.
    assert!(lost * 20 <= span as usize, "{whom}: {lost} of {span} lost");
}

/// A line keeps one SSRC, counts up by one whoever's voice it carries, and marks where a voice begins.
pub fn assert_lines_count_on(state: &State) {
    let mut last = std::collections::HashMap::<u32, &Heard>::new();
    let mut ssrcs = std::collections::HashMap::<&str, u32>::new();
    for packet in &state.heard {
        assert_eq!(
            *ssrcs.entry(&packet.mid).or_insert(packet.ssrc),
            packet.ssrc,
            "SSRC of line {}",
            packet.mid
        );
        if let Some(before) = last.insert(packet.ssrc, packet)
            && before.frame.sender != packet.frame.sender
        {
            assert!(packet.seq > before.seq, "sequence goes back: {before:?} {packet:?}");
            let ticks = packet.timestamp.wrapping_sub(before.timestamp);
            assert!(ticks > 0 && ticks < 1 << 31, "timestamp goes back: {before:?} {packet:?}");
            if packet.seq == before.seq + 1 {
                assert!(packet.marker, "a voice begins without a marker: {before:?} {packet:?}");
            }
        }
    }
}

fn is_named(packet: &Heard, user: &str, stream: Option<&str>) -> bool {
    packet.carries.as_deref().is_some_and(|carries| carries == user || Some(carries) == stream)
}

/// Nothing of `speaker` comes to `listener` while `witness` hears 25 frames of `marker`.
pub async fn assert_silent(listener: &Client, speaker: &Client, witness: &Client, marker: &Client) {
    // What was on its way when the order was given arrives first.
    witness.hears(marker, 5).await;
    let before = listener.state().count(speaker.id);
    witness.hears(marker, 25).await;
    let after = listener.state().count(speaker.id);
    assert_eq!(after, before, "{} still hears {}", listener.user, speaker.user);
}
