//! Opus packets as RFC 6716 §3 frames them: how long one lasts, and how to make room at its end.

use thiserror::Error;

/// Media time is counted in units of 1/48000 s (RFC 7587 §4.1).
pub(crate) const CLOCK_RATE: u32 = 48_000;
/// A packet lasts at most 120 ms (RFC 6716 §3.2, R5).
const TICKS_MAX: u32 = CLOCK_RATE * 120 / 1000;

const PADDING_FLAG: u8 = 0x40;
const VBR_FLAG: u8 = 0x80;

/// What is wrong with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum OpusError {
    #[error("an empty packet")]
    Empty,
    #[error("a packet without its frame count")]
    NoFrameCount,
    #[error("a packet of no frames")]
    NoFrames,
    #[error("a packet of more than 120 ms")]
    TooLong,
    #[error("a packet whose padding is longer than itself")]
    Padding,
}

/// How long the packet lasts, in units of 1/48000 s.
pub(crate) fn ticks(packet: &[u8]) -> Result<u32, OpusError> {
    let &toc = packet.first().ok_or(OpusError::Empty)?;
    let config = usize::from(toc >> 3);
    // RFC 6716 §3.1, table 2.
    let frame = match config {
        0..=11 => [480, 960, 1920, 2880][config % 4],
        12..=15 => [480, 960][config % 2],
        _ => [120, 240, 480, 960][config % 4],
    };
    let count = match toc & 3 {
        0 => 1,
        1 | 2 => 2,
        _ => u32::from(packet.get(1).ok_or(OpusError::NoFrameCount)? & 0x3F),
    };
    match frame * count {
        0 => Err(OpusError::NoFrames),
        ticks if ticks > TICKS_MAX => Err(OpusError::TooLong),
        ticks => Ok(ticks),
    }
}

/// The same frames with `room` zeros of padding at the end, which every decoder passes over (RFC 6716 §3.2.5: any value
/// must be accepted there).
pub(crate) fn padded(packet: &[u8], room: usize) -> Result<Vec<u8>, OpusError> {
    let (&toc, rest) = packet.split_first().ok_or(OpusError::Empty)?;
    let (count, old, rest) = match toc & 3 {
        0 => (1, 0, rest),
        1 => (2, 0, rest),
        2 => (2 | VBR_FLAG, 0, rest),
        _ => {
            let (&count, rest) = rest.split_first().ok_or(OpusError::NoFrameCount)?;
            let (old, rest) = if count & PADDING_FLAG == 0 { (0, rest) } else { padding_len(rest)? };
            (count, old, rest)
        }
    };
    let mut longer = vec![toc | 3, count | PADDING_FLAG];
    let mut len = old + room;
    while len >= 255 {
        longer.push(255); // Stands for 254, and another byte follows.
        len -= 254;
    }
    longer.push(len as u8);
    longer.extend_from_slice(rest);
    longer.resize(longer.len() + room, 0);
    Ok(longer)
}

/// Length of the padding, and what follows the bytes that say it.
pub(crate) fn padding_len(mut rest: &[u8]) -> Result<(usize, &[u8]), OpusError> {
    let mut len = 0;
    loop {
        let (&byte, after) = rest.split_first().ok_or(OpusError::Padding)?;
        rest = after;
        if byte < 255 {
            len += usize::from(byte);
            return if len <= rest.len() { Ok((len, rest)) } else { Err(OpusError::Padding) };
        }
        len += 254;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_those_of_the_table() {
        let ms = |packet: &[u8]| ticks(packet).map(|ticks| f64::from(ticks) / 48.0);
        for (toc, expected) in
            [(0x00, 10.0), (0x18, 60.0), (0x58, 60.0), (0x60, 10.0), (0x78, 20.0), (0x80, 2.5), (0xF8, 20.0)]
        {
            assert_eq!(ms(&[toc, 1, 2]), Ok(expected), "{toc:#x}");
            if expected <= 60.0 {
                assert_eq!(ms(&[toc | 1, 1, 2]), Ok(2.0 * expected), "{toc:#x}");
            }
        }
        assert_eq!(ms(&[0xFB, 0x40 | 6, 1]), Ok(120.0));
        assert_eq!(ms(&[0xFB, 7]), Err(OpusError::TooLong));
        assert_eq!(ms(&[0xFB, 0x80]), Err(OpusError::NoFrames));
        assert_eq!(ms(&[0xFB]), Err(OpusError::NoFrameCount));
        assert_eq!(ms(&[]), Err(OpusError::Empty));
    }

    #[test]
    fn padding_keeps_the_frames() {
        // One frame; two of one size; two of different sizes, the first of one byte; three without and with padding.
        for (packet, expected) in [
            (vec![0xF8, 7, 8], vec![0xFB, 0x41, 20, 7, 8]),
            (vec![0xF9, 7, 8], vec![0xFB, 0x42, 20, 7, 8]),
            (vec![0xFA, 1, 7, 8, 9], vec![0xFB, 0xC2, 20, 1, 7, 8, 9]),
            (vec![0xFB, 0x03, 7, 8, 9], vec![0xFB, 0x43, 20, 7, 8, 9]),
            (vec![0xFB, 0x43, 2, 7, 8, 9, 0, 0], vec![0xFB, 0x43, 22, 7, 8, 9, 0, 0]),
        ] {
            let longer = padded(&packet, 20).unwrap();
            assert_eq!(longer, [expected, vec![0; 20]].concat());
            assert_eq!(ticks(&longer), ticks(&packet));
        }
    }

    #[test]
    fn long_padding_is_counted_in_steps_of_254() {
        for room in [1, 253, 254, 255, 508, 509, 1000] {
            let once = padded(&[0xF8, 7, 8], room).unwrap();
            let (len, rest) = padding_len(&once[2..]).unwrap();
            assert_eq!((len, rest), (room, &[&[7, 8], &vec![0; room][..]].concat()[..]));
            let twice = padded(&once, 300).unwrap();
            assert_eq!(padding_len(&twice[2..]).unwrap().0, room + 300);
        }
    }

    #[test]
    fn padding_that_is_not_there_is_refused() {
        for packet in [&[0xFB, 0x41][..], &[0xFB, 0x41, 255], &[0xFB, 0x41, 3, 0, 0], &[0xFB], &[]] {
            assert!(padded(packet, 20).is_err(), "{packet:?}");
        }
    }
}
