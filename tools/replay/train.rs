//! Trains: several packets that left as one send (`UDP_SEGMENT`). What records them before the device cuts them up sees
//! one datagram, and nothing in it says how long each part is.

use std::collections::HashSet;
use std::net::SocketAddr;

use gryt_sfu::demux::Protocol;
use gryt_sfu::ids::Ssrc;
use gryt_sfu::rtp::header::Header;

use super::link::Datagram;

/// SSRCs of a direction that are remembered, in all.
const STREAM_COUNT_MAX: usize = 4_096;
/// No RTP packet that is protected is shorter: its header and its tag.
const PART_LEN_MIN: usize = 12 + 10;
/// Words of header extensions that a part of a train has at most.
const EXTENSION_WORDS_MAX: u16 = 16;

/// Finds the parts of trains.
#[derive(Default)]
pub(crate) struct Trains {
    streams: HashSet<(SocketAddr, SocketAddr, Ssrc)>,
}

impl Trains {
    /// How long each packet in this datagram is, but the last, which may be shorter: its own length where it is one.
    pub(crate) fn part_len(&mut self, datagram: &Datagram<'_>) -> usize {
        let Datagram { source, destination, payload } = *datagram;
        let whole = payload.len().max(1);
        if !matches!(Protocol::of(payload), Ok(Protocol::Rtp)) {
            return whole;
        }
        let Ok(first) = Header::parse(payload) else { return whole };
        if self.streams.len() < STREAM_COUNT_MAX {
            self.streams.insert((source, destination, first.ssrc));
        }
        let is_part = |part: &[u8]| {
            let Ok(header) = Header::parse(part) else { return false };
            let is_like_it = header.payload_type == first.payload_type && part.len() >= PART_LEN_MIN;
            // 13 bits of a ciphertext may look like a header's beginning, but hardly these others as well.
            is_like_it && (has_extensions(part) || self.streams.contains(&(source, destination, header.ssrc)))
        };
        // At least two, and the last may be as short as can be.
        let lens = PART_LEN_MIN..payload.len().saturating_sub(PART_LEN_MIN - 1);
        let is_cut = |len: &usize| payload.chunks(*len).skip(1).all(is_part);
        lens.into_iter().find(is_cut).unwrap_or(whole)
    }
}

/// Extensions with one-byte headers follow the fixed header (RFC 8285 §4.2).
fn has_extensions(packet: &[u8]) -> bool {
    let has_them = packet[0] & 0x1F == 0x10;
    let words = packet.get(14..16).map(|words| u16::from_be_bytes([words[0], words[1]]));
    has_them
        && packet.get(12..14) == Some(&[0xBE, 0xDE])
        && words.is_some_and(|words| words <= EXTENSION_WORDS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a packet's ciphertext looks like, by a generator that is no better than it must be.
    fn noise(seed: u64, len: usize) -> Vec<u8> {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        };
        (0..len).map(|_| next()).collect()
    }

    fn packet(ssrc: u32, seq: u16, has_extensions: bool, len: usize) -> Vec<u8> {
        let mut packet = vec![if has_extensions { 0x90 } else { 0x80 }, 111];
        packet.extend(seq.to_be_bytes());
        packet.extend([0, 0, 3, 0xC0]);
        packet.extend(ssrc.to_be_bytes());
        if has_extensions {
            packet.extend([0xBE, 0xDE, 0, 1, 0x10, 0x1E, 0, 0]);
        }
        let rest = len - packet.len();
        packet.extend(noise(u64::from(seq) << 32 | u64::from(ssrc), rest));
        packet
    }

    fn part_len(trains: &mut Trains, payload: &[u8]) -> usize {
        let address = SocketAddr::from(([192, 0, 2, 1], 3478));
        trains.part_len(&Datagram { source: address, destination: address, payload })
    }

    #[test]
    fn a_train_is_cut_where_its_packets_are() {
        for has_extensions in [false, true] {
            let mut trains = Trains::default();
            let new = |ssrc, seq, len| packet(ssrc, seq, has_extensions, len);
            assert_eq!(part_len(&mut trains, &new(1, 0, 170)), 170);
            assert_eq!(part_len(&mut trains, &[new(1, 1, 170), new(1, 2, 170)].concat()), 170);
            assert_eq!(part_len(&mut trains, &[new(1, 3, 170), new(1, 4, 90)].concat()), 170);
            let many: Vec<u8> = (5..40).flat_map(|seq| new(1, seq, 61)).collect();
            assert_eq!(part_len(&mut trains, &many), 61);
            let others = [new(2, 0, 120), new(3, 0, 120)].concat();
            let found = part_len(&mut trains, &others);
            // Of SSRCs that nobody has seen only what comes with extensions is told from noise.
            assert_eq!(found, if has_extensions { 120 } else { 240 });
        }
    }

    #[test]
    fn a_packet_is_no_train() {
        let mut trains = Trains::default();
        for seq in 0..20_000 {
            let len = 30 + usize::from(seq % 1_200);
            assert_eq!(part_len(&mut trains, &packet(u32::from(seq % 8), seq, seq % 2 == 0, len)), len);
        }
    }

    #[test]
    fn whatever_it_is_it_has_parts() {
        let mut trains = Trains::default();
        for len in [0, 1, 11, 12, 21, 22, 44, 9_000] {
            assert!(part_len(&mut trains, &vec![0x80; len]) >= 1);
            assert!(part_len(&mut trains, &noise(len as u64, len)) >= 1);
        }
    }
}
